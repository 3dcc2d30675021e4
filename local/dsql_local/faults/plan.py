"""Faults on demand: what was asked for, and whether it strikes now. Counters and one seeded rate; no I/O.

Asked for by any thread, consumed by the front's. When two could strike at once, the older one does, and a connection's own before
those of the whole server. What each is called, and what a client sees of it, stands in `orders`.
"""

import random
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal, get_args

from ..rules.error_responses import CONFLICTS, REASONS, ConflictCode, RefusalCode, RefusalReason

__all__ = [
    "Conflict",
    "Cut",
    "CutPoint",
    "Delay",
    "Disconnection",
    "FaultPlan",
    "FaultTarget",
    "FlightSummary",
    "Refuse",
    "Unavailable",
]

CutPoint = Literal[
    "on-connect",  # while a connection is opened
    "after-tls",
    "after-startup",
    "after-password",
    "before-ready",
    "at-parse",  # when such a message comes
    "at-bind",
    "at-describe",
    "at-execute",
    "at-close",
    "at-flush",
    "at-sync",
    "at-query",
    "at-copy-data",
    "at-copy-done",
    "before-first-flight",  # when a flight of such a kind has come
    "before-commit",
    "after-commit-sent",
    "mid-reply",  # of any flight
    "after-reply",
]
Disconnection = Literal["rst", "fin", "silence"]
FaultTarget = Literal["commit", "statement"]


@dataclass(frozen=True, slots=True)
class FlightSummary:
    """What a flight is about, as far as faults care."""

    inside: bool  # it arrived inside an open transaction
    begins: bool
    commits: bool
    works: bool  # it executes something that neither begins nor ends a transaction


@dataclass(frozen=True, slots=True)
class Cut:
    """The link is cut at this point."""

    at: CutPoint
    how: Disconnection
    applied: bool

    def strikes(self, flight: FlightSummary) -> bool:
        """Whether this flight is the one."""
        if self.at in ("mid-reply", "after-reply"):
            return True
        if self.at == "before-first-flight":
            return not flight.inside
        if self.at == "before-commit":
            return not flight.commits and (flight.inside or (flight.begins and flight.works))
        return self.at == "after-commit-sent" and flight.commits


