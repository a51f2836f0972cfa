"""The strategies: independent files, one registry (``lichen.acceleration.STRATEGIES``)."""
