"""What pure functions said of a text: programs send the same few statements again and again, and each is asked about often.

It knows nothing of what is asked.
"""

import functools
from collections.abc import Callable
from typing import TypeVar

__all__ = ["memoize_by_text"]

T = TypeVar("T")
TEXTS = 1024
LONGEST = 4096  # characters; what is longer is mostly data, which seldom comes twice: only the newest is kept
LONGEST_NEWEST = 1 << 20  # and not even that beyond so many


def memoize_by_text(function: Callable[[str], T]) -> Callable[[str], T]:
    """The same function; what it says of the newest short texts, and of the newest long one, it says again without looking."""
    known = functools.lru_cache(maxsize=TEXTS)(function)
    newest = functools.lru_cache(maxsize=1)(function)

    @functools.wraps(function)
    def ask(text: str) -> T:
        if len(text) <= LONGEST:
            return known(text)
        return newest(text) if len(text) <= LONGEST_NEWEST else function(text)

    return ask
