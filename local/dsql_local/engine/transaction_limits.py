"""What one session's transaction has done so far, and whether DSQL lets it do more: rows, bytes, age, DDL, the catalog's version.

Decisions alone: it is told what happened, and answers with a refusal or None. `session` acts on it. `Catalog` is what all ledgers
of a server share.
"""

from collections.abc import Callable, Iterable

from ..rules.limits import Limits
from ..rules.rulebook import StatementError, answer
from ..rules.verdict import Class, Verdict

__all__ = ["CatalogVersion", "TransactionLimits"]

_USES_CATALOG = (Class.READ, Class.DML, Class.DDL, Class.UNKNOWN)


class CatalogVersion:
    """The version of a server's catalog: every DDL, GRANT and index build makes a new one."""

    def __init__(self) -> None:
        self.version = 0


class TransactionLimits:
    """One session's: its open transaction, explicit or not, and the catalog that it has seen."""

    def __init__(self, limits: Limits, catalog: CatalogVersion, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._catalog = catalog
        self._clock = clock
        self.seen = catalog.version
        self.begin()

    def begin(self) -> None:
        """A transaction begins, or the one before has ended."""
        self._began = self._clock()
        self._rows = 0
        self._bytes = 0
        self._ddl = False
        self._dml = False
        self._worked = False
        self.grows = False

    def look(self) -> bool:
        """Look at the catalog: whether another session has changed it since this one looked."""
        stale = self.seen < self._catalog.version
        self.seen = self._catalog.version
        return stale

    def before(self, verdict: Verdict) -> StatementError | None:
        """Why a statement may not be executed now, its transaction being open."""
        if self._too_old:
            return answer("age")
        if verdict.kind is Class.DDL and self._ddl:
            return answer("second_ddl")
        if (verdict.kind is Class.DDL and self._dml) or (verdict.kind is Class.DML and self._ddl):
            return answer("mixed")
        return None

    def meets_conflict(self, verdicts: Iterable[Verdict]) -> bool:
        """Whether a statement that reads the catalog finds it changed by another session: OC001, once."""
        return any(verdict.kind in _USES_CATALOG for verdict in verdicts) and self.look()

    def after(self, verdict: Verdict, rows: int, sent: int, *, further: bool = False) -> StatementError | None:
        """A statement has modified so many rows, `further` ones than its command tag says; why it must fail nevertheless."""
        self._worked = self._worked or verdict.kind in _USES_CATALOG
        self._ddl = self._ddl or verdict.kind is Class.DDL
        if verdict.kind is Class.DML:
            self._dml = True
            self._rows += rows
            self._bytes += sent
            self.grows = self.grows or verdict.grows or further
        return answer("rows") if self._rows > self._limits.rows else None

    def at_commit(self, written: int | None = None) -> StatementError | None:
        """Why COMMIT fails; `written` are the bytes of its rows where they were measured."""
        if self._too_old:
            return answer("age")
        return answer("size") if (self._bytes if written is None else written) > self._limits.size else None

    def commit_meets_conflict(self) -> bool:
        """Whether COMMIT finds the catalog changed by another session."""
        return self._worked and self.look()

    def committed(self) -> None:
        """It is committed: what it changed in the catalog is news to every other session."""
        if self._ddl:
            self._catalog.version += 1
            self.seen = self._catalog.version
        self.begin()

    @property
    def _too_old(self) -> bool:
        return self._clock() - self._began > self._limits.age
