"""PILLAR 3: a smaller model, proven to be the same model for code.

A *method* is a pure, lazy step from model to model: the shapes and types of its result are known
before any weight is read, so every recipe can be predicted before it is run. ``model_file`` reads
and writes models tensor by tensor · ``method`` has the port · ``methods`` one file each ·
``recipe`` lists steps as replayable TOML · ``lineage`` says where a file came from · ``gate`` holds
the result against its parent.

Does not run benchmarks: what needs one comes in as a port.
"""
