"""What the values of this package are made of: `Frozen`, and the checks of the fields that a user gives.

Each check raises `ConfigError` with the name, the value and what is accepted. Knows nothing of what any value means.

A class of values declares its fields, and puts them into its `__dict__` in `__init__`. (`dataclasses` would write this too, at a
fifth of the whole time to the first row.)
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, NoReturn, Self

from .errors import ConfigError


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


def check_number(name: str, value: object, least: float, most: float, *, above: bool = False, whole: bool = False) -> None:
    """Raise `ConfigError` unless `value` is a number from `least` (or above it) to `most`."""
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not isfinite(value):
        raise ConfigError(f"{name} is {value!r}: it must be a {'whole ' if whole else ''}number")
    if not least <= value <= most or (above and value == least):
        raise ConfigError(f"{name} is {value}: it must be {'above' if above else 'at least'} {least} and at most {most}")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise `ConfigError` unless `value` is one of the choices."""
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}: it must be one of {', '.join(choices)}")


def check_text(name: str, value: object) -> None:
    """Raise `ConfigError` unless `value` is text that PostgreSQL's protocol can carry."""
    if not isinstance(value, str) or "\0" in value or not _is_unicode(value):
        raise ConfigError(f"{name} is {value!r}: it must be text, without a zero character or a lone surrogate")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_table(name: str, value: object) -> None:
    """Raise `ConfigError` unless `value` is a table's name that needs no quotes, with its schema if need be."""
    parts = value.split(".") if isinstance(value, str) else []
    if not 1 <= len(parts) <= 2 or not all(_is_identifier(each) for each in parts):
        raise ConfigError(f"{name} is {value!r}: it must be a table's name in lower case, without quotes, as app.keys")


def _is_identifier(text: str) -> bool:
    return text.isascii() and text.isidentifier() and text == text.lower() and len(text) <= 63
