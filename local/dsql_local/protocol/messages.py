"""The PostgreSQL protocol's messages as values: bytes in, messages out, and back.

It knows how a message is framed and what a few of them carry. It does no I/O, keeps no session, and knows nothing of
DSQL: `flights` says which messages belong together, `front` and `backend` own the sockets.
"""

import contextlib
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "CANCEL_REQUEST",
    "GSSENC_REQUEST",
    "MAX_LENGTH",
    "MAX_STARTUP",
    "NAMES",
    "PASSWORD_PLEASE",
    "SSL_REQUEST",
    "SYNC",
    "TERMINATE",
    "Message",
    "ProtocolError",
    "Run",
    "Splitter",
    "StartupPacket",
    "TooLong",
    "bind",
    "close_portal",
    "close_statement",
    "data_row",
    "error",
    "error_fields",
    "execute",
    "joined",
    "parameter_sizes",
    "parse",
    "parse_startup",
    "query",
    "ready",
    "retold",
    "startup",
]

# Codes that stand where a startup packet has its protocol version.
SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104
CANCEL_REQUEST = 80877102

MAX_LENGTH = 1 << 30  # PostgreSQL's own limit for one message
MAX_STARTUP = 10_000  # likewise for the startup packet


class ProtocolError(Exception):
    """The peer sent bytes that are no PostgreSQL message."""


class TooLong(ProtocolError):
    """A message is longer than it may be."""


@dataclass(frozen=True, slots=True)
class Message:
    """One typed message: its kind (one byte) and its body without the length."""

    kind: bytes
    body: bytes = b""

    @property
    def data(self) -> bytes:
        """The message as it travels."""
        return self.kind + struct.pack("!i", len(self.body) + 4) + self.body

    def texts(self, count: int) -> list[str]:
        """The first `count` zero-terminated strings of the body."""
        parts = self.body.split(b"\0", count)
        if len(parts) <= count:
            raise ProtocolError(f"a message of kind {self.kind!r} ends inside a string")
        return [part.decode("utf-8", "replace") for part in parts[:count]]


@dataclass(frozen=True, slots=True)
class Run:
    """Whole messages of one kind, one behind the other, as they travel: rows are many, and an object for each is dear."""

    kind: bytes
    data: bytes
    starts: Sequence[int]  # where each message begins

    @property
    def pieces(self) -> Iterator[bytes]:
        """Each message as it travels."""
        return (self.data[start:end] for start, end in zip(self.starts, (*self.starts[1:], len(self.data)), strict=True))

    @property
    def messages(self) -> Iterator[Message]:
        """Each message."""
        return (Message(self.kind, piece[5:]) for piece in self.pieces)


_ROWS = frozenset(b"Dd")  # DataRow and CopyData: what a server sends many of
_HEAD = struct.Struct("!Bi")


class Splitter:
    """Cuts a stream of bytes into messages; what is incomplete waits for the next bytes."""

    def __init__(self, longest: int = MAX_LENGTH) -> None:
        self._longest = longest
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take more bytes; yield each message that they complete."""
        pending = self._pending
        pending += data
        start = 0
        try:
            while (end := self._end(start)) is not None:
                message = Message(bytes(pending[start : start + 1]), bytes(pending[start + 5 : end]))
                start = end
                yield message
        finally:
            del pending[:start]

    def runs(self, data: bytes) -> Iterator[Message | Run]:
        """The same of a server's bytes, rows of one chunk that follow each other as one run."""
        pending = self._pending
        pending += data
        start = 0
        try:
            while (end := self._end(start)) is not None:
                kind = pending[start]
                piece: Message | Run
                if kind in _ROWS:
                    starts = [0]
                    while end < len(pending) and pending[end] == kind and (following := self._end(end)) is not None:
                        starts.append(end - start)
                        end = following
                    piece = Run(bytes((kind,)), bytes(pending[start:end]), starts)
                else:
                    piece = Message(bytes((kind,)), bytes(pending[start + 5 : end]))
                start = end
                yield piece
        finally:
            del pending[:start]

    def _end(self, start: int) -> int | None:
        """Where the message that begins here ends, None if it is not whole yet."""
        if len(self._pending) - start < 5:
            return None
        _, length = _HEAD.unpack_from(self._pending, start)
        if not 4 <= length <= MAX_LENGTH:
            raise ProtocolError(f"a message says that it is {length} bytes long")
        if length > self._longest:
            raise TooLong(f"a message of {length} bytes")
        end: int = start + 1 + length
        return end if end <= len(self._pending) else None


# --- Startup: the only packet without a kind ---


@dataclass(frozen=True, slots=True)
class StartupPacket:
    """The first packet of a client: a request code, or protocol version 3 with parameters."""

    code: int
    parameters: Mapping[str, str]


