"""What stands between a session's unit and PostgreSQL: the rules, asked about it before it is executed, the ledger told after it.

It finds what to answer and gives it back; it changes no transaction and writes to no client. The only thing that it asks
PostgreSQL is what a rule wants to know of the catalog, how many bytes a transaction has written, and what its DDL has changed.
"""

import contextlib
from collections.abc import Callable

from ..postgres.backend import Backend, CommandFailed
from ..protocol.messages import Message, error
from ..rules.dialect import NEW_JOB
from ..rules.error_responses import LONG_KEY, conflict
from ..rules.limits import Limits
from ..rules.objects import ObjectName
from ..rules.rulebook import StatementError
from ..rules.verdict import Class, Verdict, judge
from .catalog_changes import changed_objects, search_path
from .constraint_checks import ConstraintChecks
from .flights import Unit
from .jobs import JobRunner
from .schema_conflicts import CatalogHistory, CatalogView, Change, SchemaConflicts
from .transaction_limits import TransactionLimits
from .write_stats import written_bytes

__all__ = ["StatementPolicy"]

KEY_COLUMNS = 8  # at most
_USES_CATALOG = (Class.READ, Class.DML, Class.DDL, Class.UNKNOWN)


def _as_error(refused: StatementError | None) -> Message | None:
    return None if refused is None else error(refused.sqlstate, refused.message)


