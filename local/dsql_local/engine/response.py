"""One unit's reply on its way from PostgreSQL to the client: held back while it may still be replaced, else passed on.

It also carries the data of COPY FROM STDIN the other way, and puts PostgreSQL's serialization failures into DSQL's words. It does
not decide what to do about an error; `session` and `transaction` do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..postgres.backend import Backend
from ..protocol.client import Client
from ..protocol.messages import SYNC, Message, Run, error_fields, joined
from ..rules.error_responses import LONG_KEY, conflict
from .flights import Unit

__all__ = ["Response", "in_own_words", "relay_response"]

BATCH_BYTES = 1 << 16
HELD_BYTES = 1 << 20  # what is longer is passed on as it comes, and cannot be replaced any more
_COMPARED = frozenset((b"T", b"C", b"I", b"s", b"n"))  # beside rows, what a client sees of an execution


def _is_conflict(message: Message) -> bool:
    """Whether PostgreSQL says that the transaction lost: a serialization failure or a deadlock, not one that SQL raised."""
    if message.kind != b"E":
        return False
    fields = error_fields(message)
    return fields.get("C") in ("40001", "40P01") and fields.get("R") != "exec_stmt_raise"


def in_own_words(message: Message) -> Message:
    """An answer as DSQL gives it."""
    if _is_conflict(message):
        return conflict("OC000")
    return LONG_KEY if message.kind == b"E" and _is_long_key(error_fields(message)) else message


def _is_long_key(fields: Mapping[str, str]) -> bool:
    """PostgreSQL's own limit, which is higher."""
    return fields.get("C") == "54000" and fields.get("M", "").startswith("index row ")


@dataclass(slots=True)
class Response:
    """What PostgreSQL said to one unit, up to and without ReadyForQuery."""

    held: list[Message | Run] = field(default_factory=list)
    error: Message | None = None
    passed_on: bool = False  # part of it has left although it was to be held
    copied: list[Message] = field(default_factory=list)  # what the client sent in COPY FROM STDIN
    digest: int = 0  # of what a client sees of it, rows in any order: executed again, PostgreSQL may find them in another one

    @property
    def sqlstate(self) -> str | None:
        """The error's code, None without an error."""
        return None if self.error is None else error_fields(self.error).get("C")

    @property
    def lost(self) -> bool:
        """Whether it says that a rival won."""
        return self.error is not None and _is_conflict(self.error)

    def give(self, client: Client) -> bool:
        """Hand it to the client, a conflict in DSQL's words; whether it is a success."""
        client.write(joined([in_own_words(each) if isinstance(each, Message) else each for each in self.held]))
        self.held = []
        return self.error is None


async def relay_response(backend: Backend, unit: Unit, client: Client, *, hold: bool, copying: bool = True) -> Response:
    """Read the reply to a unit that was sent. Without `copying` the data of its COPY FROM STDIN was sent with it."""
    reply, size = Response(), 0
    while (message := await backend.receive()).kind != b"Z":
        if isinstance(message, Run):
            size += len(message.data)
            if hold:  # else nobody compares: it will not be executed again
                reply.digest += sum(map(hash, message.pieces))
        else:
            size += len(message.body)
            if message.kind == b"E":
                reply.error = message
            elif hold and message.kind in _COMPARED:
                reply.digest += hash(message.data)
        reply.held.append(message)
        copy_in = copying and message.kind == b"G"
        if size > (HELD_BYTES if hold else BATCH_BYTES) or copy_in:
            reply.passed_on = True
            reply.give(client)
            await client.drain()
            size = 0 if not hold else size
        if copy_in:
            await _copy_in(backend, unit, client, reply)
    if not hold:
        reply.give(client)
    return reply


async def _copy_in(backend: Backend, unit: Unit, client: Client, reply: Response) -> None:
    """Carry the data of COPY FROM STDIN. By the extended protocol a Sync follows it, one before the data being ignored.

    A client that has sent a Flush instead has its Sync left to send, which ends its transaction: PostgreSQL gets one of ours.
    """
    await client.drain()
    last = (b"c", b"f") if unit.simple or unit.flushed else (b"S",)
    while True:
        message = await client.receive()
        if unit.flushed and message.kind in (b"H", b"S"):  # PostgreSQL ignores them, too
            continue
        backend.send(message.data + (SYNC.data if unit.flushed and message.kind in last else b""))
        await backend.drain()
        if message.kind != b"S":
            reply.copied.append(message)
        if message.kind in last:
            return
