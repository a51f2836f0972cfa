"""Give each tensor the storage type that it needs: least error for a size, or for a cost.

Errors come from samples of the tensors' own rows (``error_table``), the choice is a knapsack
(``knapsack``). With ``assign`` nothing is searched: the types are those that are written down,
which is how a search hands on what it found.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Final

from lichen.catalog.tensor_types import TensorType
from lichen.compression.allocation import Pricing, items, kinds_of, matched
from lichen.compression.error_table import (
    SAMPLE_ROWS,
    TensorErrors,
    group_of,
    is_matrix,
    measure_errors,
)
from lichen.compression.knapsack import Frontier
from lichen.compression.method import MethodContext
from lichen.compression.model_file import LazyTensor, ModelFile
from lichen.compression.stored_as import stored_as
from lichen.compression.types import type_named
from lichen.core.errors import ConfigError, UnknownNameError
from lichen.core.registry import unknown

NAME: Final = "mixed_precision"

DEFAULT_TYPES: Final = ("Q4_0", "IQ4_NL", "Q4_K", "Q5_0", "Q5_K", "Q6_K", "Q8_0")
"""Four bits in the types with fast kernels, and what is finer; fewer bits are asked for by name."""

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kMG]?B?)", re.IGNORECASE)
_UNITS: Final = {"": 1.0, "B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9}


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPrecisionOptions:
    """Exactly one of ``size``, ``bits``, ``cost`` and ``assign`` is given.

    Args:
        size: of the whole file, at most; ``"300MB"`` (decimal units) or bytes.
        bits: mean bits per weight of the tensors that are chosen for.
        cost: expected CPU-seconds of a typical request, as a share of the present, in (0, 1].
        assign: type -> tensor names or patterns; nothing is searched.
        types: candidates, beside each tensor's present type.
        groups: tensor groups (``ffn_down``) to choose for; all matrices by default.
        sensitivity: factor on a group's errors, > 0.
        sample_rows: rows per tensor that errors are measured on, >= 1.
    """

    size: str | int | None = None
    bits: float | None = None
    cost: float | None = None
    assign: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    types: tuple[str, ...] = DEFAULT_TYPES
    groups: tuple[str, ...] = ()
    sensitivity: Mapping[str, float] = field(default_factory=dict)
    sample_rows: int = SAMPLE_ROWS

    def __post_init__(self) -> None:
        """Check that one limit is given, and ranges."""
        given = [n for n in ("size", "bits", "cost") if getattr(self, n) is not None]
        given += ["assign"] if self.assign else []
        if len(given) != 1:
            raise ConfigError(
                f"{NAME} needs exactly one of size, bits, cost and assign; "
                f"got {', '.join(given) or 'none'}"
            )
        if self.bits is not None and not self.bits > 0:
            raise ConfigError(f"{NAME}: bits is a number above 0, not {self.bits}")
        if self.cost is not None and not 0 < self.cost <= 1:
            raise ConfigError(f"{NAME}: cost is a share of the present in (0, 1], not {self.cost}")
        if self.sample_rows < 1:
            raise ConfigError(f"{NAME}: sample_rows is at least 1, not {self.sample_rows}")
        if not all(0 < v < math.inf for v in self.sensitivity.values()):
            raise ConfigError(f"{NAME}: sensitivities are numbers above 0")
        if self.size is not None:
            size_bytes(self.size)
        for name in (*self.types, *self.assign):
            type_named(name)


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
        kinds = self._kinds(model, context)
        changed = [
            stored_as(model.tensor(name), kind, context.quantiser, context.importance)
            for name, kind in kinds.items()
        ]
        return model.replaced(*changed)

    def _kinds(self, model: ModelFile, context: MethodContext) -> dict[str, TensorType]:
        if self.options.assign:
            names = [t.name for t in model.tensors]
            found = matched(self.options.assign, names)
            return {name: _fitting(model.tensor(name), kind) for name, kind in found.items()}
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
            sensitivity=self.options.sensitivity,
        )
        best = Frontier(items(table, pricing)).within(self._limit(model, table))
        return {name: type_named(kind) for name, kind in kinds_of(table, best).items()}

    def _wanted(self, tensor: LazyTensor) -> bool:
        groups = self.options.groups
        return is_matrix(tensor) and (not groups or group_of(tensor.name) in groups)

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
        return size_bytes(options.size or 0) - rest

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
    known = tuple(f.name for f in fields(MixedPrecisionOptions))
    for key in options:
        if key not in known:
            raise UnknownNameError(unknown(f"option of {NAME}", key, known))
    values: dict[str, object] = dict(options)
    for key in ("types", "groups"):
        if key in values:
            values[key] = _texts(values[key], key)
    if "assign" in values:
        values["assign"] = {k: _texts(v, "assign") for k, v in _table(values, "assign").items()}
    if "sensitivity" in values:
        table = _table(values, "sensitivity")
        values["sensitivity"] = {k: _number(v, f"sensitivity.{k}") for k, v in table.items()}
    for key in ("bits", "cost"):
        if key in values:
            values[key] = _number(values[key], key)
    if type(values.get("sample_rows", 1)) is not int:
        raise ConfigError(f"{NAME}: sample_rows is a whole number")
    return MixedPrecision(MixedPrecisionOptions(**values))  # type: ignore[arg-type]  # checked above


def size_bytes(size: object) -> int:
    """Read a size: bytes, or a number with kB, MB or GB (decimal); raises ConfigError."""
    found = _SIZE.fullmatch(str(size).strip()) if not isinstance(size, bool) else None
    if found is None or float(found[1]) <= 0:
        raise ConfigError(f'{size!r} is no size above 0 such as "300MB"')
    unit = found[2].upper()
    return int(float(found[1]) * _UNITS[unit if unit.endswith("B") or not unit else unit + "B"])


def _fitting(tensor: LazyTensor, name: str) -> TensorType:
    kind = type_named(name)
    if tensor.width % kind.block:
        raise ConfigError(
            f"{tensor.name!r} has rows of {tensor.width} weights, and {kind.name} takes multiples "
            f"of {kind.block}: assign another type"
        )
    return kind


def _texts(value: object, key: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
        raise ConfigError(f"{NAME}: {key} holds lists of names")
    return tuple(value)


def _table(values: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = values[key]
    if not isinstance(value, Mapping):
        raise ConfigError(f"{NAME}: {key} is a table")
    return value


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{NAME}: {key} is a number")
    return float(value)
