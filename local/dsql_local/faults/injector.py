"""Injects faults into one connection: those that its own SQL comments ask for, and the server's.

It reads every message of the client before anybody else, and removes the comments that ask for faults: neither the log, the rules
nor PostgreSQL see them. Where the connection must be cut it raises `ConnectionCut`; `frontend` then cuts it.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import get_args

from ..events import RecordEvent
from ..protocol.client import Client
from ..protocol.messages import FRONTEND_NAMES, Message, with_sql
from .commands import FaultCommand, InvalidFaultCommand, extract_commands, parse_command
from .kinds import Cut, CutPoint, FlightSummary
from .plan import FaultPlan
from .requests import FaultRequests

__all__ = ["ConnectionCut", "FaultInjector", "MutedClient", "ObservedClient", "TruncatedClient"]


def _cut_point(message_name: str) -> str:
    """CopyData is "at-copy-data"."""
    return "at-" + re.sub(r"(?<!^)(?=[A-Z])", "-", message_name).lower()


_CUT_POINTS = {kind: _cut_point(name) for kind, name in FRONTEND_NAMES.items() if _cut_point(name) in get_args(CutPoint)}


class ConnectionCut(Exception):
    """The connection must be cut now; `applied` tells whether the flight was executed."""

    def __init__(self, cut: Cut, *, applied: bool = False) -> None:
        super().__init__(cut.at)
        self.cut = cut
        self.applied = applied


class FaultInjector:
    """The faults of one connection. `run_server_command` executes commands that concern the whole server."""

    def __init__(
        self, server: FaultPlan, run_server_command: Callable[[FaultCommand], Awaitable[None]], record: RecordEvent
    ) -> None:
        self._record = record
        self.faults = FaultPlan(server)
        self._requests = FaultRequests(self.faults)
        self._run_server_command = run_server_command
        self._without_target: list[FaultCommand] = []

    def check(self, point: str) -> None:
        """Raise `ConnectionCut` if the connection must be cut at this point."""
        cut = self.faults.take_cut_at(point)
        if cut is not None:
            raise ConnectionCut(cut)

    async def observe(self, message: Message) -> Message:
        """Take the faults that a message asks for; return it without them. Raises `InvalidFaultCommand`, `ConnectionCut`."""
        if message.kind in b"QP" and b"dsql:" in message.body:
            found: list[str] = []
            message = with_sql(message, lambda sql: _without_commands(sql, found))
            for text in found:
                await self._take(parse_command(text, in_comment=True))
        if message.kind in _CUT_POINTS:
            self.check(_CUT_POINTS[message.kind])
        return message

    async def _take(self, command: FaultCommand) -> None:
        if command.is_server_wide:
            await self._run_server_command(command)
        elif command.method in ("conflict_next", "unavailable") and "at" not in command.arguments:
            self._without_target.append(command)
        else:
            self._add(command)

    def choose_targets(self, flight: FlightSummary) -> None:
        """Decide, now that the flight is known, whether comments without `at=` mean its COMMIT or the statement itself."""
        if not (flight.has_work or flight.begins or flight.in_transaction):
            return
        target = "commit" if flight.in_transaction or flight.begins else "statement"
        for command in self._without_target:
            self._add(replace(command, arguments={**command.arguments, "at": target}))
        self._without_target = []

    def _add(self, command: FaultCommand) -> None:
        self._record("fault", reason=f"in a comment: {command}")
        try:
            getattr(self._requests, command.method)(**command.arguments)
        except (TypeError, ValueError) as wrong:
            raise InvalidFaultCommand(str(wrong)) from wrong


def _without_commands(sql: str, found: list[str]) -> str:
    rest, commands = extract_commands(sql)
    found += commands
    return rest


class ObservedClient:
    """A client whose messages the injector reads, also the data of a COPY FROM STDIN."""

    def __init__(self, client: Client, injector: FaultInjector) -> None:
        self._client = client
        self._injector = injector

    def write(self, data: bytes) -> None:
        """Buffer bytes for the client."""
        self._client.write(data)

    async def drain(self) -> None:
        """Send what is buffered."""
        await self._client.drain()

    async def receive(self) -> Message:
        """The client's next message."""
        return await self._injector.observe(await self._client.receive())


class MutedClient(ObservedClient):
    """A client that gets no answer; the data of its COPY FROM STDIN is still read."""

    def write(self, data: bytes) -> None:
        """Discard the answer."""

    async def drain(self) -> None:
        """Nothing to send."""


class TruncatedClient(ObservedClient):
    """A client that gets half of its answer."""

    def __init__(self, client: Client, injector: FaultInjector) -> None:
        super().__init__(client, injector)
        self._buffer = bytearray()

    def write(self, data: bytes) -> None:
        """Buffer the answer until its length is known."""
        self._buffer += data

    async def drain(self) -> None:
        """Nothing to send before `send_half`."""

    async def receive(self) -> Message:
        """The client's next message. The client waits for all that was answered so far, so that is sent whole."""
        self._send(len(self._buffer))
        await self._client.drain()
        return await super().receive()

    def send_half(self) -> None:
        """Send the first half of the answer."""
        self._send(len(self._buffer) // 2)

    def _send(self, count: int) -> None:
        self._client.write(bytes(self._buffer[:count]))
        self._buffer.clear()
