"""Follow Python code and ask, at ends of lines where it may be finished, whether it passes.

What "passes" means is the caller's; it is asked few times. A moment is worth asking where the
wanted function cannot end without a ``return`` or ``raise``, or where something else has begun.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from lichen.acceleration.completeness.python_items import PythonItems
from lichen.acceleration.completeness.python_names import facts_of

_LEAVES: Final = re.compile(r"(?:return|raise)\b")

_PARSED_PER_READ: Final = 8
"""Characters parsed at most for each character read, so that the work stays linear."""


class PassingItems(PythonItems):
    """See the module.

    Args:
        entry_point: the wanted function.
        after: what ends at or before this offset is not the answer (it was given).
        passes: says of the code of the block so far whether it passes.
    """

    def __init__(self, entry_point: str, *, after: int, passes: Callable[[str], bool]) -> None:
        self._passes = passes
        self._block: list[str] = []
        self._read = self._parsed = 0
        super().__init__(entry_point, known=frozenset(), after=after)

    def close(self) -> int | None:
        """End the block; return how much to keep if its code passes."""
        keep = self._finish() if self._end else None
        super().close()
        self._block = []
        self._complete = None
        return keep

    def _take(self, line: str) -> None:
        super()._take(line)
        self._block.append(line)
        self._read += len(line) + 1

    def _statement_ended(self, end: int) -> int | None:
        keep = super()._statement_ended(end)
        inside = self._margin and self._header == "def" and self._defines == self._entry
        if keep is None and inside and _LEAVES.match(self._first_line):
            return self._try_here()
        return keep

    def _finish_early(self) -> int | None:
        return None  # ``_try_here`` looks at every ``return``

    def _try_here(self) -> int | None:
        source = "\n".join(self._lines)
        if self._parsed + len(source) > _PARSED_PER_READ * self._read:
            return None
        self._parsed += len(source)
        facts = facts_of(source, self._entry)
        if facts is None or not facts.defines or facts.falls or self._end <= self._after:
            return None
        return self._end if self._passes(self._code()) else None

    def _finish(self) -> int | None:
        facts, end = self._facts(), self._end
        self._begin_item()
        if facts is None:
            return None
        defines = facts.defines and end > self._after
        if defines:
            self._complete = end
        news = defines or (self._complete is not None and bool(facts.bound))
        return end if news and self._passes(self._code()) else None

    def _code(self) -> str:
        return "\n".join(self._block) + "\n"
