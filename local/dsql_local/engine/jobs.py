"""Jobs, done one after another on a connection of the server's own, after the statement that asked for them was answered.

A statement leaves a row in `sys._jobs` (see `sys_schema`), which is seen when its transaction has been committed; PostgreSQL does
the work. This module only says when: some time after the statement, as on a cluster, or as soon as somebody waits.
"""

import asyncio
import contextlib
from pathlib import Path

from ..postgres.backend import Backend, BackendLost, CommandFailed, StartupRefused
from ..postgres.template import SUPERUSER
from ..rules.quoting import quote_literal
from .chance import Chance
from .lock_monitor import LockMonitor

__all__ = ["JOB_DELAY", "JobRunner"]

JOB_DELAY = 0.1  # seconds from a statement to the beginning of its job, if nobody waits for it; a cluster takes 5 to 24
LONGEST_WAIT = 5.0  # seconds that somebody waits: whoever holds what a job needs would wait for himself


class JobRunner:
    """The jobs of one server."""

    def __init__(self, server: Path, lock_monitor: LockMonitor, chance: Chance, delay: float | None = None) -> None:
        self._server = server
        self._lock_monitor = lock_monitor
        self._chance = chance
        self._delay = JOB_DELAY if delay is None else delay
        self._counts_flights = chance.is_seeded and delay is None
        self._flights_left: int | None = None
        self._turn = asyncio.Lock()
        self._later: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()

    def soon(self) -> None:
        """A job may have been submitted: it begins when the delay is over."""
        if self._counts_flights:
            self._flights_left = self._flights_left or self._chance.flights_until_job() + 1  # this one included
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(self._delay, self._begin)

    def new_id(self) -> str:
        """The id of a new job."""
        return self._chance.new_job_id()

    async def flight_is_done(self) -> None:
        """A flight has been executed: where flights are counted instead of time, it may be a job's turn."""
        if self._flights_left is not None:
            self._flights_left -= 1
            if self._flights_left == 0:
                self._flights_left = None
                await self.settle()

    async def settle(self) -> None:
        """Do what has been submitted now; returns when it is done."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_WAIT):
                await asyncio.shield(self._begin())

    async def close(self) -> None:
        """Begin no more, and leave what is being done to PostgreSQL."""
        if self._later is not None:
            self._later.cancel()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _begin(self) -> asyncio.Task[None]:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        task = asyncio.get_running_loop().create_task(self._run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _run(self) -> None:
        async with self._turn:
            with contextlib.suppress(
                BackendLost, CommandFailed, OSError, StartupRefused
            ):  # PostgreSQL or the database is leaving
                backend = await Backend.connect(self._server, {"user": SUPERUSER, "database": "postgres"})
                try:
                    with self._lock_monitor.unblocking(backend.pid):
                        while rows := await backend.run("SELECT sys._begin_job()"):
                            await backend.run(f"SELECT sys._do_job({quote_literal(rows[0][0] or '')})")
                finally:
                    backend.abort()
