"""Who uses a connection: `Claim`, and the `Place` that a source of connections keeps one in.

Knows threads, frames and what "still running" means; knows nothing of SQL, of retries, or of how a connection is opened.

An exception can come between any two bytecodes: of a signal handler, of another thread, of the memory allocator. So a claim
is made before the act, by one atomic operation, and a claim that its owner could not take back heals: it counts only while
the frame that made it is on its thread's stack.
"""

from __future__ import annotations

import sys
import threading
import weakref
from contextvars import ContextVar
from types import FrameType
from typing import Protocol

from .attempt import Evidence
from .errors import TransactionError
from .session import Session
from .system import NEVER


class Claim:
    """One user of one connection at a time: a running transaction, by the frame that runs it."""

    evidence = Evidence()
    """What the present attempt is judged by; this one, before the first attempt, is everybody's and stays empty."""

    def __init__(self, frame: FrameType | None, *, deadline_at: float = NEVER) -> None:
        self.deadline_at = deadline_at
        """The moment that its transaction is to be done by."""
        self.outer: Claim | None = None
        """The one whose context it was made in: its transaction waits for this one, in a thread or a task of its own."""
        self.place: Place | None = None
        """Where its connection is kept; set before the place is taken."""
        self.opened_for = ""
        """Why the present attempt's connection was opened; empty for one that served a transaction before. Decides nothing."""
        self.tx: object | None = None
        """What the function of the present attempt got as `tx`."""
        self._frame = frame
        self._thread_id = threading.get_ident()

    def is_alive(self) -> bool:
        """Is the frame that made it still on its thread's stack?"""
        if self._frame is None:
            return False
        is_mine = self._thread_id == threading.get_ident()
        frame: FrameType | None = sys._getframe() if is_mine else sys._current_frames().get(self._thread_id)
        while frame is not None:
            if frame is self._frame:
                return True
            frame = frame.f_back
        return False

    def end(self) -> None:
        """Be over. The frame holds this claim, and all that the transaction read: without this, only a GC run frees them."""
        self._frame = None
        self.tx = None

    def abandon(self) -> None:
        """Give up the connection, if it still has one: an interruption left it in an unknown state."""
        place = self.place
        if place is not None and place.holder is self:
            place.give_up()
            place.release(self)


class Place:
    """Where a source keeps one connection, and who has it."""

    __slots__ = ("_holder", "expires_at", "reason", "session")

    def __init__(self) -> None:
        self.reason = "first"
        """Why the next connection in it is opened, where there is to be one."""
        self.session: Session | None = None
        self.expires_at = 0.0
        """The moment (wall clock) from which the connection is replaced."""
        self._holder: dict[int, Claim] = {}  # at most one: `setdefault` and `pop` are atomic

    @property
    def holder(self) -> Claim | None:
        """Who has it now."""
        return self._holder.get(0)

    def take(self, claim: Claim) -> bool:
        """Take it, if nobody has it."""
        claim.place = self
        return self._holder.setdefault(0, claim) is claim

    def release(self, claim: Claim) -> None:
        """Let the next one have it."""
        if self._holder.get(0) is claim:
            self._holder.pop(0, None)

    def hand_over(self, claim: Claim) -> None:
        """Give it from its holder to another claim."""
        claim.place = self
        self._holder[0] = claim

    def give_up(self) -> None:
        """Close the connection without a word, and keep none."""
        session = self.session
        if session is not None:
            session.abandon()
            self.session = None


class ConnectionSource(Protocol):
    """Where a transaction gets its connection: a `Connection` itself, a `Pool`, or the execution environment's cache.

    One may have a `retry` and a `logger`: what transactions on it get that are given none.
    """

    def _checkout(self, claim: Claim, deadline_at: float) -> Session:
        """A usable connection in `claim.place`. Raises `ConnectError`, or `DeadlineExceeded` in the phase `connect`."""

    def _checkin(self, claim: Claim, reason: str) -> None:
        """Take it back. Unless it can be used again it is closed; `reason` says why (`stale`, `broken`, ...)."""


class _Running(threading.local):
    claim: Claim | None = None


_running = _Running()


def refuse_inside_transaction() -> None:
    """Raise `TransactionError` where this thread runs a transaction: DSQL has no savepoints."""
    if _running.claim is not None and _running.claim.is_alive():
        raise TransactionError(
            "a transaction is running already, and DSQL has no savepoints: pass its tx on to join it, or run this one after it"
        )


def begin(claim: Claim) -> None:
    """Note that this thread runs a transaction. Raises `TransactionError` inside another one."""
    refuse_inside_transaction()
    claim.outer = published()
    _published.set(weakref.ref(claim))
    _running.claim = claim


_published: ContextVar[weakref.ref[Claim] | None] = ContextVar("dsql_lambda_claim", default=None)


def published_at() -> float:
    """The deadline of the transaction in whose context this code runs, also in a thread or a task; `NEVER` if there is none."""
    claim = published()
    return claim.deadline_at if claim is not None else NEVER


def published() -> Claim | None:
    """The claim of the innermost transaction that runs in this context, also in a thread or a task; None if there is none."""
    # What is over needs not to be taken back.
    reference = _published.get()
    claim = reference() if reference is not None else None
    while claim is not None and not claim.is_alive():
        claim = claim.outer
    return claim


def end() -> None:
    """Note that it is over."""
    claim, _running.claim = _running.claim, None
    if claim is not None:
        claim.end()
