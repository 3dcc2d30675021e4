"""What pure functions said of a text: programs send the same few statements again and again.

It knows nothing of what is asked.
"""

import functools
from collections.abc import Callable
from typing import TypeVar

__all__ = ["memoize_by_text"]

T = TypeVar("T")
TEXTS = 1024
LONGEST = 4096  # characters; what is longer is mostly data, which seldom comes twice and would be kept for nothing


def memoize_by_text(function: Callable[[str], T]) -> Callable[[str], T]:
    """The same function; what it says of the newest short texts it says again without looking."""
    known = functools.lru_cache(maxsize=TEXTS)(function)

    @functools.wraps(function)
    def ask(text: str) -> T:
        return known(text) if len(text) <= LONGEST else function(text)

    return ask
