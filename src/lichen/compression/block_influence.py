"""Which layers a model can do without: those that change the hidden state least.

*Block influence* of a layer is ``1 - mean cosine(input, output)`` over positions (ShortGPT, arXiv
2403.03853, equation 1). Removing layers in that order is the cheap prediction; what it costs is
measured by ``layer_curve``. Influence is measured together with importance, in one run.
"""

from __future__ import annotations

from collections.abc import Sequence

from lichen.core.errors import ConfigError


def least_influential(influence: Sequence[float], count: int) -> tuple[int, ...]:
    """Return the ``count`` layers that change the hidden state least, by number.

    Influence is rounded to three digits: differences below are noise of the texts, and of equal
    layers the later one goes, whose errors have fewer layers after them to grow in.

    Raises:
        ConfigError: fewer than one layer would be left.
    """
    layers = len(influence)
    if not 0 <= count < layers:
        raise ConfigError(f"{count} of {layers} layers cannot be dropped: at least one has to stay")
    order = sorted(range(layers), key=lambda i: (round(influence[i], 3), -i))
    return tuple(sorted(order[:count]))
