"""Checks of what a user gives: each raises `ConfigError` with the name, the value and what is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from .errors import ConfigError


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
