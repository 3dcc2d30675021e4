"""One client's session: each flight handed on to PostgreSQL, unit by unit, and its answers handed back.

It acts where DSQL differs: at BEGIN, COMMIT and ROLLBACK, on conflicts, and for faults that were asked for. It knows neither TLS
nor tokens nor the client's socket (a `Client` takes the answers), and reads no SQL beyond what `statements` says of it.
"""

import asyncio
import contextlib
from typing import Protocol

from .answers import IN_FAILED_TRANSACTION, UNAVAILABLE, conflict, unsupported
from .backend import Backend, BackendLost, CommandFailed
from .faults import Conflict, Faults, Unavailable
from .flights import Flight, Unit
from .messages import SYNC, ready
from .reply import Client, carry, carry_unsynced
from .rivals import Rivals
from .statements import Kind
from .transaction import Transaction

__all__ = ["Note", "Session"]

CLOSING_SECONDS = 1.0


class Note(Protocol):
    """Records an event of this connection."""

    def __call__(self, kind: str, /, **fields: object) -> None: ...


class Session:
    """A backend, its open transaction, and its place among the rivals."""

    def __init__(self, backend: Backend, *, faults: Faults, rivals: Rivals, note: Note) -> None:
        self._backend = backend
        self._faults = faults
        self._rivals = rivals
        self._note = note
        self._busy = asyncio.Lock()
        self._transaction = self._new_transaction()
        self._failed_flight = False  # it failed before a Flush: everything up to the Sync is skipped
        self._unsynced = False  # an implicit transaction is open after a Flush
        rivals.join(backend.pid, self)

    @property
    def inside(self) -> bool:
        """Whether an explicit transaction is open, failed or not."""
        return self._backend.status != b"I"

    async def run(self, flight: Flight, client: Client) -> None:
        """Execute a flight; every answer of it has been given to the client afterwards."""
        async with self._busy:
            with self._rivals.out_of_the_way(self._backend.pid):
                await self._run(flight, client)

    async def _run(self, flight: Flight, client: Client) -> None:
        flushed = flight.ending == "flush"
        if not self._failed_flight:
            for unit in flight.units(inside=self.inside):
                if not await self._execute(unit, client, flushed=flushed):
                    self._failed_flight = True
                    break
        if flushed:
            return
        self._failed_flight = False
        if self._unsynced:
            self._unsynced = False
            self._backend.send(SYNC.data)
            await self._backend.finish()
        client.write(ready(self._backend.status).data)

    async def step_aside(self) -> None:
        """Free the open transaction's locks, unless a flight is under way."""
        if self._busy.locked():
            return
        async with self._busy:
            if self._backend.status == b"T":
                with contextlib.suppress(BackendLost, CommandFailed):
                    await self._transaction.suspend()

    async def close(self) -> None:
        """End it; returns when PostgreSQL has rolled back what was open."""
        self._rivals.leave(self._backend.pid)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS), self._busy:
                await self._backend.close()
        self._backend.abort()

    # --- Units ---

    async def _execute(self, unit: Unit, client: Client, *, flushed: bool) -> bool:
        """Execute one unit: whether it succeeded."""
        status, kind = self._backend.status, unit.kind
        if kind is Kind.COMMIT and status == b"T":
            return await self._commit(unit, client)
        if kind.controls:
            succeeded = await self._pass_on(unit, client)
            if kind is not Kind.BEGIN or status == b"I":  # BEGIN in a transaction is only a warning
                self._transaction = self._new_transaction()
            return succeeded
        if kind is Kind.SAVEPOINT:
            return await self._refuse_savepoint(unit, client)
        if unit.statements and status != b"E":
            fault = self._faults.at_statement()
            if isinstance(fault, Unavailable):
                return await self._unavailable(fault, client)
            if fault is not None:
                return await self._conflict_at_statement(fault, client)
        if status == b"T":
            return await self._transaction.execute(unit, client)
        if flushed and status == b"I" and not unit.simple:
            self._unsynced = True
            return await carry_unsynced(self._backend, unit, client)
        return await self._pass_on(unit, client)

    async def _pass_on(self, unit: Unit, client: Client) -> bool:
        """Hand a unit on as it is, and its answers back as they come."""
        self._unsynced = False
        self._backend.send(unit.data)
        reply = await carry(self._backend, unit, client, hold=False)
        if reply.lost:
            self._note("conflict", code="OC000", reason="at the statement")
        return reply.error is None

    async def _commit(self, unit: Unit, client: Client) -> bool:
        """COMMIT of an open transaction: 40001 if it has lost or is to lose, else PostgreSQL's COMMIT."""
        if not await self._transaction.may_commit():
            return await self._lose("OC000", client)
        fault = self._faults.at_commit()
        if isinstance(fault, Conflict):
            self._note("conflict", code=fault.code, reason="on demand")
            return await self._lose(fault.code, client)
        if isinstance(fault, Unavailable):
            return await self._unavailable(fault, client)
        succeeded = await self._pass_on(unit, client)
        self._transaction = self._new_transaction()
        return succeeded

    async def _lose(self, code: str, client: Client) -> bool:
        await self._end("ROLLBACK")
        client.write(conflict(code).data)
        return False

    async def _unavailable(self, fault: Unavailable, client: Client) -> bool:
        self._note("unavailable", at=fault.at, applied=fault.applied)
        if fault.at == "commit":
            await self._end("COMMIT" if fault.applied else "ROLLBACK")
        elif self._backend.status == b"T":
            await self._backend.fail()
        client.write(UNAVAILABLE.data)
        return False

    async def _conflict_at_statement(self, fault: Conflict, client: Client) -> bool:
        """As OC001 surfaces, also at a read: the transaction has failed."""
        self._note("conflict", code=fault.code, reason="on demand")
        if self._backend.status == b"T":
            await self._backend.fail()
        client.write(conflict(fault.code).data)
        return False

    async def _end(self, how: str) -> None:
        with contextlib.suppress(CommandFailed):
            await self._backend.run(how)
        self._transaction = self._new_transaction()

    async def _refuse_savepoint(self, unit: Unit, client: Client) -> bool:
        """DSQL has no savepoints (and ours need the names' space)."""
        failed = self._backend.status == b"E"
        if self._backend.status == b"T":
            await self._backend.fail()
        client.write((IN_FAILED_TRANSACTION if failed else unsupported(unit.statements[0].split(None, 1)[0].upper())).data)
        return False

    def _new_transaction(self) -> Transaction:
        return Transaction(self._backend, lambda reason: self._note("conflict", code="OC000", reason=reason))
