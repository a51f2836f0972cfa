"""Check: can the file be opened, and does it hold together?

Reads headers only. Catches truncated files, layers or tensors that went missing, lists that no
longer fit each other, and special ids that point at another token.
"""

from __future__ import annotations

from typing import Final

from lichen.compression.gate.findings import Findings
from lichen.compression.gate.folder import check_folder
from lichen.compression.gate.layout import check_layout
from lichen.compression.gate.report import Check
from lichen.compression.gate.stored import TOKENS, texts
from lichen.compression.gate.subject import Subject
from lichen.compression.gate.vocabulary import check_vocabulary
from lichen.core.errors import LichenError

NAME: Final = "structure"


def check(subject: Subject) -> Check:
    """Open the child and compare its header with the parent's.

    Raises:
        LichenError: the parent cannot be opened, so that there is nothing to compare with.
    """
    findings = Findings()
    if subject.is_folder:
        shown = check_folder(subject.parent, subject.child, findings)
        numbers: dict[str, float] = {}
    else:
        parent = subject.model(subject.parent)
        try:
            child = subject.model(subject.child)
        except LichenError as exc:
            return Check(name=NAME, passed=False, what=f"the file cannot be opened: {exc}")
        check_layout(parent, child, findings)
        check_vocabulary(parent, child, findings)
        counted = len(child.tensors), child.layers, len(texts(child, TOKENS))
        numbers = dict(zip(("tensors", "layers", "tokens"), counted, strict=True))
        shown = "{:,} tensors, {:,} layers, {:,} tokens".format(*counted)
    if findings:
        return Check(
            name=NAME,
            passed=False,
            what=f"{shown}; {findings.text}",
            numbers=numbers | {"faults": len(findings)},
        )
    return Check(
        name=NAME, passed=True, what=f"{shown}, all consistent", numbers=numbers | {"faults": 0}
    )
