"""Check: do parent and child expect the same next token on code that neither step has seen?

``KL(p || q) = sum_t p_t log(p_t / q_t)`` per position, averaged; the share of positions whose most
likely token changed ("flips", Dutta et al. 2024, arXiv 2407.09141: accuracy can stay while answers
change); perplexity. The measuring itself is a port. This is what prices quantisation, dropped
layers and whatever else leaves the file in order and the model worse.
"""

from __future__ import annotations

from typing import Final

from lichen.compression.gate.report import Check
from lichen.compression.gate.subject import Subject, not_run
from lichen.core.measurement import Missing

NAME: Final = "agreement"


def check(subject: Subject) -> Check:
    """Judge KL divergence, flips and the ratio of perplexities."""
    measure, limits = subject.ports.agreement, subject.thresholds
    if isinstance(measure, Missing):
        return not_run(NAME, measure.reason)
    found = measure(subject.parent, subject.child)
    ratio = found.child_perplexity / found.parent_perplexity
    missed = []
    if limits.above(found.kl_nats, limits.kl_nats):
        missed.append(f"KL above {limits.kl_nats:g}")
    if limits.above(found.flips, limits.flips):
        missed.append(f"flips above {limits.flips:.0%}")
    if not ratio <= limits.perplexity_ratio:  # NaN fails too
        missed.append(f"perplexity above {limits.perplexity_ratio:g} times the parent's")
    what = (
        f"KL {found.kl_nats.value:.4f} nats ({found.kl_nats.low:.4f} to {found.kl_nats.high:.4f}), "
        f"{found.flips.value:.1%} flips, perplexity {found.parent_perplexity:.3f} -> "
        f"{found.child_perplexity:.3f} over {found.tokens:,} tokens"
    )
    what += f"; {found.note}" if found.note else ""
    return Check(
        name=NAME,
        passed=not missed,
        what="; ".join([what, *missed]),
        numbers={
            "kl_nats": found.kl_nats.value,
            "kl_nats_low": found.kl_nats.low,
            "kl_nats_high": found.kl_nats.high,
            "flips": found.flips.value,
            "perplexity_ratio": ratio,
            "tokens": found.tokens,
        },
    )
