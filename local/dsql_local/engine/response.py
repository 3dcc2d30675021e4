"""PostgreSQL's response to one unit on its way to the client: held while it may still be replaced, otherwise passed on.

It also forwards the data of COPY FROM STDIN, and answers PostgreSQL's serialization failures with DSQL's error. `session` and
`transaction` decide what an error means.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..postgres.backend import Backend
from ..protocol.client import Client
from ..protocol.messages import SYNC, Message, MessageBatch, error_fields, joined
from ..rules.error_responses import LONG_KEY, conflict
from .flights import Unit

__all__ = ["Response", "as_dsql_error", "relay_response"]

BATCH_BYTES = 1 << 16
MAX_HELD_BYTES = 1 << 20  # a longer response is sent as it arrives, and cannot be replaced any more
_COMPARED = frozenset((b"T", b"C", b"I", b"s", b"n"))  # what a client sees of an execution, besides rows


def _is_conflict(message: Message) -> bool:
    """Whether PostgreSQL reports a serialization failure or a deadlock, and not one that SQL raised by RAISE."""
    if message.kind != b"E":
        return False
    fields = error_fields(message)
    return fields.get("C") in ("40001", "40P01") and fields.get("R") != "exec_stmt_raise"


def as_dsql_error(message: Message) -> Message:
    """The message; or DSQL's error, if it is a serialization failure or an exceeded key size."""
    if _is_conflict(message):
        return conflict("OC000")
    return LONG_KEY if message.kind == b"E" and _is_long_key(error_fields(message)) else message


def _is_long_key(fields: Mapping[str, str]) -> bool:
    """Whether a key exceeds PostgreSQL's limit, which is higher than DSQL's."""
    return fields.get("C") == "54000" and fields.get("M", "").startswith("index row ")


@dataclass(slots=True)
class Response:
    """PostgreSQL's response to one unit, without ReadyForQuery."""

    held: list[Message | MessageBatch] = field(default_factory=list)
    error: Message | None = None
    partly_sent: bool = False  # part of it was sent, although it was to be held
    copy_data: list[Message] = field(default_factory=list)  # what the client sent for COPY FROM STDIN
    digest: int = 0  # of what the client sees. Independent of the order of rows, which may differ in a replay

    @property
    def sqlstate(self) -> str | None:
        """The SQLSTATE of the error, None without one."""
        return None if self.error is None else error_fields(self.error).get("C")

    @property
    def is_conflict(self) -> bool:
        """Whether it is a serialization failure."""
        return self.error is not None and _is_conflict(self.error)

    def send(self, client: Client) -> bool:
        """Send what is held to the client; returns whether the unit succeeded."""
        client.write(joined([as_dsql_error(each) if isinstance(each, Message) else each for each in self.held]))
        self.held = []
        return self.error is None


async def relay_response(backend: Backend, unit: Unit, client: Client, *, hold: bool, copying: bool = True) -> Response:
    """Read the response to a unit that was sent.

    Without `hold` it is sent to the client as it arrives. Without `copying` the unit contains the data of its COPY FROM STDIN.
    """
    response, size = Response(), 0
    while (message := await backend.receive()).kind != b"Z":
        if isinstance(message, MessageBatch):
            size += len(message.data)
            if hold:  # otherwise it is never replayed, and never compared
                response.digest += sum(map(hash, message.pieces))
        else:
            size += len(message.body)
            if message.kind == b"E":
                response.error = message
            elif hold and message.kind in _COMPARED:
                response.digest += hash(message.data)
        response.held.append(message)
        copy_in = copying and message.kind == b"G"
        if size > (MAX_HELD_BYTES if hold else BATCH_BYTES) or copy_in:
            response.partly_sent = True
            response.send(client)
            await client.drain()
            size = 0 if not hold else size
        if copy_in:
            await _forward_copy_data(backend, unit, client, response)
    if not hold:
        response.send(client)
    return response


async def _forward_copy_data(backend: Backend, unit: Unit, client: Client, response: Response) -> None:
    """Forward the data of COPY FROM STDIN. In the extended protocol a Sync follows it; PostgreSQL ignores one before the data.

    A client that sent a Flush sends its Sync later, and that ends its implicit transaction; so PostgreSQL gets a Sync from us.
    """
    await client.drain()
    last = (b"c", b"f") if unit.is_simple or unit.ends_in_flush else (b"S",)
    while True:
        message = await client.receive()
        if unit.ends_in_flush and message.kind in (b"H", b"S"):  # PostgreSQL ignores them, too
            continue
        backend.send(message.data + (SYNC.data if unit.ends_in_flush and message.kind in last else b""))
        await backend.drain()
        if message.kind != b"S":
            response.copy_data.append(message)
        if message.kind in last:
            return
