"""What a failed attempt ended as, decided from its evidence: `outcome_of`, and what follows it: `next_step`.

Pure: sends nothing, reads no clock. An ending is named by what the connection and the server said, not by what the function
made of it. Loaded with the first failure: an import is cold start. One that fails leaves the evidence as it is, and by that
the caller is told.

    COMMITTED, ROLLED_BACK   the function's value is returned
    CONFLICT                 40001 in a statement or at COMMIT: again, if attempts and time are left
    UNAVAILABLE              XX000 "unavailable" in a statement: again, in the same way
    BROKEN                   the connection was lost before any byte of COMMIT was handed to the socket: again, in the same way
    STALE                    the connection was dead when BEGIN, sent alone, wanted its answer: the same attempt on a new one
    UNKNOWN                  the connection was lost, or XX000 came, after COMMIT: again only if it was read-only or has a key
    OUT_OF_TIME, FAILED      an error is raised
"""

from __future__ import annotations

from collections.abc import Callable

from .attempt import Ending, Evidence, Outcome, outcome_unknown
from .errors import DeadlineExceeded, OCCRetryExhausted, TransactionError
from .occ import OCCType, classify_occ
from .retry import OCCRetryConfig
from .server_errors import ConnectionLost, DatabaseError, DeadlineReached, InterfaceError

_INTERNAL_ERROR = "XX000"  # what DSQL says when it is unavailable
_ENDS_THE_SESSION = ("57", "53", "XX")  # classes of FATAL that a new connection mends: shutdown, resources, internal


class Step:
    """What follows an attempt: another one after `delay` seconds, or none, and `error` from `cause`."""

    __slots__ = ("cause", "delay", "error")

    def __init__(self, *, delay: float = 0.0, error: BaseException | None = None, cause: BaseException | None = None) -> None:
        self.delay = delay
        self.error = error
        self.cause = cause


RETRIED = {
    Ending.CONFLICT: "OCC conflict",
    Ending.UNAVAILABLE: "server unavailable",
    Ending.BROKEN: "connection lost",
    Ending.STALE: "connection lost",
    Ending.UNKNOWN: "connection lost",
}
"""What the log calls an ending that is followed by another attempt."""


def outcome_of(evidence: Evidence, raised: Exception | None, lost: ConnectionLost | None, phase: str) -> Outcome:
    """Name the ending of an attempt that did not simply succeed.

    `raised` is what the function or the COMMIT raised, `lost` what ended the connection, `phase` what was under way.
    """
    if evidence.commit is not None:
        return _outcome_of_commit(evidence, raised, lost)
    failure = evidence.failure
    if evidence.interruption is not None or (evidence.unfinished and raised is not None):
        return Outcome(Ending.FAILED, error=raised or evidence.interruption)
    conflict = classify_occ(failure) if isinstance(failure, DatabaseError) else None
    if conflict:
        return Outcome(Ending.CONFLICT, error=failure, conflict=conflict)
    if isinstance(failure, DatabaseError):
        is_away = failure.sqlstate == _INTERNAL_ERROR and "unavailable" in failure.message.lower()
        if is_away and not failure.is_fatal:
            return Outcome(Ending.UNAVAILABLE, error=failure)
        if failure.is_fatal and failure.sqlstate.startswith(_ENDS_THE_SESSION):
            return Outcome(Ending.BROKEN, error=failure)
    elif lost is not None:
        ending = Ending.OUT_OF_TIME if isinstance(lost, DeadlineReached) else Ending.BROKEN
        return Outcome(ending, error=failure or raised or lost, phase=phase)
    is_late_loss = failure is not None and isinstance(raised, ConnectionLost)  # the statement had failed before
    return Outcome(Ending.FAILED, error=failure if is_late_loss else raised or failure)


