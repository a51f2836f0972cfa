"""The ``lichen`` command: one file per command, loaded only when it is run."""
