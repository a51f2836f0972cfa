"""Search for a smaller model: what is tried, how it is measured, and where the result goes.

``plan_search`` predicts and chooses; ``run_search`` measures what was chosen, holds the finalists
against the gate and puts the recommended file in its place. An interrupted search leaves a folder
and a ledger beside the output, and the same command goes on with them.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final

import lichen
from lichen.compose import settings
from lichen.compose.compression import Judging
from lichen.compose.compression_gate import base_of
from lichen.compose.compression_workshop import EngineWorkshop, Measures, bill_of
from lichen.compose.cost_in_turns import cost_in_turns, open_file
from lichen.compose.making import Wanted, context_of
from lichen.compose.spec import RunSpec
from lichen.compression.agreement import Comparing, measure_agreement
from lichen.compression.applying import apply_recipe
from lichen.compression.candidates import (
    CompressionCandidate,
    Outlook,
    Predicted,
    Structure,
    shortlist,
)
from lichen.compression.corpus import Document, open_corpus
from lichen.compression.error_table import ErrorCache
from lichen.compression.gate import THRESHOLDS, Gate, Level
from lichen.compression.gate.ports import CostValue, MeasureAgreement, MeasureCost
from lichen.compression.importance import Importance
from lichen.compression.ledger import Ledger
from lichen.compression.method import ImportanceWeights, MethodContext, Note
from lichen.compression.methods.mixed_precision import DEFAULT_TYPES
from lichen.compression.model_file import ModelFile, open_model
from lichen.compression.recipe import Recipe, RecipeStep
from lichen.compression.search import Progress, search
from lichen.compression.searched import Bill, Budget, Rules, Search
from lichen.compression.types import fast_types
from lichen.core.errors import ConfigError
from lichen.core.measurement import Missing
from lichen.core.model import ModelArtifact
from lichen.core.ports import Meter
from lichen.engines.llama_cpp.native.library import cpu_features
from lichen.meter import open_meter

LOOK_TOKENS: Final = (2048, 8192)
"""Held-out tokens by level of look: 4 documents, then 16."""
LOOK_ROUNDS: Final = (2, 4)
"""Turns of the cost measurement by level of look; two are the fewest that show a spread."""

RETIE: Final = RecipeStep("retie", {"sample": 8192})
_NOT_LOOKED_AT: Final = (1.0, 0.0)
"""Stands for the load of a model where loading is not measured: equal, and no memory."""

METHODS_TRIED: Final = ("retie", "trim_vocabulary", "drop_layers", "mixed_precision")

_INFLATIONS: Final = (0.001, 0.003, 0.005)
"""Token inflation that a search allows when it trims the vocabulary: from none to speak of to half
of what the gate's strict level lets through."""
_FEW_ASCII: Final = 50_000
"""Merges whose ASCII tokens stay where a smaller vocabulary is tried: fewer than that, and code
from elsewhere would pay for a corpus as small as one repository."""

_LAYER_SHARE: Final = 0.1
"""Of the layers that a search drops at most: beyond a tenth quality needs recovery training
(Men et al. 2024, arXiv 2403.03853, figure 2)."""


_DRAWS: Final = 20
"""Random recipes drawn for each one wanted, so that some fit the size limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a search may spend and what may come out.

    Args:
        budget: time or energy.
        most_bytes: of the file; None for no limit.
        candidates: predicted ones that are measured, >= 1.
        random: random ones measured beside them, >= 0.
    """

    budget: Budget
    most_bytes: int | None = None
    candidates: int = 8
    random: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """What would be measured: predictions of the parent and of the chosen candidates.

    ``spent`` is what predicting cost, importance included where it was measured now.
    """

    source: ModelArtifact
    context: MethodContext
    parent: Predicted
    predicted: int
    candidates: tuple[CompressionCandidate, ...]
    spent: Bill = field(default_factory=Bill)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchTarget:
    """Where the result goes, and what it is held against.

    Args:
        spec: with the parent as its one solution.
        level: of the gate.
        out: file of the result; the ledger lies beside it.
        task: whether the spec's task is part of the gate.
    """

    spec: RunSpec
    level: Level
    out: Path
    task: bool

    @property
    def ledger(self) -> Path:
        """Where finished evaluations are kept."""
        return self.out.with_name(self.out.name + ".ledger.jsonl")

    @property
    def folder(self) -> Path:
        """Where candidates are kept while the search runs."""
        return self.out.with_name(self.out.name + ".candidates")


