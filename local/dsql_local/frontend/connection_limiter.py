"""Limits on connections: how many are open, and how many open in a second. A count and a token bucket; no I/O."""

from collections.abc import Callable
from typing import Literal

from ..rules.limits import Limits

__all__ = ["ConnectionLimiter"]


class ConnectionLimiter:
    """Counts open connections and limits new ones. Used only in the event loop."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._tokens = float(limits.connection_burst)
        self._refilled_at = clock()
        self._open = 0

    def acquire(self) -> Literal["rate", "connections"] | None:
        """Count one more open connection. Returns None, or the limit that it would exceed."""
        if self._open >= self._limits.connections:
            return "connections"
        now = self._clock()
        refill = max(now - self._refilled_at, 0.0) * self._limits.connection_rate
        self._tokens, self._refilled_at = min(self._tokens + refill, float(self._limits.connection_burst)), now
        if self._tokens < 1:
            return "rate"
        self._tokens -= 1
        self._open += 1
        return None

    def release(self) -> None:
        """An acquired connection has ended."""
        self._open -= 1
