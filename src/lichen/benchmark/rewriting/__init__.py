"""Ways to word a programming problem differently without changing what it asks: one file each.

A rewrite takes a problem of an executed task and returns one with other text and the same meaning,
or None where it finds nothing to change. It is deterministic: the same problem and seed give the
same text. That meaning is kept is argued in each file by the syntax tree, and then proven in the
sandbox by ``lichen.benchmark.rewritten``: the rewritten reference must pass the rewritten tests.

Method: metamorphic testing (Chen, Cheung and Yiu 1998); the kinds of change follow ReCode (Wang et
al. 2022, arXiv 2212.10264).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from lichen.core.registry import Registry
from lichen.core.task import Problem

Rewrite = Callable[[Problem, random.Random], Problem | None]

REWRITES: Registry[Rewrite] = Registry(
    "rewrite",
    "lichen.rewrites",
    {
        "reformat": "lichen.benchmark.rewriting.reformat:rewrite",
        "rename": "lichen.benchmark.rewriting.rename:rewrite",
        "reorder": "lichen.benchmark.rewriting.reorder:rewrite",
    },
)
"""Rewrite name -> function of a problem and a source of randomness."""

VERSION = "1"
"""Raise it whenever the same problem could be rewritten to another text."""