def plan_search(
    source: ModelArtifact, wanted: Wanted, limits: Limits, progress: Note, *, seed: int = 0
) -> SearchPlan:
    """Predict the whole frontier and choose what is worth measuring. Runs no model but importance.

    Raises:
        ConfigError: a model without matrices, or limits that nothing fits.
    """
    with open_meter() as meter, meter.window("predict") as window:
        plan = _planned(source, wanted, limits, progress, seed)
    return replace(plan, spent=bill_of(window.close()))


def _planned(
    source: ModelArtifact, wanted: Wanted, limits: Limits, progress: Note, seed: int
) -> SearchPlan:
    context = context_of(source, METHODS_TRIED, wanted)
    model = open_model(Path(source.path))
    outlook = Outlook(
        model=model,
        context=context,
        structures=structures(model, retie=_reties(model, context), drop=_knows_influence(context)),
        types=DEFAULT_TYPES,
        fast=frozenset(fast_types(cpu_features())),
        cache=ErrorCache(settings.cache_dir() / "compression" / "errors.json"),
        progress=lambda what: progress(f"predicting: {what}"),
    )
    predicted = tuple(outlook.predicted())
    rng = random.Random(seed)  # noqa: S311 (a baseline's draw is no secret)
    most = math.inf if limits.most_bytes is None else limits.most_bytes
    fitting = (
        c for c in outlook.random(_DRAWS * limits.random, rng) if c.predicted.file_bytes <= most
    )
    drawn = tuple(islice(fitting, limits.random))
    chosen = shortlist(predicted, limits.candidates, most_bytes=limits.most_bytes)
    if not chosen:
        least = min(c.predicted.file_bytes for c in predicted)
        raise ConfigError(
            f"nothing that could be tried fits {limits.most_bytes or 0:,} bytes: the smallest "
            f"prediction is {least:,}; allow a larger file"
        )
    return SearchPlan(
        source=source,
        context=context,
        parent=outlook.parent(),
        predicted=len(predicted),
        candidates=_mixed(chosen, drawn),
    )


def run_search(
    plan: SearchPlan, limits: Limits, judging: Judging, target: SearchTarget, progress: Progress
) -> tuple[Search, ModelArtifact | None]:
    """Search, and put the recommended file in its place; None if nothing better was found.

    Raises:
        ConfigError: an energy budget where energy can be neither read nor modelled.
    """
    thresholds = THRESHOLDS[target.level]
    with open_meter() as meter:
        _check_energy(limits.budget, meter)
        workshop = _workshop(plan, judging, target, meter)
        found = search(
            workshop,
            plan.candidates,
            parent_bytes=plan.source.size_bytes,
            rules=Rules(
                most_kl=thresholds.kl_nats,
                most_flips=thresholds.flips,
                most_bytes=limits.most_bytes,
            ),
            budget=limits.budget,
            ledger=Ledger(target.ledger, _scope(plan, target)),
            prepared=plan.spent,
            progress=progress,
        )
        written = None
        if found.best is not None:
            workshop.made(found.best, final=True).replace(target.out)
            written = judging.catalog.model(str(target.out))
            written = replace(written, recipe=workshop.recipe(found.best, final=True).to_toml())
        workshop.close()
    return found, written


def _mixed(
    chosen: Sequence[CompressionCandidate], drawn: Sequence[CompressionCandidate]
) -> tuple[CompressionCandidate, ...]:
    """Spread the random ones among the others, so that a short budget measures some of both."""
    places = [*((k / len(chosen), c) for k, c in enumerate(chosen, 1))]
    places += [((k - 0.5) / len(drawn), c) for k, c in enumerate(drawn, 1)]
    unique = {c.key: c for _, c in sorted(places, key=lambda p: p[0])}
    return tuple(unique.values())


