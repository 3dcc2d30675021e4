"""One transaction as its observers are told of it: `Observation`, and each `Attempt` at it.

Loaded only where somebody observes: a Powertools `Metrics` or `Tracer` was given, or OpenTelemetry is loaded. Knows moments and
names, and none of these libraries. Decides nothing: what an observer raises is swallowed, and an interruption that is no
`Exception` passes through. No statement, value or credential is told to anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from .attempt import Evidence
from .occ import OCCConflict
from .options import ConnectOptions
from .server_errors import DatabaseError
from .system import System

FAILED = "failed"
UNKNOWN = "unknown"
_LONGEST_CHAIN = 32  # of causes; an error can be made its own cause


class Attempt:
    """One attempt at a transaction, as far as it has come."""

    __slots__ = (
        "began_at",
        "commit_began_at",
        "commit_ended_at",
        "conflict",
        "ended_at",
        "ending",
        "error",
        "evidence",
        "number",
        "opened_for",
    )

    def __init__(self, number: int, began_at: float) -> None:
        self.number = number
        """From 1. An attempt on a stale connection did not run the function, and the next one has the same number."""
        self.began_at = began_at
        """Moments are seconds of the wall clock since 1970."""
        self.ended_at = began_at
        self.commit_began_at: float | None = None
        self.commit_ended_at: float | None = None
        self.evidence: Evidence | None = None
        self.opened_for: str | None = None
        """Why its connection was opened; empty if an earlier transaction ran on it; None if it has got none."""
        self.ending = FAILED
        """How it ended, by the name of an `Ending`."""
        self.conflict: OCCConflict | None = None
        self.error: BaseException | None = None

    @property
    def has_sent_commit(self) -> bool:
        """Was there a flight with COMMIT? A transaction without statements has none."""
        return self.evidence is not None and self.evidence.commit is not None


class Observer(Protocol):
    """Who is told of a transaction, in this order: `begin`, then `begin_attempt` and `end_attempt` by turns, then `end`."""

    def begin(self, seen: Observation) -> None:
        """It begins."""

    def begin_attempt(self, attempt: Attempt) -> None:
        """So does an attempt at it."""

    def end_attempt(self, attempt: Attempt) -> None:
        """The attempt has ended, and its connection was given back."""

    def end(self, seen: Observation) -> None:
        """So has the transaction."""


class Observation:
    """What is known of a transaction while it runs, and who is told of it."""

    def __init__(
        self, observers: Sequence[Observer], *, system: System, function: str = "", options: ConnectOptions | None = None
    ) -> None:
        self.function = function
        """The name of the function that runs in it, with its module's."""
        self.options = options
        """What its connections are opened with, where that is known."""
        self.attempt: Attempt | None = None
        """The present attempt, or the last one."""
        self.attempts = 0
        self.ending = FAILED
        """How the last attempt ended, or what was settled later, by the name of an `Ending`."""
        self.conflict: OCCConflict | None = None
        """The last conflict."""
        self.error: BaseException | None = None
        """What the transaction raises."""
        self.elapsed = 0.0
        """Seconds, by the monotonic clock."""
        self._observers = list(observers)
        self._clock = system.clock
        self._monotonic = system.monotonic
        self._started_at = system.monotonic()
        self.began_at = self.ended_at = system.clock()
        self._is_attempt_open = False

    def begin_attempt(self, number: int) -> None:
        """An attempt begins: it wants a connection. With the first one the transaction does."""
        if self.attempt is None:
            self._tell(lambda observer: observer.begin(self))
        self.attempts = number
        self.attempt = attempt = Attempt(number, self._clock())
        self._is_attempt_open = True
        self._tell(lambda observer: observer.begin_attempt(attempt))

    def connected(self, opened_for: str) -> None:
        """It has got one. `opened_for` says why it was opened; empty if it has served a transaction before."""
        if self.attempt is not None:
            self.attempt.opened_for = opened_for

    def begin_commit(self, evidence: Evidence) -> None:
        """COMMIT is next, if there is anything to commit."""
        if self.attempt is not None:
            self.attempt.evidence = evidence
            self.attempt.commit_began_at = self._clock()

    def end_commit(self) -> None:
        """It was answered, or failed."""
        if self.attempt is not None:
            self.attempt.commit_ended_at = self._clock()

    def end_attempt(self, ending: str, *, conflict: OCCConflict | None = None, error: BaseException | None = None) -> None:
        """The attempt has ended."""
        attempt = self.attempt
        if attempt is None or not self._is_attempt_open:
            return
        self._is_attempt_open = False
        attempt.ended_at = self._clock()
        attempt.ending = self.ending = ending
        attempt.conflict, attempt.error = conflict, error
        self.conflict = conflict or self.conflict
        self._tell(lambda observer: observer.end_attempt(attempt))

    def end(self, ending: str | None = None, *, error: BaseException | None = None, is_in_doubt: bool = False) -> None:
        """The transaction has ended: as `ending` says, or, where that is None, with `error`."""
        self.end_attempt(UNKNOWN if is_in_doubt else FAILED, error=error)  # if an interruption left it open
        self.ending = ending or (UNKNOWN if is_in_doubt else self.ending)
        self.error = error
        self.elapsed = self._monotonic() - self._started_at
        self.ended_at = self._clock()
        while self._observers:  # each is told once, also where an interruption makes this be called again
            last = self._observers.pop()
            with suppress(Exception):
                last.end(self)
        self.attempt = self.error = None  # an error's frames hold this object

    def _tell(self, event: Callable[[Observer], None]) -> None:
        for each in self._observers:
            with suppress(Exception):  # an observer that fails must not fail a transaction
                event(each)


def name_of(error: BaseException) -> str:
    """What an error is called in traces: a SQLSTATE, or the name of its class. Never its text, which may hold values."""
    if isinstance(error, DatabaseError) and error.sqlstate:
        return error.sqlstate
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def sqlstate_of(error: BaseException | None) -> str:
    """The SQLSTATE of the server's error that an error is, or that led to it; empty if there is none."""
    seen = 0
    while error is not None and seen < _LONGEST_CHAIN:
        if isinstance(error, DatabaseError):
            return error.sqlstate
        error = error.__cause__
        seen += 1
    return ""
