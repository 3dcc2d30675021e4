"""The pending faults of a server or of one connection, and which of them is due now. Counters and one seeded rate; no I/O.

Any thread may add faults; the event loop takes them. When two are due at once, the older one is taken, and a connection's own
before the server's.
"""

import random
import threading
from collections.abc import Callable

from ..rules.error_responses import RefusalReason
from .kinds import Conflict, Cut, Delay, Fault, FlightSummary, Refuse, Unavailable

__all__ = ["FaultPlan"]


class FaultPlan:
    """The faults of one server, or of one connection of `server`. `seed` is the default for conflict rates."""

    def __init__(self, server: "FaultPlan | None" = None, *, seed: int = 0) -> None:
        self._server = server
        self._seed = seed
        self._pending: list[tuple[Fault, int | None]] = []
        self._rate: tuple[float, random.Random, Conflict] | None = None
        self._lock = threading.Lock()

    def add(self, fault: Fault, n: int | None) -> None:
        """Inject a fault the next n times that it matches; None means always. Raises ValueError."""
        if n is not None and n < 1:
            raise ValueError(f"n must be at least 1, not {n}")
        with self._lock:
            self._pending.append((fault, n))

    def set_conflict_rate(self, p: float, seed: int | None, conflict: Conflict) -> None:
        """Inject a conflict at each COMMIT with probability p. Raises ValueError."""
        if not 0 <= p <= 1:
            raise ValueError(f"p must be between 0 and 1, not {p}")
        with self._lock:
            draw = random.Random(self._seed if seed is None else seed)  # noqa: S311 - seeded on purpose
            self._rate = (p, draw, conflict) if p else None

    def pending(self) -> list[str]:
        """The faults not yet injected, as text: each with how often it will still be injected."""
        with self._lock:
            rate = [f"{self._rate[2]} of every COMMIT with p={self._rate[0]}"] if self._rate else []
            return [f"{fault} n={'always' if n is None else n}" for fault, n in self._pending] + rate

    def clear(self) -> None:
        """Forget all faults not yet injected."""
        with self._lock:
            self._pending.clear()
            self._rate = None

    # --- Taking what is due: each call uses up one of its n ---

    def take_cut_at(self, point: str) -> Cut | None:
        """The cut at this point of the protocol."""
        fault = self._take(lambda fault: isinstance(fault, Cut) and fault.at == point)
        return fault if isinstance(fault, Cut) else None

    def take_cut_for(self, flight: FlightSummary) -> Cut | None:
        """The cut for this flight."""
        fault = self._take(lambda fault: isinstance(fault, Cut) and fault.matches(flight))
        return fault if isinstance(fault, Cut) else None

    def take_delay_seconds(self) -> float:
        """The delay of this flight."""
        fault = self._take(lambda fault: isinstance(fault, Delay))
        return fault.ms / 1000 if isinstance(fault, Delay) else 0.0

    def take_for_commit(self) -> Conflict | Unavailable | None:
        """The error for this COMMIT of an open transaction."""
        fault = self._take(lambda fault: isinstance(fault, Conflict | Unavailable) and fault.at == "commit")
        return fault if isinstance(fault, Conflict | Unavailable) else self._draw_conflict()

    def take_for_statement(self) -> Conflict | Unavailable | None:
        """The error for this statement."""
        fault = self._take(lambda fault: isinstance(fault, Conflict | Unavailable) and fault.at == "statement")
        return fault if isinstance(fault, Conflict | Unavailable) else None

    def take_refusal(self) -> RefusalReason | None:
        """Why this connection is refused."""
        fault = self._take(lambda fault: isinstance(fault, Refuse))
        return fault.reason if isinstance(fault, Refuse) else None

    def _take(self, is_due: Callable[[Fault], bool]) -> Fault | None:
        with self._lock:
            for index, (fault, left) in enumerate(self._pending):
                if is_due(fault):
                    if left is not None:
                        self._pending[index : index + 1] = [(fault, left - 1)] if left > 1 else []
                    return fault
        return None if self._server is None else self._server._take(is_due)

    def _draw_conflict(self) -> Conflict | None:
        """The conflict of this COMMIT by the server's conflict rate."""
        if self._server is not None:
            return self._server._draw_conflict()
        with self._lock:
            return self._rate[2] if self._rate is not None and self._rate[1].random() < self._rate[0] else None
