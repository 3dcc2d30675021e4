"""Memoization of pure functions of SQL text: programs execute the same few statements again and again."""

import functools
from collections.abc import Callable
from typing import TypeVar

__all__ = ["memoize_by_text"]

T = TypeVar("T")
MAX_TEXTS = 1024
MAX_LENGTH = 4096  # characters. A longer text is mostly data and seldom repeated, so only the newest one is kept
MAX_NEWEST_LENGTH = 1 << 20  # a longer text is not kept at all


def memoize_by_text(function: Callable[[str], T]) -> Callable[[str], T]:
    """Cache the function's results for the most recent short texts, and for the newest long one."""
    short = functools.lru_cache(maxsize=MAX_TEXTS)(function)
    newest = functools.lru_cache(maxsize=1)(function)

    @functools.wraps(function)
    def cached(text: str) -> T:
        if len(text) <= MAX_LENGTH:
            return short(text)
        return newest(text) if len(text) <= MAX_NEWEST_LENGTH else function(text)

    return cached
