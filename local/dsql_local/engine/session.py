"""One client's session: executes flights unit by unit, and sends the answers to the client.

It acts where DSQL differs from PostgreSQL: at BEGIN, COMMIT and ROLLBACK, on conflicts, when the statement policy refuses a unit,
and for injected faults. It knows nothing about TLS, tokens or sockets, and reads no SQL.
"""

import asyncio
import contextlib

from ..events import RecordEvent
from ..faults.kinds import Conflict, Unavailable
from ..faults.plan import FaultPlan
from ..postgres.backend import Backend, BackendLost, CommandFailed, encode_commands, encode_prefix
from ..protocol.client import Client
from ..protocol.messages import Message, error_fields, query, ready
from ..rules.error_responses import IN_FAILED_TRANSACTION, UNAVAILABLE, conflict
from ..rules.statements import Kind
from .constraint_checks import ConstraintChecks
from .flights import Flight, Unit
from .lock_monitor import LockHolder, LockMonitor
from .response import as_dsql_error, relay_response
from .response_buffer import ResponseBuffer
from .scheduler import Scheduler
from .statement_policy import StatementPolicy
from .transaction import Transaction
from .write_stats import modified_rows

__all__ = ["Session"]

CLOSING_SECONDS = 1.0
_COMMIT_COMMAND = encode_commands("COMMIT")
_COMMIT_UNIT = Unit((query("COMMIT"),), ("COMMIT",))


