"""One client's session: each flight handed on to PostgreSQL, unit by unit, and its answers handed back.

It acts where DSQL differs: conflicts, and faults that were asked for. It knows neither TLS nor tokens nor the client's
socket (a `Client` takes the answers), and reads no SQL beyond what `statements` says of it.
"""

from collections.abc import Callable
from typing import Protocol

from .answers import UNAVAILABLE, conflict
from .backend import Backend, CommandFailed
from .faults import Conflict, Faults, Unavailable
from .flights import Flight, Unit
from .messages import FLUSH, SYNC, Message, error_fields, joined, ready
from .statements import Kind

__all__ = ["Client", "Session"]


class Client(Protocol):
    """Where answers go, and where the data of a COPY FROM STDIN comes from."""

    def write(self, data: bytes) -> None:
        """Take bytes for the client."""

    async def drain(self) -> None:
        """Wait while the client is slower to read than we are to write."""

    async def receive(self) -> Message:
        """The client's next message."""


class Session:
    """A backend and what its open transaction needs. `note` records an event (its kind and fields)."""

    def __init__(self, backend: Backend, faults: Faults, note: Callable[..., None]) -> None:
        self._backend = backend
        self._faults = faults
        self._note = note
        self._failed_flight = False  # it failed before a Flush: everything up to the Sync is skipped
        self._unsynced = False  # an implicit transaction is open after a Flush

    @property
    def inside(self) -> bool:
        """Whether an explicit transaction is open, failed or not."""
        return self._backend.status != b"I"

    async def run(self, flight: Flight, client: Client) -> None:
        """Execute a flight; every answer of it has been given to the client afterwards."""
        if not self._failed_flight:
            for unit in flight.units(inside=self.inside):
                if not await self._unit(unit, client, flushed=flight.ending == "flush"):
                    self._failed_flight = True
                    break
        if flight.ending == "flush":
            return
        self._failed_flight = False
        if self._unsynced:
            await self._sync()
        client.write(ready(self._backend.status).data)

    async def close(self) -> None:
        """End it; PostgreSQL rolls back what is open."""
        await self._backend.close()

    # --- Units ---

    async def _unit(self, unit: Unit, client: Client, *, flushed: bool) -> bool:
        """Execute one unit: whether it succeeded."""
        if unit.kind is Kind.COMMIT and self._backend.status == b"T":
            return await self._commit(unit, client)
        if any(True for _ in unit.statements) and not unit.kind.controls:
            fault = self._faults.at_statement()
            if fault is not None:
                return await self._unavailable(client)
        return await self._pass_on(unit, client, flushed=flushed)

    async def _commit(self, unit: Unit, client: Client) -> bool:
        fault = self._faults.at_commit()
        if isinstance(fault, Conflict):
            await self._backend.run("ROLLBACK")
            self._note("conflict", code=fault.code, reason="on demand")
            client.write(conflict(fault.code).data)
            return False
        if isinstance(fault, Unavailable):
            self._note("unavailable", at=fault.at, applied=fault.applied)
            await self._backend.run("COMMIT" if fault.applied else "ROLLBACK")
            client.write(UNAVAILABLE.data)
            return False
        return await self._pass_on(unit, client, flushed=False)

    async def _unavailable(self, client: Client) -> bool:
        self._note("unavailable", at="statement", applied=False)
        if self._backend.status == b"T":
            await self._fail()
        client.write(UNAVAILABLE.data)
        return False

    async def _fail(self) -> None:
        """Put the open transaction into the failed state, as the error of a statement does."""
        try:
            await self._backend.run("this is no statement")
        except CommandFailed:
            return

    async def _pass_on(self, unit: Unit, client: Client, *, flushed: bool) -> bool:
        """Hand a unit on as it is, and its answers back as they come."""
        backend = self._backend
        if flushed and not self.inside and not unit.simple:
            return await self._pass_on_unsynced(unit, client)
        self._unsynced = False
        backend.send(unit.data)
        succeeded = True
        while (message := await backend.receive()).kind != b"Z":
            succeeded = await self._hand_back(message, client, unit) and succeeded
        return succeeded

    async def _pass_on_unsynced(self, unit: Unit, client: Client) -> bool:
        """The same before a Flush outside a transaction: a Sync of ours would end the implicit transaction too early."""
        self._unsynced = True
        self._backend.send(joined((*unit.messages, FLUSH)))
        for expected in unit.endings:
            while (message := await self._backend.receive()).kind not in expected:
                if not await self._hand_back(message, client, unit):
                    return False
            if not await self._hand_back(message, client, unit):
                return False
        return True

    async def _sync(self) -> None:
        self._unsynced = False
        self._backend.send(SYNC.data)
        await self._backend.finish()

    async def _hand_back(self, message: Message, client: Client, unit: Unit) -> bool:
        """Give one answer to the client: False if it is an error."""
        if message.kind == b"E":
            if error_fields(message).get("C") in ("40001", "40P01"):
                self._note("conflict", code="OC000", reason="at the statement")
                message = conflict("OC000")
            client.write(message.data)
            return False
        client.write(message.data)
        if message.kind == b"G":
            await self._copy_in(unit, client)
        return True

    async def _copy_in(self, unit: Unit, client: Client) -> None:
        """Relay the data of COPY FROM STDIN. By the extended protocol a Sync follows it, the first one being ignored."""
        await client.drain()
        last = (b"c", b"f") if unit.simple else (b"S",)
        while True:
            message = await client.receive()
            self._backend.send(message.data)
            await self._backend.drain()
            if message.kind in last:
                return
