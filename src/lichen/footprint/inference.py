"""Estimate a request that runs elsewhere: tokens in, cached and out, on a model of known size.

Two models, both with a term for the prompt, which dominates code work and which per-output-token
estimates leave out:

``curve`` (H100, bf16, continuous batching), re-derived from the constants that EcoLogits 0.11.3
fitted on ML.ENERGY measurements::

    e_out  = cards x (A exp(-B batch) P_active + C)          Wh per output token and card
    t_out  = a P_active + b batch + c                        s per output token
    e_out += server power x cards / 8 / batch x t_out
    e_in   = r_in x e_out,   e_cache = r_cache x e_in

``roofline`` (any other device, any batch)::

    t_out  = max(2 P / (peak x MFU), bytes(P) / (bandwidth x batch))
    t_in   = 2 P / (peak x MFU),   t_cache = r_cache x t_in
    e      = board power x t

Neither knows the serving system; the ranges are wide on purpose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from lichen.core.errors import ConfigError
from lichen.core.footprint import Factor, FactorSet
from lichen.core.interval import Interval
from lichen.core.measurement import Component, Measurement, Usage
from lichen.core.units import J_PER_WH
from lichen.footprint.estimates import Estimate, modelled, positive

# EcoLogits 0.11.3, impacts/llm.py: fits of energy and latency per output token, P in 1e9.
_A: Final = 1.1665273170451914e-06  # Wh per token and 1e9 active parameters
_B: Final = 0.011205921025579175  # per unit of batch size
_C: Final = 4.052928146734005e-05  # Wh per token
_LATENCY_A: Final = 0.0006785088094353663  # s per token and 1e9 active parameters
_LATENCY_B: Final = 0.0003119310311688259  # s per token and unit of batch size
_LATENCY_C: Final = 0.019473717579473387  # s per token
_CARD_GB: Final = 80.0  # H100 80 GB, the card of the fit
_MEMORY_MARGIN: Final = 1.2  # EcoLogits 0.11.3: weights plus 20 % for the KV cache
_CARDS_PER_SERVER: Final = 8  # EcoLogits 0.11.3
_CURVE_BATCHES: Final = (8, 512)  # outside, the exponential is an extrapolation
_CURVE_DEVICE: Final = "h100"
_FLOP_PER_PARAMETER: Final = 2.0  # one multiply-add per weight and token


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model as it is served.

    Args:
        parameters: all of them.
        active: those used per token (mixture of experts); None for all.
        bits: per weight, 16 for bf16, 4.5 for a typical 4-bit GGUF.
        batch: sequences decoded together.
    """

    parameters: float
    active: float | None = None
    bits: float = 16.0
    batch: float = 64.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        positive(parameters=self.parameters, active=self.active, bits=self.bits, batch=self.batch)
        if self.active is not None and self.active > self.parameters:
            raise ConfigError("a model cannot have more active parameters than parameters")

    @property
    def used(self) -> float:
        """Parameters used per token."""
        return self.parameters if self.active is None else self.active


@dataclass(frozen=True, slots=True, kw_only=True)
class _PerToken:
    """Energy (J) and device time (s) of a token of each kind, and the factors that made them."""

    out_j: Interval
    in_j: Interval
    cache_j: Interval
    out_s: Interval
    in_s: Interval
    cards: float
    equation: str
    factors: tuple[Factor, ...]


def curve_energy_j(model: ServedModel) -> float:
    """Energy of the cards per output token by the fitted curve, J, all cards together."""
    per_card = _A * math.exp(-_B * model.batch) * model.used / 1e9 + _C
    return per_card * J_PER_WH * curve_cards(model)


def curve_cards(model: ServedModel) -> int:
    """Number of 80 GB cards that hold the model, rounded up to a power of two."""
    gigabytes = _MEMORY_MARGIN * model.parameters * model.bits / 8 / 1e9
    return 1 << (math.ceil(gigabytes / _CARD_GB) - 1).bit_length()


