"""One client's session: each flight handed on to PostgreSQL, unit by unit, and its answers handed back.

It acts where DSQL differs: at BEGIN, COMMIT and ROLLBACK, on conflicts, where the rules or a limit say no (a `Guard` finds that),
and for faults that were asked for. It knows neither TLS nor tokens nor the client's socket (a `Client` takes the answers), and
reads no SQL.
"""

import asyncio
import contextlib

from ..events import RecordEvent
from ..faults.plan import Conflict, FaultPlan, Unavailable
from ..postgres.backend import Backend, BackendLost, CommandFailed, ahead, commands
from ..protocol.client import Client
from ..protocol.messages import Message, error_fields, query, ready
from ..rules.error_responses import IN_FAILED_TRANSACTION, UNAVAILABLE, conflict
from ..rules.statements import Kind
from .chance import Chance
from .constraint_checks import ConstraintChecks
from .flights import Flight, Unit
from .lock_monitor import LockHolder, LockMonitor
from .response import in_own_words, relay_response
from .response_buffer import ResponseBuffer
from .statement_policy import StatementPolicy
from .transaction import Transaction
from .write_stats import modified_rows

__all__ = ["Session"]

CLOSING_SECONDS = 1.0
_END = commands("COMMIT")
_COMMIT = Unit((query("COMMIT"),), ("COMMIT",))


