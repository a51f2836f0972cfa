"""PILLAR 1: what does a solution really cost, and what does it buy?

``run`` runs tasks through solutions in interleaved blocks · ``tasks`` are the kinds of work ·
``passk``, ``bootstrap`` and ``paired`` are the estimators · ``summarise`` turns records into a
``Summary``.
"""
