"""Runs asynchronous jobs, one after another, on an internal connection.

A statement inserts a row into `sys._jobs` (see `postgres.sys_schema`), which is visible once its transaction is committed.
PostgreSQL does the work. This module decides when: after a delay, as on a cluster, or at once when a client waits.
"""

import asyncio
import contextlib
from pathlib import Path

from ..postgres.backend import Backend, BackendLost, CommandFailed, StartupRefused
from ..postgres.template import SUPERUSER
from ..rules.quoting import quote_literal
from .lock_monitor import LockMonitor
from .scheduler import Scheduler

__all__ = ["JOB_DELAY", "JobRunner"]

JOB_DELAY = 0.1  # seconds from a statement to the start of its job, unless a client waits for it; a cluster takes 5 to 24
MAX_WAIT_SECONDS = 5.0  # a client that holds a lock which the job needs would wait forever


class JobRunner:
    """Runs the jobs of one server."""

    def __init__(
        self, postgres_socket: Path, lock_monitor: LockMonitor, scheduler: Scheduler, delay: float | None = None
    ) -> None:
        self._postgres_socket = postgres_socket
        self._lock_monitor = lock_monitor
        self._scheduler = scheduler
        self._delay = JOB_DELAY if delay is None else delay
        self._counts_flights = scheduler.is_seeded and delay is None
        self._flights_left: int | None = None
        self._lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()

    def schedule(self) -> None:
        """Run submitted jobs after the delay, or after some flights if there is a seed."""
        if self._counts_flights:
            self._flights_left = self._flights_left or self._scheduler.flights_until_job() + 1  # plus the current one
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._delay, self._start)

    def new_id(self) -> str:
        """The id of a new job."""
        return self._scheduler.new_job_id()

    async def flight_executed(self) -> None:
        """Count a flight, and run submitted jobs if enough flights were executed since."""
        if self._flights_left is not None:
            self._flights_left -= 1
            if self._flights_left == 0:
                self._flights_left = None
                await self.run_submitted()

    async def run_submitted(self) -> None:
        """Run submitted jobs now; returns when they are done, or after `MAX_WAIT_SECONDS`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                await asyncio.shield(self._start())

    async def close(self) -> None:
        """Start no more jobs; PostgreSQL finishes or aborts a running one."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _start(self) -> asyncio.Task[None]:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        task = asyncio.get_running_loop().create_task(self._run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _run(self) -> None:
        async with self._lock:
            # PostgreSQL or the database may be stopping.
            with contextlib.suppress(BackendLost, CommandFailed, OSError, StartupRefused):
                backend = await Backend.connect(self._postgres_socket, {"user": SUPERUSER, "database": "postgres"})
                try:
                    with self._lock_monitor.unblocking(backend.pid):
                        while rows := await backend.run("SELECT sys._begin_job()"):
                            await backend.run(f"SELECT sys._do_job({quote_literal(rows[0][0] or '')})")
                finally:
                    backend.abort()
