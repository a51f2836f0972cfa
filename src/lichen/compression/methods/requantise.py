"""Store weights in other types, group by group.

Any type that llama.cpp writes and runs, for roles of matrices (``ffn_down``), families of them
(``attn``, ``ffn``, ``layers``), single layers or tensors. Rows that a type's blocks do not fit get
the type that stands in for it; norms, biases and other small tensors stay as they are. What is
quantised already is quantised again from the numbers it stands for, and the file says so.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final

from lichen.catalog.tensor_types import TensorType
from lichen.compression.method import MethodContext
from lichen.compression.model_file import LazyTensor, ModelFile
from lichen.compression.retyping import ROLES, layer_of, retype_model, role_of
from lichen.compression.types import PLAIN, fast_types, fitting, runs_fast, type_named
from lichen.core.errors import ConfigError, UnknownNameError
from lichen.core.registry import unknown
from lichen.engines.llama_cpp.native.library import cpu_features
from lichen.engines.llama_cpp.native.quantise import WRITABLE
from lichen.engines.options import read_options

NAME: Final = "requantise"
FAMILIES: Final = ("layers", "attn", "ffn")
KEEP: Final = "keep"
_RANGE: Final = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRule:
    """Types for some layers only.

    Args:
        layers: which, counted from 0: ``"0-3, 20"``.
        types: group -> type, as in ``RequantiseOptions.types``.
    """

    layers: str
    types: Mapping[str, object]

    def __post_init__(self) -> None:
        """Check the ranges."""
        self.numbers()

    def numbers(self) -> frozenset[int]:
        """Return the layers meant."""
        found: set[int] = set()
        for part in self.layers.split(","):
            match = _RANGE.match(part.strip())
            first = int(match[1]) if match else 1
            last = int(match[2] or match[1]) if match else 0
            if last < first:
                msg = f"layers are given like '0-3, 20', got {self.layers!r}"
                raise ValueError(msg)
            found |= set(range(first, last + 1))
        return frozenset(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequantiseOptions:
    """Which weights get which type; the most exact statement wins.

    Args:
        types: group -> type or "keep". A group is a role (``token_embd``, ``output``, ``attn_v``,
            ``ffn_down`` ...) or a family: ``attn``, ``ffn``, or ``layers`` for both.
        rules: types for some layers only; they go before ``types``, the first that speaks wins.
        tensors: tensor name -> type; goes before everything.
        importance: "use" takes importance weights where there are any, "require" insists on them,
            "ignore" stores all channels alike.
        compensate: whether later weights of a row make up for the errors of earlier ones (GPTQ);
            takes minutes and needs a corpus.
    """

    types: Mapping[str, object] = field(default_factory=dict)
    rules: tuple[LayerRule, ...] = ()
    tensors: Mapping[str, object] = field(default_factory=dict)
    importance: str = "use"
    compensate: bool = False

    def __post_init__(self) -> None:
        """Check groups and types."""
        for types in (self.types, *(rule.types for rule in self.rules)):
            for group, kind in types.items():
                if group not in (*ROLES, *FAMILIES):
                    raise UnknownNameError(unknown("tensor group", group, (*FAMILIES, *ROLES)))
                _type(kind)
        for kind in self.tensors.values():
            _type(kind)
        if not self.types and not self.rules and not self.tensors:
            msg = 'nothing to store in another type: give types, e.g. types = { layers = "IQ4_NL" }'
            raise ValueError(msg)
        if self.importance not in ("use", "require", "ignore"):
            msg = f"importance is 'use', 'require' or 'ignore', got {self.importance!r}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requantise:
    """Stores groups of weights in the types asked for. ``features`` says what this CPU has."""

    options: RequantiseOptions
    features: Callable[[], AbstractSet[str]] = cpu_features
    name: ClassVar[str] = NAME

    def apply(self, model: ModelFile, context: MethodContext) -> ModelFile:
        """Store anew what gets another type.

        Raises:
            ConfigError: a tensor that does not exist, a group without tensors, or importance
                weights that are required and not there.
        """
        if self.options.importance == "require" and context.importance is None:
            raise ConfigError(f"{NAME}: this recipe needs importance weights, and there are none")
        assignment = {
            tensor.name: kind
            for tensor in model.tensors
            if (kind := self._kind(tensor)) is not None
        }
        for name in self.options.tensors:
            model.tensor(name)
        self._check_groups(model)
        self._note_slow(model, assignment, context)
        if self.options.importance == "ignore":
            context = replace(context, importance=None)
        compensate = self.options.compensate
        return retype_model(model, assignment, context, who=NAME, compensate=compensate)

    def _kind(self, tensor: LazyTensor) -> TensorType | None:
        """Return the type a tensor is to have, None to leave it."""
        exact = self.options.tensors.get(tensor.name)
        if exact is not None:
            return _type(exact)
        role = role_of(tensor.name)
        if not role or len(tensor.shape) < 2:  # noqa: PLR2004 (a matrix)
            return None
        layer = layer_of(tensor.name)
        for rule in self.options.rules:
            if layer in rule.numbers() and (found := _most_exact(rule.types, role)) is not None:
                return _type(found)
        found = _most_exact(self.options.types, role)
        return None if found is None else _type(found)

    def _check_groups(self, model: ModelFile) -> None:
        """Refuse a group that the model has nothing of: its type would be silently lost."""
        present = {group for t in model.tensors for group in _groups(role_of(t.name))}
        asked = {*self.options.types, *(g for rule in self.options.rules for g in rule.types)}
        if lacking := sorted(asked - present):
            raise ConfigError(
                f"{NAME}: the model has no {' and no '.join(lacking)}; "
                f"it has {', '.join(sorted(present))}"
            )

    def _note_slow(
        self, model: ModelFile, assignment: Mapping[str, TensorType], context: MethodContext
    ) -> None:
        """Tell which of the new types have no fast kernel on this CPU, though others have one."""
        features = self.features()
        fast = fast_types(features)
        slow: Counter[str] = Counter()
        for name, wanted in assignment.items():
            tensor = model.tensor(name)
            kind = fitting(wanted, tensor.width)
            changes = kind != tensor.type and kind.name not in PLAIN
            if changes and not runs_fast(kind, tensor.rows, features):
                slow[kind.name] += 1
        if fast and slow:
            shown = ", ".join(f"{kind} ({count})" for kind, count in sorted(slow.items()))
            context.note(
                f"{NAME}: no fast kernel on this CPU for tensors stored as {shown}; "
                f"it has some for {', '.join(fast)}"
            )


def _most_exact(types: Mapping[str, object], role: str) -> object | None:
    """Return what is said of a role, or of the smallest family it belongs to."""
    return next((types[g] for g in _groups(role) if g in types), None)


def _groups(role: str) -> tuple[str, ...]:
    """Return the groups a role belongs to, the most exact first."""
    family = role.partition("_")[0]
    return (role, family, "layers") if family in FAMILIES else (role,) if role else ()


def _type(value: object) -> TensorType | None:
    """Return the type a text names, None for "keep"."""
    if not isinstance(value, str):
        msg = f"a tensor type is a text such as 'Q4_0', got {value!r}"
        raise ValueError(msg)  # noqa: TRY004 (the options' reader translates ValueError)
    if value == KEEP:
        return None
    kind = type_named(value)
    if kind.name not in WRITABLE:
        msg = f"{kind.name} is no type for weights; these are: {', '.join(WRITABLE)}"
        raise ValueError(msg)
    return kind


def make(options: Mapping[str, object]) -> Requantise:
    """Return the method.

    Raises:
        ConfigError: an option, group or type that does not exist or cannot be used.
    """
    return Requantise(options=read_options(RequantiseOptions, options, who=f"method {NAME}"))
