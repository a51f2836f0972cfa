"""Estimate what was not run here: training a model, and a fleet's energy per query.

An estimate is a ``Measurement`` whose readings are *modelled*, so it is priced like any other,
plus the words that a modelled number needs: the boundary (what is counted and what is not), the
equation with its inputs, and the factors that entered. Inference has its own module.

Sources: LLaMA, arXiv 2302.13971 table 15 (GPU-hours x power x PUE); 6 N D training FLOP, Kaplan et
al., arXiv 2001.08361; servers x power / queries, de Vries, Joule 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from lichen.core.errors import ConfigError
from lichen.core.footprint import Factor, FactorSet
from lichen.core.interval import Interval
from lichen.core.measurement import Component, Measurement, Method, Reading
from lichen.core.units import S_PER_HOUR

FLOP_PER_PARAMETER_TOKEN: Final = 6.0
"""Training FLOP per parameter and token: 2 forward, 4 backward (Kaplan et al. 2020, table 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A modelled window with what one must know to judge it.

    ``device`` and ``count`` are what ``price`` should charge embodied carbon for. ``factors`` are
    those that entered before pricing (power, utilisation ...).
    """

    what: str
    measurement: Measurement
    boundary: str
    equation: str
    inputs: tuple[tuple[str, str], ...]
    device: str
    count: float
    factors: tuple[Factor, ...] = ()


def modelled(
    *, energy_j: Interval, wall_s: Interval, component: Component, source: str, flop: float | None
) -> Measurement:
    """Wrap modelled numbers in a measurement, each reading marked as modelled."""

    def reading(value: Interval, part: Component) -> Reading:
        return Reading(value=value, method=Method.MODELLED, component=part, source=source)

    base = Measurement(
        wall_s=reading(wall_s, Component.PROCESS), energy_j=(reading(energy_j, component),)
    )
    if flop is None:
        return base
    return Measurement(
        wall_s=base.wall_s,
        energy_j=base.energy_j,
        flop=reading(Interval.exact(flop), Component.PROCESS),
    )


def positive(**numbers: float | None) -> None:
    """Raise ConfigError unless every number given is above 0 and finite."""
    for name, number in numbers.items():
        if number is not None and not 0 < number < float("inf"):
            raise ConfigError(f"{name.replace('_', ' ')} must be above 0, got {number:g}")


def training_gpu_hours(
    factors: FactorSet, *, parameters: float, tokens: float, device: str
) -> Interval:
    """Device-hours of dense training: 6 x parameters x tokens / (peak FLOP/s x MFU) / 3600."""
    positive(parameters=parameters, tokens=tokens)
    peak, mfu = factors[f"peak_flops.{device}"].value, factors["training.mfu"].value
    return FLOP_PER_PARAMETER_TOKEN * parameters * tokens / (peak * mfu) / S_PER_HOUR


def estimate_training(
    factors: FactorSet,
    *,
    device: str,
    gpu_hours: float | None = None,
    parameters: float | None = None,
    tokens: float | None = None,
    development: float | Literal["published"] | None = None,
) -> Estimate:
    """Model the energy of training from device-hours, or from parameters and tokens.

    Args:
        factors: from ``factor_set``; give ``power.<device>`` or ``training.mfu`` as an override
            to use your own.
        device: one of the cards that have ``power.*`` and ``peak_flops.*`` factors.
        gpu_hours: device-hours of the run; give this, or both of the next two.
        parameters: size of the model.
        tokens: training tokens; with ``parameters`` turned into device-hours.
        development: multiply by all the experiments around the final run: ``published`` takes
            the factor ``training.development``, a number >= 1 is used as it is.

    Raises:
        ConfigError: neither or both ways are given, or a number is not above 0.
        UnknownNameError: no such device.
    """
    by_size = parameters is not None and tokens is not None
    if (gpu_hours is None) != by_size or ((parameters is None) != (tokens is None)):
        raise ConfigError("training needs either GPU-hours, or parameters and tokens")
    positive(gpu_hours=gpu_hours)
    power = factors[f"power.{device}"]
    used, flop = [power], None
    if parameters is not None and tokens is not None:
        hours = training_gpu_hours(factors, parameters=parameters, tokens=tokens, device=device)
        used += [factors[f"peak_flops.{device}"], factors["training.mfu"]]
        flop = FLOP_PER_PARAMETER_TOKEN * parameters * tokens
        inputs = [("parameters", f"{parameters:,.0f}"), ("training tokens", f"{tokens:,.0f}")]
        equation = "6 x parameters x tokens / (peak x MFU) x power"
    else:
        hours = Interval.exact(gpu_hours or 0.0)
        inputs = [("GPU-hours", f"{gpu_hours:,.0f}")]
        equation = "GPU-hours x power"
    scope = "the final run only, without the experiments before it"
    if development is not None:
        factor, scope = _development(factors, development)
        used.append(factor)
        hours = hours * factor.value
        flop = None if flop is None else flop * factor.value.value
        equation += " x development"
        inputs.append(("development multiplier", f"{factor.value.value:g}"))
    wall_s = hours * S_PER_HOUR
    return Estimate(
        what=f"training on {device}",
        measurement=modelled(
            energy_j=wall_s * power.value,
            wall_s=wall_s,
            component=Component.GPU,
            source=equation,
            flop=flop,
        ),
        boundary=(
            f"{scope}; accelerators at board power, PUE on top; no host CPUs, network, storage, "
            "data preparation or evaluation"
        ),
        equation=equation,
        inputs=(("device", device), *inputs),
        device=f"{device}+gpu host",
        count=1.0,
        factors=tuple(used),
    )


def _development(factors: FactorSet, wanted: float | str) -> tuple[Factor, str]:
    published = factors["training.development"]
    if isinstance(wanted, str):
        return published, "final run and all development, by LLaMA's published ratio"
    if not 1 <= wanted < float("inf"):
        raise ConfigError(f"a development multiplier is at least 1, got {wanted:g}")
    given = Factor(
        name=published.name,
        value=Interval.exact(float(wanted)),
        unit="1",
        year=0,
        source="given by the user",
        licence="none",
    )
    return given, f"final run and development, as {wanted:g} times the final run"


def estimate_query(
    factors: FactorSet,
    *,
    servers: float,
    server_watts: float,
    hours: float,
    queries: float,
    cards: float = 8,
) -> Estimate:
    """Model the energy of one query as a fleet's power times hours, over the queries it answered.

    Args:
        factors: kept for its embodied factors at pricing; none enters here.
        servers: how many run.
        server_watts: power of each in W.
        hours: over which ``queries`` were answered.
        queries: how many.
        cards: accelerators per server, for the embodied share.

    Raises:
        ConfigError: a number is not above 0.
    """
    del factors
    positive(servers=servers, server_watts=server_watts, hours=hours, queries=queries, cards=cards)
    wall_s = Interval.exact(hours * S_PER_HOUR)
    equation = "servers x power x hours / queries"
    return Estimate(
        what="one query",
        measurement=modelled(
            energy_j=wall_s * (servers * server_watts / queries),
            wall_s=wall_s,
            component=Component.SYSTEM,
            source=equation,
            flop=None,
        ),
        boundary=(
            "whole servers at the power given, idle time included, PUE on top; no network, no user "
            "device, no training; one number for short and long queries alike"
        ),
        equation=equation,
        inputs=(
            ("servers", f"{servers:,.0f}"),
            ("power per server", f"{server_watts:,.0f} W"),
            ("hours", f"{hours:g}"),
            ("queries", f"{queries:,.0f}"),
        ),
        device="gpu+gpu host",
        count=servers * cards / queries,
    )
