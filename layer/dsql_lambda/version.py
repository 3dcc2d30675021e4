"""The version, in a module that costs nothing to import (`importlib.metadata` would cost a cold start 20 ms)."""

__version__ = "0.1.0"
