"""Where bytes come from: one file per kind of source, none knowing the others.

``mirror`` a local directory, matched by content · ``web`` an address · ``hub`` a model hub's file ·
``wheels`` members of package-index wheels. All fit ``lichen.catalog.fetching.Source``.
"""
