"""Give each tensor the storage type that it needs: least error for a size, or for a cost.

Errors come from samples of the tensors' own rows (``error_table``), the choice is a knapsack
(``knapsack``). With ``assign`` nothing is searched: the types are those that are written down,
which is how a search hands on what it found.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from lichen.catalog.tensor_types import TensorType
from lichen.compression.allocation import Pricing, items, kinds_of, matched
from lichen.compression.error_table import (
    SAMPLE_ROWS,
    TensorErrors,
    is_matrix,
    measure_errors,
)
from lichen.compression.knapsack import Frontier
from lichen.compression.method import MethodContext
from lichen.compression.model_file import LazyTensor, ModelFile
from lichen.compression.retyping import retype_model, role_of
from lichen.compression.types import type_named
from lichen.core.errors import ConfigError
from lichen.engines.options import read_options

NAME: Final = "mixed_precision"

DEFAULT_TYPES: Final = ("Q4_0", "IQ4_NL", "Q4_K", "Q5_0", "Q5_K", "Q6_K", "Q8_0")
"""Four bits in the types with fast kernels, and what is finer; fewer bits are asked for by name."""

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(B|kB|MB|GB|)", re.IGNORECASE)
_UNITS: Final = {"": 1.0, "B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9}


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPrecisionOptions:
    """Exactly one of ``size``, ``bits``, ``cost`` and ``assign`` is given.

    Args:
        size: of the whole file, at most; ``"300MB"`` (decimal units), or bytes.
        bits: mean bits per weight of the tensors that are chosen for.
        cost: expected CPU-seconds of a typical request, as a share of the present, in (0, 1].
        assign: type -> tensor names or patterns; nothing is searched.
        types: candidates, beside each tensor's present type.
        groups: tensor groups (``ffn_down``) to choose for; all matrices by default.
        sensitivity: factor on a group's errors, > 0.
        sample_rows: rows per tensor that errors are measured on, >= 1.
        compensate: whether later weights of a row make up for the errors of earlier ones (GPTQ);
            takes minutes and needs a corpus. The choice of types does not know of it.
    """

    size: str = ""
    bits: float | None = None
    cost: float | None = None
    assign: Mapping[str, object] = field(default_factory=dict)
    types: tuple[str, ...] = DEFAULT_TYPES
    groups: tuple[str, ...] = ()
    sensitivity: Mapping[str, object] = field(default_factory=dict)
    sample_rows: int = SAMPLE_ROWS
    compensate: bool = False

    def __post_init__(self) -> None:
        """Check that one limit is given, and ranges."""
        given = [n for n in ("size", "bits", "cost", "assign") if getattr(self, n)]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            msg = f"give exactly one of size, bits, cost and assign, not {got}"
            raise ValueError(msg)
        if self.bits is not None and not self.bits > 0:
            msg = f"bits is a number above 0, not {self.bits}"
            raise ValueError(msg)
        if self.cost is not None and not 0 < self.cost <= 1:
            msg = f"cost is a share of the present in (0, 1], not {self.cost}"
            raise ValueError(msg)
        if self.sample_rows < 1:
            msg = f"sample_rows is at least 1, not {self.sample_rows}"
            raise ValueError(msg)
        if self.size:
            size_bytes(self.size)
        for name in (*self.types, *self.assign):
            type_named(name)
        self.factors()
        self.patterns()

    def factors(self) -> dict[str, float]:
        """Return the sensitivities; raises ValueError for what is no number above 0."""
        found: dict[str, float] = {}
        for group, value in self.sensitivity.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                msg = f"sensitivity.{group} is a number above 0, not {value!r}"
                raise ValueError(msg)
            found[group] = float(value)
        return found

    def patterns(self) -> dict[str, list[str]]:
        """Return ``assign``; raises ValueError for what is no list of names."""
        found: dict[str, list[str]] = {}
        for kind, names in self.assign.items():
            if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
                msg = f"assign.{kind} is a list of tensor names"
                raise ValueError(msg)
            found[kind] = list(names)
        return found


@dataclass(frozen=True, slots=True)
class MixedPrecision:
    """See the module."""

    options: MixedPrecisionOptions

    @property
    def name(self) -> str:
        """Registry name."""
        return NAME

    def apply(self, model: ModelFile, context: MethodContext) -> ModelFile:
        """Return the model with each chosen tensor in its type.

        Raises:
            ConfigError: the limit cannot be met, or ``assign`` names what is not there.
        """
        kinds, compensate = self._kinds(model, context), self.options.compensate
        return retype_model(model, kinds, context, who=NAME, compensate=compensate)

    def _kinds(self, model: ModelFile, context: MethodContext) -> dict[str, TensorType]:
        if self.options.assign:
            names = [t.name for t in model.tensors]
            found = matched(self.options.patterns(), names)
            return {name: type_named(kind) for name, kind in found.items()}
        chosen = [t for t in model.tensors if self._wanted(t)]
        if not chosen:
            raise ConfigError(f"{NAME} finds no matrix of the groups it should choose for")
        table = measure_errors(
            chosen,
            [type_named(name) for name in self.options.types],
            quantiser=context.quantiser,
            importance=context.importance,
            sample_rows=self.options.sample_rows,
        )
        self._say_what_is_unweighted(table, context)
        pricing = Pricing(
            cpu_share=0.0 if self.options.cost is None else 1.0,
            tied=not model.has("output.weight"),
            sensitivity=self.options.factors(),
        )
        best = Frontier(items(table, pricing)).within(self._limit(model, table))
        return {name: type_named(kind) for name, kind in kinds_of(table, best).items()}

    def _wanted(self, tensor: LazyTensor) -> bool:
        groups = self.options.groups
        return is_matrix(tensor) and (not groups or role_of(tensor.name) in groups)

    def _limit(self, model: ModelFile, table: tuple[TensorErrors, ...]) -> float:
        """Return what the chosen tensors may cost in all."""
        options = self.options
        if options.cost is not None:
            return options.cost
        if options.bits is not None:
            return options.bits / 8 * math.fsum(t.weights for t in table)
        now = math.fsum(t.choices[0].size_bytes for t in table)
        # Padding between tensors may differ once their types do: allow for all of it.
        rest = model.file_bytes - now + len(table) * (model.alignment - 1)
        return size_bytes(options.size) - rest

    def _say_what_is_unweighted(
        self, table: tuple[TensorErrors, ...], context: MethodContext
    ) -> None:
        blind = sum(not t.weighted for t in table)
        if blind:
            context.note(
                f"{NAME}: {blind} of {len(table)} tensors have no importance weights, so all "
                "their input channels count alike"
            )


def make(options: Mapping[str, object]) -> MixedPrecision:
    """Make the method from plain options.

    Raises:
        UnknownNameError: an option or type that does not exist.
        ConfigError: a value of the wrong kind or out of range.
    """
    return MixedPrecision(read_options(MixedPrecisionOptions, options, who=NAME))


def size_bytes(size: str) -> int:
    """Read a size: bytes, or a number with kB, MB or GB (decimal); raises ConfigError."""
    found = _SIZE.fullmatch(size.strip())
    if found is None or not float(found[1]) > 0:
        raise ConfigError(f'{size!r} is no size above 0 such as "300MB"')
    return int(float(found[1]) * _UNITS[found[2].upper()])
