"""Faults on demand: how they are asked for, which are pending, where they are injected."""
