"""What a search tries: recipes, each with what shapes, types and error tables predict of it.

A *structure* is everything but the types: whether the output matrix is tied, how many tokens stay,
how many layers go. For each one the knapsack gives the whole frontier of types, once charged for
bytes, once for expected CPU time, once for both; a few points of each become candidates. A dropped
layer's matrices count with the error 1 each, which is what the error equation gives for a matrix
that is replaced by nothing. Predictions choose what is measured; they decide nothing.

Random recipes (a random structure, a random type per tensor group, as a person would guess) are the
baseline: they are measured in the same rounds, so that it shows whether predicting was worth it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Final

from lichen.compression.allocation import Pricing, as_patterns, items, kinds_of
from lichen.compression.applying import apply_recipe
from lichen.compression.error_table import (
    SAMPLE_ROWS,
    ErrorCache,
    TensorErrors,
    is_matrix,
    measure_errors,
)
from lichen.compression.halving import Objectives, ranked
from lichen.compression.kernel_cost import FAST_WITH_AVX2, Workload
from lichen.compression.knapsack import Frontier
from lichen.compression.method import MethodContext
from lichen.compression.model_file import ModelFile
from lichen.compression.recipe import Recipe, RecipeStep
from lichen.compression.retyping import layer_of, role_of
from lichen.compression.types import type_named
from lichen.compression.vocabulary_metadata import KEPT_KEY
from lichen.core.errors import ConfigError

_CPU_SHARES: Final = (0.0, 0.5, 1.0)
"""Bytes alone, both alike, CPU time alone."""

ASSIGN: Final = "mixed_precision"
STORES: Final = (ASSIGN, "requantise")
"""Methods that store weights anew and can make up for their rounding errors."""

READ: Final = {"mmap": "off"}
"""Recommended for weights in types with fast kernels: the engine lays these out anew for the CPU,
and a mapped file would be in memory beside them (docs/lab-notes.md, 2026-11-23)."""


class Origin(StrEnum):
    """How a candidate came to be."""

    PREDICTED = "predicted"
    RANDOM = "random"
    GIVEN = "given"


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """What shapes, types and errors say before anything is run.

    ``cpu_s`` is of one typical request, by prior figures; ``error`` is the sum of the error table.
    """

    file_bytes: int
    cpu_s: float
    error: float

    @property
    def objectives(self) -> Objectives:
        """All to be small."""
        return (float(self.file_bytes), self.cpu_s, self.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionCandidate:
    """A recipe that may be tried."""

    label: str
    recipe: Recipe
    origin: Origin
    predicted: Predicted

    @property
    def key(self) -> str:
        """Name for files and the ledger: the recipe's hash."""
        bare = replace(self.recipe, name="", description="")
        return hashlib.sha256(bare.to_toml().encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """Everything but the types: steps before they are chosen, and steps after."""

    label: str
    before: tuple[RecipeStep, ...] = ()
    after: tuple[RecipeStep, ...] = ()


@dataclass(slots=True, kw_only=True)
class Outlook:
    """Predicts candidates of one model.

    Args:
        model: the parent.
        context: what methods may use.
        structures: to combine with types.
        types: candidate storage types, by name.
        points: of each frontier.
        load: a typical request.
        fast: types with repacked kernels on this CPU.
        sample_rows, cache: see ``measure_errors``.
        progress: told what is looked at.
    """

    model: ModelFile
    context: MethodContext
    structures: Sequence[Structure]
    types: Sequence[str]
    points: int = 5
    load: Workload = field(default_factory=Workload)
    fast: frozenset[str] = FAST_WITH_AVX2
    sample_rows: int = SAMPLE_ROWS
    cache: ErrorCache = field(default_factory=ErrorCache)
    progress: Callable[[str], None] = lambda _what: None
    _shaped: dict[str, _Shaped] = field(default_factory=dict)
    _before: dict[str, tuple[ModelFile, tuple[RecipeStep, ...]]] = field(default_factory=dict)

    def predicted(self) -> Iterator[CompressionCandidate]:
        """Yield the points of every structure's frontiers; structures that fail are noted."""
        for structure in self.structures:
            shaped = self._shape(structure)
            if shaped is None:
                continue
            for share in _CPU_SHARES:
                pricing = self._pricing(shaped, share)
                frontier = Frontier(items(shaped.kept, pricing))
                for point in frontier.points(self.points):
                    kinds = kinds_of(shaped.kept, point)
                    yield self._candidate(shaped, kinds, Origin.PREDICTED)

    def random(self, count: int, rng: random.Random) -> Iterator[CompressionCandidate]:
        """Yield ``count`` recipes of random structure with a random type for each group."""
        usable = [s for s in map(self._shape, self.structures) if s is not None]
        for _ in range(count if usable else 0):
            shaped = rng.choice(usable)
            wish = {role_of(t.name): rng.choice(list(self.types)) for t in shaped.kept}
            kinds = {
                t.name: kind
                for t in shaped.kept
                if (kind := wish[role_of(t.name)]) in {c.kind for c in t.choices[1:]}
            }
            yield self._candidate(shaped, kinds, Origin.RANDOM)

    def parent(self) -> Predicted:
        """Return the same figures for the parent as it is."""
        shaped = self._shape(Structure(label="as it is"))
        if shaped is None:
            raise ConfigError("the model has no matrices to compress")
        return self._candidate(shaped, {}, Origin.GIVEN).predicted

    def _pricing(self, shaped: _Shaped, cpu_share: float) -> Pricing:
        return Pricing(cpu_share=cpu_share, tied=shaped.tied, load=self.load, fast=self.fast)

    def _shape(self, structure: Structure) -> _Shaped | None:
        if structure.label not in self._shaped:
            self.progress(structure.label)
            try:
                self._shaped[structure.label] = self._made(structure)
            except ConfigError as exc:
                self.context.note(f"{structure.label}: not tried, for {exc}")
                return None
        return self._shaped[structure.label]

    def _made(self, structure: Structure) -> _Shaped:
        model, before = self._applied(structure.before)
        final = apply_recipe(model, Recipe(steps=structure.after), self.context)
        left = {t.origin or t.name for t in final.tensors}
        gone = {layer_of(t.name) for t in model.tensors if (t.origin or t.name) not in left}
        after = [_with_layers(step, gone) for step in structure.after]
        structure = replace(structure, before=before, after=tuple(after))
        table = measure_errors(
            [t for t in model.tensors if is_matrix(t)],
            [type_named(name) for name in self.types],
            quantiser=self.context.quantiser,
            importance=self.context.importance,
            sample_rows=self.sample_rows,
            cache=self.cache,
        )
        origins = {t.name: t.origin or t.name for t in model.tensors}
        kept = tuple(t for t in table if origins[t.name] in left)
        return _Shaped(structure, model, final, kept, dropped=len(table) - len(kept))

    def _applied(self, steps: tuple[RecipeStep, ...]) -> tuple[ModelFile, tuple[RecipeStep, ...]]:
        """Return the model after some steps, and the steps with what they decided written out."""
        if not steps:
            return self.model, ()
        key = Recipe(steps=steps).to_toml()
        if key not in self._before:
            model, written = self._applied(steps[:-1])
            model = apply_recipe(model, Recipe(steps=steps[-1:]), self.context)
            self._before[key] = (model, (*written, resolved(steps[-1], model)))
        return self._before[key]

    def _candidate(
        self, shaped: _Shaped, kinds: dict[str, str], origin: Origin
    ) -> CompressionCandidate:
        structure = shaped.structure
        steps = [*structure.before]
        if kinds:
            patterns = as_patterns(kinds, [t.name for t in shaped.model.tensors])
            steps.append(RecipeStep(ASSIGN, {"assign": patterns}))
        steps += structure.after
        choices = {t.name: {c.kind: c for c in t.choices} for t in shaped.kept}
        error, cpu_s, stored, changed = float(shaped.dropped), 0.0, 0, 0
        pricing = self._pricing(shaped, 0.0)
        for tensor in shaped.kept:
            now = tensor.choices[0]
            chosen = choices[tensor.name][kinds.get(tensor.name, now.kind)]
            error += chosen.error
            cpu_s += pricing.cpu_s(tensor, chosen.kind)
            stored += chosen.size_bytes
            changed += chosen.size_bytes - now.size_bytes
        bits = 8 * stored / max(sum(t.weights for t in shaped.kept), 1)
        return CompressionCandidate(
            label=f"{structure.label}, {bits:.2f} bits",
            recipe=Recipe(steps=tuple(steps), engine=READ if kinds else {}),
            origin=origin,
            predicted=Predicted(
                file_bytes=shaped.final.file_bytes + changed, cpu_s=cpu_s, error=error
            ),
        )


@dataclass(frozen=True)
class _Shaped:
    """A structure applied: the model whose types are chosen, and what is left at the end."""

    structure: Structure
    model: ModelFile
    final: ModelFile
    kept: tuple[TensorErrors, ...]
    dropped: int

    @cached_property
    def tied(self) -> bool:
        """Whether the input embedding is also the output matrix."""
        return not self.final.has("output.weight")


def resolved(step: RecipeStep, result: ModelFile) -> RecipeStep:
    """Return the step with what it decided written out, so that a replay decides nothing anew."""
    kept = result.value(KEPT_KEY)
    if step.method == "trim_vocabulary" and isinstance(kept, str):
        return RecipeStep(step.method, {"kept": kept})
    return step


def _with_layers(step: RecipeStep, gone: AbstractSet[int | None]) -> RecipeStep:
    """Return a step that drops layers with their numbers written out."""
    layers = sorted(n for n in gone if n is not None)
    return RecipeStep(step.method, {"layers": layers}) if step.method == "drop_layers" else step


def compensated(recipe: Recipe) -> Recipe:
    """Return the recipe with rounding errors made up for in the steps that store weights anew."""
    steps = (
        replace(s, options={**s.options, "compensate": True}) if s.method in STORES else s
        for s in recipe.steps
    )
    return replace(recipe, steps=tuple(steps))


def shortlist(
    candidates: Sequence[CompressionCandidate], count: int, *, most_bytes: int | None = None
) -> tuple[CompressionCandidate, ...]:
    """Return ``count`` candidates worth a measurement: by rank of what is predicted.

    Equal recipes count once; files above ``most_bytes`` are left out.
    """
    fitting = [c for c in candidates if most_bytes is None or c.predicted.file_bytes <= most_bytes]
    unique = list({c.key: c for c in fitting}.values())
    order = ranked([c.predicted.objectives for c in unique])
    return tuple(unique[i] for i in order[:count])
