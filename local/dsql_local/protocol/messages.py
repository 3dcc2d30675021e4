"""Messages of PostgreSQL's wire protocol as values, decoded from bytes and encoded to bytes.

It knows how a message is framed and what some of them contain. It does no I/O and knows nothing about DSQL.
"""

import contextlib
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "CANCEL_REQUEST",
    "CLEARTEXT_PASSWORD",
    "FRONTEND_NAMES",
    "GSSENC_REQUEST",
    "MAX_LENGTH",
    "MAX_STARTUP",
    "SSL_REQUEST",
    "SYNC",
    "TERMINATE",
    "Message",
    "MessageBatch",
    "MessageTooLong",
    "ProtocolError",
    "StartupPacket",
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
    "startup",
    "with_sql",
]

# Request codes; they take the place of the protocol version in a startup packet.
SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104
CANCEL_REQUEST = 80877102

MAX_LENGTH = 1 << 30  # PostgreSQL's limit for one message
MAX_STARTUP = 10_000  # PostgreSQL's limit for a startup packet


class ProtocolError(Exception):
    """The peer sent bytes that are not a PostgreSQL message."""


class MessageTooLong(ProtocolError):
    """A message is longer than the limit."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its type byte and its body, without the length."""

    kind: bytes
    body: bytes = b""

    @property
    def data(self) -> bytes:
        """The message encoded."""
        return self.kind + struct.pack("!i", len(self.body) + 4) + self.body

    def texts(self, count: int) -> list[str]:
        """The first `count` zero-terminated strings of the body."""
        parts = self.body.split(b"\0", count)
        if len(parts) <= count:
            raise ProtocolError(f"a message of type {self.kind!r} ends inside a string")
        return [part.decode("utf-8", "replace") for part in parts[:count]]


@dataclass(frozen=True, slots=True)
class MessageBatch:
    """Adjacent messages of one type, still encoded: one object for many rows, because an object for each row is slow."""

    kind: bytes
    data: bytes
    starts: Sequence[int]  # offset of each message

    @property
    def pieces(self) -> Iterator[bytes]:
        """Each message encoded."""
        return (self.data[start:end] for start, end in zip(self.starts, (*self.starts[1:], len(self.data)), strict=True))

    @property
    def messages(self) -> Iterator[Message]:
        """Each message."""
        return (Message(self.kind, piece[5:]) for piece in self.pieces)


# --- Startup: the only packet without a type byte ---


@dataclass(frozen=True, slots=True)
class StartupPacket:
    """A client's first packet: a request code, or protocol version 3 with parameters."""

    code: int
    parameters: Mapping[str, str]


def parse_startup(body: bytes) -> StartupPacket:
    """Decode the body of a startup packet (without its length)."""
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


# --- Messages of a client ---

FRONTEND_NAMES = {
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
    """Query."""
    return Message(b"Q", _texts(sql))


def parse(name: str, sql: str) -> Message:
    """Parse without declared parameter types."""
    return Message(b"P", _texts(name, sql) + b"\0\0")


def bind(portal: str, statement: str) -> Message:
    """Bind without parameters, with results as text."""
    return Message(b"B", _texts(portal, statement) + b"\0\0" * 3)


def execute(portal: str) -> Message:
    """Execute without a row limit."""
    return Message(b"E", _texts(portal) + b"\0\0\0\0")


def parameter_sizes(bound: Message) -> Iterator[int]:
    """The size of each parameter of a Bind, 0 for NULL. A malformed message is read as far as possible; PostgreSQL rejects it."""
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
    """Close for a portal."""
    return Message(b"C", b"P" + _texts(name))


def close_statement(name: str) -> Message:
    """Close for a prepared statement."""
    return Message(b"C", b"S" + _texts(name))


def with_sql(message: Message, rewrite: Callable[[str], str]) -> Message:
    """A Query or a Parse with its SQL rewritten; any other message unchanged."""
    if message.kind == b"Q":
        return query(rewrite(message.texts(1)[0]))
    if message.kind != b"P":
        return message
    name, _, rest = message.body.partition(b"\0")
    sql, _, types = rest.partition(b"\0")
    return Message(b"P", b"\0".join((name, rewrite(sql.decode("utf-8", "replace")).encode(), types)))


# --- Messages of a server ---

CLEARTEXT_PASSWORD = Message(b"R", struct.pack("!i", 3))  # AuthenticationCleartextPassword


def error(sqlstate: str, message: str, *, severity: str = "ERROR", hint: str | None = None) -> Message:
    """ErrorResponse."""
    fields = [("S", severity), ("V", severity), ("C", sqlstate), ("M", message)]
    if hint is not None:
        fields.append(("H", hint))
    return Message(b"E", b"".join(name.encode() + value.encode() + b"\0" for name, value in fields) + b"\0")


def error_fields(message: Message) -> dict[str, str]:
    """The fields of an ErrorResponse or a NoticeResponse, by their one-letter names."""
    parts = message.body.split(b"\0")
    return {part[:1].decode("ascii", "replace"): part[1:].decode("utf-8", "replace") for part in parts if part}


def ready(status: bytes) -> Message:
    """ReadyForQuery with the transaction status: I, T or E."""
    return Message(b"Z", status)


def data_row(message: Message) -> list[bytes | None]:
    """The column values of a DataRow."""
    (count,) = struct.unpack_from("!h", message.body)
    at, row = 2, list[bytes | None]()
    for _ in range(count):
        (length,) = struct.unpack_from("!i", message.body, at)
        at += 4
        row.append(None if length < 0 else message.body[at : at + length])
        at += max(length, 0)
    return row


def joined(messages: Sequence[Message | MessageBatch]) -> bytes:
    """Several messages encoded."""
    return b"".join(message.data for message in messages)
