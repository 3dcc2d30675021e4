"""One connection's faults: what its own SQL comments ask for, and where it is cut.

It hears every message of the client before anybody else does, so that a comment which asks for a fault is gone from the SQL that
the log, the rules and PostgreSQL see. It raises `Struck` where the link is to be cut; cutting it is the front's business.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from ..events import Note
from ..protocol.client import Client
from ..protocol.messages import NAMES, Message, retold
from .commands import BadOrder, Order, read_order, taken_out
from .plan import Cut, Faults, Outline

__all__ = ["Deaf", "Halved", "Listening", "Strikes", "Struck"]

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


class Struck(Exception):
    """The link is to be cut now; `applied` says whether what had come was executed."""

    def __init__(self, cut: Cut, *, applied: bool = False) -> None:
        super().__init__(cut.at)
        self.cut = cut
        self.applied = applied


class Strikes:
    """`whole` carries out the orders that are not one connection's alone."""

    def __init__(self, server: Faults, whole: Callable[[Order], Awaitable[None]], note: Note) -> None:
        self._note = note
        self.faults = Faults(server)
        self._whole = whole
        self._undecided: list[Order] = []

    def at(self, point: str) -> None:
        """Raise `Struck` if the link is to be cut at this point."""
        cut = self.faults.at_point(point)
        if cut is not None:
            raise Struck(cut)

    async def hear(self, message: Message) -> Message:
        """The message as everybody else gets it. Raises `BadOrder` and `Struck`."""
        if message.kind in b"QP" and b"dsql:" in message.body:
            found: list[str] = []
            message = retold(message, lambda sql: _without(sql, found))
            for text in found:
                await self._take(read_order(text, in_comment=True))
        if message.kind in _POINTS:
            self.at(_POINTS[message.kind])
        return message

    async def _take(self, order: Order) -> None:
        if not order.here:
            await self._whole(order)
        elif order.method in ("conflict_next", "unavailable") and "at" not in order.arguments:
            self._undecided.append(order)
        else:
            self._ask(order)

    def decide(self, flight: Outline) -> None:
        """A flight has come: what its comments ask of COMMIT is asked of the statement where there is no COMMIT to come."""
        if not (flight.works or flight.begins or flight.inside):
            return
        place = "commit" if flight.inside or flight.begins else "statement"
        for order in self._undecided:
            self._ask(replace(order, arguments={**order.arguments, "at": place}))
        self._undecided = []

    def _ask(self, order: Order) -> None:
        self._note("fault", reason=f"in a comment: {order}")
        try:
            getattr(self.faults, order.method)(**order.arguments)
        except (TypeError, ValueError) as wrong:
            raise BadOrder(str(wrong)) from wrong


def _without(sql: str, found: list[str]) -> str:
    rest, orders = taken_out(sql)
    found += orders
    return rest


class Listening:
    """The client of a flight: it is heard while it sends the data of a COPY, too."""

    def __init__(self, client: Client, strikes: Strikes) -> None:
        self._client = client
        self._strikes = strikes

    def write(self, data: bytes) -> None:
        """Take bytes for the client."""
        self._client.write(data)

    async def drain(self) -> None:
        """Let them leave."""
        await self._client.drain()

    async def receive(self) -> Message:
        """The client's next message."""
        return await self._strikes.hear(await self._client.receive())


class Deaf(Listening):
    """A client that gets no answer, but whose COPY data is still read."""

    def write(self, data: bytes) -> None:
        """Drop the answer."""

    async def drain(self) -> None:
        """There is nothing to wait for."""


class Halved(Listening):
    """A client that gets half of its answer."""

    def __init__(self, client: Client, strikes: Strikes) -> None:
        super().__init__(client, strikes)
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
