"""What is known of one attempt at a transaction: its `Evidence`, and the `Outcome` with its `Ending` that it is judged to have.

The evidence is made for the attempt, so that what was learnt of an earlier one can't be seen by a later one. Each fact is
written before the act that it is about. Knows flights and the server's errors; how a failed attempt is judged, and what follows,
is module `failure`'s.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from .errors import CommitOutcomeUnknown
from .flight import Flight
from .server_errors import DatabaseError

if TYPE_CHECKING:
    from .occ import OCCConflict


class Evidence:
    """What one attempt at a transaction is judged by. Made for it; each fact is written before the act that it is about."""

    __slots__ = ("commit", "failure", "interruption", "unfinished")

    def __init__(self) -> None:
        self.commit: Flight | None = None
        """The flight that ends in COMMIT, once there is one."""
        self.failure: Exception | None = None
        """The first failure of a statement, also where the function handled it."""
        self.interruption: BaseException | None = None
        """What passed through a statement and was neither the server's nor the connection's."""
        self.unfinished = ""
        """The statement that was begun and has not ended."""

    @property
    def commit_tag(self) -> str:
        """How COMMIT was answered; empty if it was not."""
        return str(self.commit.results[-1].command_tag) if self.commit is not None else ""

    @property
    def is_commit_handed(self) -> bool:
        """May the socket have taken any byte of COMMIT?"""
        return self.commit is not None and self.commit.was_handed(len(self.commit.starts) - 1)

    @property
    def may_have_committed(self) -> bool:
        """Was COMMIT handed over, and did the server not say that it failed?"""
        if self.commit is None or self.commit_tag:
            return self.commit_tag == "COMMIT"
        is_refused = isinstance(self.commit.failure, DatabaseError) and not self.is_commit_in_doubt
        return self.is_commit_handed and not is_refused

    @property
    def is_commit_in_doubt(self) -> bool:
        """Did COMMIT itself get an error that leaves its outcome open: XX000, or one that ended the connection?"""
        commit = self.commit
        failure = commit.failure if commit is not None else None
        if commit is None or not isinstance(failure, DatabaseError) or commit.results[-1].error is not failure:
            return False
        return failure.sqlstate == "XX000" or (failure.is_fatal and failure.sqlstate != "40001")


class Ending(Enum):
    """What became of an attempt."""

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

    __slots__ = ("after", "conflict", "ending", "error", "phase", "value")

    def __init__(
        self,
        ending: Ending,
        *,
        value: Any = None,
        error: BaseException | None = None,
        conflict: OCCConflict | None = None,
        phase: str = "",
        after: list[Any] | None = None,
    ) -> None:
        self.after = after
        """What `tx.after_commit` was given: functions with their arguments."""
        self.ending = ending
        self.value = value
        self.error = error
        self.conflict = conflict
        self.phase = phase


def outcome_unknown(attempt: int, *, has_key: bool = False) -> CommitOutcomeUnknown:
    """The error for a COMMIT that was handed over and not answered."""
    advice = "deliver the event again with its idempotency key" if has_key else "read the data before you run it again"
    return CommitOutcomeUnknown(
        f"COMMIT was sent and no answer came: the transaction may be committed or not; {advice}", attempts=attempt
    )