def structures(model: ModelFile, *, retie: bool, drop: bool) -> tuple[Structure, ...]:
    """Return what a search tries beside types: tied output, fewer tokens, fewer layers.

    Simple ones come first. A vocabulary that cannot be trimmed or layers that cannot be renumbered
    are found out when a structure is applied.

    Args:
        model: the parent.
        retie: whether its output matrix is a copy of the embedding.
        drop: whether it is known which layers matter least.
    """
    base = (RETIE,) if retie else ()
    label = "retied" if retie else ""
    found = [Structure(label="as it is")]
    if retie:
        found.append(Structure(label=label, before=base))
    trims = [
        RecipeStep("trim_vocabulary", {}),
        *(
            RecipeStep("trim_vocabulary", {"inflation": x, "ascii_ranks": _FEW_ASCII})
            for x in _INFLATIONS
        ),
    ]
    titles = ["other scripts dropped", *(f"trimmed to {x:.1%} more tokens" for x in _INFLATIONS)]
    for trim, title in zip(trims, titles, strict=True):
        found.append(Structure(label=_joined(label, title), before=(*base, trim)))
    for count in range(1, math.floor(model.layers * _LAYER_SHARE) + 1 if drop else 1):
        less_layers = (RecipeStep("drop_layers", {"count": count}),)
        less = "1 layer less" if count == 1 else f"{count} layers less"
        found += [
            Structure(label=_joined(label, less), before=base, after=less_layers),
            Structure(
                label=_joined(label, titles[0], less), before=(*base, trims[0]), after=less_layers
            ),
        ]
    return tuple(found)


def _joined(*parts: str) -> str:
    return ", ".join(p for p in parts if p)


def _knows_influence(context: MethodContext) -> bool:
    """Whether importance says which layers matter least, so that nothing is measured again."""
    found = context.importance
    if isinstance(found, Importance) and found.influence:
        return True
    context.note("layers are not dropped: that needs importance measured by lichen")
    return False


def _reties(model: ModelFile, context: MethodContext) -> bool:
    """Whether the model stores its output matrix twice."""
    if not model.has("output.weight"):
        return False
    try:
        apply_recipe(model, Recipe(steps=(RETIE,)), context)
    except ConfigError as exc:
        context.note(f"not tried: {exc}")
        return False
    return True


def _workshop(
    plan: SearchPlan, judging: Judging, target: SearchTarget, meter: Meter
) -> EngineWorkshop:
    held_out = (plan.context.corpus or open_corpus()).held_out
    return EngineWorkshop(
        source=plan.source,
        context=plan.context,
        folder=target.folder,
        measures=[
            Measures(
                agreement=_agreement(held_out, tokens), cost=_quick_cost(target.spec, meter, n)
            )
            for tokens, n in zip(LOOK_TOKENS, LOOK_ROUNDS, strict=True)
        ],
        judge=Gate(target.level),
        compensate=plan.context.importance is not None,
        ports=judging.ports(target.spec, held_out, task=target.task),
        meter=meter,
        answers=judging.answers(target.spec, task=target.task),
    )


def _agreement(held_out: Sequence[Document], tokens: int) -> MeasureAgreement:
    how = Comparing(tokens=tokens)
    return lambda parent, child: measure_agreement(parent, child, held_out, how)


def _quick_cost(spec: RunSpec, meter: Meter, rounds: int) -> MeasureCost:
    """Return a cost measurement of a look: prefill and decode only."""
    engine = base_of(spec).engine

    def cost(parent: Path, child: Path) -> CostValue:
        return cost_in_turns(
            parent,
            child,
            open_engine=lambda path: open_file(engine.name, engine.options, path),
            meter=meter,
            load=lambda _path: _NOT_LOOKED_AT,
            rounds=rounds,
        )

    return cost


def _check_energy(budget: Budget, meter: Meter) -> None:
    if math.isinf(budget.joules):
        return
    with meter.window("energy") as window:
        pass
    energy = bill_of(window.close()).energy_j
    if isinstance(energy, Missing):
        raise ConfigError(
            f"energy can be neither read nor modelled here ({energy.reason}): give --budget as a "
            "time, e.g. 30m"
        )


def _scope(plan: SearchPlan, target: SearchTarget) -> str:
    """Return what the ledger's entries depend on, as a hash."""
    context = plan.context
    what = {
        "model": plan.source.sha256,
        "corpus": context.corpus.sha256 if context.corpus is not None else "",
        "importance": _hash_of(context.importance),
        "lichen": lichen.__version__,
        "looks": [LOOK_TOKENS, LOOK_ROUNDS, "finalists compensated"],
        "gate": target.level,
        "spec": target.spec.canonical() if target.task else "",
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _hash_of(importance: ImportanceWeights | None) -> str:
    digest = hashlib.sha256()
    for name, weights in sorted(importance.weights.items()) if importance is not None else ():
        digest.update(name.encode("utf-8", "replace"))
        digest.update(weights.tobytes())
    return digest.hexdigest()