def estimate_inference(
    factors: FactorSet,
    usage: Usage,
    model: ServedModel,
    *,
    device: str = _CURVE_DEVICE,
    requests: float = 1,
) -> Estimate:
    """Model the energy of requests with this many tokens each.

    Args:
        factors: from ``factor_set``; every ``inference.*`` factor can be overridden there.
        usage: tokens of one request; ``cached`` is the part of the prompt read from a cache.
        model: what is served, and in what batch.
        device: ``h100`` takes the curve; a device with ``power.*``, ``peak_flops.*`` and
            ``bandwidth.*`` factors takes the roofline.
        requests: how many such requests, > 0.

    Raises:
        UnknownNameError: no such device.
        ConfigError: a number is not usable, or the batch is outside the curve's range.
    """
    positive(requests=requests)
    if usage.prompt + usage.completion == 0:
        raise ConfigError("an inference estimate needs at least one token in or out")
    per = _curve(factors, model) if device == _CURVE_DEVICE else _roofline(factors, model, device)
    energy = (
        per.out_j * usage.completion + per.in_j * usage.prefilled + per.cache_j * usage.cached
    ) * requests
    wall_s = (per.out_s * usage.completion + per.in_s * usage.prefilled) * requests
    window = modelled(
        energy_j=energy,
        wall_s=wall_s,
        component=Component.SYSTEM if device == "laptop" else Component.GPU,
        source=per.equation,
        flop=_FLOP_PER_PARAMETER * model.used * (usage.completion + usage.prefilled) * requests,
    )
    window = Measurement(
        wall_s=window.wall_s, energy_j=window.energy_j, flop=window.flop, usage=usage
    )
    return Estimate(
        what=f"inference on {device}",
        measurement=window,
        boundary=(
            "prompt, cached prompt and output tokens on busy hardware, PUE on top; no idle "
            "capacity, network, user device, retries, or training"
        ),
        equation=per.equation,
        inputs=(
            ("device", device),
            ("parameters", f"{model.parameters:,.0f} ({model.used:,.0f} active)"),
            ("bits per weight", f"{model.bits:g}"),
            ("batch", f"{model.batch:g}"),
            (
                "tokens",
                f"{usage.prefilled:,} in, {usage.cached:,} cached, {usage.completion:,} out",
            ),
            ("requests", f"{requests:,.0f}"),
        ),
        device=device if device == "laptop" else f"{device}+gpu host",
        count=per.cards,
        factors=per.factors,
    )


def _curve(factors: FactorSet, model: ServedModel) -> _PerToken:
    if not _CURVE_BATCHES[0] <= model.batch <= _CURVE_BATCHES[1]:
        raise ConfigError(
            f"the H100 curve was fitted for batches of about 64 and is refused outside "
            f"{_CURVE_BATCHES[0]} to {_CURVE_BATCHES[1]} (got {model.batch:g}); "
            "other devices use a roofline that holds for any batch"
        )
    names = ("curve_error", "input_ratio", "cache_ratio", "server_power")
    error, r_in, r_cache, server = (factors[f"inference.{n}"] for n in names)
    cards = curve_cards(model)
    seconds = _LATENCY_A * model.used / 1e9 + _LATENCY_B * model.batch + _LATENCY_C
    host = server.value * (cards / _CARDS_PER_SERVER / model.batch * seconds)
    out_j = curve_energy_j(model) * error.value + host
    in_j = out_j * r_in.value
    return _PerToken(
        out_j=out_j,
        in_j=in_j,
        cache_j=in_j * r_cache.value,
        out_s=Interval.exact(seconds),
        in_s=r_in.value * seconds,
        cards=cards / model.batch,
        equation="cards x (A exp(-B batch) P + C) + server share per token out; inputs by ratio",
        factors=(error, r_in, r_cache, server),
    )


def _roofline(factors: FactorSet, model: ServedModel, device: str) -> _PerToken:
    power, peak, bandwidth = (
        factors[f"{family}.{device}"] for family in ("power", "peak_flops", "bandwidth")
    )
    mfu, r_cache = factors["inference.prefill_mfu"], factors["inference.cache_ratio"]
    compute_s = _FLOP_PER_PARAMETER * model.used / (peak.value * mfu.value)
    weights_s = model.used * model.bits / 8 / (bandwidth.value * model.batch)
    out_s = Interval(
        low=max(compute_s.low, weights_s.low),
        value=max(compute_s.value, weights_s.value),
        high=max(compute_s.high, weights_s.high),
    )
    in_j = compute_s * power.value
    return _PerToken(
        out_j=out_s * power.value,
        in_j=in_j,
        cache_j=in_j * r_cache.value,
        out_s=out_s,
        in_s=compute_s,
        cards=1.0,
        equation="power x max(2 P / (peak x MFU), bytes / (bandwidth x batch)) per token out",
        factors=(power, peak, bandwidth, mfu, r_cache),
    )
