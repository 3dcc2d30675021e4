"""The limits of one session's transaction: modified rows and bytes, age, and the rules for DDL.

It is told what was executed, and returns an error or None. It executes nothing.
"""

from collections.abc import Callable

from ..rules.limits import Limits
from ..rules.rulebook import StatementError, answer
from ..rules.verdict import Class, Verdict

__all__ = ["TransactionLimits"]


class TransactionLimits:
    """What one session's transaction, explicit or implicit, has done so far."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """A transaction begins, or the previous one has ended."""
        self._began_at = self._clock()
        self._rows = 0
        self._bytes = 0
        self._has_dml = False
        self.has_ddl = False
        self.must_measure_bytes = False

    def check_before(self, verdict: Verdict) -> StatementError | None:
        """The error to answer instead of executing a statement, if any."""
        if self._is_too_old:
            return answer("age")
        if verdict.kind is Class.DDL and self.has_ddl:
            return answer("second_ddl")
        if (verdict.kind is Class.DDL and self._has_dml) or (verdict.kind is Class.DML and self.has_ddl):
            return answer("mixed")
        return None

    def check_after(self, verdict: Verdict, rows: int, sent_bytes: int, *, untagged: bool = False) -> StatementError | None:
        """Count what a statement has modified; returns the error to answer, if any.

        `untagged` means that it may have modified rows that its command tag does not count.
        """
        self.has_ddl = self.has_ddl or verdict.kind is Class.DDL
        if verdict.kind is Class.DML:
            self._has_dml = True
            self._rows += rows
            self._bytes += sent_bytes
            self.must_measure_bytes = self.must_measure_bytes or verdict.may_grow or untagged
        return answer("rows") if self._rows > self._limits.rows else None

    def count_locked(self, key_bytes: int) -> None:
        """Rows were locked with FOR UPDATE: their keys count as written bytes."""
        self._bytes += key_bytes

    def check_commit(self, measured_bytes: int | None = None) -> StatementError | None:
        """The error to answer to COMMIT, if any. `measured_bytes` is the size of the written rows, if it was measured."""
        if self._is_too_old:
            return answer("age")
        return answer("size") if (self._bytes if measured_bytes is None else measured_bytes) > self._limits.size else None

    @property
    def _is_too_old(self) -> bool:
        return self._clock() - self._began_at > self._limits.age
