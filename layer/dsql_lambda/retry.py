"""How often and how soon to try again after a conflict: `OCCRetryConfig`, pure values.

Never sleeps, never reads a clock, knows nothing of connections. The names, defaults, bounds and formula are those of
AWS's connectors; the delay is a float and is not cut to whole milliseconds, so that the jitter is there at 1 ms too.
What a Lambda function gets is this library's own: delays in proportion to the transaction's time, bounded by its deadline.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from math import inf
from typing import Literal, get_args

from .errors import ConfigError
from .fields import Frozen, check_choice, check_number
from .occ import OCCType

Jitter = Literal["additive", "full"]
Backoff = Literal["exponential", "proportional"]

_MOST_ATTEMPTS = 100
_LONGEST_DELAY_MS = 5000.0

# The proportional delay's shares; `benchmarks/contention.py` shows what they do.
_OF_ELAPSED = 1 / 8
_OF_LAST_ATTEMPT = 5
_OF_REMAINING = 1 / 60


class OCCRetryConfig(Frozen):
    """Attempts and delays. `OCCRetryConfig(max_attempts=1)` turns retrying off.

    The `exponential` delay before attempt n + 1 is `base_delay_ms * 2 ** (n - 1)`. The `proportional` one is an eighth of the
    time that the transaction has taken so far, but at most five times its last attempt and a sixtieth of the time left, and at
    least `base_delay_ms`. Neither exceeds `max_delay_ms`. On it comes `additive` jitter of 0 to `jitter_factor` of itself;
    `full` jitter draws from 0 to that delay instead.

    Raises `ConfigError` for a value out of its bounds.
    """

    max_attempts: int | None
    """Attempts in all, the first one counted: 1 to 100. None: as many as the deadline leaves time for; 100 without one."""
    base_delay_ms: float
    """The first delay in milliseconds: above 0, at most 5,000."""
    max_delay_ms: float
    """What a delay grows to at most, in milliseconds: at least `base_delay_ms`, at most 5,000."""
    jitter_factor: float
    """The most that additive jitter adds, as a share of the delay: 0 to 1."""
    jitter: Jitter
    """`additive` (the connectors') or `full` (spreads many contenders further apart)."""
    immediate_schema_retry: bool
    """Make the first retry of a schema conflict (OC001) at once: the same session's next try clears it."""
    backoff: Backoff
    """`exponential` (the connectors') or `proportional` (to the transaction's own time, whatever the distance and the work)."""

    def __init__(
        self,
        *,
        max_attempts: int | None = 3,
        base_delay_ms: float = 1.0,
        max_delay_ms: float = 100.0,
        jitter_factor: float = 0.25,
        jitter: Jitter = "additive",
        immediate_schema_retry: bool = False,
        backoff: Backoff = "exponential",
    ) -> None:
        if max_attempts is not None:
            check_number("max_attempts", max_attempts, 1, _MOST_ATTEMPTS, whole=True)
        check_number("base_delay_ms", base_delay_ms, 0, _LONGEST_DELAY_MS, above=True)
        check_number("max_delay_ms", max_delay_ms, 0, _LONGEST_DELAY_MS, above=True)
        check_number("jitter_factor", jitter_factor, 0, 1)
        if max_delay_ms < base_delay_ms:
            raise ConfigError(
                f"max_delay_ms ({max_delay_ms:g}) is below base_delay_ms ({base_delay_ms:g}): set it to the same or more"
            )
        check_choice("jitter", jitter, get_args(Jitter))
        check_choice("backoff", backoff, get_args(Backoff))
        self.__dict__.update(
            max_attempts=max_attempts,
            base_delay_ms=base_delay_ms,
            max_delay_ms=max_delay_ms,
            jitter_factor=jitter_factor,
            jitter=jitter,
            immediate_schema_retry=immediate_schema_retry,
            backoff=backoff,
        )

    @classmethod
    def for_lambda(cls) -> OCCRetryConfig:
        """What a Lambda function gets unless it says otherwise: the deadline is the bound, not the attempts.

        `benchmarks/contention.py` shows what they do. The time lost to a row says how crowded it is, so the delay grows with it;
        the time left bounds it, so that a handler tries ever more often towards its deadline and newcomers do not starve it.
        """
        return cls(
            max_attempts=None,
            max_delay_ms=1000.0,
            jitter_factor=1.0,
            immediate_schema_retry=True,
            backoff="proportional",
        )

    def allows_another(self, attempt: int, remaining: float = inf) -> bool:
        """Whether one more may follow `attempt` (from 1), with so many seconds left before the deadline."""
        if self.max_attempts is None and remaining < inf:
            return True
        return attempt < (self.max_attempts or _MOST_ATTEMPTS)

    def delay(
        self,
        attempt: int,
        occ_type: OCCType,
        random: Callable[[], float],
        *,
        elapsed: float = 0.0,
        lasted: float = inf,
        remaining: float = inf,
    ) -> float:
        """Seconds to wait after the conflict of `attempt` (from 1), given a source of numbers from 0 to 1.

        Only the proportional delay asks for the seconds: `elapsed` since the first attempt began, those that this attempt
        `lasted`, and those `remaining` before the deadline.
        """
        if self.immediate_schema_retry and occ_type is OCCType.SCHEMA and attempt == 1:
            return 0.0
        if self.backoff == "proportional":
            share = min(elapsed * _OF_ELAPSED, lasted * _OF_LAST_ATTEMPT, remaining * _OF_REMAINING)
            grown_ms = max(share * 1000, self.base_delay_ms)
        else:
            grown_ms = self.base_delay_ms * 2.0 ** min(attempt - 1, 31)
        capped_ms = min(grown_ms, self.max_delay_ms)
        if self.jitter == "full":
            return capped_ms * random() / 1000
        return capped_ms * (1 + random() * self.jitter_factor) / 1000


def check_retry(retry: object) -> None:
    """Raise `TypeError` for what is neither an `OCCRetryConfig` nor None."""
    if retry is not None and not isinstance(retry, OCCRetryConfig):
        raise TypeError(f"retry is a {type(retry).__name__}: it must be an OCCRetryConfig, or None for the default")


def default_retry() -> OCCRetryConfig:
    """What `retry=None` means: `OCCRetryConfig.for_lambda()` in a Lambda function, the connectors' defaults elsewhere."""
    return OCCRetryConfig.for_lambda() if os.environ.get("AWS_LAMBDA_RUNTIME_API") else OCCRetryConfig()
