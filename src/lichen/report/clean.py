"""Makes text from outside safe to look at: nothing in it can reorder, hide or drive a display.

HTML escaping stops markup and rich's ``Text`` stops console markup, but neither stops characters
that act on the display itself: terminal escapes, and the direction overrides of "Trojan Source"
(Boucher and Anderson 2021, arXiv 2111.00169). Here they become visible signs. Escaping stays with
the template engine; this module only replaces characters.
"""

from __future__ import annotations

import re
from typing import Final

_ACTING: Final = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 (save tab and newline), DEL, C1
    "\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # Cf, Zl, Zp
    "\ud800-\udfff"  # lone surrogates cannot be written as UTF-8
    "\U000e0000-\U000e0fff"  # tags and variation selectors: invisible text
    "]"
)
_C0_END: Final = 0x20
_DEL: Final = 0x7F


def visible(text: str) -> str:
    """Return ``text`` with control, direction and invisible characters shown as signs.

    C0 controls become their Unicode pictures (``ESC`` is U+241B), lone surrogates U+FFFD, all
    others a bracketed code point. Tabs and newlines stay; Windows line ends become newlines.
    """
    return _ACTING.sub(_sign, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Return ``visible`` text on one line: runs of white space become a space."""
    return " ".join(visible(text).split())


def _sign(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < _C0_END:
        return chr(0x2400 + code)
    if code == _DEL:
        return "\u2421"
    if 0xD800 <= code <= 0xDFFF:  # noqa: PLR2004 (the surrogate block)
        return "\ufffd"
    return f"\u27e6U+{code:04X}\u27e7"
