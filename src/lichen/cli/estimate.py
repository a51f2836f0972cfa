"""``lichen estimate``: what a training, an inference or a query costs that was not run here.

Everything printed is modelled. Each answer states its boundary, its equation, the range, and the
factors with their sources; one row per region.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import click

from lichen.cli import console
from lichen.cli.estimate_view import Row, document, show
from lichen.core.errors import ConfigError
from lichen.core.footprint import FactorSet, Priced
from lichen.core.interval import Interval
from lichen.core.measurement import Missing, Usage
from lichen.footprint import (
    Estimate,
    estimate_inference,
    estimate_query,
    estimate_training,
    factor_set,
    price,
    uncertainty,
)
from lichen.footprint.equations import machine_cost
from lichen.footprint.inference import ServedModel

_CARDS: Final = ("h100", "h200", "a100", "l4", "rtx4090")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The options that every estimate shares: where, when, in which facility."""

    regions: tuple[str, ...]
    year: int | None
    pue: str | float | None
    overrides: dict[str, float]
    files: tuple[Path, ...]
    rate: float | None
    as_json: bool

    def factors(self, region: str, site: str | float | None) -> FactorSet:
        """Choose the factors of one region; ``site`` is used where the user named no facility."""
        return factor_set(
            region,
            year=self.year,
            pue=site if self.pue is None else self.pue,
            overrides=self.overrides,
            files=self.files,
        )


def _pue(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | float | None:
    if value is None:
        return None
    try:
        return float(value)
    except ValueError:
        return value


def _overrides(
    _ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]
) -> dict[str, float]:
    found = {}
    for text in values:
        name, separator, number = text.partition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError as exc:
            raise ConfigError(f"--factor {text!r} must read NAME=NUMBER") from exc
        if not separator:
            raise ConfigError(f"--factor {text!r} must read NAME=NUMBER")
    return found


_PLACE_OPTIONS: Final = (
    click.option(
        "--region",
        "regions",
        multiple=True,
        default=("WORLD",),
        show_default=True,
        help="Grid: alpha-3, alpha-2 or English name. Repeatable.",
    ),
    click.option("--year", type=int, help="Year of the grid factors (default: newest)."),
    click.option("--pue", callback=_pue, help="A number, or a profile such as google or device."),
    click.option(
        "--factor",
        "overrides",
        multiple=True,
        callback=_overrides,
        metavar="NAME=NUMBER",
        help="Use your own number for a factor. Repeatable.",
    ),
    click.option(
        "--factors",
        "files",
        multiple=True,
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Your own factor file (CSV). Repeatable.",
    ),
    click.option(
        "--rate", type=click.FloatRange(0), help="Price of a device-hour in USD, to count hardware."
    ),
    click.option("--json", "as_json", is_flag=True, help="Write one JSON document on stdout."),
)


def _placed(function: Callable[..., None]) -> Callable[..., None]:
    """Add the shared options and hand them to the command as one ``place``."""

    def command(**options: Any) -> None:
        shared = ("regions", "year", "pue", "overrides", "files", "rate", "as_json")
        place = Place(**{name: options.pop(name) for name in shared})
        function(place=place, **options)

    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    decorated: Callable[..., None] = command
    for option in reversed(_PLACE_OPTIONS):
        decorated = option(decorated)
    return decorated


@click.group(name="estimate")
def command() -> None:
    """Estimate what was not run here. Every number is modelled; the boundary is stated."""


@command.command()
@click.option("--device", type=click.Choice(_CARDS), default="a100", show_default=True)
@click.option("--gpu-hours", type=float, help="Device-hours of the run; or:")
@click.option("--params", "parameters", type=float, help="Parameters (7e9), with --tokens.")
@click.option("--tokens", type=float, help="Training tokens (1e12).")
@click.option("--watts", type=float, help="Power per card (default: board power, with a range).")
@click.option(
    "--development",
    metavar="NUMBER|published",
    help="Multiply by all experiments; published = LLaMA's 3.39.",
)
@_placed
def training(
    *, place: Place, device: str, watts: float | None, development: str | None, **size: float | None
) -> None:
    """Training, from GPU-hours x power, or from parameters x tokens."""
    if watts is not None:
        place = replace(place, overrides={**place.overrides, f"power.{device}": watts})
    multiplier = _development(development)

    def make(factors: FactorSet) -> Estimate:
        return estimate_training(factors, device=device, development=multiplier, **size)

    _answer(place, make)


