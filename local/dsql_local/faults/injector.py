"""One connection's faults: what its own SQL comments ask for, and where it is cut.

It hears every message of the client before anybody else does, so that a comment which asks for a fault is gone from the SQL that
the log, the rules and PostgreSQL see. It raises `Struck` where the link is to be cut; cutting it is the front's business.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from ..events import RecordEvent
from ..protocol.client import Client
from ..protocol.messages import NAMES, Message, retold
from .commands import FaultCommand, InvalidFaultCommand, extract_commands, parse_command
from .plan import Cut, FaultPlan, FlightSummary

__all__ = ["ConnectionCut", "FaultInjector", "MutedClient", "ObservedClient", "TruncatedClient"]

_POINTS = {
    b"P": "at-parse",
    b"B": "at-bind",
    b"D": "at-describe",
    b"E": "at-execute",
    b"C": "at-close",
    b"H": "at-flush",
    b"S": "at-sync",
    b"Q": "at-query",
    b"d": "at-copy-data",
    b"c": "at-copy-done",
}
assert set(_POINTS) < set(NAMES)  # noqa: S101 - both are written by hand


class ConnectionCut(Exception):
    """The link is to be cut now; `applied` says whether what had come was executed."""

    def __init__(self, cut: Cut, *, applied: bool = False) -> None:
        super().__init__(cut.at)
        self.cut = cut
        self.applied = applied


class FaultInjector:
    """`whole` carries out the orders that are not one connection's alone."""

    def __init__(
        self, server: FaultPlan, run_server_command: Callable[[FaultCommand], Awaitable[None]], record: RecordEvent
    ) -> None:
        self._record = record
        self.faults = FaultPlan(server)
        self._run_server_command = run_server_command
        self._undecided: list[FaultCommand] = []

    def at(self, point: str) -> None:
        """Raise `Struck` if the link is to be cut at this point."""
        cut = self.faults.at_point(point)
        if cut is not None:
            raise ConnectionCut(cut)

    async def hear(self, message: Message) -> Message:
        """The message as everybody else gets it. Raises `BadOrder` and `Struck`."""
        if message.kind in b"QP" and b"dsql:" in message.body:
            found: list[str] = []
            message = retold(message, lambda sql: _without(sql, found))
            for text in found:
                await self._take(parse_command(text, in_comment=True))
        if message.kind in _POINTS:
            self.at(_POINTS[message.kind])
        return message

    async def _take(self, order: FaultCommand) -> None:
        if not order.here:
            await self._run_server_command(order)
        elif order.method in ("conflict_next", "unavailable") and "at" not in order.arguments:
            self._undecided.append(order)
        else:
            self._ask(order)

    def decide(self, flight: FlightSummary) -> None:
        """A flight has come: what its comments ask of COMMIT is asked of the statement where there is no COMMIT to come."""
        if not (flight.works or flight.begins or flight.inside):
            return
        place = "commit" if flight.inside or flight.begins else "statement"
        for order in self._undecided:
            self._ask(replace(order, arguments={**order.arguments, "at": place}))
        self._undecided = []

    def _ask(self, order: FaultCommand) -> None:
        self._record("fault", reason=f"in a comment: {order}")
        try:
            getattr(self.faults, order.method)(**order.arguments)
        except (TypeError, ValueError) as wrong:
            raise InvalidFaultCommand(str(wrong)) from wrong


def _without(sql: str, found: list[str]) -> str:
    rest, run_command = extract_commands(sql)
    found += run_command
    return rest


class ObservedClient:
    """The client of a flight: it is heard while it sends the data of a COPY, too."""

    def __init__(self, client: Client, injector: FaultInjector) -> None:
        self._client = client
        self._injector = injector

    def write(self, data: bytes) -> None:
        """Take bytes for the client."""
        self._client.write(data)

    async def drain(self) -> None:
        """Let them leave."""
        await self._client.drain()

    async def receive(self) -> Message:
        """The client's next message."""
        return await self._injector.hear(await self._client.receive())


class MutedClient(ObservedClient):
    """A client that gets no answer, but whose COPY data is still read."""

    def write(self, data: bytes) -> None:
        """Drop the answer."""

    async def drain(self) -> None:
        """There is nothing to wait for."""


class TruncatedClient(ObservedClient):
    """A client that gets half of its answer."""

    def __init__(self, client: Client, injector: FaultInjector) -> None:
        super().__init__(client, injector)
        self._kept = bytearray()

    def write(self, data: bytes) -> None:
        """Keep it."""
        self._kept += data

    async def drain(self) -> None:
        """Not before it is known what half of it is."""

    async def receive(self) -> Message:
        """The client's next message; it waits for what was answered so far."""
        self._give(len(self._kept))
        await self._client.drain()
        return await super().receive()

    def give_half(self) -> None:
        """Give the first half."""
        self._give(len(self._kept) // 2)

    def _give(self, count: int) -> None:
        self._client.write(bytes(self._kept[:count]))
        self._kept.clear()
