"""How often and how soon to try again after a conflict: `OCCRetryConfig`, pure values.

Never sleeps, never reads a clock, knows nothing of connections. The names, defaults, bounds and formula are those of
AWS's connectors; the delay is a float and is not cut to whole milliseconds, so that the jitter is there at 1 ms too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from .errors import ConfigError
from .occ import OCCType
from .options import check_number

_MOST_ATTEMPTS = 100
_LONGEST_DELAY_MS = 5000.0
_JITTERS = ("additive", "full")


@dataclass(frozen=True, kw_only=True)
class OCCRetryConfig:
    """Attempts and delays. `OCCRetryConfig(max_attempts=1)` turns retrying off.

    The delay before attempt n + 1 is `min(base_delay_ms * 2 ** (n - 1), max_delay_ms)`, and on it
    `additive` jitter of 0 to `jitter_factor` of itself; `full` jitter draws from 0 to that delay instead.

    Raises `ConfigError` for a value out of its bounds.
    """

    max_attempts: int = 3
    """Attempts in all, the first one counted: 1 to 100."""
    base_delay_ms: float = 1.0
    """The first delay in milliseconds: above 0, at most 5,000."""
    max_delay_ms: float = 100.0
    """What the doubling stops at, in milliseconds: at least `base_delay_ms`, at most 5,000."""
    jitter_factor: float = 0.25
    """The most that additive jitter adds, as a share of the delay: 0 to 1."""
    jitter: str = "additive"
    """`additive` (the connectors') or `full` (spreads many contenders further apart)."""
    immediate_schema_retry: bool = False
    """Make the first retry of a schema conflict (OC001) at once: the same session's next try clears it."""

    def __post_init__(self) -> None:
        check_number("max_attempts", self.max_attempts, 1, _MOST_ATTEMPTS, whole=True)
        check_number("base_delay_ms", self.base_delay_ms, 0, _LONGEST_DELAY_MS, above=True)
        check_number("max_delay_ms", self.max_delay_ms, 0, _LONGEST_DELAY_MS, above=True)
        check_number("jitter_factor", self.jitter_factor, 0, 1)
        if self.max_delay_ms < self.base_delay_ms:
            raise ConfigError(
                f"max_delay_ms ({self.max_delay_ms:g}) is below base_delay_ms ({self.base_delay_ms:g}): "
                "set it to the same or more"
            )
        if self.jitter not in _JITTERS:
            raise ConfigError(f"jitter is {self.jitter!r}: it must be one of {', '.join(_JITTERS)}")

    @classmethod
    def for_lambda(cls) -> OCCRetryConfig:
        """What a Lambda function gets unless it says otherwise: the deadline is the bound, not the attempts.

        `benchmarks/contention.py` found the numbers. A short first delay keeps a lone conflict cheap. The low cap is what keeps
        a handler from starving: whoever waits seconds between tries meets a newcomer at each, until its deadline is there.
        """
        return cls(max_attempts=_MOST_ATTEMPTS, base_delay_ms=8.0, max_delay_ms=200.0, jitter="full", immediate_schema_retry=True)

    def delay(self, attempt: int, occ_type: OCCType, random: Callable[[], float]) -> float:
        """Seconds to wait after the conflict of `attempt` (from 1), given a source of numbers from 0 to 1."""
        if self.immediate_schema_retry and occ_type is OCCType.SCHEMA and attempt == 1:
            return 0.0
        capped_ms = min(self.base_delay_ms * 2.0 ** min(attempt - 1, 31), self.max_delay_ms)
        if self.jitter == "full":
            return capped_ms * random() / 1000
        return capped_ms * (1 + random() * self.jitter_factor) / 1000


def default_retry() -> OCCRetryConfig:
    """What `retry=None` means: `OCCRetryConfig.for_lambda()` in a Lambda function, the connectors' defaults elsewhere."""
    return OCCRetryConfig.for_lambda() if os.environ.get("AWS_LAMBDA_RUNTIME_API") else OCCRetryConfig()
