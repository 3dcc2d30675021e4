"""One connection to PostgreSQL by its unix socket.

It knows the startup, the transaction status of the last ReadyForQuery, and how to run an internal command without touching the
client's unnamed statement and portal. The engine decides what is sent.
"""

import asyncio
import contextlib
import functools
import struct
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from ..protocol.decoder import MessageDecoder
from ..protocol.messages import (
    SYNC,
    TERMINATE,
    Message,
    MessageBatch,
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

__all__ = ["Backend", "BackendLost", "CommandFailed", "StartupRefused", "encode_commands", "encode_prefix"]

_INTERNAL = "_dsql_local"  # name of the statements and portals of internal commands
_CLOSES = (close_portal(_INTERNAL), close_statement(_INTERNAL))
_ANSWERS_PER_COMMAND = 5  # one for each message of `_command`
_ASYNCHRONOUS = (b"N", b"S", b"A")  # NoticeResponse, ParameterStatus, NotificationResponse
CHUNK = 1 << 16
CLOSING_SECONDS = 0.5


class BackendLost(Exception):
    """PostgreSQL closed the connection."""


class StartupRefused(Exception):
    """PostgreSQL refused the connection; `answer` is its ErrorResponse."""

    def __init__(self, answer: Message) -> None:
        super().__init__(error_fields(answer).get("M"))
        self.answer = answer


class CommandFailed(Exception):
    """An internal command failed. The text is PostgreSQL's message, `sqlstate` its code."""

    def __init__(self, answer: Message) -> None:
        fields = error_fields(answer)
        super().__init__(fields.get("M"))
        self.sqlstate = fields.get("C", "")


def encode_commands(*statements: str) -> bytes:
    """Internal commands, followed by a Sync."""
    return b"".join(_command(sql) for sql in statements) + SYNC.data


@functools.lru_cache(maxsize=16)
def encode_prefix(*statements: str) -> bytes:
    """The same without a Sync; what is sent after it must end in one. Cached: for a few constant statements."""
    return b"".join(_command(sql) for sql in statements)


def _command(sql: str, copied: bytes | None = None) -> bytes:
    data = () if copied is None else (Message(b"d", copied), Message(b"c"))
    return joined((parse(_INTERNAL, sql), bind(_INTERNAL, _INTERNAL), execute(_INTERNAL), *data, *_CLOSES))


class Backend:
    """An open connection. `greeting` holds PostgreSQL's messages from authentication to ReadyForQuery."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = MessageDecoder()
        self._inbox: deque[Message | MessageBatch] = deque()
        self.greeting: list[Message] = []
        self.status = b"I"
        self.pid = 0

    @classmethod
    async def connect(cls, path: Path, parameters: Mapping[str, str]) -> "Backend":
        """Connect with these startup parameters. Raises `StartupRefused` or `BackendLost`."""
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
            if isinstance(message, MessageBatch):
                continue
            if message.kind == b"E":
                raise StartupRefused(message)
            if message.kind == b"K":
                (self.pid,) = struct.unpack_from("!i", message.body)
            self.greeting.append(message)
            if message.kind == b"Z":
                return

    def send(self, data: bytes) -> None:
        """Send bytes without waiting."""
        self._writer.write(data)

    async def drain(self) -> None:
        """Wait while PostgreSQL reads more slowly than we write."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def receive(self) -> Message | MessageBatch:
        """The next message, or a batch of rows. ReadyForQuery sets `status`. Raises `BackendLost`."""
        while not self._inbox:
            try:
                data = await self._reader.read(CHUNK)
            except ConnectionError as lost:
                raise BackendLost(str(lost)) from lost
            if not data:
                raise BackendLost("PostgreSQL closed the connection")
            self._inbox.extend(self._decoder.feed_batched(data))
        message = self._inbox.popleft()
        if message.kind == b"Z" and isinstance(message, Message):
            self.status = message.body
        return message

    async def read_answers(self) -> list[Message | MessageBatch]:
        """The answers to internal commands, without ReadyForQuery. After an error, statement and portal are closed."""
        messages = await self._answer()
        if any(message.kind == b"E" for message in messages):
            self.send(joined((*_CLOSES, SYNC)))
            await self._answer()
        return messages

    async def _answer(self) -> list[Message | MessageBatch]:
        messages = []
        while (message := await self.receive()).kind != b"Z":
            messages.append(message)
        return messages

    async def skip_prefix(self, count: int) -> None:
        """Read the answers to this many commands of an `encode_prefix`.

        Raises `CommandFailed`. PostgreSQL then skips what was sent after them, and does not answer a Query.
        """
        left = count * _ANSWERS_PER_COMMAND
        while left:
            message = await self.receive()
            if message.kind == b"E" and isinstance(message, Message):
                raise CommandFailed(message)
            left -= message.kind not in _ASYNCHRONOUS

    async def run(self, sql: str) -> list[list[str | None]]:
        """Run one internal command; returns its rows as text. Raises `CommandFailed`."""
        self.send(encode_commands(sql))
        messages = self._check(await self.read_answers())
        rows = [data_row(message) for run in messages if isinstance(run, MessageBatch) for message in run.messages]
        return [[None if value is None else value.decode() for value in row] for row in rows]

    async def copy_out(self, sql: str) -> bytes:
        """Run a COPY TO STDOUT; returns its data."""
        self.send(encode_commands(sql))
        feed_batched = [run for run in self._check(await self.read_answers()) if isinstance(run, MessageBatch)]
        return b"".join(piece[5:] for run in feed_batched for piece in run.pieces)

    async def copy_in(self, sql: str, data: bytes) -> None:
        """Run a COPY FROM STDIN with this data."""
        self.send(_command(sql, data) + SYNC.data)
        await self.drain()
        self._check(await self.read_answers())

    async def fail_transaction(self) -> None:
        """Put the open transaction into the failed state, as a failing statement does."""
        self.send(encode_commands("not a statement"))
        await self.read_answers()

    @staticmethod
    def _check(messages: list[Message | MessageBatch]) -> list[Message | MessageBatch]:
        """Return the messages. Raises `CommandFailed` if there is an error among them."""
        for message in messages:
            if message.kind == b"E" and isinstance(message, Message):
                raise CommandFailed(message)
        return messages

    async def close(self) -> None:
        """Terminate the session, and wait until PostgreSQL has ended it and rolled back its open transaction.

        A busy backend is not waited for: it ends when its statement ends, or with PostgreSQL.
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
