"""The loop: attempts at a transaction, what became of each, and what follows. `run_in_transaction`, `retry_on_occ`.

The only place that retries. Knows endings, attempts and deadlines; connections come from a `ConnectionSource` and go back
to it. An attempt's `Ending` is named by what the link and the server said, not by what the function made of it, and what
follows is decided (`_next_step`, a pure function) before anything is done. Clock, sleep and random are injected.

    COMMITTED, ROLLED_BACK   the function's value is returned
    CONFLICT                 40001 in a statement or at COMMIT: again, if attempts and time are left
    UNAVAILABLE              XX000 "unavailable" in a statement: again, in the same way
    BROKEN                   the link was lost before any byte of COMMIT was handed to the socket: again, in the same way
    STALE                    the link was dead when BEGIN, sent alone, wanted its answer: the same attempt on a new one
    UNKNOWN                  the link was lost, or XX000 came, after COMMIT: again only if it was read-only
    OUT_OF_TIME, FAILED      an error is raised
"""

from __future__ import annotations

import os
import time
from _thread import _local as local  # `threading.local`, without the rest of it
from collections.abc import Callable

from .errors import CommitOutcomeUnknown, DeadlineExceeded, OCCRetryExhausted, TransactionError
from .link import NEVER, DeadlineReached
from .occ import OCCConflict, OCCType, classify_occ
from .retry import OCCRetryConfig, default_retry
from .telemetry import Telemetry
from .transaction import COMMIT, Transaction
from .wire import DatabaseError, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol, TypeVar

    T = TypeVar("T")
else:
    Protocol = object


class _Running(local):
    """The sources of the transactions that a thread is inside of."""

    sources: tuple[object, ...] = ()


_running = _Running()

_PROBE_SECONDS = 3.0  # a flow that NAT has forgotten may stay silent: BEGIN, sent alone, is not waited for much longer
_INTERNAL_ERROR = "XX000"  # what DSQL says when it is unavailable: at COMMIT the outcome is unknown


def random_number() -> float:
    """From 0 to 1, of the operating system's: environments restored from one snapshot must not draw the same numbers."""
    return (int.from_bytes(os.urandom(7), "big") >> 3) * 2.0**-53


class ConnectionSource(Protocol):
    """Where the loop gets its connections: a `Connection` itself, a pool, or the execution environment's cached one."""

    def checkout(self, deadline_at: float) -> Wire:
        """A usable connection. Raises `ConnectError`, or `DeadlineExceeded` in the phase `connect`."""

    def checkin(self, connection: Wire, reason: str) -> None:
        """Give it back. Unless it is clean it is closed; `reason` says why (`stale`, `broken`, ...), if it matters."""


class Ending:
    """What became of an attempt: one of these words. (As an `Enum` they were a hundredth of the time to the first row.)"""

    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"
    CONFLICT = "conflict"
    UNAVAILABLE = "unavailable"
    BROKEN = "broken"
    STALE = "stale"
    UNKNOWN = "unknown"
    OUT_OF_TIME = "out_of_time"
    FAILED = "failed"


class Outcome:
    """An attempt's ending, with what belongs to it."""

    __slots__ = ("conflict", "ending", "error", "phase", "value")

    def __init__(
        self,
        *,
        ending: str,
        value: Any = None,
        error: BaseException | None = None,
        conflict: OCCConflict | None = None,
        phase: str = "",
    ) -> None:
        self.ending = ending
        self.value = value
        self.error = error
        self.conflict = conflict
        self.phase = phase


class _Step:
    """What follows an attempt: another one after `delay` seconds, or none, and this error from this cause."""

    def __init__(self, *, delay: float = 0.0, error: BaseException | None = None, cause: BaseException | None = None) -> None:
        self.delay = delay
        self.error = error
        self.cause = cause


_RETRIED = {
    Ending.CONFLICT: "OCC conflict",
    Ending.UNAVAILABLE: "server unavailable",
    Ending.BROKEN: "connection lost",
    Ending.STALE: "connection lost",
    Ending.UNKNOWN: "connection lost",
}


