"""Wiring: the only place that reads configuration and constructs.

``settings`` reads the environment · ``spec`` reads solution files and flags · ``build`` turns a
spec into engines, tasks, meters and stores.
"""
