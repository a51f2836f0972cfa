"""Where lichen keeps things, from the environment. Precedence: argument > environment > default.

============== ===============================================================================
LICHEN_CACHE   directory of fetched models and data sets
LICHEN_MIRROR  directories (separated like PATH) that hold pinned files under any name
LICHEN_OFFLINE 1, true, yes or on: never use the network
LICHEN_STORE   SQLAlchemy URL of the run store
LICHEN_REGION  grid that runs are priced for (ISO 3166-1 alpha-3 or WORLD)
============== ===============================================================================
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from lichen.core.errors import ConfigError

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"", "0", "false", "no", "off"}


def cache_dir(env: Mapping[str, str] | None = None) -> Path:
    """Return the directory of fetched files; it need not exist yet."""
    value = _env(env).get("LICHEN_CACHE")
    return Path(value).expanduser() if value else platformdirs.user_cache_path("lichen")


def mirror_dirs(env: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """Return the local mirror directories, in order."""
    value = _env(env).get("LICHEN_MIRROR", "")
    return tuple(Path(p).expanduser() for p in value.split(os.pathsep) if p)


def offline(env: Mapping[str, str] | None = None) -> bool:
    """Whether the network may not be used; raises ConfigError for an unclear value."""
    value = _env(env).get("LICHEN_OFFLINE", "").strip().lower()
    if value in _TRUE | _FALSE:
        return value in _TRUE
    msg = f"LICHEN_OFFLINE is {value!r}; set it to 1 or 0"
    raise ConfigError(msg)


def store_url(env: Mapping[str, str] | None = None) -> str:
    """Return the run store's URL; SQLite in the user's data directory by default."""
    value = _env(env).get("LICHEN_STORE")
    if value:
        return value
    return f"sqlite:///{platformdirs.user_data_path('lichen') / 'runs.sqlite'}"


def region(env: Mapping[str, str] | None = None) -> str:
    """Return the grid to price for; WORLD where the user has not said."""
    return _env(env).get("LICHEN_REGION") or "WORLD"


def _env(env: Mapping[str, str] | None) -> Mapping[str, str]:
    return os.environ if env is None else env
