"""What stands between a session's unit and PostgreSQL: the rules, asked about it before it is executed, the ledger told after it.

It finds what to answer and gives it back; it changes no transaction and writes to no client. The only thing that it asks
PostgreSQL is what a rule wants to know of the catalog, and how many bytes a transaction has written.
"""

import contextlib
from collections.abc import Callable

from ..postgres.backend import Backend, CommandFailed
from ..protocol.messages import Message, error
from ..rules.dialect import NEW_JOB, with_new_job
from ..rules.error_responses import conflict
from ..rules.limits import Limits
from ..rules.rulebook import StatementError
from ..rules.verdict import Class, Verdict, judge
from .flights import Unit
from .jobs import JobRunner
from .transaction_limits import CatalogVersion, TransactionLimits
from .write_stats import written_bytes

__all__ = ["StatementPolicy"]


def _as_error(refused: StatementError | None) -> Message | None:
    return None if refused is None else error(refused.sqlstate, refused.message)


def _told(sql: str) -> str:
    execution = judge(sql).execution
    return sql if execution is None else with_new_job(execution)


class StatementPolicy:
    """One session's."""

    def __init__(
        self, backend: Backend, limits: Limits, catalog: CatalogVersion, clock: Callable[[], float], jobs: JobRunner
    ) -> None:
        self._backend = backend
        self._limits = limits
        self._jobs = jobs
        self._submits = False  # a job, which is seen when the transaction has been committed
        self._transaction_limits = TransactionLimits(limits, catalog, clock)

    def begin(self) -> None:
        """A transaction begins, or has been rolled back."""
        self._transaction_limits.begin()

    def committed(self) -> None:
        """The transaction has been committed."""
        self._transaction_limits.committed()
        if self._submits:
            self._submits = False
            self._jobs.soon()

    def look(self) -> None:
        """Look at the catalog now, so that what changed it so far is no news."""
        self._transaction_limits.look()

    @property
    def catalog(self) -> int:
        """The version of the catalog that it has seen."""
        return self._transaction_limits.seen

    async def before(self, unit: Unit) -> Message | None:
        """The error with which a unit of one statement is answered instead of being executed."""
        for text in unit.texts:
            if judge(text).refused is not None:
                return _as_error(judge(text).refused)
        verdicts = self._verdicts(unit)
        if self._transaction_limits.meets_conflict(verdicts):
            return conflict("OC001")
        for verdict in verdicts:
            refused = self._transaction_limits.before(verdict) or await self._looked_up(verdict)
            if refused is not None:
                return _as_error(refused)
        if any(verdict.waits for verdict in verdicts):
            await self._jobs.settle()
        return None

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
        return unit.told(_told) if any(judge(text).execution is not None for text in unit.texts) else unit

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

    def after(self, unit: Unit, rows: int, received: int, *, further: bool = False) -> Message | None:
        """The error with which a unit is answered although it was executed; `further` if it reached beyond its command tag."""
        refused = None
        for verdict in self._verdicts(unit):
            refused = self._transaction_limits.after(verdict, rows, unit.sent + received, further=further)
        return _as_error(refused)

    async def at_commit(self) -> Message | None:
        """The error with which COMMIT is answered."""
        if self._transaction_limits.commit_meets_conflict():
            return conflict("OC001")
        written = await written_bytes(self._backend) if self._transaction_limits.grows else None
        return _as_error(self._transaction_limits.at_commit(written))

    @staticmethod
    def _verdicts(unit: Unit) -> list[Verdict]:
        return [judge(statement) for statement in unit.statements]