def parse_startup(body: bytes) -> StartupPacket:
    """Read a startup packet's body (without its length)."""
    if not 4 <= len(body) <= MAX_STARTUP:
        raise ProtocolError(f"a startup packet of {len(body)} bytes")
    (code,) = struct.unpack_from("!i", body)
    if code in (SSL_REQUEST, GSSENC_REQUEST, CANCEL_REQUEST):
        return StartupPacket(code, {})
    if code >> 16 != 3:
        raise ProtocolError(f"protocol version {code >> 16}.{code & 0xFFFF} is not 3")
    fields = [part.decode("utf-8", "replace") for part in body[4:].split(b"\0")]
    pairs = list(zip(fields[::2], fields[1::2], strict=False))
    return StartupPacket(code, {name: value for name, value in pairs if name})


def startup(parameters: Mapping[str, str]) -> bytes:
    """A startup packet for protocol version 3.0."""
    pairs = b"".join(name.encode() + b"\0" + value.encode() + b"\0" for name, value in parameters.items())
    body = struct.pack("!i", 3 << 16) + pairs + b"\0"
    return struct.pack("!i", len(body) + 4) + body


# --- What a client sends ---

NAMES = {
    b"P": "Parse",
    b"B": "Bind",
    b"D": "Describe",
    b"E": "Execute",
    b"C": "Close",
    b"H": "Flush",
    b"S": "Sync",
    b"Q": "Query",
    b"F": "FunctionCall",
    b"X": "Terminate",
    b"d": "CopyData",
    b"c": "CopyDone",
    b"f": "CopyFail",
}

SYNC = Message(b"S")
TERMINATE = Message(b"X")


def _texts(*values: str) -> bytes:
    return b"".join(value.encode() + b"\0" for value in values)


def query(sql: str) -> Message:
    """A simple Query."""
    return Message(b"Q", _texts(sql))


def parse(name: str, sql: str) -> Message:
    """Parse without declared parameter types."""
    return Message(b"P", _texts(name, sql) + b"\0\0")


def bind(portal: str, statement: str) -> Message:
    """Bind without parameters, results as text."""
    return Message(b"B", _texts(portal, statement) + b"\0\0" * 3)


def execute(portal: str) -> Message:
    """Execute to the last row."""
    return Message(b"E", _texts(portal) + b"\0\0\0\0")


def parameter_sizes(bound: Message) -> Iterator[int]:
    """The bytes of each parameter of a Bind, none for NULL. A malformed one, which PostgreSQL refuses, is read while it goes."""
    at = bound.body.index(b"\0", bound.body.index(b"\0") + 1) + 1
    with contextlib.suppress(struct.error):
        (formats,) = struct.unpack_from("!h", bound.body, at)
        at += 2 + 2 * formats
        (count,) = struct.unpack_from("!h", bound.body, at)
        at += 2
        for _ in range(count & 0xFFFF):
            (size,) = struct.unpack_from("!i", bound.body, at)
            at += 4 + max(size, 0)
            yield max(size, 0)


def close_portal(name: str) -> Message:
    """Close a portal."""
    return Message(b"C", b"P" + _texts(name))


def close_statement(name: str) -> Message:
    """Close a prepared statement."""
    return Message(b"C", b"S" + _texts(name))


def retold(message: Message, instead: Callable[[str], str]) -> Message:
    """A Query or a Parse with its SQL replaced; any other message as it is."""
    if message.kind == b"Q":
        return query(instead(message.texts(1)[0]))
    if message.kind != b"P":
        return message
    name, _, rest = message.body.partition(b"\0")
    sql, _, types = rest.partition(b"\0")
    return Message(b"P", b"\0".join((name, instead(sql.decode("utf-8", "replace")).encode(), types)))


# --- What a server sends ---

PASSWORD_PLEASE = Message(b"R", struct.pack("!i", 3))  # AuthenticationCleartextPassword


def error(sqlstate: str, message: str, *, severity: str = "ERROR", hint: str | None = None) -> Message:
    """An ErrorResponse."""
    fields = [("S", severity), ("V", severity), ("C", sqlstate), ("M", message)]
    if hint is not None:
        fields.append(("H", hint))
    return Message(b"E", b"".join(name.encode() + value.encode() + b"\0" for name, value in fields) + b"\0")


def error_fields(message: Message) -> dict[str, str]:
    """The fields of an ErrorResponse or a NoticeResponse, by their one-letter names."""
    parts = message.body.split(b"\0")
    return {part[:1].decode("ascii", "replace"): part[1:].decode("utf-8", "replace") for part in parts if part}


def ready(status: bytes) -> Message:
    """ReadyForQuery with the transaction status I, T or E."""
    return Message(b"Z", status)


def data_row(message: Message) -> list[bytes | None]:
    """The columns of a DataRow."""
    (count,) = struct.unpack_from("!h", message.body)
    at, row = 2, list[bytes | None]()
    for _ in range(count):
        (length,) = struct.unpack_from("!i", message.body, at)
        at += 4
        row.append(None if length < 0 else message.body[at : at + length])
        at += max(length, 0)
    return row


def joined(messages: Sequence[Message | Run]) -> bytes:
    """Several messages as they travel."""
    return b"".join(message.data for message in messages)
