"""Faults on demand: how they are requested, which are pending, how they are injected."""
