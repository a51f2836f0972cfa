"""lichen: efficient and green language models for software engineering, with proof.

::

    core          the vocabulary: values, units, ports, errors, registry
    catalog       models and data sets by name, pinned by hash
    engines       run a model
    meter         what running it cost: time, memory, energy, with the method of each number
    footprint     energy to carbon, water and money
    sandbox       run untrusted programs
    store         runs and samples in SQL
    benchmark     PILLAR 1: quality and cost of solutions on software-engineering tasks
    acceleration  PILLAR 4: the same answers for a fraction of the energy
    compose       configuration to objects
    report        records to tables, charts and one page
    cli           the ``lichen`` command
    testing       public fakes

Importing this package loads no third-party module.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("lichen")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