def run_attempts(
    attempt_once: Callable[[int], Outcome],
    *,
    retry: OCCRetryConfig | None = None,
    deadline_at: float = NEVER,
    read_only: bool = False,
    telemetry: Telemetry | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    random: Callable[[], float] = random_number,
) -> Any:
    """THE loop: make attempts until one ends for good; return its value or raise its error."""
    started_at = began_at = monotonic()
    attempt = 1
    was_stale = False
    last_conflict: Outcome | None = None
    while True:
        try:
            outcome = attempt_once(attempt)
        except DeadlineExceeded as error:
            outcome = Outcome(ending=Ending.OUT_OF_TIME, error=error.__cause__, phase=error.phase)
        if outcome.ending in (Ending.COMMITTED, Ending.ROLLED_BACK):
            return outcome.value
        if outcome.ending == Ending.FAILED and outcome.error is not None:
            raise outcome.error
        if outcome.ending == Ending.STALE and not was_stale:
            was_stale = True  # a second one in the same attempt counts as a lost connection, so that the loop ends
            continue
        was_stale = False
        if outcome.ending == Ending.CONFLICT:
            last_conflict = outcome
        retry = retry or default_retry()
        telemetry = telemetry or Telemetry()
        now = monotonic()
        step = _next_step(
            outcome,
            last_conflict,
            attempt=attempt,
            retry=retry,
            remaining=deadline_at - now,
            elapsed=now - started_at,
            lasted=now - began_at,
            read_only=read_only,
            random=random,
        )
        said: dict[str, Any] = {"attempt": attempt, "max_attempts": retry.max_attempts, "remaining": deadline_at - now}
        if step.error is not None:
            if isinstance(step.error, OCCRetryExhausted):
                telemetry.exhausted(error=step.error, **said)
            elif isinstance(step.error, CommitOutcomeUnknown):
                telemetry.outcome_unknown(**said)
            raise step.error from step.cause
        telemetry.retrying(conflict=outcome.conflict, what=_RETRIED[outcome.ending], delay=step.delay, **said)
        if step.delay > 0:
            sleep(step.delay)
        attempt += 1
        began_at = monotonic()


def outcome_unknown(attempt: int) -> CommitOutcomeUnknown:
    """The error for a COMMIT that was handed over and not answered."""
    return CommitOutcomeUnknown(
        "COMMIT was sent and no answer came: the transaction may be committed or not; read the data to find out "
        "before you run it again",
        attempts=attempt,
    )


def _next_step(
    outcome: Outcome,
    last_conflict: Outcome | None,
    *,
    attempt: int,
    retry: OCCRetryConfig,
    remaining: float,
    elapsed: float,
    lasted: float,
    read_only: bool,
    random: Callable[[], float],
) -> _Step:
    """Decide, without doing anything, what follows an ending that is neither a success nor final."""
    ending = outcome.ending
    if ending == Ending.UNKNOWN and not read_only:
        return _Step(error=outcome_unknown(attempt), cause=outcome.error)
    is_out_of_time = ending == Ending.OUT_OF_TIME
    if not is_out_of_time and retry.allows_another(attempt, remaining):
        occ_type = outcome.conflict.type if outcome.conflict else OCCType.UNKNOWN
        # What bounds the wait for a crowded row says nothing of how long a server is away.
        bounds = {"lasted": lasted, "remaining": remaining} if outcome.conflict else {}
        delay = retry.delay(attempt, occ_type, random, elapsed=elapsed, **bounds)
        if delay < remaining:
            return _Step(delay=delay)
        is_out_of_time = True
    if last_conflict and last_conflict.conflict and (is_out_of_time or ending == Ending.CONFLICT):
        conflict = last_conflict.conflict
        said = "the deadline came" if is_out_of_time else f"each of {attempt} attempts met a conflict"
        exhausted = OCCRetryExhausted(
            f"{said} after {elapsed:.3f} s; the last conflict was {conflict.code} ({conflict.type}); nothing was committed",
            attempts=attempt,
            occ_type=conflict.type,
            occ_code=conflict.code,
            elapsed=elapsed,
            reason="deadline" if is_out_of_time else "attempts",
        )
        return _Step(error=exhausted, cause=last_conflict.error)
    if is_out_of_time:
        phase = outcome.phase or "retry"
        late = DeadlineExceeded(f"no time was left before the deadline ({phase}); nothing was committed", phase=phase)
        return _Step(error=late, cause=outcome.error)
    if ending == Ending.UNAVAILABLE:
        return _Step(error=outcome.error, cause=outcome.error.__cause__ if outcome.error else None)
    lost = TransactionError(f"the connection was lost in each of {attempt} attempts; nothing was committed")
    return _Step(error=lost, cause=outcome.error)


