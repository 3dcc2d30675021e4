"""Messages as flights, and a flight as the units that the front hands on.

A flight is what a client sends before it waits: everything up to a Sync, a simple Query, or a Flush with nothing behind it.
A unit is the part of it that succeeds or fails as one: inside a transaction each statement, outside one a whole run of
statements (PostgreSQL's implicit transaction), and every BEGIN, COMMIT and ROLLBACK by itself. Pure values; the sockets are
elsewhere.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..faults.plan import FlightSummary
from ..protocol.messages import NAMES, SYNC, Message, joined, parameter_sizes, query, retold
from ..rules.rulebook import LIMITS, StatementError, answer
from ..rules.statements import Kind, kind_of, split

__all__ = ["Flight", "Flights", "TooMuch", "Unit"]

MESSAGE_BYTES = 100  # that a message or a name takes here beside its text


def _outlives(message: Message) -> bool:
    """Whether the effect of a message stays when its transaction is rolled back: named statements do."""
    return (message.kind == b"P" and message.body[:1] != b"\0") or (message.kind == b"C" and message.body[:1] == b"S")


@dataclass(frozen=True, slots=True)
class Unit:
    """Messages that succeed or fail as one; `statements` are the SQL texts they execute."""

    messages: tuple[Message, ...]
    statements: tuple[str, ...]
    parts: "tuple[Unit, ...]" = ()  # what it was merged of, if it was
    flushed: bool = False  # its client waits for the answer before it sends a Sync

    @property
    def kind(self) -> Kind:
        """What it means to a transaction; a unit of several statements is OTHER."""
        return kind_of(self.statements[0]) if len(self.statements) == 1 else Kind.OTHER

    @property
    def texts(self) -> tuple[str, ...]:
        """The SQL that it executes or prepares."""
        prepared = tuple(message.texts(2)[1] for message in self.messages if message.kind == b"P")
        return (*prepared, *self.statements)

    @property
    def has_portal(self) -> bool:
        """Whether it makes or uses a portal, which a Sync would close."""
        return any(message.kind in (b"B", b"E") for message in self.messages)

    @property
    def sent(self) -> int:
        """How many bytes the client sent with it."""
        return sum(len(message.body) for message in self.messages)

    def has_value_longer_than(self, length: int) -> bool:
        """Whether a parameter or a string in its SQL has more bytes than this, or may have."""
        if self.sent <= length:
            return False
        long_string = re.compile(rf"'[^']{{{length},}}|\$[^\W\d]?\w*\$")
        if any(long_string.search(statement) for statement in self.statements):
            return True
        return any(size > length for message in self.messages if message.kind == b"B" for size in parameter_sizes(message))

    def told(self, instead: Callable[[str], str]) -> "Unit":
        """The same with every SQL text replaced; `statements` stay as the client wrote them."""
        return replace(self, messages=tuple(retold(message, instead) for message in self.messages))

    @property
    def simple(self) -> bool:
        """Whether it is answered up to a ReadyForQuery without a Sync."""
        return bool(self.messages) and self.messages[0].kind in (b"Q", b"F")

    @property
    def data(self) -> bytes:
        """As it is sent to PostgreSQL, which answers it with one ReadyForQuery."""
        return joined(self.messages) if self.simple else joined((*self.messages, SYNC))

    @property
    def function_call(self) -> bool:
        """Whether it is a FunctionCall, which may do anything."""
        return any(message.kind == b"F" for message in self.messages)

    @property
    def again(self) -> "Unit":
        """What to send to execute it once more: prepared statements have outlived the rollback, portals have not."""
        return replace(self, messages=tuple(message for message in self.messages if not _outlives(message)))

    def with_copied(self, copied: Sequence[Message]) -> "Unit":
        """The same with the data of its COPY FROM STDIN behind it."""
        return replace(self, messages=(*self.messages, *copied)) if copied else self


@dataclass(frozen=True, slots=True)
class Flight:
    """All that a client sent before it waits, cut after each execution."""

    parts: tuple[Unit, ...]
    ending: Literal["sync", "flush", "query"]

    @property
    def messages(self) -> tuple[str, ...]:
        """The names of its messages, the closing Sync or Flush included."""
        if self.ending == "query":
            return ("Query",)
        sent = [message.kind for part in self.parts for message in part.messages]
        return (*(NAMES.get(kind, "?") for kind in sent), self.ending.capitalize())

    @property
    def statements(self) -> tuple[str, ...]:
        """The SQL texts that it executes."""
        return tuple(statement for part in self.parts for statement in part.statements)

    def outline(self, *, inside: bool) -> FlightSummary:
        """What faults need to know of it."""
        kinds = [kind_of(statement) for statement in self.statements]
        return FlightSummary(inside, Kind.BEGIN in kinds, Kind.COMMIT in kinds, any(not kind.controls for kind in kinds))

    def units(self, *, inside: bool) -> Iterator[Unit]:
        """Its units, if it arrives inside a transaction or not. They assume that each one succeeds."""
        run: list[Unit] = []
        for part in self.parts:
            if inside or part.kind.controls:
                yield from self._merged(run)
                run = []
                yield from self._merged([part])
                inside = part.kind is Kind.BEGIN if part.kind.controls else inside
            else:
                run.append(part)
        yield from self._merged(run)

    def _merged(self, run: list[Unit]) -> Iterator[Unit]:
        return (replace(unit, flushed=True) if self.ending == "flush" else unit for unit in _merged(run))


def _merged(run: list[Unit]) -> Iterator[Unit]:
    """A run of parts as one unit."""
    if len(run) < 2:
        yield from run
        return
    statements = tuple(statement for part in run for statement in part.statements)
    if run[0].simple:
        yield Unit((query("; ".join(statements)),), statements, tuple(run))
    else:
        yield Unit(tuple(message for part in run for message in part.messages), statements, tuple(run))


class TooMuch(Exception):
    """A client has sent more than is kept of it; `error` says what."""

    def __init__(self, error: StatementError) -> None:
        super().__init__(error.message)
        self.error = error


class Flights:
    """Gathers one connection's messages into flights, and knows which SQL a prepared name stands for."""

    def __init__(self, longest: int = LIMITS["flight"]) -> None:
        self._gathered: list[Message] = []
        self._parts: list[Unit] = []
        self._statements: dict[str, str] = {}
        self._portals: dict[str, str] = {}
        self._longest = longest
        self._gathered_bytes = 0
        self._named_bytes = 0

    def feed(self, message: Message, *, more: bool = False) -> Flight | None:
        """Take one message of the client; the flight that it completes, if it does.

        `more` says that the client has sent further messages with it: then a Flush is not what it waits for. Raises
        `TooMuch` for more than is kept of one client.
        """
        if message.kind in (b"Q", b"F"):
            return self._close("query", self._query(message))
        if message.kind == b"H" and more:
            return None
        if message.kind in (b"S", b"H"):
            return self._close("sync" if message.kind == b"S" else "flush", ())
        if message.kind in (b"d", b"c", b"f"):
            return None  # data of a COPY that has already failed: PostgreSQL ignores it, too
        self._gathered.append(message)
        self._gathered_bytes += len(message.body) + MESSAGE_BYTES
        if self._gathered_bytes > self._longest:
            raise TooMuch(answer("flight", self._longest))
        if message.kind == b"P":
            name, sql = message.texts(2)
            self._name(self._statements, name, sql, len(sql))
        elif message.kind == b"B":
            portal, name = message.texts(2)
            self._name(self._portals, portal, self._statements.get(name, ""), 0)
        elif message.kind == b"C":
            self._forget(
                self._statements if message.body[:1] == b"S" else self._portals, message.body[1:-1].decode("utf-8", "replace")
            )
        elif message.kind == b"E":
            (portal,) = message.texts(1)
            self._parts.append(Unit(tuple(self._gathered), (self._portals.get(portal, ""),)))
            self._gathered = []
        return None

    def _close(self, ending: Literal["sync", "flush", "query"], more: Iterable[Unit]) -> Flight:
        if self._gathered and self._parts and not self._parts[-1].kind.controls:
            self._parts[-1] = replace(self._parts[-1], messages=(*self._parts[-1].messages, *self._gathered))
        elif self._gathered:
            self._parts.append(Unit(tuple(self._gathered), ()))
        flight = Flight((*self._parts, *more), ending)
        self._gathered, self._parts, self._gathered_bytes = [], [], 0
        return flight

    def _name(self, names: dict[str, str], name: str, sql: str, size: int) -> None:
        """Remember which SQL a name stands for; `size` is what it takes beside the name."""
        self._forget(names, name)
        names[name] = sql
        self._named_bytes += len(name) + size + MESSAGE_BYTES
        if self._named_bytes > self._longest:
            raise TooMuch(answer("prepared", self._longest))

    def _forget(self, names: dict[str, str], name: str) -> None:
        sql = names.pop(name, None)
        if sql is not None:
            self._named_bytes -= len(name) + (len(sql) if names is self._statements else 0) + MESSAGE_BYTES

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
