"""From an error table to types: what is optimised, under which limit, and how it is written down.

``items`` turns a table into the knapsack's options, priced in bytes or in expected CPU-seconds of a
typical request (``kernel_cost``), or in a mix of both, each as a share of what the model has now.
``as_patterns`` and ``matched`` write a choice as ``{type: [tensor names or patterns]}`` and read it
back, so that a recipe names types and not the search that found them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from lichen.compression.error_table import TensorErrors
from lichen.compression.kernel_cost import FAST_WITH_AVX2, Workload, kernel_cost, tensor_cpu_s
from lichen.compression.knapsack import Assignment, Option
from lichen.compression.retyping import role_of
from lichen.core.errors import ConfigError

LAYER: Final = "blk.*."


@dataclass(frozen=True, slots=True, kw_only=True)
class Pricing:
    """What a choice of types is charged for.

    Args:
        cpu_share: 0 charges bytes, 1 expected CPU-seconds; between, both as shares of the present.
        tied: whether the input embedding is also the output matrix.
        load: tokens of the request that CPU-seconds are counted for.
        fast: types with repacked kernels on this CPU.
        sensitivity: factor on the errors of a tensor group (``ffn_down``); 1 where none is given.
    """

    cpu_share: float = 0.0
    tied: bool = True
    load: Workload = field(default_factory=Workload)
    fast: frozenset[str] = FAST_WITH_AVX2
    sensitivity: Mapping[str, float] = field(default_factory=dict)

    def cpu_s(self, tensor: TensorErrors, kind: str) -> float:
        """Return the CPU-seconds of a request that a tensor of this type is expected to cost."""
        cost = kernel_cost(kind, self.fast)
        return tensor_cpu_s(cost, tensor.weights, tensor.name, tied=self.tied, load=self.load)


def items(table: Sequence[TensorErrors], pricing: Pricing) -> list[list[Option]]:
    """Return the knapsack's options, tensor by tensor in the table's order.

    Prices are bytes when only bytes are charged; otherwise a share of the present price of the
    whole table, so that they sum to 1 when nothing is changed.
    """
    share = pricing.cpu_share
    now_bytes = math.fsum(t.choices[0].size_bytes for t in table)
    now_cpu_s = math.fsum(pricing.cpu_s(t, t.choices[0].kind) for t in table)

    def price(tensor: TensorErrors, kind: str, size_bytes: int) -> float:
        if share == 0:
            return float(size_bytes)
        return (1 - share) * size_bytes / now_bytes + share * pricing.cpu_s(
            tensor, kind
        ) / now_cpu_s

    return [
        [
            Option(
                price(tensor, c.kind, c.size_bytes),
                c.error * pricing.sensitivity.get(role_of(tensor.name), 1.0),
            )
            for c in tensor.choices
        ]
        for tensor in table
    ]


def kinds_of(table: Sequence[TensorErrors], assignment: Assignment) -> dict[str, str]:
    """Return tensor name -> chosen type, for the tensors that change."""
    return {
        tensor.name: tensor.choices[pick].kind
        for tensor, pick in zip(table, assignment.picks, strict=True)
        if tensor.choices[pick].kind != tensor.choices[0].kind
    }


def as_patterns(kinds: Mapping[str, str], names: Sequence[str]) -> dict[str, list[str]]:
    """Write a choice down: type -> names, ``blk.*.`` where a whole group has one type.

    Args:
        kinds: tensor name -> type, for those that change.
        names: of all tensors, so that a pattern is used only where it matches nothing else.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        if name.startswith("blk."):
            groups.setdefault(LAYER + name.split(".", 2)[2], []).append(name)
    written: dict[str, list[str]] = {}
    done: set[str] = set()
    for pattern, members in groups.items():
        chosen = {kinds.get(m) for m in members}
        if len(chosen) == 1 and (kind := chosen.pop()) is not None:
            written.setdefault(kind, []).append(pattern)
            done.update(members)
    for name, kind in kinds.items():
        if name not in done:
            written.setdefault(kind, []).append(name)
    return {kind: written[kind] for kind in sorted(written)}


def matched(patterns: Mapping[str, Sequence[str]], names: Sequence[str]) -> dict[str, str]:
    """Read a choice back: tensor name -> type.

    Raises:
        ConfigError: a pattern that matches no tensor, or a tensor that two types claim.
    """
    found: dict[str, str] = {}
    for kind, texts in patterns.items():
        for text in texts:
            hits = [n for n in names if fnmatchcase(n, text)]
            if not hits:
                raise ConfigError(
                    f"no tensor is called {text!r}, which the recipe stores as {kind}"
                )
            for name in hits:
                if found.setdefault(name, kind) != kind:
                    raise ConfigError(
                        f"the recipe stores {name!r} both as {found[name]} and as {kind}"
                    )
    return found
