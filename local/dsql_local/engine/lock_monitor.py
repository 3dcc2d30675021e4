"""Who stands in whose way: the sessions by their backends, and the connection that asks PostgreSQL about locks.

A session whose answer does not come within some milliseconds has its way cleared: whoever blocks it and is between two flights
is suspended. Nobody is suspended in the middle of a statement; such a one is waited for.
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

PATIENCE = 0.002  # seconds until the first look, most statements answer sooner
LONGEST = 0.1  # seconds between two looks at a statement that is merely slow


class LockHolder(Protocol):
    """A session that may hold locks."""

    async def release_locks(self, other: "LockHolder | None") -> None:
        """Free its locks for another one, if it is between two flights."""


class LockMonitor:
    """All sessions of one server."""

    def __init__(self, control: Backend) -> None:
        self._control = control
        self._turn = asyncio.Lock()
        self._holders: dict[int, LockHolder] = {}
        self.removals = KeyRemovals()
        self._watching: set[asyncio.Task[None]] = set()

    @classmethod
    async def connect(cls, server: Path) -> "LockMonitor":
        """Open the connection that asks about locks."""
        return cls(await Backend.connect(server, {"user": SUPERUSER, "database": "postgres"}))

    async def use_connection(self, control: Backend) -> None:
        """Ask through another connection from now on."""
        async with self._turn:
            before, self._control = self._control, control
        await before.close()

    async def close(self) -> None:
        """End all watching and the connection."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        await self._control.close()

    def register(self, pid: int, holder: LockHolder) -> None:
        """A session has begun on the backend with this process id."""
        self._holders[pid] = holder

    @property
    def has_several_sessions(self) -> bool:
        """Whether there is more than one session."""
        return len(self._holders) > 1

    def unregister(self, pid: int) -> None:
        """It has ended."""
        self._holders.pop(pid, None)

    @contextlib.contextmanager
    def unblocking(self, pid: int) -> Iterator[None]:
        """While this is entered, nobody who is idle blocks the backend with this process id for long."""
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        timer = loop.call_later(PATIENCE, self._watch, pid, over)
        try:
            yield
        finally:
            timer.cancel()
            over.set()  # a watcher is never cancelled: it may be suspending somebody

    def _watch(self, pid: int, over: asyncio.Event) -> None:
        task = asyncio.get_running_loop().create_task(self._clear_way(pid, over))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    async def _clear_way(self, pid: int, over: asyncio.Event) -> None:
        pause = PATIENCE
        with contextlib.suppress(BackendLost, CommandFailed):  # of the control connection: PostgreSQL is ending
            while not over.is_set():
                for blocker in await self._blockers(pid):
                    holder = self._holders.get(blocker)
                    if holder is not None and not over.is_set():
                        await holder.release_locks(self._holders.get(pid))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await over.wait()
                pause = min(pause * 1.5, LONGEST)

    async def _blockers(self, pid: int) -> list[int]:
        async with self._turn:
            rows = await self._control.run(f"SELECT DISTINCT unnest(pg_blocking_pids({pid}))")
        return [int(blocker) for (blocker,) in rows if blocker is not None]
