"""Faults on demand: what was asked for, and whether it strikes now. One-shot counters; no I/O.

Asked for by any thread, consumed by the front's. When two could strike at once, the older one does.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from .answers import CONFLICTS, REFUSALS, ConflictCode, RefusalReason

__all__ = ["Conflict", "Cut", "CutPoint", "Faults", "How", "Outline", "Refuse", "Unavailable"]

CutPoint = Literal["before-first-flight", "before-commit", "after-commit-sent"]
How = Literal["rst", "fin", "silence"]


@dataclass(frozen=True, slots=True)
class Outline:
    """What a flight is about, as far as faults care."""

    inside: bool  # it arrived inside an open transaction
    begins: bool
    commits: bool
    works: bool  # it executes something that neither begins nor ends a transaction


@dataclass(frozen=True, slots=True)
class Cut:
    """The link is cut at this point."""

    at: CutPoint
    how: How
    applied: bool

    def strikes(self, flight: Outline) -> bool:
        """Whether this flight is the one."""
        if self.at == "before-first-flight":
            return not flight.inside
        if self.at == "before-commit":
            return not flight.commits and (flight.inside or (flight.begins and flight.works))
        return flight.commits


@dataclass(frozen=True, slots=True)
class Conflict:
    """A COMMIT, or a statement, is answered with 40001."""

    code: ConflictCode
    at: Literal["commit", "statement"] = "commit"


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A COMMIT or a statement is answered with XX000."""

    at: Literal["commit", "statement"]
    applied: bool


@dataclass(frozen=True, slots=True)
class Refuse:
    """A connection is refused."""

    reason: RefusalReason


Fault = Cut | Conflict | Unavailable | Refuse


class Faults:
    """The faults that wait for their moment."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Fault, int]] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault, n: int) -> None:
        """Let a fault strike the next n times. Raises ValueError for what there is not."""
        if n < 1:
            raise ValueError(f"n must be at least 1, not {n}")
        _check(fault)
        with self._lock:
            self._waiting.append((fault, n))

    def at_flight(self, flight: Outline) -> Cut | None:
        """The cut that strikes this flight."""
        fault = self._take(lambda fault: isinstance(fault, Cut) and fault.strikes(flight))
        return fault if isinstance(fault, Cut) else None

    def at_commit(self) -> Conflict | Unavailable | None:
        """What this COMMIT of an open transaction is answered instead."""
        fault = self._take(lambda fault: isinstance(fault, Conflict | Unavailable) and fault.at == "commit")
        return fault if isinstance(fault, Conflict | Unavailable) else None

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
            self._waiting.clear()

    def _take(self, strikes: Callable[[Fault], bool]) -> Fault | None:
        with self._lock:
            for index, (fault, left) in enumerate(self._waiting):
                if strikes(fault):
                    self._waiting[index : index + 1] = [(fault, left - 1)] if left > 1 else []
                    return fault
        return None


def _check(fault: Fault) -> None:
    """Refuse a word that no fault knows: a fault that never strikes would make a test pass for nothing."""
    known: list[tuple[str, str, tuple[str, ...]]] = []
    if isinstance(fault, Cut):
        known = [("at", fault.at, get_args(CutPoint)), ("how", fault.how, get_args(How))]
    elif isinstance(fault, Conflict):
        known = [("code", fault.code, tuple(CONFLICTS)), ("at", fault.at, ("commit", "statement"))]
    elif isinstance(fault, Unavailable):
        known = [("at", fault.at, ("commit", "statement"))]
    else:
        known = [("reason", fault.reason, (*REFUSALS, "access"))]
    for name, value, values in known:
        if value not in values:
            raise ValueError(f"{name} must be one of {', '.join(values)}, not {value!r}")
