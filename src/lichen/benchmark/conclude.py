"""One plain sentence per comparison: what the numbers allow one to say, and no more.

The rule (DESIGN: truthfulness): "B uses less than A" only if the interval of the cost ratio per
attempt excludes 1 *and* quality is not worse by the margin that was set before the run.
"""

from __future__ import annotations

from lichen.core.interval import Interval
from lichen.core.summary import Claim, Comparison, CostRatio, Dimension

_NOUN = {Dimension.ENERGY: "energy", Dimension.CPU_TIME: "CPU time"}


def conclusion(c: Comparison, headline: Dimension | None, *, confidence: float) -> str:
    """Write the conclusion of a comparison whose ``conclusion`` is still empty.

    Args:
        c: the comparison.
        headline: the dimension that stands for cost, None if no cost is known.
        confidence: of the intervals, for the words.
    """
    quality = _quality(c)
    if headline is None:
        return f"Neither energy nor CPU time is known for both {c.a} and {c.b}; {quality}."
    ratio = next(r for r in c.ratios if r.dimension is headline)
    noun = _NOUN[headline]
    found = _found(ratio, confidence)
    if ratio.claim is Claim.NOT_COMPARABLE:
        why = (
            "were measured in one window each, whose noise cannot be known"
            if c.interleaved
            else "were not run interleaved, so the machine may have differed"
        )
        return f"{c.a} and {c.b} {why}: no claim about {noun} is made ({found}); {quality}."
    if ratio.claim is Claim.NO_DIFFERENCE:
        return (
            f"No difference in {noun} per attempt between {c.b} and {c.a} is shown ({found}); "
            f"{quality}."
        )
    amount = f"{_change(ratio)} {noun} per attempt than {c.a} ({found})"
    if ratio.claim is Claim.LESS and not c.non_inferior:
        return f"{c.b} takes {amount}, but this is no saving yet: {quality}."
    return f"{c.b} uses {amount}, and {quality}."


def _quality(c: Comparison) -> str:
    d = c.quality_difference
    points = f"{_points(d.value)} points, {_points(d.low)} to {_points(d.high)}"
    limit = f"{100 * c.margin:.3g} points"
    if d.low > 0:
        return f"its quality is higher ({points})"
    if c.non_inferior:
        return f"its quality is not worse by more than {limit} ({points})"
    if d.high < -c.margin:
        return f"its quality is worse by more than {limit} ({points})"
    if d.high < 0:
        return f"its quality is worse ({points})"
    return f"a loss of quality of more than {limit} is not excluded ({points})"


def _found(ratio: CostRatio, confidence: float) -> str:
    r = ratio.per_attempt
    if not isinstance(r, Interval):
        return "no ratio"
    return f"ratio {r.value:.3g}, {100 * confidence:.3g} % interval {r.low:.3g} to {r.high:.3g}"


def _change(ratio: CostRatio) -> str:
    r = ratio.per_attempt
    value = r.value if isinstance(r, Interval) else 1.0
    percent = 100 * abs(value - 1)
    amount = f"{percent:.2g}" if percent < 10 else f"{percent:.0f}"  # noqa: PLR2004 (two digits)
    return f"{amount} % {'less' if value < 1 else 'more'}"


def _points(x: float) -> str:
    return f"{100 * x:+.1f}"
