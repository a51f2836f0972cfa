"""Models and data sets by name: pinned, fetched from several places, checked, described.

``catalog`` is the front (``Catalog``) · ``entries`` the pinned table · ``names`` what a user may
type · ``fetching`` the download with its lock, hash check and rename · ``part`` partial files ·
``verified`` remembered hashes · ``sources`` where bytes come from · ``gguf`` and ``tensor_types``
the header reader · ``shape`` what a header says about cost.

Nothing here runs a model or interprets a data set, and no downloaded byte is ever executed.
"""

from lichen.catalog.catalog import CachedFile, Catalog, DataSet
from lichen.catalog.entries import Entry
from lichen.catalog.fetching import Progress

__all__ = ["CachedFile", "Catalog", "DataSet", "Entry", "Progress"]