@dataclass(frozen=True, slots=True)
class Conflict:
    """A COMMIT, or a statement, is answered with 40001."""

    code: ConflictCode
    at: FaultTarget = "commit"


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A COMMIT or a statement is answered with XX000."""

    at: FaultTarget
    applied: bool


@dataclass(frozen=True, slots=True)
class Refuse:
    """A connection is refused."""

    reason: RefusalReason


@dataclass(frozen=True, slots=True)
class Delay:
    """A flight comes later than it was sent."""

    ms: float


Fault = Cut | Conflict | Unavailable | Refuse | Delay


class FaultPlan:
    """The faults that wait for their moment: a server's, or one connection's in front of its server's."""

    def __init__(self, server: "FaultPlan | None" = None, *, seed: int = 0) -> None:
        self._server = server
        self._seed = seed
        self._pending: list[tuple[Fault, int | None]] = []
        self._rate: tuple[float, random.Random, Conflict] | None = None
        self._lock = threading.Lock()

    def add(self, fault: Fault, n: int | None) -> None:
        """Let a fault strike the next n times, or always. Raises ValueError for what there is not."""
        if n is not None and n < 1:
            raise ValueError(f"n must be at least 1, not {n}")
        _check(fault)
        with self._lock:
            self._pending.append((fault, n))

    # --- Asked for: the methods of `LocalDsql`, which documents them ---

    def conflict_next(self, n: int = 1, code: ConflictCode = "OC000", at: FaultTarget = "commit") -> None:
        """The next n COMMITs or statements meet a conflict."""
        self.add(Conflict(code, at), n)

    def cut(self, at: CutPoint, n: int = 1, *, applied: bool = True, how: Disconnection = "rst") -> None:
        """The link ends the next n times at this point."""
        self.add(Cut(at, how, applied), n)

    def delay(self, ms: float, n: int | None = None) -> None:
        """The next n flights, or all, are late."""
        self.add(Delay(ms), n)

    def unavailable(self, n: int = 1, *, at: FaultTarget = "commit", applied: bool = False) -> None:
        """The next n COMMITs or statements are answered XX000."""
        self.add(Unavailable(at, applied), n)

    def refuse_connections(self, n: int = 1, reason: RefusalReason | RefusalCode = "rate") -> None:
        """The next n connections are refused."""
        _one_of("reason", reason, REASONS)
        self.add(Refuse(REASONS[reason]), n)

    def conflict_rate(self, p: float, seed: int | None = None, code: ConflictCode = "OC000") -> None:
        """Each COMMIT meets a conflict with the probability p, drawn from this seed; 0 ends it."""
        conflict = Conflict(code)
        if not 0 <= p <= 1:
            raise ValueError(f"p must be between 0 and 1, not {p}")
        _check(conflict)
        with self._lock:
            self._rate = (p, random.Random(self._seed if seed is None else seed), conflict) if p else None  # noqa: S311 - seeded on purpose

    # --- Striking ---

    def pending(self) -> list[str]:
        """What waits, as text: the fault, and how often it will still strike."""
        with self._lock:
            rate = [f"{self._rate[2]} of every COMMIT with p={self._rate[0]}"] if self._rate else []
            return [f"{fault} n={'always' if n is None else n}" for fault, n in self._pending] + rate

    def at_point(self, point: str) -> Cut | None:
        """The cut that strikes at this point of the protocol."""
        fault = self._take(lambda fault: isinstance(fault, Cut) and fault.at == point)
        return fault if isinstance(fault, Cut) else None

    def lateness(self) -> float:
        """How many seconds this flight is late."""
        fault = self._take(lambda fault: isinstance(fault, Delay))
        return fault.ms / 1000 if isinstance(fault, Delay) else 0.0

    def at_flight(self, flight: FlightSummary) -> Cut | None:
        """The cut that strikes this flight."""
        fault = self._take(lambda fault: isinstance(fault, Cut) and fault.strikes(flight))
        return fault if isinstance(fault, Cut) else None

    def at_commit(self) -> Conflict | Unavailable | None:
        """What this COMMIT of an open transaction is answered instead."""
        fault = self._take(lambda fault: isinstance(fault, Conflict | Unavailable) and fault.at == "commit")
        return fault if isinstance(fault, Conflict | Unavailable) else self._drawn()

    def at_statement(self) -> Conflict | Unavailable | None:
        """What this statement is answered instead."""
        fault = self._take(lambda fault: isinstance(fault, Conflict | Unavailable) and fault.at == "statement")
        return fault if isinstance(fault, Conflict | Unavailable) else None

    def at_connect(self) -> RefusalReason | None:
        """Why this connection is refused."""
        fault = self._take(lambda fault: isinstance(fault, Refuse))
        return fault.reason if isinstance(fault, Refuse) else None

    def clear(self) -> None:
        """Forget all that did not strike yet."""
        with self._lock:
            self._pending.clear()
            self._rate = None

    def _take(self, strikes: Callable[[Fault], bool]) -> Fault | None:
        with self._lock:
            for index, (fault, left) in enumerate(self._pending):
                if strikes(fault):
                    if left is not None:
                        self._pending[index : index + 1] = [(fault, left - 1)] if left > 1 else []
                    return fault
        return None if self._server is None else self._server._take(strikes)

    def _drawn(self) -> Conflict | None:
        """The conflict that this COMMIT meets by chance."""
        if self._server is not None:
            return self._server._drawn()
        with self._lock:
            return self._rate[2] if self._rate is not None and self._rate[1].random() < self._rate[0] else None


def _check(fault: Fault) -> None:
    """Refuse a word that no fault knows: a fault that never strikes would make a test pass for nothing."""
    if isinstance(fault, Cut):
        _one_of("at", fault.at, get_args(CutPoint))
        _one_of("how", fault.how, get_args(Disconnection))
    elif isinstance(fault, Conflict):
        _one_of("code", fault.code, CONFLICTS)
        _one_of("at", fault.at, get_args(FaultTarget))
    elif isinstance(fault, Unavailable):
        _one_of("at", fault.at, get_args(FaultTarget))
    elif isinstance(fault, Delay) and fault.ms < 0:
        raise ValueError(f"ms must not be negative, but is {fault.ms}")


def _one_of(name: str, value: str, values: Collection[str]) -> None:
    if value not in values:
        raise ValueError(f"{name} must be one of {', '.join(values)}, not {value!r}")
