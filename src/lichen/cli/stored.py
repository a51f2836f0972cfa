"""What ``report`` and ``compare`` share: stored runs, priced again, and the page of one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lichen.acceleration.cascade_replay import routes
from lichen.benchmark.summarise import StoredRun, summarise
from lichen.compose.parts import part_of
from lichen.compose.settings import region as default_region
from lichen.compose.settings import store_url
from lichen.core.errors import ConfigError, StoreError
from lichen.core.footprint import FactorSet
from lichen.core.record import RunRecord
from lichen.core.summary import Summary
from lichen.footprint import factor_set, relevant
from lichen.store import Store, open_store

DEFAULT_MARGIN = 0.02
"""Non-inferiority margin of runs whose spec does not state one: ``summarise``'s own default."""


def opened(url: str | None) -> Store:
    """Open the store at ``url`` or the user's own."""
    return open_store(url or store_url())


def chosen(store: Store, run_id: str | None) -> RunRecord:
    """Return the run of that id or prefix, the newest without one; StoreError if there is none."""
    if run_id is not None:
        return store.find(run_id)
    run = store.latest()
    if run is not None and part_of(run):  # a round of a search says little by itself
        run = next((r for r in reversed(store.runs()) if not part_of(r)), None)
    if run is None:
        raise StoreError("no run is stored yet; make one with  lichen bench")
    return run


def loaded(store: Store, run: RunRecord) -> StoredRun:
    """Return a run with all its records."""
    return StoredRun(run=run, samples=store.samples(run.id), blocks=store.blocks(run.id))


def summarised(one: StoredRun, factors: FactorSet, *, margin: float) -> Summary:
    """Return everything that a report says of a run, what its cascades did included."""
    summary = summarise(one.run, one.samples, one.blocks, factors, margin=margin)
    return replace(summary, routes=routes(one.run, one.samples))


def margin_of(run: RunRecord) -> float:
    """Return the margin that was set before the run, so that a report cannot move it."""
    try:
        spec = json.loads(run.spec)
    except ValueError:
        return DEFAULT_MARGIN
    margin = spec.get("margin") if isinstance(spec, dict) else None
    return float(margin) if isinstance(margin, int | float) else DEFAULT_MARGIN


def factor_sets(
    store: Store, run: RunRecord, regions: Sequence[str], *, year: int | None, pue: str | None
) -> list[FactorSet]:
    """Return one factor set per region; without any wish, those the run was first priced with."""
    if not regions and year is None and pue is None:
        kept = store.factors(run.id)
        if kept is not None:
            return [kept]
    ratio = _number(pue)
    wanted = regions or (default_region(),)
    return [relevant(factor_set(r, year=year, pue=ratio)) for r in wanted]


def write_page(
    stored: StoredRun, summary: Summary, target: Path | None, *, elsewhere: Sequence[Summary] = ()
) -> Path:
    """Write a run's page, whole or not at all; by default to ``reports/<run>.html``."""
    from lichen.report import html

    page = target or Path("reports") / f"{stored.run.id}.html"
    text = html.render(stored.run, stored.samples, summary, elsewhere=elsewhere)
    partial = page.with_name(page.name + ".part")
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(page)
    except OSError as exc:
        raise ConfigError(f"cannot write {page}: {exc.strerror or exc}") from exc
    return page


def _number(pue: str | None) -> str | float | None:
    """Return a PUE as a number where it is one; else it is the name of a facility profile."""
    try:
        return None if pue is None else float(pue)
    except ValueError:
        return pue
