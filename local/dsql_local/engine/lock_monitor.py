"""Finds out who blocks whom, and frees the locks of idle transactions.

If a session's statement does not finish within some milliseconds, PostgreSQL is asked which backends block it. Those whose
session is between two flights free their locks. A session that executes a statement is waited for.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from ..postgres.backend import Backend, BackendLost, CommandFailed
from ..postgres.template import SUPERUSER
from .constraint_checks import KeyRemovals

__all__ = ["LockHolder", "LockMonitor"]

FIRST_CHECK_SECONDS = 0.002  # most statements finish sooner
MAX_CHECK_SECONDS = 0.1  # between two checks of a statement that is merely slow


class LockHolder(Protocol):
    """A session, which may hold locks."""

    async def release_locks(self, other: "LockHolder | None") -> None:
        """Free its locks for another session, if it is between two flights."""


class LockMonitor:
    """The sessions of one server, by the process ids of their backends."""

    def __init__(self, control: Backend) -> None:
        self._control = control
        self._lock = asyncio.Lock()
        self._holders: dict[int, LockHolder] = {}
        self.removals = KeyRemovals()
        self._checks: set[asyncio.Task[None]] = set()

    @classmethod
    async def connect(cls, server: Path) -> "LockMonitor":
        """Open the connection for queries about locks."""
        return cls(await Backend.connect(server, {"user": SUPERUSER, "database": "postgres"}))

    async def use_connection(self, control: Backend) -> None:
        """Use another connection from now on, and close the current one."""
        async with self._lock:
            previous, self._control = self._control, control
        await previous.close()

    async def close(self) -> None:
        """Stop all checks and close the connection."""
        for task in self._checks:
            task.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)
        await self._control.close()

    def register(self, pid: int, holder: LockHolder) -> None:
        """Add a session."""
        self._holders[pid] = holder

    @property
    def has_several_sessions(self) -> bool:
        """Whether there are two sessions or more."""
        return len(self._holders) > 1

    def unregister(self, pid: int) -> None:
        """Remove a session."""
        self._holders.pop(pid, None)

    @contextlib.contextmanager
    def unblocking(self, pid: int) -> Iterator[None]:
        """Inside the block, no idle session blocks this backend for long."""
        done = asyncio.Event()
        loop = asyncio.get_running_loop()
        timer = loop.call_later(FIRST_CHECK_SECONDS, self._start_checks, pid, done)
        try:
            yield
        finally:
            timer.cancel()
            done.set()  # a check is never cancelled: it may be suspending a transaction

    def _start_checks(self, pid: int, done: asyncio.Event) -> None:
        task = asyncio.get_running_loop().create_task(self._unblock(pid, done))
        self._checks.add(task)
        task.add_done_callback(self._checks.discard)

    async def _unblock(self, pid: int, done: asyncio.Event) -> None:
        interval = FIRST_CHECK_SECONDS
        with contextlib.suppress(BackendLost, CommandFailed):  # of the control connection: PostgreSQL is stopping
            while not done.is_set():
                for blocker in await self._blockers(pid):
                    holder = self._holders.get(blocker)
                    if holder is not None and not done.is_set():
                        await holder.release_locks(self._holders.get(pid))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(interval):
                        await done.wait()
                interval = min(interval * 1.5, MAX_CHECK_SECONDS)

    async def _blockers(self, pid: int) -> list[int]:
        async with self._lock:
            rows = await self._control.run(f"SELECT DISTINCT unnest(pg_blocking_pids({pid}))")
        return [int(blocker) for (blocker,) in rows if blocker is not None]
