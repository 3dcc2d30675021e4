"""The statement policy of one session: DSQL's rules and limits, checked before and after a unit is executed.

It returns the error to answer, if any. It changes no transaction and writes to no client. It queries PostgreSQL only for what a
rule needs to know of the catalog, for the bytes that a transaction has written, and for what its DDL has changed.
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

MAX_KEY_COLUMNS = 8
_USES_CATALOG = (Class.READ, Class.DML, Class.DDL, Class.UNKNOWN)


def _as_error(refused: StatementError | None) -> Message | None:
    return None if refused is None else error(refused.sqlstate, refused.message)


class StatementPolicy:
    """The policy of one session."""

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
        self._submits_job = False  # jobs run when the transaction is committed
        self._transaction_limits = TransactionLimits(limits, clock)
        self._history = history
        self._catalog = CatalogView(history, schema_conflicts, lambda: search_path(backend))
        self._changes: list[Change] = []  # made by the transaction's DDL; known at COMMIT
        self._renamed: frozenset[ObjectName] = frozenset()

    def begin(self) -> None:
        """A transaction begins, or was rolled back."""
        self._transaction_limits.begin()
        self._catalog.begin()
        self._changes = []
        self._renamed = frozenset()

    def committed(self) -> None:
        """The transaction was committed."""
        if self._transaction_limits.has_ddl:
            self._catalog.committed((*map(Change, self._renamed), *self._changes))
        self.begin()
        if self._submits_job:
            self._submits_job = False
            self._jobs.schedule()

    def refresh_catalog(self) -> None:
        """Take the catalog's current state as seen, so that earlier changes cause no OC001."""
        self._catalog.refresh()

    @property
    def catalog_version(self) -> int:
        """The catalog's current version: what was read from the catalog is valid until it changes."""
        return self._history.version

    async def check_before(self, unit: Unit) -> Message | None:
        """The error to answer instead of executing a unit, if any."""
        for text in unit.sql_texts:
            if judge(text).refused is not None:
                return _as_error(judge(text).refused)
        verdicts = self._verdicts(unit)
        if await self._conflicts_with_ddl(verdicts):
            return conflict("OC001")
        for verdict in verdicts:
            refused = self._transaction_limits.check_before(verdict) or await self._check_catalog(verdict)
            if refused is not None:
                return _as_error(refused)
        if any(verdict.waits_for_job for verdict in verdicts):
            await self._jobs.run_submitted()
        return None

    async def _conflicts_with_ddl(self, verdicts: list[Verdict]) -> bool:
        using = [verdict for verdict in verdicts if verdict.kind in _USES_CATALOG]
        return bool(using) and await self._catalog.conflicts(frozenset().union(*(verdict.objects for verdict in using)))

    async def _check_catalog(self, verdict: Verdict) -> StatementError | None:
        for check in verdict.catalog_checks:
            with contextlib.suppress(CommandFailed):
                rows = await self._backend.run(check.sql)
                if rows:
                    return check.error_for(rows[0])
        return None

    def translate(self, unit: Unit) -> Unit:
        """The unit as PostgreSQL executes it."""
        if any(NEW_JOB in (judge(text).execution or "") for text in unit.statements):
            self._submits_job = True
            self._jobs.schedule()
        return unit.with_sql(self._rewrite) if any(judge(text).execution is not None for text in unit.sql_texts) else unit

    def _rewrite(self, sql: str) -> str:
        execution = judge(sql).execution
        return sql if execution is None else execution.replace(NEW_JOB, self._jobs.new_id(), 1)

    async def flight_executed(self) -> None:
        """A flight of the session was executed."""
        await self._jobs.flight_executed()

    @staticmethod
    def command_tags(unit: Unit) -> tuple[str | None, ...]:
        """The command tags for the client, by statement; None leaves PostgreSQL's."""
        return tuple(judge(statement).tag for statement in unit.statements)

    @staticmethod
    def is_dsql_specific(unit: Unit) -> bool:
        """Whether it contains DSQL's own syntax, or something that DSQL refuses."""
        return any(judge(text).execution is not None or judge(text).refused is not None for text in unit.sql_texts)

    def needs_transaction(self, unit: Unit) -> bool:
        """Whether a unit outside a transaction needs an internal one, because it can only be checked after its execution."""
        verdicts = self._verdicts(unit)
        if any(self._may_exceed_limits(each) or each.kind is Class.DDL or each.tag is not None for each in verdicts):
            return True
        if any(verdict.kind is Class.DML for verdict in verdicts) and unit.sent_bytes > self._limits.size:
            return True
        return bool(unit.parts) and (self.is_dsql_specific(unit) or any(verdict.kind is Class.DML for verdict in verdicts))

    def _may_exceed_limits(self, verdict: Verdict) -> bool:
        too_many = verdict.rows is None or verdict.rows > self._limits.rows
        return verdict.kind is Class.DML and (too_many or verdict.may_grow)

    def needs_buffering(self, unit: Unit) -> bool:
        """Whether its response must be read before it is sent to the client."""
        return any(verdict.kind is Class.DML or verdict.tag is not None for verdict in self._verdicts(unit))

    def count_locked(self, key_bytes: int) -> None:
        """The transaction has locked rows, with keys of this size."""
        self._transaction_limits.count_locked(key_bytes)

    def may_have_long_keys(self, unit: Unit, copied_bytes: int = 0) -> bool:
        """Whether a unit, or its COPY data, may contain or compute a value that is too long for a key."""
        writing = [verdict for verdict in self._verdicts(unit) if verdict.kind is Class.DML]
        if not writing:
            return False
        length = self._limits.key // MAX_KEY_COLUMNS  # if a key is too long, one of its values is longer than this
        return copied_bytes > length or any(verdict.may_grow for verdict in writing) or unit.has_value_longer_than(length)

    async def check_keys(self, checks: ConstraintChecks) -> Message | None:
        """The error to answer if the transaction has written a key that is too long."""
        return LONG_KEY if await checks.has_keys_longer_than(self._limits.key) else None

    def check_after(self, unit: Unit, rows: int, copied_bytes: int, *, untagged: bool = False) -> Message | None:
        """The error to answer although a unit was executed, if any.

        `rows` is how many rows it modified, `copied_bytes` the size of its COPY data. `untagged` means that it may have modified
        rows that its command tag does not count.
        """
        refused = None
        for verdict in self._verdicts(unit):
            refused = self._transaction_limits.check_after(verdict, rows, unit.sent_bytes + copied_bytes, untagged=untagged)
            self._renamed |= verdict.renamed
        return _as_error(refused)

    async def check_commit(self) -> Message | None:
        """The error to answer to COMMIT, if any."""
        if await self._catalog.commit_conflicts():
            return conflict("OC001")
        if self._transaction_limits.has_ddl and self._catalog.needs_changes:
            self._changes = await changed_objects(self._backend)
        written = await written_bytes(self._backend) if self._transaction_limits.must_measure_bytes else None
        return _as_error(self._transaction_limits.check_commit(written))

    @staticmethod
    def _verdicts(unit: Unit) -> list[Verdict]:
        return [judge(statement) for statement in unit.statements]