def _outcome_of_commit(evidence: Evidence, raised: Exception | None, lost: ConnectionLost | None) -> Outcome:
    """The same, once there was a flight with COMMIT."""
    failure = evidence.failure
    is_ours = raised is None or isinstance(raised, InterfaceError | DatabaseError)
    if evidence.commit_tag == "COMMIT":
        # What failed is only what follows the tag; or somebody interrupted us.
        return Outcome(Ending.COMMITTED) if is_ours else Outcome(Ending.UNKNOWN, error=raised)
    if not is_ours:
        return Outcome(Ending.UNKNOWN if evidence.may_have_committed else Ending.FAILED, error=raised)
    if evidence.may_have_committed and (lost is not None or evidence.is_commit_in_doubt):
        return Outcome(Ending.UNKNOWN, error=raised or failure or lost)
    conflict = classify_occ(failure) if isinstance(failure, DatabaseError) else None
    if conflict:
        return Outcome(Ending.CONFLICT, error=failure, conflict=conflict)
    if lost is not None and not isinstance(failure, DatabaseError):
        ending = Ending.OUT_OF_TIME if isinstance(lost, DeadlineReached) else Ending.BROKEN
        return Outcome(ending, error=raised or lost, phase="commit")
    if evidence.may_have_committed:
        return Outcome(Ending.UNKNOWN, error=raised)
    return Outcome(Ending.FAILED, error=raised or failure)


def outcome_of_rolled_back(evidence: Evidence, raised: Exception) -> Outcome:
    """The same, where the function rolled back by itself and then raised: its error counts, unless a conflict made it do so."""
    conflict = classify_occ(evidence.failure)
    return Outcome(Ending.CONFLICT if conflict else Ending.FAILED, error=raised, conflict=conflict)


def next_step(
    outcome: Outcome,
    last_conflict: Outcome | None,
    *,
    attempt: int,
    retry: OCCRetryConfig,
    remaining: float,
    elapsed: float,
    lasted: float,
    is_repeatable: bool,
    random: Callable[[], float],
) -> Step:
    """Decide what follows an ending that is neither a success nor final.

    `remaining` seconds are left before the deadline, `elapsed` have passed since the first attempt began; this one `lasted`.
    What `is_repeatable` (it only reads, or it finds out what became of COMMIT) follows an unknown outcome too.
    """
    ending = outcome.ending
    if ending is Ending.UNKNOWN and not is_repeatable:
        return Step(error=outcome_unknown(attempt), cause=outcome.error)
    is_out_of_time = ending is Ending.OUT_OF_TIME
    if not is_out_of_time and retry.allows_another(attempt, remaining):
        occ_type = outcome.conflict.type if outcome.conflict else OCCType.UNKNOWN
        # What bounds the wait for a crowded row says nothing of how long a server is away.
        bounds = {"lasted": lasted, "remaining": remaining} if outcome.conflict else {}
        delay = retry.delay(attempt, occ_type, random, elapsed=elapsed, **bounds)
        if delay < remaining:
            return Step(delay=delay)
        is_out_of_time = True
    conflict = last_conflict.conflict if last_conflict else None
    if last_conflict and conflict and (is_out_of_time or ending is Ending.CONFLICT):
        said = "the deadline came" if is_out_of_time else f"each of {attempt} attempts met a conflict"
        exhausted = OCCRetryExhausted(
            f"{said} after {elapsed:.3f} s; the last conflict was {conflict.code} ({conflict.type}); nothing was committed",
            attempts=attempt,
            occ_type=conflict.type,
            occ_code=conflict.code,
            elapsed=elapsed,
            reason="deadline" if is_out_of_time else "attempts",
        )
        return Step(error=exhausted, cause=last_conflict.error)
    if is_out_of_time:
        phase = outcome.phase or "retry"
        late = DeadlineExceeded(f"no time was left before the deadline ({phase}); nothing was committed", phase=phase)
        return Step(error=late, cause=outcome.error)
    if ending is Ending.UNAVAILABLE:
        return Step(error=outcome.error, cause=outcome.error.__cause__ if outcome.error else None)
    lost = TransactionError(f"the connection was lost in each of {attempt} attempts; nothing was committed")
    return Step(error=lost, cause=outcome.error)
