"""What one session's transaction has done so far, and whether DSQL lets it do more: rows, bytes, age, DDL.

Decisions alone: it is told what happened, and answers with a refusal or None. `session` acts on it.
"""

from collections.abc import Callable

from ..rules.limits import Limits
from ..rules.rulebook import StatementError, answer
from ..rules.verdict import Class, Verdict

__all__ = ["TransactionLimits"]


class TransactionLimits:
    """One session's open transaction, explicit or not."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """A transaction begins, or the one before has ended."""
        self._began = self._clock()
        self._rows = 0
        self._bytes = 0
        self._dml = False
        self.has_ddl = False
        self.grows = False

    def before(self, verdict: Verdict) -> StatementError | None:
        """Why a statement may not be executed now, its transaction being open."""
        if self._too_old:
            return answer("age")
        if verdict.kind is Class.DDL and self.has_ddl:
            return answer("second_ddl")
        if (verdict.kind is Class.DDL and self._dml) or (verdict.kind is Class.DML and self.has_ddl):
            return answer("mixed")
        return None

    def after(self, verdict: Verdict, rows: int, sent: int, *, further: bool = False) -> StatementError | None:
        """A statement has modified so many rows, `further` ones than its command tag says; why it must fail nevertheless."""
        self.has_ddl = self.has_ddl or verdict.kind is Class.DDL
        if verdict.kind is Class.DML:
            self._dml = True
            self._rows += rows
            self._bytes += sent
            self.grows = self.grows or verdict.grows or further
        return answer("rows") if self._rows > self._limits.rows else None

    def lock(self, size: int) -> None:
        """Keys of so many bytes were locked with FOR UPDATE: they count as if they were written."""
        self._bytes += size

    def at_commit(self, written: int | None = None) -> StatementError | None:
        """Why COMMIT fails; `written` are the bytes of its rows where they were measured."""
        if self._too_old:
            return answer("age")
        return answer("size") if (self._bytes if written is None else written) > self._limits.size else None

    @property
    def _too_old(self) -> bool:
        return self._clock() - self._began > self._limits.age