def attempt_transaction(
    function: Callable[[Transaction], T],
    source: ConnectionSource,
    attempt: int,
    *,
    deadline_at: float = NEVER,
    read_only: bool = False,
    monotonic: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Run the function once in a transaction on a connection of the source, and say how that ended."""
    connection = source.checkout(deadline_at)
    reason = ""
    connection.deadline_at = deadline_at
    tx = Transaction(connection, attempt=attempt, read_only=read_only)
    try:
        outcome = _attempt(tx, function, deadline_at, monotonic)
        reason = outcome.ending if not connection.is_clean else ""
        return outcome
    finally:
        tx.abandon()
        if not connection.is_closed:
            connection.deadline_at = NEVER
        source.checkin(connection, reason)


def _attempt(
    tx: Transaction, function: Callable[[Transaction], T], deadline_at: float, monotonic: Callable[[], float]
) -> Outcome:
    connection = tx.wire
    if connection.clock() - connection.used_at >= connection.probe_after_secs:
        connection.deadline_at = min(deadline_at, monotonic() + _PROBE_SECONDS)
        try:
            tx.begin()
        except Exception as error:  # noqa: BLE001 - whatever it is, `ending_of` names it
            outcome = ending_of(tx, error, "begin")
            is_silent = outcome.ending == Ending.OUT_OF_TIME and monotonic() < deadline_at
            return Outcome(ending=Ending.STALE, error=error) if is_silent or outcome.ending == Ending.BROKEN else outcome
        connection.deadline_at = deadline_at
    value: Any = None
    raised: BaseException | None = None
    try:
        value = function(tx)
    except Exception as error:  # noqa: BLE001 - it is raised again, or explained by what the server said before
        raised = error
    if tx.has_ended:
        if raised is None:
            return Outcome(ending=Ending.ROLLED_BACK, value=value)
        conflict = classify_occ(tx.failure)
        return Outcome(ending=Ending.CONFLICT if conflict else Ending.FAILED, error=raised, conflict=conflict)
    if raised or tx.failure or connection.link.failure:
        return ending_of(tx, raised, "statement")
    if monotonic() >= deadline_at:
        return Outcome(ending=Ending.OUT_OF_TIME, phase="function")
    try:
        tx.commit()
    except Exception as error:  # noqa: BLE001
        return ending_of(tx, error, "commit")
    return Outcome(ending=Ending.COMMITTED, value=value)


def ending_of(tx: Transaction, raised: BaseException | None, phase: str) -> Outcome:
    """Name the ending of an attempt that failed: by what the link and the server said, not by what the function made of it."""
    failure = tx.failure
    lost = tx.wire.link.failure
    if lost is not None:
        cause = failure or raised or lost
        if tx.is_commit_handed:
            return Outcome(ending=Ending.UNKNOWN, error=cause)
        if isinstance(lost, DeadlineReached):
            return Outcome(ending=Ending.OUT_OF_TIME, error=cause, phase=phase)
        return Outcome(ending=Ending.BROKEN, error=cause)
    conflict = classify_occ(failure)
    if conflict:
        return Outcome(ending=Ending.CONFLICT, error=failure, conflict=conflict)
    if isinstance(failure, DatabaseError) and failure.sqlstate == _INTERNAL_ERROR:
        if failure.statement == COMMIT.sql:
            return Outcome(ending=Ending.UNKNOWN, error=failure)
        if "unavailable" in failure.message.lower():
            return Outcome(ending=Ending.UNAVAILABLE, error=failure)
    return Outcome(ending=Ending.FAILED, error=raised or failure)


def run_in_transaction(
    function: Callable[[Transaction], T],
    source: ConnectionSource,
    *,
    retry: OCCRetryConfig | None = None,
    deadline_at: float = NEVER,
    read_only: bool = False,
    telemetry: Telemetry | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    random: Callable[[], float] = random_number,
) -> T:
    """`function(tx)` in a transaction on a connection of `source`, attempted until it ends for good."""
    running = _running.sources
    if any(each is source for each in running):
        raise TransactionError(
            "a transaction is running already, and DSQL has no savepoints: pass its tx on to join it, or run this one after it"
        )

    def attempt_once(attempt: int) -> Outcome:
        return attempt_transaction(function, source, attempt, deadline_at=deadline_at, read_only=read_only, monotonic=monotonic)

    _running.sources = (*running, source)
    try:
        result: T = run_attempts(
            attempt_once,
            retry=retry,
            deadline_at=deadline_at,
            read_only=read_only,
            telemetry=telemetry,
            monotonic=monotonic,
            sleep=sleep,
            random=random,
        )
    finally:
        _running.sources = running
    return result


def retry_on_occ(function: Callable[[], T], retry: OCCRetryConfig | None = None) -> T:
    """Call a function that runs its own transaction, again when it raises a conflict.

    The function may be called several times: it must have no effect outside its transaction. Raises `OCCRetryExhausted`
    when no attempt is left, its last conflict as the `__cause__`; any other error as it is.
    """

    def attempt_once(attempt: int) -> Outcome:
        try:
            return Outcome(ending=Ending.COMMITTED, value=function())
        except Exception as error:  # noqa: BLE001
            conflict = classify_occ(error)
            return Outcome(ending=Ending.CONFLICT if conflict else Ending.FAILED, error=error, conflict=conflict)

    name = getattr(function, "__qualname__", "")
    result: T = run_attempts(attempt_once, retry=retry, telemetry=Telemetry(function_name=name))
    return result