def _development(text: str | None) -> Any:
    if text is None or text == "published":
        return text
    try:
        return float(text)
    except ValueError as exc:
        raise ConfigError(f"--development must be a number or 'published', got {text!r}") from exc


@command.command()
@click.option("--device", type=click.Choice([*_CARDS, "laptop"]), default="h100", show_default=True)
@click.option("--params", "parameters", type=float, required=True, help="Parameters (7e9).")
@click.option("--active", type=float, help="Active parameters of a mixture of experts.")
@click.option("--bits", type=float, default=16, show_default=True, help="Bits per weight.")
@click.option("--batch", type=float, help="Sequences at once (default: 64; laptop: 1).")
@click.option("--tokens-in", type=click.IntRange(0), default=0, help="Prompt tokens, cached too.")
@click.option("--tokens-cached", type=click.IntRange(0), default=0, help="Those from a cache.")
@click.option("--tokens-out", type=click.IntRange(0), default=0, help="Generated tokens.")
@click.option("--requests", type=float, default=1, show_default=True, help="How many of these.")
@_placed
def inference(
    *,
    place: Place,
    device: str,
    batch: float | None,
    tokens_in: int,
    tokens_cached: int,
    tokens_out: int,
    requests: float,
    **size: Any,
) -> None:
    """Requests to a model elsewhere, from tokens in, cached and out."""
    if tokens_cached > tokens_in:
        raise ConfigError("--tokens-cached is a part of --tokens-in, so it cannot exceed it")
    local = device == "laptop"
    model = ServedModel(batch=batch or (1.0 if local else 64.0), **size)
    usage = Usage(prompt=tokens_in, cached=tokens_cached, completion=tokens_out)

    def make(factors: FactorSet) -> Estimate:
        return estimate_inference(factors, usage, model, device=device, requests=requests)

    _answer(place, make, site="device" if local else None, published=True)


@command.command()
@click.option("--servers", type=float, required=True, help="Servers that run.")
@click.option("--kilowatts", type=float, required=True, help="Power of each, kW.")
@click.option("--hours", type=float, default=24, show_default=True, help="Over how long.")
@click.option("--queries", type=float, required=True, help="Queries answered meanwhile.")
@click.option("--cards", type=float, default=8, show_default=True, help="Accelerators per server.")
@_placed
def query(*, place: Place, kilowatts: float, **fleet: float) -> None:
    """One query, as servers x power x hours / queries."""

    def make(factors: FactorSet) -> Estimate:
        return estimate_query(factors, server_watts=kilowatts * 1000, **fleet)

    _answer(place, make, published=True)


def _answer(
    place: Place,
    make: Callable[[FactorSet], Estimate],
    *,
    site: str | None = None,
    published: bool = False,
) -> None:
    sets = [place.factors(region, site) for region in dict.fromkeys(place.regions)]
    estimate = make(sets[0])
    rows = [_row(place, estimate, factors) for factors in sets]
    if place.as_json:
        console.emit_json(document(estimate, rows))
    else:
        show(estimate, rows, published=published)


def _row(place: Place, estimate: Estimate, factors: FactorSet) -> Row:
    m, device, count = estimate.measurement, estimate.device, estimate.count
    spreads = uncertainty(m, factors, device=device, count=count)
    cost: Priced | None = None
    if place.rate is not None:
        rate = Interval.exact(place.rate)
        cost = (
            m.wall_s if isinstance(m.wall_s, Missing) else machine_cost(m.wall_s.value, rate, count)
        )
    return Row(
        factors=factors,
        footprint=price(m, factors, device=device, count=count),
        hardware_cost=cost,
        spreads=() if isinstance(spreads, Missing) else spreads,
    )
