"""The session behind `LocalDsql.execute`: `admin`, without TLS, token, faults or log.

Rules, limits and conflicts apply to it as to every session. It runs in the event loop.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from ..engine.flights import FlightAssembler
from ..engine.lock_monitor import LockMonitor
from ..engine.scheduler import Scheduler
from ..engine.session import Session
from ..engine.statement_policy import StatementPolicy
from ..faults.plan import FaultPlan
from ..postgres.backend import Backend
from ..protocol.decoder import MessageDecoder
from ..protocol.messages import Message, data_row, error_fields, query
from ..rules.statements import split

__all__ = ["AdminSession", "Row", "SqlError"]

Row = list[str | None]


class SqlError(Exception):
    """A statement of `LocalDsql.execute` failed. The text is SQLSTATE and message; `sqlstate` is the code."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(f"{sqlstate}: {message}")
        self.sqlstate = sqlstate


class AdminSession:
    """Connects at first use. `new_policy` makes the statement policy of a backend."""

    def __init__(
        self,
        postgres_socket: Path,
        new_policy: Callable[[Backend], StatementPolicy],
        lock_monitor: LockMonitor,
        scheduler: Scheduler,
    ) -> None:
        self._postgres_socket = postgres_socket
        self._new_policy = new_policy
        self._lock_monitor = lock_monitor
        self._scheduler = scheduler
        self._session: Session | None = None
        self._lock = asyncio.Lock()

    async def execute(self, sql: str) -> list[Row]:
        """Run a script, and return the rows of its last statement. Raises `SqlError`."""
        async with self._lock:
            if self._session is None:
                backend = await Backend.connect(self._postgres_socket, {"user": "admin", "database": "postgres"})
                self._policy = self._new_policy(backend)
                await self._scheduler.seed_session(backend)
                self._session = Session(
                    backend,
                    policy=self._policy,
                    faults=FaultPlan(),
                    lock_monitor=self._lock_monitor,
                    record=_ignore,
                    scheduler=self._scheduler,
                )
            rows: list[Row] = []
            try:
                for statement in split(sql):
                    self._policy.refresh_catalog()  # OC001 is only for clients
                    rows = await _collect(self._session, statement)
            finally:
                if self._session.in_transaction:
                    await _collect(self._session, "ROLLBACK")
            return rows

    async def disconnect(self) -> None:
        """Close the connection; the next script opens a new one."""
        async with self._lock:
            if self._session is not None:
                await self._session.close()
                self._session = None


def _ignore(*_: object, **__: object) -> None:
    """Record nothing."""


async def _collect(session: Session, statement: str) -> list[Row]:
    flight = FlightAssembler().feed(query(statement))
    assert flight is not None  # noqa: S101 - a Query is a complete flight
    collector = Collector()
    await session.run(flight, collector)
    return collector.rows()


class Collector:
    """A client that collects the answers."""

    def __init__(self) -> None:
        self._decoder = MessageDecoder()
        self._messages: list[Message] = []

    def write(self, data: bytes) -> None:
        """Decode an answer."""
        self._messages.extend(self._decoder.feed(data))

    async def drain(self) -> None:
        """Nothing to wait for."""

    async def receive(self) -> Message:
        """CopyFail: a script has no data for COPY FROM STDIN."""
        return Message(b"f", b"execute() has no data for COPY FROM STDIN\0")

    def rows(self) -> list[Row]:
        """The rows as text. Raises `SqlError` if the statement failed."""
        for message in self._messages:
            if message.kind == b"E":
                fields = error_fields(message)
                raise SqlError(fields.get("C", ""), fields.get("M", ""))
        rows = (data_row(message) for message in self._messages if message.kind == b"D")
        return [[None if value is None else value.decode() for value in row] for row in rows]