class StatementPolicy:
    """One session's."""

    def __init__(
        self,
        backend: Backend,
        *,
        limits: Limits,
        history: CatalogHistory,
        schema_conflicts: SchemaConflicts,
        clock: Callable[[], float],
        jobs: JobRunner,
    ) -> None:
        self._backend = backend
        self._limits = limits
        self._jobs = jobs
        self._submits = False  # a job, which is seen when the transaction has been committed
        self._transaction_limits = TransactionLimits(limits, clock)
        self._history = history
        self._catalog = CatalogView(history, schema_conflicts, lambda: search_path(backend))
        self._changes: list[Change] = []  # by the transaction's DDL, known when it is to be committed
        self._renamed: frozenset[ObjectName] = frozenset()

    def begin(self) -> None:
        """A transaction begins, or has been rolled back."""
        self._transaction_limits.begin()
        self._catalog.begin()
        self._changes = []
        self._renamed = frozenset()

    def committed(self) -> None:
        """The transaction has been committed."""
        if self._transaction_limits.has_ddl:
            self._catalog.committed((*map(Change, self._renamed), *self._changes))
        self.begin()
        if self._submits:
            self._submits = False
            self._jobs.soon()

    def look(self) -> None:
        """Look at the catalog now, so that what changed it so far is no news."""
        self._catalog.look()

    @property
    def catalog_version(self) -> int:
        """The catalog's version now: what was read of it is true as long as this stays."""
        return self._history.version

    async def before(self, unit: Unit) -> Message | None:
        """The error with which a unit of one statement is answered instead of being executed."""
        for text in unit.texts:
            if judge(text).refused is not None:
                return _as_error(judge(text).refused)
        verdicts = self._verdicts(unit)
        if await self._meets_conflict(verdicts):
            return conflict("OC001")
        for verdict in verdicts:
            refused = self._transaction_limits.before(verdict) or await self._looked_up(verdict)
            if refused is not None:
                return _as_error(refused)
        if any(verdict.waits for verdict in verdicts):
            await self._jobs.settle()
        return None

    async def _meets_conflict(self, verdicts: list[Verdict]) -> bool:
        using = [verdict for verdict in verdicts if verdict.kind in _USES_CATALOG]
        return bool(using) and await self._catalog.meets_conflict(frozenset().union(*(verdict.objects for verdict in using)))

    async def _looked_up(self, verdict: Verdict) -> StatementError | None:
        for lookup in verdict.lookups:
            with contextlib.suppress(CommandFailed):
                rows = await self._backend.run(lookup.sql)
                if rows:
                    return lookup.answered(rows[0])
        return None

    def translated(self, unit: Unit) -> Unit:
        """The unit as PostgreSQL is told it."""
        if any(NEW_JOB in (judge(text).execution or "") for text in unit.statements):
            self._submits = True
            self._jobs.soon()
        return unit.told(self._told) if any(judge(text).execution is not None for text in unit.texts) else unit

    def _told(self, sql: str) -> str:
        execution = judge(sql).execution
        return sql if execution is None else execution.replace(NEW_JOB, self._jobs.new_id(), 1)

    async def flight_is_done(self) -> None:
        """A flight of the session has been executed."""
        await self._jobs.flight_is_done()

    @staticmethod
    def tags(unit: Unit) -> tuple[str | None, ...]:
        """What the command tags of its statements become."""
        return tuple(judge(statement).tag for statement in unit.statements)

    @staticmethod
    def is_own(unit: Unit) -> bool:
        """Whether PostgreSQL would not understand it, or DSQL refuses it."""
        return any(judge(text).execution is not None or judge(text).refused is not None for text in unit.texts)

    def needs_transaction(self, unit: Unit) -> bool:
        """Whether a unit outside a transaction can only be judged when it has been executed, or statement by statement."""
        verdicts = self._verdicts(unit)
        if any(self._open_ended(each) or each.kind is Class.DDL or each.tag is not None for each in verdicts):
            return True
        if any(verdict.kind is Class.DML for verdict in verdicts) and unit.sent > self._limits.size:
            return True
        return bool(unit.parts) and (self.is_own(unit) or any(verdict.kind is Class.DML for verdict in verdicts))

    def _open_ended(self, verdict: Verdict) -> bool:
        too_many = verdict.rows is None or verdict.rows > self._limits.rows
        return verdict.kind is Class.DML and (too_many or verdict.grows)

    def counts(self, unit: Unit) -> bool:
        """Whether its answer must be read before the client gets it."""
        return any(verdict.kind is Class.DML or verdict.tag is not None for verdict in self._verdicts(unit))

    def lock(self, size: int) -> None:
        """The transaction has locked keys of so many bytes."""
        self._transaction_limits.lock(size)

    def may_have_long_keys(self, unit: Unit, received: int = 0) -> bool:
        """Whether a unit brings or makes a value that is too long for a key, or `received` bytes of COPY may have one."""
        writing = [verdict for verdict in self._verdicts(unit) if verdict.kind is Class.DML]
        if not writing:
            return False
        least = self._limits.key // KEY_COLUMNS  # the longest of so many values, together too long, has more bytes than this
        return received > least or any(verdict.grows for verdict in writing) or unit.has_value_longer_than(least)

    async def keys_are_too_long(self, checks: ConstraintChecks) -> Message | None:
        """The error for a key that the transaction has written and that is too long."""
        return LONG_KEY if await checks.are_longer_than(self._limits.key) else None

    def after(self, unit: Unit, rows: int, received: int, *, further: bool = False) -> Message | None:
        """The error with which a unit is answered although it was executed; `further` if it reached beyond its command tag."""
        refused = None
        for verdict in self._verdicts(unit):
            refused = self._transaction_limits.after(verdict, rows, unit.sent + received, further=further)
            self._renamed |= verdict.renamed
        return _as_error(refused)

    async def at_commit(self) -> Message | None:
        """The error with which COMMIT is answered."""
        if await self._catalog.commit_meets_conflict():
            return conflict("OC001")
        if self._transaction_limits.has_ddl and self._catalog.needs_changes:
            self._changes = await changed_objects(self._backend)
        written = await written_bytes(self._backend) if self._transaction_limits.grows else None
        return _as_error(self._transaction_limits.at_commit(written))

    @staticmethod
    def _verdicts(unit: Unit) -> list[Verdict]:
        return [judge(statement) for statement in unit.statements]
