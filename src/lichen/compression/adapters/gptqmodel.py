"""GPTQModel (ModelCloud, Apache-2.0): GPTQ with activation order and group scales.

Output: a folder in the GPTQ format, which transformers (with the package), vLLM and SGLang load.

Method: Frantar et al. 2022, arXiv 2210.17323.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lichen.compression.adapters.external_tool import Adapter, Tool
from lichen.engines.options import read_options

_BITS: Final = (2, 3, 4, 8)
_GROUPS: Final = (-1, 16, 32, 64, 128, 256, 512, 1024)
"""What GPTQModel accepts; -1 is one group per row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GptqModelOptions:
    """How to compress.

    Args:
        python: interpreter of the environment that has ``gptqmodel``.
        bits: per weight: 2, 3, 4 or 8.
        group_size: weights that share a scale; -1 for a whole row.
        desc_act: quantise channels in the order of their activation.
        sym: symmetric ranges.
        batch: calibration texts computed together.
        samples: calibration texts.
        timeout_s: after which the tool is ended.
    """

    python: str
    bits: int = 4
    group_size: int = 128
    desc_act: bool = False
    sym: bool = True
    batch: int = 1
    samples: int = 256
    timeout_s: float = 7200.0

    def __post_init__(self) -> None:
        """Check ranges."""
        for name, choices in (("bits", _BITS), ("group_size", _GROUPS)):
            if getattr(self, name) not in choices:
                shown = ", ".join(map(str, choices))
                msg = f"{name} must be one of {shown}, got {getattr(self, name)}"
                raise ValueError(msg)
        if self.batch < 1 or self.samples < 1 or not self.timeout_s > 0:
            msg = "batch, samples and timeout_s are at least 1"
            raise ValueError(msg)


def make(options: Mapping[str, object]) -> Adapter:
    """Return the adapter.

    Raises:
        ConfigError: an option that does not exist or cannot be used.
    """
    chosen = read_options(GptqModelOptions, options, who="compression tool gptqmodel")
    return Adapter(
        tool=Tool(
            name="GPTQModel",
            package="gptqmodel",
            key="gptqmodel",
            python=chosen.python,
            timeout_s=chosen.timeout_s,
        ),
        settings={
            "bits": chosen.bits,
            "group_size": chosen.group_size,
            "desc_act": chosen.desc_act,
            "sym": chosen.sym,
            "batch": chosen.batch,
        },
        samples=chosen.samples,
    )