class Session:
    """A backend, its open transaction, and its place among the rivals."""

    def __init__(
        self,
        backend: Backend,
        *,
        policy: StatementPolicy,
        faults: FaultPlan,
        lock_monitor: LockMonitor,
        record: RecordEvent,
        chance: Chance,
    ) -> None:
        self._backend = backend
        self._chance = chance
        self._policy = policy
        self._faults = faults
        self._lock_monitor = lock_monitor
        self._record = record
        self._busy = asyncio.Lock()
        self._constraint_checks = ConstraintChecks(backend, lock_monitor.removals, lambda: policy.catalog_version)
        self._transaction = self._new_transaction()
        self._failed_flight = False  # it failed before a Flush: everything up to the Sync is skipped
        self._until_sync = False  # the open transaction is an implicit one, of which a Flush has asked for answers
        lock_monitor.register(backend.pid, self)

    @property
    def inside(self) -> bool:
        """Whether an explicit transaction is open, failed or not."""
        return self._backend.status != b"I" and not self._until_sync

    async def run(self, flight: Flight, client: Client) -> None:
        """Execute a flight; every answer of it has been given to the client afterwards."""
        async with self._chance.turn(client) as client_in_turn:
            async with self._busy:
                with self._lock_monitor.unblocking(self._backend.pid):
                    await self._run(flight, client_in_turn)
            await self._policy.flight_is_done()

    async def _run(self, flight: Flight, client: Client) -> None:
        flushed = flight.ending == "flush"
        if not self._failed_flight:
            for unit in flight.units(inside=self._backend.status != b"I"):
                if not await self._execute(unit, client, flushed=flushed):
                    self._failed_flight = True
                    break
        if flushed:
            return
        self._failed_flight = False
        if self._until_sync:
            await self._commit_implicitly(client)
        client.write(ready(self._backend.status).data)

    async def release_locks(self, other: LockHolder | None) -> None:
        """Free the open transaction's locks for another session, unless a flight is under way."""
        if isinstance(other, Session):
            self._transaction.meets(other._transaction)
        if self._busy.locked():
            return
        async with self._busy:
            if self._backend.status != b"I":
                with contextlib.suppress(BackendLost, CommandFailed):
                    await self._transaction.suspend()

    async def close(self) -> None:
        """End it; returns when PostgreSQL has rolled back what was open."""
        self._lock_monitor.unregister(self._backend.pid)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS), self._busy:
                await self._backend.close()
        self._backend.abort()

    # --- Units ---

    async def _execute(self, unit: Unit, client: Client, *, flushed: bool) -> bool:
        """Judge one unit, and execute it unless it is refused: whether it succeeded."""
        if unit.kind.controls:
            return await self._control(unit, client)
        status = self._backend.status
        if status == b"E":
            return await self._in_failed(unit, client)
        if unit.statements and await self._struck(client):
            return False
        if status == b"I":
            self._policy.begin()
            if flushed and unit.has_portal:
                await self._backend.run("BEGIN")
                self._until_sync = True
            elif self._policy.needs_transaction(unit) or await self._may_have_long_keys(unit):
                return await self._in_own_transaction(unit, client)
        refused = await self._policy.before(unit)
        if refused is not None:
            return await self._refuse(refused, client)
        unit = self._policy.translated(unit)
        if self._backend.status == b"T":
            return await self._inside(unit, client)
        with self._lock_monitor.removals.during(await self._removes_keys(unit)):
            return await self._pass_on(unit, client)

    async def _control(self, unit: Unit, client: Client) -> bool:
        """BEGIN, COMMIT or ROLLBACK."""
        status = self._backend.status
        if unit.kind is Kind.COMMIT and status == b"T":
            return await self._commit(unit, client)
        if unit.kind is Kind.BEGIN and status != b"E":
            if status == b"I":
                self._policy.begin()
            refused = await self._policy.before(unit)
            if refused is not None:
                return await self._refuse(refused, client)
        succeeded = await self._pass_on(unit, client)
        if unit.kind is not Kind.BEGIN or status == b"I":  # BEGIN in a transaction is only a warning
            self._begin()
        self._until_sync = False  # BEGIN makes an implicit transaction an explicit one
        return succeeded

    async def _in_failed(self, unit: Unit, client: Client) -> bool:
        """In a failed transaction everything is answered 25P02, what PostgreSQL would not understand included."""
        if not self._policy.is_own(unit):
            return await self._pass_on(unit, client)
        client.write(IN_FAILED_TRANSACTION.data)
        return False

    async def _struck(self, client: Client) -> bool:
        """Whether a fault that was asked for answers instead of a statement."""
        fault = self._faults.at_statement()
        if isinstance(fault, Unavailable):
            await self._unavailable(fault, client)
        elif fault is not None:
            await self._conflict_at_statement(fault, client)
        return fault is not None

    async def _pass_on(self, unit: Unit, client: Client, *, begin: bool = False) -> bool:
        """Hand a unit on as it is, behind a BEGIN of our own if that is asked for, and its answers back as they come."""
        self._backend.send((ahead("BEGIN") if begin else b"") + unit.data)
        if begin:
            await self._backend.pass_ahead(1)
        reply = await relay_response(self._backend, unit, client, hold=False)
        if reply.lost:
            self._record("conflict", code="OC000", reason="at the statement")
        return reply.error is None

    async def _inside(self, unit: Unit, client: Client) -> bool:
        """Execute a unit in the open transaction; a limit that it crosses makes it fail."""
        if not self._policy.counts(unit):
            succeeded = await self._transaction.execute(unit, client)
            self._policy.lock(self._transaction.locked_bytes)
            refused = self._policy.after(unit, 0, 0) if succeeded else None
            return succeeded if refused is None else await self._refuse(refused, client)
        further = await self._constraint_checks.reach_further(unit.statements)
        kept = ResponseBuffer(client, self._policy.tags(unit))
        succeeded = await self._transaction.execute(unit, kept, further=further)
        self._policy.lock(self._transaction.locked_bytes)
        rows = kept.rows if self._transaction.modified is None else self._transaction.modified
        refused = self._policy.after(unit, rows, kept.received, further=further) if succeeded else None
        if succeeded and refused is None and await self._may_have_long_keys(unit, kept.received):
            refused = await self._policy.keys_are_too_long(self._constraint_checks)
        if refused is not None:
            return await self._refuse(refused, client)
        kept.give()
        return succeeded

    async def _in_own_transaction(self, unit: Unit, client: Client) -> bool:
        """Execute a unit outside a transaction so that it can still fail when it has been executed."""
        answered: list[ResponseBuffer] = []
        failed, refused = False, None
        for part in unit.parts or (unit,):
            refused = await self._policy.before(part)
            if refused is not None:
                break
            further = await self._constraint_checks.reach_further(part.statements)
            if further and self._backend.status == b"I":
                await self._backend.run("BEGIN")
            so_far = await modified_rows(self._backend) if further else 0
            kept = ResponseBuffer(client, self._policy.tags(part))
            failed = not await self._pass_on(self._policy.translated(part), kept, begin=self._backend.status == b"I")
            rows = await modified_rows(self._backend) - so_far if further and not failed else kept.rows
            refused = None if failed else self._policy.after(part, rows, kept.received, further=further)
            if not failed and refused is None and await self._may_have_long_keys(part, kept.received):
                refused = await self._policy.keys_are_too_long(self._constraint_checks)
            if refused is not None:
                break
            answered.append(kept)
            if failed:
                break
        else:
            with self._lock_monitor.removals.during(await self._removes_keys(unit)):
                refused = await self._policy.at_commit() or await self._committed()
            if refused is not None:
                answered.pop()  # the last one was answered too soon
        if self._backend.status != b"I":
            await self._end("ROLLBACK")
        for kept in answered:
            kept.give()
        if refused is not None:
            self._record_rejection(refused)
            client.write(refused.data)
        return not failed and refused is None

    async def _committed(self) -> Message | None:
        """COMMIT a transaction of our own: the error, if it fails."""
        self._backend.send(_END)
        for message in await self._backend.finish():
            if message.kind == b"E" and isinstance(message, Message):
                return in_own_words(message)
        self._policy.committed()
        return None

    async def _commit(self, unit: Unit, client: Client) -> bool:
        """COMMIT of an open transaction: 40001 if it has lost or is to lose, else PostgreSQL's COMMIT."""
        if not await self._transaction.may_commit():
            return await self._lose("OC000", client)
        refused = await self._policy.at_commit()
        if refused is not None:
            self._record_rejection(refused)
            await self._end("ROLLBACK")
            client.write(refused.data)
            return False
        fault = self._faults.at_commit()
        if isinstance(fault, Conflict):
            self._record("conflict", code=fault.code, reason="on demand")
            return await self._lose(fault.code, client)
        if isinstance(fault, Unavailable):
            return await self._unavailable(fault, client)
        removes = self._lock_monitor.has_several_sessions and await self._transaction.removes_keys()
        self._transaction.wins()
        with self._lock_monitor.removals.during(removes):
            succeeded = await self._pass_on(unit, client)
        if succeeded:
            self._policy.committed()
        self._begin()
        return succeeded

    async def _commit_implicitly(self, client: Client) -> None:
        """The Sync of an implicit transaction has come: only a failure is told."""
        self._until_sync = False
        if self._backend.status == b"T":
            kept = ResponseBuffer(client)
            if not await self._commit(_COMMIT, kept):
                kept.give()
        elif self._backend.status == b"E":
            await self._end("ROLLBACK")

    async def _may_have_long_keys(self, unit: Unit, received: int = 0) -> bool:
        return self._policy.may_have_long_keys(unit, received) and await self._constraint_checks.have_strings()

    async def _removes_keys(self, unit: Unit) -> bool:
        """Whether a unit outside a transaction may take a unique key away from another session's transaction."""
        return (
            self._lock_monitor.has_several_sessions
            and self._policy.counts(unit)
            and await self._constraint_checks.removes(unit.statements)
        )

    async def _lose(self, code: str, client: Client) -> bool:
        await self._end("ROLLBACK")
        client.write(conflict(code).data)
        return False

    async def _unavailable(self, fault: Unavailable, client: Client) -> bool:
        self._record("unavailable", at=fault.at, applied=fault.applied)
        if fault.at == "commit":
            await self._end("COMMIT" if fault.applied else "ROLLBACK")
        elif self._backend.status == b"T":
            await self._backend.fail()
        client.write(UNAVAILABLE.data)
        return False

    async def _conflict_at_statement(self, fault: Conflict, client: Client) -> bool:
        """As OC001 surfaces, also at a read: the transaction has failed."""
        self._record("conflict", code=fault.code, reason="on demand")
        if self._backend.status == b"T":
            await self._backend.fail()
        client.write(conflict(fault.code).data)
        return False

    async def _end(self, how: str) -> None:
        with contextlib.suppress(CommandFailed):
            await self._backend.run(how)
            if how == "COMMIT":
                self._policy.committed()
        self._begin()

    async def _refuse(self, refused: Message, client: Client) -> bool:
        """Answer an error of our own; an open transaction has failed."""
        self._record_rejection(refused)
        if self._backend.status == b"T":
            await self._backend.fail()
        client.write(refused.data)
        return False

    def _record_rejection(self, refused: Message) -> None:
        if error_fields(refused).get("C") == "40001":
            code = "OC001" if "OC001" in error_fields(refused).get("M", "") else "OC000"
            self._record("conflict", code=code, reason="another session changed the catalog" if code == "OC001" else "at COMMIT")

    def _begin(self) -> None:
        """Whatever comes next belongs to a new transaction."""
        self._transaction = self._new_transaction()
        self._policy.begin()

    def _new_transaction(self) -> Transaction:
        return Transaction(
            self._backend, self._constraint_checks, lambda reason: self._record("conflict", code="OC000", reason=reason)
        )
