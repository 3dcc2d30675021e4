"""One connection to the PostgreSQL behind the front, by its unix socket: messages out, messages in.

It knows the startup, the transaction status of the last ReadyForQuery, and how to slip in a command of our own without
touching the client's unnamed statement and portal. What is sent when is decided in `session`.
"""

import asyncio
import contextlib
import functools
import struct
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from ..protocol.messages import (
    SYNC,
    TERMINATE,
    Message,
    Run,
    Splitter,
    bind,
    close_portal,
    close_statement,
    data_row,
    error_fields,
    execute,
    joined,
    parse,
    startup,
)

__all__ = ["Backend", "BackendLost", "CommandFailed", "StartupRefused", "ahead", "commands"]

_OURS = "_dsql_local"  # the name of our own statements and portals
_CLOSES = (close_portal(_OURS), close_statement(_OURS))
_PER_COMMAND = 5  # messages of `_command` that are answered, each with one
_UNASKED = (b"N", b"S", b"A")
CHUNK = 1 << 16
CLOSING_SECONDS = 0.5


class BackendLost(Exception):
    """PostgreSQL closed the connection."""


class StartupRefused(Exception):
    """PostgreSQL refused the startup packet; `answer` is its ErrorResponse."""

    def __init__(self, answer: Message) -> None:
        super().__init__(error_fields(answer).get("M"))
        self.answer = answer


class CommandFailed(Exception):
    """A command of our own failed; the text is PostgreSQL's, `sqlstate` its code."""

    def __init__(self, answer: Message) -> None:
        fields = error_fields(answer)
        super().__init__(fields.get("M"))
        self.sqlstate = fields.get("C", "")


def commands(*statements: str) -> bytes:
    """Statements by the extended protocol under a name of our own, answered up to one ReadyForQuery."""
    return b"".join(_command(sql) for sql in statements) + SYNC.data


@functools.lru_cache(maxsize=16)
def ahead(*statements: str) -> bytes:
    """The same without a ReadyForQuery of its own: what is sent behind it must ask for one. For a few fixed statements."""
    return b"".join(_command(sql) for sql in statements)


def _command(sql: str, copied: bytes | None = None) -> bytes:
    data = () if copied is None else (Message(b"d", copied), Message(b"c"))
    return joined((parse(_OURS, sql), bind(_OURS, _OURS), execute(_OURS), *data, *_CLOSES))


class Backend:
    """An open connection. `greeting` holds what PostgreSQL said after the authentication, up to ReadyForQuery."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._splitter = Splitter()
        self._inbox: deque[Message | Run] = deque()
        self.greeting: list[Message] = []
        self.status = b"I"
        self.pid = 0

    @classmethod
    async def connect(cls, path: Path, parameters: Mapping[str, str]) -> "Backend":
        """Connect as the parameters say. Raises `StartupRefused` or `BackendLost`."""
        reader, writer = await asyncio.open_unix_connection(str(path), limit=CHUNK)
        backend = cls(reader, writer)
        try:
            await backend._start(parameters)
        except BaseException:
            backend.abort()
            raise
        return backend

    async def _start(self, parameters: Mapping[str, str]) -> None:
        self._writer.write(startup(parameters))
        while True:
            message = await self.receive()
            if isinstance(message, Run):
                continue
            if message.kind == b"E":
                raise StartupRefused(message)
            if message.kind == b"K":
                (self.pid,) = struct.unpack_from("!i", message.body)
            self.greeting.append(message)
            if message.kind == b"Z":
                return

    def send(self, data: bytes) -> None:
        """Hand bytes to PostgreSQL, which reads them while we read its answers."""
        self._writer.write(data)

    async def drain(self) -> None:
        """Wait while PostgreSQL is slower to read than we are to write."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def receive(self) -> Message | Run:
        """The next message, or some rows; a ReadyForQuery sets `status`."""
        while not self._inbox:
            try:
                data = await self._reader.read(CHUNK)
            except ConnectionError as lost:
                raise BackendLost(str(lost)) from lost
            if not data:
                raise BackendLost("PostgreSQL closed the connection")
            self._inbox.extend(self._splitter.runs(data))
        message = self._inbox.popleft()
        if message.kind == b"Z" and isinstance(message, Message):
            self.status = message.body
        return message

    async def finish(self) -> list[Message | Run]:
        """The answer to our own commands, up to and without its ReadyForQuery. Nothing of one that failed is left."""
        messages = await self._answer()
        if any(message.kind == b"E" for message in messages):
            self.send(joined((*_CLOSES, SYNC)))
            await self._answer()
        return messages

    async def _answer(self) -> list[Message | Run]:
        messages = []
        while (message := await self.receive()).kind != b"Z":
            messages.append(message)
        return messages

    async def pass_ahead(self, count: int) -> None:
        """Read the answers to so many commands that were sent `ahead` of something else.

        Raises `CommandFailed`; then what was sent behind them is skipped, and a Query answers nothing.
        """
        left = count * _PER_COMMAND
        while left:
            message = await self.receive()
            if message.kind == b"E" and isinstance(message, Message):
                raise CommandFailed(message)
            left -= message.kind not in _UNASKED

    async def run(self, sql: str) -> list[list[str | None]]:
        """Run one command of our own; its rows as text. Raises `CommandFailed`."""
        self.send(commands(sql))
        messages = self.check(await self.finish())
        rows = [data_row(message) for run in messages if isinstance(run, Run) for message in run.messages]
        return [[None if value is None else value.decode() for value in row] for row in rows]

    async def copy_out(self, sql: str) -> bytes:
        """Run a COPY TO STDOUT; its data."""
        self.send(commands(sql))
        runs = [run for run in self.check(await self.finish()) if isinstance(run, Run)]
        return b"".join(piece[5:] for run in runs for piece in run.pieces)

    async def copy_in(self, sql: str, data: bytes) -> None:
        """Run a COPY FROM STDIN with this data."""
        self.send(_command(sql, data) + SYNC.data)
        await self.drain()
        self.check(await self.finish())

    async def fail(self) -> None:
        """Put the open transaction into the failed state, as the error of a statement does."""
        self.send(commands("this is no statement"))
        await self.finish()

    @staticmethod
    def check(messages: list[Message | Run]) -> list[Message | Run]:
        """The answer to our own commands as it is; raises `CommandFailed` for an error in it."""
        for message in messages:
            if message.kind == b"E" and isinstance(message, Message):
                raise CommandFailed(message)
        return messages

    async def close(self) -> None:
        """Say goodbye and wait until PostgreSQL has ended the session, and with it an open transaction.

        A backend that is busy is not waited for: it ends when its statement does, or with PostgreSQL.
        """
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):
                self._writer.write(TERMINATE.data)
                while await self._reader.read(CHUNK):
                    pass
        self.abort()

    def abort(self) -> None:
        """Drop the connection now."""
        self._writer.transport.abort()
