"""The audit part of a page: factors, solutions, environment, the method ladder, how to redo it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lichen.core.footprint import Factor, FactorSet
from lichen.core.measurement import Measurement, Method, Reading
from lichen.core.record import Environment, RunRecord, SolutionRecord
from lichen.core.summary import Dimension, Summary
from lichen.report import cells, toml
from lichen.report import format as fmt
from lichen.report.clean import one_line, visible

_LINK: Final = re.compile(r"https://[A-Za-z0-9.-]+(?::\d+)?(?:/[^\s<>\"']*)?")

_PRICING: Final = (
    "grid.",
    "facility.",
    "water.",
    "tariff.",
    "embodied.server_share",
    "lifetime.server",
)
"""Names of the factors in a run's prices; all others serve estimates and equivalents."""

LADDER: Final[dict[Method, str]] = {
    Method.WALL_METER: "a meter at the plug saw everything the machine drew",
    Method.COUNTER: "the hardware or the kernel counted",
    Method.SAMPLED: "power was read at intervals and summed",
    Method.CALIBRATED: "a model fitted on a machine with counters",
    Method.MODELLED: "published constants times counted work; read the range, not the number",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorRow:
    """A factor as text. ``links`` are the https addresses found in its source."""

    name: str
    value: str
    range: str
    unit: str
    year: str
    region: str
    source: str
    links: tuple[str, ...]
    licence: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One rung of the ladder and the dimensions of this run that stand on it, if any."""

    method: str
    meaning: str
    used_for: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SolutionFacts:
    """One solution: (label, value) pairs of the model, and its settings."""

    look: int
    name: str
    facts: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Redo:
    """How to reproduce: the spec as TOML, its hash, the file to save it in, commands."""

    spec: str
    spec_hash: str
    file: str
    command: str
    reprice: str


def factors(chosen: FactorSet) -> tuple[tuple[FactorRow, ...], tuple[FactorRow, ...]]:
    """Return the factors that price a run, and those in the set for estimates and equivalents."""
    rows = [(f, _factor(f)) for f in chosen.factors]
    pricing = tuple(row for f, row in rows if f.name.startswith(_PRICING))
    return pricing, tuple(row for f, row in rows if not f.name.startswith(_PRICING))


def ladder(summary: Summary) -> tuple[Rung, ...]:
    """Return the method ladder, best first, with what this run took from each rung."""
    used: dict[Method, list[str]] = {m: [] for m in Method}
    for dimension in Dimension:
        for solution in summary.solutions:
            method = cells.cost_of(solution, dimension).method
            if method is not None and fmt.LABELS[dimension] not in used[method]:
                used[method].append(fmt.LABELS[dimension])
    return tuple(
        Rung(method=str(m), meaning=LADDER[m], used_for=", ".join(used[m])) for m in Method
    )


def solutions(records: Sequence[SolutionRecord], summary: Summary) -> tuple[SolutionFacts, ...]:
    """Return what each solution of the summary is, in the summary's order."""
    looks = {s.name: i for i, s in enumerate(summary.solutions)}
    known = [r for r in records if r.name in looks]
    return tuple(_solution(r, looks[r.name]) for r in sorted(known, key=lambda r: looks[r.name]))


def environment(e: Environment) -> tuple[tuple[str, str], ...]:
    """Return the machine and software as (label, value) pairs."""
    load = "unknown" if e.load_average is None else f"{e.load_average:.2f}"
    pairs = (
        ("processor", e.cpu_model),
        ("cores", f"{e.usable_cpus} usable of {e.logical_cpus}"),
        ("memory", fmt.quantity(Dimension.MEMORY, e.memory_bytes)),
        ("GPU", ", ".join(e.gpus) or "none"),
        ("machine", e.machine),
        ("virtualisation", e.virtualisation),
        ("frequency governor", e.governor),
        ("load at the start", load),
        ("system", e.os),
        ("Python", e.python_version),
        ("lichen", e.lichen_version),
        *e.versions,
    )
    return tuple((one_line(k), one_line(v)) for k, v in pairs)


def redo(run: RunRecord) -> Redo:
    """Return how to run it again and how to price it again."""
    file = re.sub(r"[^A-Za-z0-9._-]", "-", run.id).lstrip("-.") or "run"
    return Redo(
        spec=visible(_spec(run.spec)),
        spec_hash=one_line(run.spec_hash),
        file=f"{file}.toml",
        command=f"lichen bench {file}.toml",
        reprice=f"lichen report {file} --region DNK --region FRA",
    )


def _spec(text: str) -> str:
    """Return the stored spec as TOML; text that is no JSON object is shown as it is."""
    try:
        found = json.loads(text)
    except ValueError:
        return text  # a record from elsewhere may hold any text
    return toml.dumps(found) if isinstance(found, dict) else text


def data(run: RunRecord) -> tuple[tuple[str, str], ...]:
    """Return what was asked, as (label, value) pairs."""
    oracle = run.oracle
    passed = "not run" if oracle is None else f"{oracle.passed} of {oracle.problems} pass"
    pairs = (
        ("task", f"{run.task}, version {run.task_version}"),
        ("prompt style", run.prompt_style),
        ("metric", run.metric),
        ("problems", fmt.count(len(run.problem_ids))),
        ("attempts per problem", fmt.count(run.samples_per_problem)),
        ("seed", str(run.seed)),
        ("reference solutions", passed),
        *((f"reference fails {p}", why) for p, why in (oracle.failures if oracle else ())[:20]),
        ("SHA-256 of the data", run.data_sha256),
    )
    return tuple((one_line(k), one_line(v)) for k, v in pairs)


def idle(run: RunRecord) -> str:
    """Return the idle baseline in a sentence, "" if none was taken."""
    if run.idle is None:
        return ""
    return f"Idle baseline before the run: {_window(run.idle)}."


def _solution(r: SolutionRecord, look: int) -> SolutionFacts:
    facts: list[tuple[str, str]] = [("engine", r.engine)]
    if r.model is not None:
        m = r.model
        facts = [
            ("model", m.name),
            ("file", f"{m.format}, {fmt.quantity(Dimension.MEMORY, m.size_bytes)}"),
            ("licence", m.licence),
            *facts,
            ("SHA-256", m.sha256),
        ]
        if m.shape is not None:
            size = fmt.significant(m.shape.parameters / 1e6)
            facts.insert(1, ("parameters", f"{size} million ({m.shape.architecture})"))
        if m.recipe:
            facts.append(("made by", m.recipe))
    if r.load is not None:
        facts.append(("loading took", _window(r.load)))
    return SolutionFacts(
        look=look,
        name=one_line(r.name),
        facts=tuple((one_line(k), one_line(v)) for k, v in facts),
        settings=tuple((one_line(k), one_line(v)) for k, v in r.settings),
    )


def _window(m: Measurement) -> str:
    parts = [
        fmt.quantity(dimension, q.value.value)
        for dimension, q in (
            (Dimension.TIME, m.wall_s),
            (Dimension.CPU_TIME, m.cpu_s),
            (Dimension.ENERGY, m.it_energy_j),
        )
        if isinstance(q, Reading)
    ]
    return ", ".join(parts) or cells.NOT_MEASURED


def _factor(f: Factor) -> FactorRow:
    source = one_line(f.source)
    return FactorRow(
        name=one_line(f.name),
        value=fmt.plain(f.value.value),
        range="exact"
        if f.value.is_exact
        else f"{fmt.plain(f.value.low)}{fmt.EN_DASH}{fmt.plain(f.value.high)}",
        unit=one_line(f.unit),
        year=str(f.year) if f.year else "by definition",
        region=one_line(f.region) or "any",
        source=source,
        links=tuple(_LINK.findall(source)),
        licence=one_line(f.licence),
        note=one_line(f.note),
    )
