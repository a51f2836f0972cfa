"""Messages between the process that asks and the process that runs native code.

A message is one line of JSON and, after it, the raw bytes of the arrays it announces. Both ends are
lichen on the same machine, so this is a transport and no format: it has no version.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def send(stream: IO[bytes], message: Mapping[str, object], arrays: Sequence[Array] = ()) -> None:
    """Write a message with its arrays and flush. A broken pipe raises OSError."""
    announced = [[a.dtype.str, list(a.shape)] for a in arrays]
    stream.write(json.dumps({**message, "arrays": announced}).encode() + b"\n")
    stream.writelines(
        np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in arrays
    )
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], list[Array]]:
    """Read the next message and its arrays.

    Raises:
        EOFError: the other end is gone.
    """
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    message = json.loads(line)
    arrays = [_array(stream, np.dtype(kind), shape) for kind, shape in message.pop("arrays")]
    return message, arrays


def _array(stream: IO[bytes], dtype: np.dtype[Any], shape: Sequence[int]) -> Array:
    raw = bytearray(math.prod(shape) * dtype.itemsize)
    rest = memoryview(raw)
    while rest:
        count = stream.readinto(rest)  # type: ignore[attr-defined]  # buffered binary streams have it
        if not count:
            raise EOFError
        rest = rest[count:]
    return np.ndarray(shape, dtype, raw)
