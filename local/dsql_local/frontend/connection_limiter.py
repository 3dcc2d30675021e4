"""How many connections a cluster opens: at once, and a second. A token bucket and a count; the clock is given, no I/O."""

from collections.abc import Callable
from typing import Literal

from ..rules.limits import Limits

__all__ = ["ConnectionLimiter"]


class ConnectionLimiter:
    """Who may come in now. Used by the front's thread alone."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._left = float(limits.connection_burst)
        self._at = clock()
        self._open = 0

    def acquire(self) -> Literal["rate", "connections"] | None:
        """Count one more open connection; why not, if it may not be opened."""
        if self._open >= self._limits.connections:
            return "connections"
        now = self._clock()
        gained = max(now - self._at, 0.0) * self._limits.connection_rate
        self._left, self._at = min(self._left + gained, float(self._limits.connection_burst)), now
        if self._left < 1:
            return "rate"
        self._left -= 1
        self._open += 1
        return None

    def release(self) -> None:
        """One that was admitted has ended."""
        self._open -= 1
