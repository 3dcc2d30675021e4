"""`Frozen`: what the values of this package have in common. Knows nothing of what any of them means.

A class of values declares its fields, and puts them into its `__dict__` in `__init__`. (`dataclasses` would write this too, at a
fifth of the whole time to the first row.)
"""

from __future__ import annotations

from typing import Any, NoReturn, Self


class Frozen:
    """A value: equal to another of its class with the same fields, and never changed."""

    def replace(self, **changes: Any) -> Self:
        """The same value with some fields changed, checked as a new one is."""
        return type(self)(**{**self.__dict__, **changes})

    def __replace__(self, **changes: Any) -> Self:
        """`copy.replace` (Python 3.13) does what the class's own `replace` does."""
        return self.replace(**changes)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen: make a changed one with replace({name}=...)")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"