class Session:
    """A backend and its open transaction."""

    def __init__(
        self,
        backend: Backend,
        *,
        policy: StatementPolicy,
        faults: FaultPlan,
        lock_monitor: LockMonitor,
        record: RecordEvent,
        scheduler: Scheduler,
    ) -> None:
        self._backend = backend
        self._policy = policy
        self._faults = faults
        self._lock_monitor = lock_monitor
        self._record = record
        self._scheduler = scheduler
        self._busy = asyncio.Lock()
        self._constraint_checks = ConstraintChecks(backend, lock_monitor.removals, lambda: policy.catalog_version)
        self._transaction = self._new_transaction()
        self._failed_flight = False  # a flight failed before its Sync: everything up to the Sync is skipped
        self._until_sync = False  # the open transaction is an implicit one, which the Sync commits
        lock_monitor.register(backend.pid, self)

    @property
    def in_transaction(self) -> bool:
        """Whether an explicit transaction is open, failed or not."""
        return self._backend.status != b"I" and not self._until_sync

    async def run(self, flight: Flight, client: Client) -> None:
        """Execute a flight, and send all its answers to the client."""
        async with self._scheduler.turn(client) as client_in_turn:
            async with self._busy:
                with self._lock_monitor.unblocking(self._backend.pid):
                    await self._run(flight, client_in_turn)
            await self._policy.flight_executed()

    async def _run(self, flight: Flight, client: Client) -> None:
        flushed = flight.ending == "flush"
        if not self._failed_flight:
            for unit in flight.units(in_transaction=self._backend.status != b"I"):
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
        """Free the open transaction's locks for another session, unless a flight is being executed."""
        if isinstance(other, Session):
            self._transaction.contend_with(other._transaction)
        if self._busy.locked():
            return
        async with self._busy:
            if self._backend.status != b"I":
                with contextlib.suppress(BackendLost, CommandFailed):
                    await self._transaction.suspend()

    async def close(self) -> None:
        """Close it; returns when PostgreSQL has rolled back the open transaction."""
        self._lock_monitor.unregister(self._backend.pid)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS), self._busy:
                await self._backend.close()
        self._backend.abort()

    # --- Units ---

    async def _execute(self, unit: Unit, client: Client, *, flushed: bool) -> bool:
        """Execute one unit unless it is refused; returns whether it succeeded."""
        if unit.kind.is_transaction_control:
            return await self._control_transaction(unit, client)
        status = self._backend.status
        if status == b"E":
            return await self._execute_in_failed_transaction(unit, client)
        if unit.statements and await self._inject_error(client):
            return False
        if status == b"I":
            self._policy.begin()
            if flushed and unit.has_portal:
                await self._backend.run("BEGIN")
                self._until_sync = True
            elif self._policy.needs_transaction(unit) or await self._may_have_long_keys(unit):
                return await self._execute_in_internal_transaction(unit, client)
        error = await self._policy.check_before(unit)
        if error is not None:
            return await self._fail(error, client)
        unit = self._policy.translate(unit)
        if self._backend.status == b"T":
            return await self._execute_in_transaction(unit, client)
        with self._lock_monitor.removals.during(await self._may_remove_keys(unit)):
            return await self._forward(unit, client)

    async def _control_transaction(self, unit: Unit, client: Client) -> bool:
        """BEGIN, COMMIT or ROLLBACK."""
        status = self._backend.status
        if unit.kind is Kind.COMMIT and status == b"T":
            return await self._commit(unit, client)
        if unit.kind is Kind.BEGIN and status != b"E":
            if status == b"I":
                self._policy.begin()
            error = await self._policy.check_before(unit)
            if error is not None:
                return await self._fail(error, client)
        succeeded = await self._forward(unit, client)
        if unit.kind is not Kind.BEGIN or status == b"I":  # BEGIN inside a transaction only causes a warning
            self._start_new_transaction()
        self._until_sync = False  # BEGIN turns an implicit transaction into an explicit one
        return succeeded

    async def _execute_in_failed_transaction(self, unit: Unit, client: Client) -> bool:
        """In a failed transaction every statement fails with 25P02, also one that PostgreSQL would not understand."""
        if not self._policy.is_dsql_specific(unit):
            return await self._forward(unit, client)
        client.write(IN_FAILED_TRANSACTION.data)
        return False

    async def _inject_error(self, client: Client) -> bool:
        """Fail a statement if a fault is pending for it; returns whether it did."""
        fault = self._faults.take_for_statement()
        if isinstance(fault, Unavailable):
            await self._fail_as_unavailable(fault, client)
        elif fault is not None:
            await self._fail_statement(fault, client)
        return fault is not None

    async def _forward(self, unit: Unit, client: Client, *, begin: bool = False) -> bool:
        """Execute a unit unchanged, after an internal BEGIN if `begin`, and send the response as it arrives."""
        self._backend.send((encode_prefix("BEGIN") if begin else b"") + unit.data)
        if begin:
            await self._backend.skip_prefix(1)
        response = await relay_response(self._backend, unit, client, hold=False)
        if response.is_conflict:
            self._record("conflict", code="OC000", reason="at the statement")
        return response.error is None

    async def _execute_in_transaction(self, unit: Unit, client: Client) -> bool:
        """Execute a unit in the open transaction, and fail it if it exceeds a limit."""
        if not self._policy.needs_buffering(unit):
            succeeded = await self._transaction.execute(unit, client)
            self._policy.count_locked(self._transaction.locked_bytes)
            error = self._policy.check_after(unit, 0, 0) if succeeded else None
            return succeeded if error is None else await self._fail(error, client)
        counts_rows = await self._constraint_checks.may_modify_untagged_rows(unit.statements)
        buffer = ResponseBuffer(client, self._policy.command_tags(unit))
        succeeded = await self._transaction.execute(unit, buffer, counting=counts_rows)
        self._policy.count_locked(self._transaction.locked_bytes)
        rows = buffer.rows if self._transaction.modified is None else self._transaction.modified
        error = self._policy.check_after(unit, rows, buffer.copied_bytes, untagged=counts_rows) if succeeded else None
        if succeeded and error is None and await self._may_have_long_keys(unit, buffer.copied_bytes):
            error = await self._policy.check_keys(self._constraint_checks)
        if error is not None:
            return await self._fail(error, client)
        buffer.send()
        return succeeded

    async def _execute_in_internal_transaction(self, unit: Unit, client: Client) -> bool:
        """Execute a unit outside a transaction in an internal one, so that it can still fail after its execution."""
        buffers: list[ResponseBuffer] = []
        failed, error = False, None
        for part in unit.parts or (unit,):
            error = await self._policy.check_before(part)
            if error is not None:
                break
            counts_rows = await self._constraint_checks.may_modify_untagged_rows(part.statements)
            if counts_rows and self._backend.status == b"I":
                await self._backend.run("BEGIN")
            previous_rows = await modified_rows(self._backend) if counts_rows else 0
            buffer = ResponseBuffer(client, self._policy.command_tags(part))
            failed = not await self._forward(self._policy.translate(part), buffer, begin=self._backend.status == b"I")
            rows = await modified_rows(self._backend) - previous_rows if counts_rows and not failed else buffer.rows
            error = None if failed else self._policy.check_after(part, rows, buffer.copied_bytes, untagged=counts_rows)
            if not failed and error is None and await self._may_have_long_keys(part, buffer.copied_bytes):
                error = await self._policy.check_keys(self._constraint_checks)
            if error is not None:
                break
            buffers.append(buffer)
            if failed:
                break
        else:
            with self._lock_monitor.removals.during(await self._may_remove_keys(unit)):
                error = await self._policy.check_commit() or await self._commit_internal()
            if error is not None:
                buffers.pop()  # the last statement has failed after all
        if self._backend.status != b"I":
            await self._end_transaction("ROLLBACK")
        for buffer in buffers:
            buffer.send()
        if error is not None:
            self._record_conflict(error)
            client.write(error.data)
        return not failed and error is None

    async def _commit_internal(self) -> Message | None:
        """COMMIT an internal transaction; returns the error if it fails."""
        self._backend.send(_COMMIT_COMMAND)
        for message in await self._backend.read_answers():
            if message.kind == b"E" and isinstance(message, Message):
                return as_dsql_error(message)
        self._policy.committed()
        return None

    async def _commit(self, unit: Unit, client: Client) -> bool:
        """COMMIT the open transaction, or answer 40001 if it lost a conflict or a fault is pending for it."""
        if not await self._transaction.may_commit():
            return await self._fail_commit("OC000", client)
        error = await self._policy.check_commit()
        if error is not None:
            self._record_conflict(error)
            await self._end_transaction("ROLLBACK")
            client.write(error.data)
            return False
        fault = self._faults.take_for_commit()
        if isinstance(fault, Conflict):
            self._record("conflict", code=fault.code, reason="on demand")
            return await self._fail_commit(fault.code, client)
        if isinstance(fault, Unavailable):
            return await self._fail_as_unavailable(fault, client)
        removes = self._lock_monitor.has_several_sessions and await self._transaction.may_remove_keys()
        self._transaction.mark_committed()
        with self._lock_monitor.removals.during(removes):
            succeeded = await self._forward(unit, client)
        if succeeded:
            self._policy.committed()
        self._start_new_transaction()
        return succeeded

    async def _commit_implicitly(self, client: Client) -> None:
        """COMMIT the implicit transaction at its Sync. The client gets no answer, except an error."""
        self._until_sync = False
        if self._backend.status == b"T":
            buffer = ResponseBuffer(client)
            if not await self._commit(_COMMIT_UNIT, buffer):
                buffer.send()
        elif self._backend.status == b"E":
            await self._end_transaction("ROLLBACK")

    async def _may_have_long_keys(self, unit: Unit, copied_bytes: int = 0) -> bool:
        return self._policy.may_have_long_keys(unit, copied_bytes) and await self._constraint_checks.has_string_keys()

    async def _may_remove_keys(self, unit: Unit) -> bool:
        """Whether a unit outside a transaction may remove a unique key while there are other sessions."""
        return (
            self._lock_monitor.has_several_sessions
            and self._policy.needs_buffering(unit)
            and await self._constraint_checks.may_remove_keys(unit.statements)
        )

    async def _fail_commit(self, code: str, client: Client) -> bool:
        await self._end_transaction("ROLLBACK")
        client.write(conflict(code).data)
        return False

    async def _fail_as_unavailable(self, fault: Unavailable, client: Client) -> bool:
        self._record("unavailable", at=fault.at, applied=fault.applied)
        if fault.at == "commit":
            await self._end_transaction("COMMIT" if fault.applied else "ROLLBACK")
        elif self._backend.status == b"T":
            await self._backend.fail_transaction()
        client.write(UNAVAILABLE.data)
        return False

    async def _fail_statement(self, fault: Conflict, client: Client) -> bool:
        """Fail a statement, even a read, and put the open transaction into the failed state, as OC001 does."""
        self._record("conflict", code=fault.code, reason="on demand")
        if self._backend.status == b"T":
            await self._backend.fail_transaction()
        client.write(conflict(fault.code).data)
        return False

    async def _end_transaction(self, how: str) -> None:
        with contextlib.suppress(CommandFailed):
            await self._backend.run(how)
            if how == "COMMIT":
                self._policy.committed()
        self._start_new_transaction()

    async def _fail(self, error: Message, client: Client) -> bool:
        """Send an error, and put the open transaction into the failed state."""
        self._record_conflict(error)
        if self._backend.status == b"T":
            await self._backend.fail_transaction()
        client.write(error.data)
        return False

    def _record_conflict(self, error: Message) -> None:
        if error_fields(error).get("C") == "40001":
            code = "OC001" if "OC001" in error_fields(error).get("M", "") else "OC000"
            self._record("conflict", code=code, reason="another session changed the catalog" if code == "OC001" else "at COMMIT")

    def _start_new_transaction(self) -> None:
        """Prepare for a new transaction."""
        self._transaction = self._new_transaction()
        self._policy.begin()

    def _new_transaction(self) -> Transaction:
        return Transaction(
            self._backend, self._constraint_checks, lambda reason: self._record("conflict", code="OC000", reason=reason)
        )
