"""The codes inside llama.cpp's block types: what each may stand for, and how they are packed.

A block keeps a scale (and, in some types, an offset) and a small code per weight; the weight is
``offset + scale * level[code]``. Layouts are those of ggml/src/ggml-common.h (``block_q4_0``,
``block_iq4_nl``, ``block_q5_0``, ``block_q4_K``); every type is tested against the ``gguf``
package's own reading of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from lichen.compression.method import Floats, Raw

_NON_LINEAR: Final = (
    *(-127, -104, -83, -65, -49, -35, -22, -10),
    *(1, 13, 25, 38, 53, 69, 89, 113),
)
"""``kvalues_iq4nl`` in ggml/src/ggml-common.h."""
_SUB_BLOCK: Final = 32
"""Weights that share a scale, in all types here."""
_SCALES_Q4_K: Final = slice(4, 16)


@dataclass(frozen=True, slots=True)
class Steps:
    """What the codes of one block per row may stand for.

    Args:
        scale: (rows, sub-blocks).
        offset: (rows, sub-blocks).
        levels: (codes,), ascending.
    """

    scale: Floats
    offset: Floats
    levels: Floats

    def nearest(self, values: Floats, column: int) -> tuple[Raw, Floats]:
        """Return the codes nearest to ``values`` (rows,) of a column, and what they stand for."""
        scale, offset = self.scale[:, column // _SUB_BLOCK], self.offset[:, column // _SUB_BLOCK]
        known = scale != 0
        wanted = np.divide(values - offset, scale, out=np.zeros_like(values), where=known)
        between = (self.levels[1:] + self.levels[:-1]) / 2
        codes = np.searchsorted(between, wanted).astype(np.uint8)
        return codes, offset + scale * self.levels[codes]


@dataclass(frozen=True, slots=True)
class BlockCodes:
    """How to read and write the codes of a type.

    Args:
        levels: what the codes stand for before scaling, ascending.
        scales: stored blocks (rows, bytes) of one block per row -> scale and offset.
        pack: writes codes (rows, block) into stored blocks, in place.
    """

    levels: tuple[float, ...]
    scales: Callable[[Raw], tuple[Floats, Floats]]
    pack: Callable[[Raw, Raw], None]

    def steps(self, stored: Raw) -> Steps:
        """Return what the codes of one stored block per row may stand for."""
        scale, offset = self.scales(stored)
        return Steps(scale, offset, np.array(self.levels, np.float32))

    def with_codes(self, stored: Raw, codes: Raw) -> Raw:
        """Return the blocks with other codes under the same scales."""
        changed = stored.copy()
        self.pack(changed, codes)
        return changed


def _half(stored: Raw, at: int) -> Floats:
    """Read a half-precision number at a byte of every row: (rows, 1)."""
    return np.ascontiguousarray(stored[:, at : at + 2]).view("<f2").astype(np.float32)


def _one_scale(stored: Raw) -> tuple[Floats, Floats]:
    scale = _half(stored, 0)
    return scale, np.zeros_like(scale)


def _nibbles(codes: Raw) -> Raw:
    """Pack 32 codes of 4 bits: the first half low, the second half high."""
    packed: Raw = np.bitwise_or(codes[:, :16] & 15, codes[:, 16:] << 4).astype(np.uint8)
    return packed


def _pack_4_bit(stored: Raw, codes: Raw) -> None:
    stored[:, 2:18] = _nibbles(codes)


def _pack_5_bit(stored: Raw, codes: Raw) -> None:
    stored[:, 2:6] = np.packbits(codes >> 4, axis=1, bitorder="little")
    stored[:, 6:22] = _nibbles(codes)


def _q4_k_scales(stored: Raw) -> tuple[Floats, Floats]:
    """Unpack 8 scales and 8 minima of 6 bits (``get_scale_min_k4`` in ggml/src/ggml-quants.c)."""
    packed = stored[:, _SCALES_Q4_K].reshape(-1, 3, 4)
    scales, minima, high = packed[:, 0], packed[:, 1], packed[:, 2]
    scale = np.concatenate([scales & 63, (high & 15) | ((scales >> 2) & 48)], axis=1)
    minimum = np.concatenate([minima & 63, (high >> 4) | ((minima >> 2) & 48)], axis=1)
    return _half(stored, 0) * scale, -_half(stored, 2) * minimum


def _pack_q4_k(stored: Raw, codes: Raw) -> None:
    pairs = codes.reshape(-1, 4, 2, 32)
    stored[:, 16:] = (pairs[:, :, 0] | (pairs[:, :, 1] << 4)).reshape(-1, 128)


def _whole(first: int, last: int) -> tuple[float, ...]:
    return tuple(map(float, range(first, last + 1)))


CODED: Final[dict[str, BlockCodes]] = {
    "IQ4_NL": BlockCodes(tuple(map(float, _NON_LINEAR)), _one_scale, _pack_4_bit),
    "Q4_0": BlockCodes(_whole(-8, 7), _one_scale, _pack_4_bit),
    "Q5_0": BlockCodes(_whole(-16, 15), _one_scale, _pack_5_bit),
    "Q4_K": BlockCodes(_whole(0, 15), _q4_k_scales, _pack_q4_k),
}
"""Types whose codes can be chosen here: those with fast kernels on common CPUs, and Q5_0."""
