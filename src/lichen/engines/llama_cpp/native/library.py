"""Find the shared object of the installed llama.cpp and check what it exports.

xllamacpp links llama.cpp into its extension module, and the linker exports llama.cpp's C functions
with it. That is a by-product, not an interface: whoever uses a function names it to ``library``,
which fails with one clear sentence where it is missing.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from lichen.core.errors import EngineError, MissingDependencyError

_PACKAGE: Final = "xllamacpp"


def library_path(purpose: str = "this") -> Path:
    """Return the shared object that has llama.cpp in it. Imports nothing.

    Raises:
        MissingDependencyError: xllamacpp is not installed; the sentence names ``purpose``.
        EngineError: it is installed, but has no shared object.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    places = None if spec is None else spec.submodule_search_locations
    if not places:
        raise MissingDependencyError.for_extra(_PACKAGE, "llama", purpose)
    found = [p for place in places for p in sorted(Path(place).glob("*.so"))]
    if not found:
        raise EngineError(
            f"{_described()} has no shared object where one is expected: install it again"
        )
    return found[0]


def library(*functions: str, purpose: str = "this") -> ctypes.CDLL:
    """Return llama.cpp, with all of ``functions`` present. Signatures are the caller's to set.

    Raises:
        MissingDependencyError: xllamacpp is not installed.
        EngineError: it cannot be loaded, or does not export a function; the sentence names
            ``purpose``.
    """
    path = library_path(purpose)
    try:
        loaded = _load(path)
    except OSError as exc:
        raise EngineError(f"llama.cpp cannot be loaded from {str(path)!r}: {exc}") from exc
    lacking = [name for name in functions if not hasattr(loaded, name)]
    if lacking:
        raise EngineError(
            f"{_described()} does not export {', '.join(lacking)}, which {purpose} needs: "
            "install another version"
        )
    return loaded


def cpu_features() -> frozenset[str]:
    """Return which vector instructions llama.cpp's kernels use on this CPU, e.g. ``{"avx2"}``.

    Empty where llama.cpp is not installed or does not say.
    """
    try:
        loaded = library()
    except (MissingDependencyError, EngineError):
        return frozenset()
    asked = {name: getattr(loaded, f"ggml_cpu_has_{name}", None) for name in _FEATURES}
    return frozenset(name for name, has in asked.items() if has is not None and has())


_FEATURES: Final = ("avx2", "avx512", "neon", "dotprod", "matmul_int8")
"""Those that choose kernels in ggml/src/ggml-cpu/repack.cpp."""


@cache
def _load(path: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(path))


def _described() -> str:
    try:
        return f"the installed {_PACKAGE} {version(_PACKAGE)}"
    except PackageNotFoundError:
        return f"the installed {_PACKAGE}"
