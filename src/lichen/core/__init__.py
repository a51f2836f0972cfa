"""The vocabulary of lichen: values, units, ports, errors, registry. Standard library only.

Modules: ``units`` · ``interval`` · ``measurement`` · ``generation`` (requests and completions) ·
``model`` · ``task`` · ``record`` · ``footprint`` · ``summary`` · ``ports`` · ``registry`` ·
``errors``. Import from the modules; this package re-exports nothing, to keep imports cheap.
"""
