"""The gate: is the smaller model still the same model for code?

``Gate(level).run(parent, child, ports)`` holds a child against its parent, one file per check:
``structure`` and ``weights`` read the files; ``tokenizer``, ``chat_template`` and ``agreement`` ask
the engine; ``cost``, ``quality``, ``answers`` and ``metamorphic`` let both models work. What a
check needs of the world comes in as a port (``ports``); ``levels`` holds the thresholds. Nothing
here changes or deletes a file: a child that fails is kept, and the report says what failed and by
how much.
"""

from __future__ import annotations

from lichen.compression.gate.gate import CHECKS, Gate
from lichen.compression.gate.levels import THRESHOLDS, Level, Thresholds
from lichen.compression.gate.ports import GatePorts
from lichen.compression.gate.report import Check, GateReport

__all__ = [
    "CHECKS",
    "THRESHOLDS",
    "Check",
    "Gate",
    "GatePorts",
    "GateReport",
    "Level",
    "Thresholds",
]
