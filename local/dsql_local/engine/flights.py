"""Flights and units: how a client's messages are grouped for execution.

A flight is what a client sends before it waits for an answer: messages up to a Sync, a Query, or a Flush with nothing after it.
A unit is the part of a flight that succeeds or fails as a whole. Inside a transaction it is one statement. Outside, it is a run
of statements, as PostgreSQL's implicit transaction is; BEGIN, COMMIT and ROLLBACK are units of their own. Pure values; no I/O.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..faults.kinds import FlightSummary
from ..protocol.messages import FRONTEND_NAMES, SYNC, Message, joined, parameter_sizes, query, with_sql
from ..rules.rulebook import LIMITS, StatementError, answer
from ..rules.statements import Kind, kind_of, split

__all__ = ["Flight", "FlightAssembler", "FlightTooLarge", "Unit"]

_OVERHEAD_BYTES = 100  # memory for a message or a name, besides its text


def _survives_rollback(message: Message) -> bool:
    """Whether a message defines or closes a named prepared statement, which a rollback does not undo."""
    return (message.kind == b"P" and message.body[:1] != b"\0") or (message.kind == b"C" and message.body[:1] == b"S")


@dataclass(frozen=True, slots=True)
class Unit:
    """Messages that succeed or fail as a whole; `statements` are the SQL statements that they execute."""

    messages: tuple[Message, ...]
    statements: tuple[str, ...]
    parts: "tuple[Unit, ...]" = ()  # the units that were merged into this one
    ends_in_flush: bool = False  # the client waits for the answer before it sends a Sync

    @property
    def kind(self) -> Kind:
        """The kind of its statement; OTHER for several statements."""
        return kind_of(self.statements[0]) if len(self.statements) == 1 else Kind.OTHER

    @property
    def sql_texts(self) -> tuple[str, ...]:
        """The SQL texts that it executes or prepares."""
        prepared = tuple(message.texts(2)[1] for message in self.messages if message.kind == b"P")
        return (*prepared, *self.statements)

    @property
    def has_portal(self) -> bool:
        """Whether it creates or uses a portal, which a Sync would close."""
        return any(message.kind in (b"B", b"E") for message in self.messages)

    @property
    def sent_bytes(self) -> int:
        """The size of its messages."""
        return sum(len(message.body) for message in self.messages)

    def has_value_longer_than(self, length: int) -> bool:
        """Whether a parameter, or a string in its SQL, has or may have more bytes than this."""
        if self.sent_bytes <= length:
            return False
        long_string = re.compile(rf"'[^']{{{length},}}|\$[^\W\d]?\w*\$")
        if any(long_string.search(statement) for statement in self.statements):
            return True
        return any(size > length for message in self.messages if message.kind == b"B" for size in parameter_sizes(message))

    def with_sql(self, rewrite: Callable[[str], str]) -> "Unit":
        """The same with every SQL text rewritten; `statements` stay as the client wrote them."""
        return replace(self, messages=tuple(with_sql(message, rewrite) for message in self.messages))

    @property
    def is_simple(self) -> bool:
        """Whether PostgreSQL answers it with ReadyForQuery without a Sync."""
        return bool(self.messages) and self.messages[0].kind in (b"Q", b"F")

    @property
    def data(self) -> bytes:
        """The bytes for PostgreSQL, which answers them with one ReadyForQuery."""
        return joined(self.messages) if self.is_simple else joined((*self.messages, SYNC))

    @property
    def is_function_call(self) -> bool:
        """Whether it is a FunctionCall, which may have any effect."""
        return any(message.kind == b"F" for message in self.messages)

    @property
    def for_replay(self) -> "Unit":
        """The same to execute once more after a rollback: named prepared statements still exist, portals do not."""
        return replace(self, messages=tuple(message for message in self.messages if not _survives_rollback(message)))

    def with_copy_data(self, copy_data: Sequence[Message]) -> "Unit":
        """The same, followed by the data of its COPY FROM STDIN."""
        return replace(self, messages=(*self.messages, *copy_data)) if copy_data else self


@dataclass(frozen=True, slots=True)
class Flight:
    """What a client sent before it waits, split after each Execute."""

    parts: tuple[Unit, ...]
    ending: Literal["sync", "flush", "query"]

    @property
    def messages(self) -> tuple[str, ...]:
        """The names of its messages, including the final Sync or Flush."""
        if self.ending == "query":
            return ("Query",)
        sent = [message.kind for part in self.parts for message in part.messages]
        return (*(FRONTEND_NAMES.get(kind, "?") for kind in sent), self.ending.capitalize())

    @property
    def statements(self) -> tuple[str, ...]:
        """The SQL statements that it executes."""
        return tuple(statement for part in self.parts for statement in part.statements)

    def summary(self, *, in_transaction: bool) -> FlightSummary:
        """What faults need to know about it."""
        kinds = [kind_of(statement) for statement in self.statements]
        return FlightSummary(
            in_transaction, Kind.BEGIN in kinds, Kind.COMMIT in kinds, any(not kind.is_transaction_control for kind in kinds)
        )

    def units(self, *, in_transaction: bool) -> Iterator[Unit]:
        """Its units, assuming that each of them succeeds; `in_transaction` if it arrives inside an open transaction."""
        run: list[Unit] = []
        for part in self.parts:
            if in_transaction or part.kind.is_transaction_control:
                yield from self._merged(run)
                run = []
                yield from self._merged([part])
                in_transaction = part.kind is Kind.BEGIN if part.kind.is_transaction_control else in_transaction
            else:
                run.append(part)
        yield from self._merged(run)

    def _merged(self, run: list[Unit]) -> Iterator[Unit]:
        return (replace(unit, ends_in_flush=True) if self.ending == "flush" else unit for unit in _merged(run))


def _merged(run: list[Unit]) -> Iterator[Unit]:
    """A run of parts, merged into one unit."""
    if len(run) < 2:
        yield from run
        return
    statements = tuple(statement for part in run for statement in part.statements)
    if run[0].is_simple:
        yield Unit((query("; ".join(statements)),), statements, tuple(run))
    else:
        yield Unit(tuple(message for part in run for message in part.messages), statements, tuple(run))


class FlightTooLarge(Exception):
    """A client has sent more than may be kept for it; `error` is the answer."""

    def __init__(self, error: StatementError) -> None:
        super().__init__(error.message)
        self.error = error


class FlightAssembler:
    """Assembles one connection's messages into flights, and knows the SQL of its prepared statements and portals."""

    def __init__(self, max_bytes: int = LIMITS["flight"]) -> None:
        self._messages: list[Message] = []
        self._parts: list[Unit] = []
        self._statements: dict[str, str] = {}
        self._portals: dict[str, str] = {}
        self._max_bytes = max_bytes
        self._message_bytes = 0
        self._name_bytes = 0

    def feed(self, message: Message, *, more: bool = False) -> Flight | None:
        """Take one message of the client; returns the flight if it is now complete.

        `more` tells that further messages have already arrived: then the client does not wait for the answer to a Flush.
        Raises `FlightTooLarge`.
        """
        if message.kind in (b"Q", b"F"):
            return self._close("query", self._query(message))
        if message.kind == b"H" and more:
            return None
        if message.kind in (b"S", b"H"):
            return self._close("sync" if message.kind == b"S" else "flush", ())
        if message.kind in (b"d", b"c", b"f"):
            return None  # data of a COPY that has failed: PostgreSQL ignores it, too
        self._messages.append(message)
        self._message_bytes += len(message.body) + _OVERHEAD_BYTES
        if self._message_bytes > self._max_bytes:
            raise FlightTooLarge(answer("flight", self._max_bytes))
        if message.kind == b"P":
            name, sql = message.texts(2)
            self._store(self._statements, name, sql, len(sql))
        elif message.kind == b"B":
            portal, name = message.texts(2)
            self._store(self._portals, portal, self._statements.get(name, ""), 0)
        elif message.kind == b"C":
            names = self._statements if message.body[:1] == b"S" else self._portals
            self._remove(names, message.body[1:-1].decode("utf-8", "replace"))
        elif message.kind == b"E":
            (portal,) = message.texts(1)
            self._parts.append(Unit(tuple(self._messages), (self._portals.get(portal, ""),)))
            self._messages = []
        return None

    def _close(self, ending: Literal["sync", "flush", "query"], more: Iterable[Unit]) -> Flight:
        if self._messages and self._parts and not self._parts[-1].kind.is_transaction_control:
            self._parts[-1] = replace(self._parts[-1], messages=(*self._parts[-1].messages, *self._messages))
        elif self._messages:
            self._parts.append(Unit(tuple(self._messages), ()))
        flight = Flight((*self._parts, *more), ending)
        self._messages, self._parts, self._message_bytes = [], [], 0
        return flight

    def _store(self, names: dict[str, str], name: str, sql: str, size: int) -> None:
        """Store the SQL of a name; `size` is the memory for it, besides the name."""
        self._remove(names, name)
        names[name] = sql
        self._name_bytes += len(name) + size + _OVERHEAD_BYTES
        if self._name_bytes > self._max_bytes:
            raise FlightTooLarge(answer("prepared", self._max_bytes))

    def _remove(self, names: dict[str, str], name: str) -> None:
        sql = names.pop(name, None)
        if sql is not None:
            self._name_bytes -= len(name) + (len(sql) if names is self._statements else 0) + _OVERHEAD_BYTES

    def _query(self, message: Message) -> Iterator[Unit]:
        if message.kind == b"F":
            yield Unit((message,), ())
            return
        (sql,) = message.texts(1)
        statements = split(sql)
        if len(statements) < 2:
            yield Unit((message,), statements)
            return
        for statement in statements:
            yield Unit((query(statement),), (statement,))
