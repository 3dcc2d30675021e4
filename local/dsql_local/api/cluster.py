"""What of a local DSQL lives in its event loop: the front behind its port, the admin's session, the snapshots.

It begins, ends and restarts them in the right order. All of it runs in one thread; `server` is what the others call.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from ..engine.jobs import Jobs
from ..engine.lock_monitor import Rivals
from ..engine.session import Session
from ..engine.statement_policy import Guard
from ..engine.transaction_limits import Catalog
from ..events import Event, Log, Note
from ..faults.commands import Order
from ..faults.plan import Faults, How
from ..frontend.iam import Identity
from ..frontend.server import Front
from ..frontend.tls import Authority
from ..postgres.backend import Backend
from ..postgres.snapshots import Snapshots, control
from ..rules.limits import Limits
from .admin_session import Admin, Row

__all__ = ["Cluster", "listener"]


def listener(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes a free one. Raises OSError when the port is taken."""
    made = socket.create_server((host, port), backlog=512)
    made.setblocking(False)  # noqa: FBT003 - its only parameter
    return made


class Cluster:
    """From `open` to `close` on the PostgreSQL behind the socket `server`. `orders` carries out faults of the whole server."""

    def __init__(
        self,
        *,
        server: Path,
        identity: Identity,
        authority: Authority,
        limits: Limits,
        faults: Faults,
        log: Log,
        orders: Callable[[Order], Awaitable[None]],
        job_delay: float,
    ) -> None:
        self._server = server
        self._job_delay = job_delay
        self._identity = identity
        self._limits = limits
        self._log = log
        self._catalog = Catalog()
        self._snapshots: Snapshots | None = None
        self.front = Front(
            identity=identity,
            authority=authority,
            faults=faults,
            log=log,
            server=server,
            sessions=self._new_session,
            limits=limits,
            orders=orders,
        )

    async def open(self, listening: socket.socket) -> None:
        """Serve whoever connects to this socket, which is the cluster's from now on."""
        self._rivals = await Rivals.connect(self._server)
        self._jobs = Jobs(self._server, self._rivals, self._job_delay)
        self._admin = Admin(self._server, self._new_guard, self._rivals)
        self._address: tuple[str, int] = listening.getsockname()
        self._listen(listening)

    async def close(self) -> None:
        """End every connection, then what is ours; returns when PostgreSQL has rolled back what was open."""
        await self._stop_listening()
        await self.front.close_connections("fin")
        await self._admin.leave()
        await self._jobs.close()
        if self._snapshots is not None:
            await self._snapshots.close()
        await self._rivals.close()

    def _listen(self, listening: socket.socket) -> None:
        self._listening = listening
        self._serving = asyncio.create_task(self.front.serve(listening))

    async def _stop_listening(self) -> None:
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
        self._listening.close()

    def _new_guard(self, backend: Backend) -> Guard:
        return Guard(backend, self._limits, self._catalog, self._identity.clock, self._jobs)

    def _new_session(self, backend: Backend, note: Note, faults: Faults) -> Session:
        return Session(backend, guard=self._new_guard(backend), faults=faults, rivals=self._rivals, note=note)

    # --- What it is asked for ---

    async def execute(self, sql: str) -> list[Row]:
        """Run a script past the front. Raises `SqlError`."""
        return await self._admin.execute(sql)

    async def close_connections(self, how: How) -> None:
        """Cut every client now; returns when PostgreSQL has rolled back what they left open."""
        await self.front.close_connections(how)

    async def restart(self, down: float) -> None:
        """Reset every link, and listen again on the same port in `down` seconds; returns when the links are cut.

        PostgreSQL runs on: what was committed is there, what was open is rolled back, a COMMIT that had come is either.
        """
        self._log.add(Event(kind="fault", connection=0, reason=f"restart, {down:g} s"))
        await self._stop_listening()
        if down:
            self._serving = asyncio.create_task(self._listen_later(down))
        else:
            self._listen(listener(*self._address))
        await self.front.close_connections("rst")

    async def _listen_later(self, down: float) -> None:
        await asyncio.sleep(down)
        self._listen(listener(*self._address))

    async def snapshot(self) -> str:
        """Keep what the database holds; its name."""
        await self._leave_database()
        if self._snapshots is None:
            self._snapshots = Snapshots(await control(self._server))
            await self._rivals.ask_through(await control(self._server))
        return await self._snapshots.take()

    async def restore(self, snapshot: str) -> None:
        """Let the database hold what it held then. Raises KeyError."""
        if self._snapshots is None:
            raise KeyError(snapshot)
        await self._leave_database()
        await self._snapshots.restore(snapshot)

    async def _leave_database(self) -> None:
        await self.front.close_connections("fin")
        await self._admin.leave()
        await self._jobs.settle()
