"""SQL past the front: one session as `admin` on PostgreSQL's own socket, without TLS, token, faults or log.

The rules, the limits and the conflicts hold for it as for everybody. Used in the event loop alone.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from ..engine.chance import Chance
from ..engine.flights import Flights
from ..engine.lock_monitor import LockMonitor
from ..engine.session import Session
from ..engine.statement_policy import StatementPolicy
from ..faults.plan import FaultPlan
from ..postgres.backend import Backend
from ..protocol.messages import Message, Splitter, data_row, error_fields, query
from ..rules.statements import split

__all__ = ["AdminSession", "Row", "SqlError"]

Row = list[str | None]


class SqlError(Exception):
    """A statement given to `LocalDsql.execute` failed. The text is PostgreSQL's message, `sqlstate` its code."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(f"{sqlstate}: {message}")
        self.sqlstate = sqlstate


class AdminSession:
    """It connects when it is first needed; `guard` makes what judges a connection's statements."""

    def __init__(
        self, server: Path, policy: Callable[[Backend], StatementPolicy], lock_monitor: LockMonitor, chance: Chance
    ) -> None:
        self._server = server
        self._chance = chance
        self._new_policy = policy
        self._lock_monitor = lock_monitor
        self._session: Session | None = None
        self._turn = asyncio.Lock()

    async def execute(self, sql: str) -> list[Row]:
        """Run a script, each statement a transaction of its own unless it says BEGIN; the last one's rows. Raises `SqlError`."""
        async with self._turn:
            if self._session is None:
                backend = await Backend.connect(self._server, {"user": "admin", "database": "postgres"})
                self._policy = self._new_policy(backend)
                await self._chance.prepare(backend)
                self._session = Session(
                    backend,
                    policy=self._policy,
                    faults=FaultPlan(),
                    lock_monitor=self._lock_monitor,
                    record=_ignore,
                    chance=self._chance,
                )
            rows: list[Row] = []
            try:
                for statement in split(sql):
                    self._policy.look()  # only clients meet OC001
                    rows = await _collect(self._session, statement)
            finally:
                if self._session.inside:
                    await _collect(self._session, "ROLLBACK")
            return rows

    async def leave(self) -> None:
        """End the connection; the next script opens another one."""
        async with self._turn:
            if self._session is not None:
                await self._session.close()
                self._session = None


def _ignore(*_: object, **__: object) -> None:
    """Take no note."""


async def _collect(session: Session, statement: str) -> list[Row]:
    flight = Flights().feed(query(statement))
    assert flight is not None  # noqa: S101 - a Query is a flight
    collector = Collector()
    await session.run(flight, collector)
    return collector.rows()


class Collector:
    """A client that keeps the answers."""

    def __init__(self) -> None:
        self._splitter = Splitter()
        self._messages: list[Message] = []

    def write(self, data: bytes) -> None:
        """Keep an answer."""
        self._messages.extend(self._splitter.feed(data))

    async def drain(self) -> None:
        """It is never slow."""

    async def receive(self) -> Message:
        """It has no data for COPY FROM STDIN."""
        return Message(b"f", b"execute() has no data for COPY FROM STDIN\0")

    def rows(self) -> list[Row]:
        """The rows as text. Raises `SqlError` if the statement failed."""
        for message in self._messages:
            if message.kind == b"E":
                fields = error_fields(message)
                raise SqlError(fields.get("C", ""), fields.get("M", ""))
        rows = (data_row(message) for message in self._messages if message.kind == b"D")
        return [[None if value is None else value.decode() for value in row] for row in rows]
