"""What of a local DSQL lives in its event loop: the front behind its port, the admin's session, the snapshots.

It begins, ends and restarts them in the right order. All of it runs in one thread; `server` is what the others call.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from ..engine.chance import Chance
from ..engine.jobs import JobRunner
from ..engine.lock_monitor import LockMonitor
from ..engine.schema_conflicts import CatalogHistory, SchemaConflicts
from ..engine.session import Session
from ..engine.statement_policy import StatementPolicy
from ..events import Event, EventLog, RecordEvent
from ..faults.commands import FaultCommand
from ..faults.plan import Disconnection, FaultPlan
from ..frontend.iam import ClusterIdentity
from ..frontend.server import Frontend
from ..frontend.tls import CertificateAuthority
from ..postgres.backend import Backend
from ..postgres.snapshots import Snapshots, control
from ..rules.limits import Limits
from .admin_session import AdminSession, Row

__all__ = ["Cluster", "listener"]


BACKLOG = 512
RETRY_SECONDS = 0.01


def listener(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes a free one. Raises OSError when the port is taken."""
    made = socket.create_server((host, port), backlog=BACKLOG)
    made.setblocking(False)  # noqa: FBT003 - its only parameter
    return made


def _bound(address: tuple[str, int]) -> socket.socket:
    """A socket that holds this address and refuses who comes, until it listens."""
    made = socket.socket()
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    made.setblocking(False)  # noqa: FBT003 - its only parameter
    return made


class Cluster:
    """From `open` to `close` on the PostgreSQL behind the socket `server`. `orders` carries out faults of the whole server."""

    def __init__(
        self,
        *,
        server: Path,
        identity: ClusterIdentity,
        authority: CertificateAuthority,
        limits: Limits,
        faults: FaultPlan,
        log: EventLog,
        run_command: Callable[[FaultCommand], Awaitable[None]],
        job_delay: float | None,
        schema_conflicts: SchemaConflicts,
        seed: int | None,
    ) -> None:
        self._server = server
        self._job_delay = job_delay
        self._identity = identity
        self._limits = limits
        self._log = log
        self._schema_conflicts = schema_conflicts
        self._history = CatalogHistory()
        self._chance = Chance(seed)
        self._snapshots: Snapshots | None = None
        self._reserved: socket.socket | None = None  # the address's, while the cluster is down
        self._later: asyncio.TimerHandle | None = None
        self.frontend = Frontend(
            identity=identity,
            authority=authority,
            faults=faults,
            log=log,
            server=server,
            new_session=self._new_session,
            limits=limits,
            run_command=run_command,
        )

    async def open(self, listening: socket.socket) -> None:
        """Serve whoever connects to this socket, which is the cluster's from now on."""
        self._lock_monitor = await LockMonitor.connect(self._server)
        self._jobs = JobRunner(self._server, self._lock_monitor, self._chance, self._job_delay)
        self._admin = AdminSession(self._server, self._new_policy, self._lock_monitor, self._chance)
        self._address: tuple[str, int] = listening.getsockname()
        self.frontend.listen(listening)

    async def close(self) -> None:
        """End every connection, then what is ours; returns when PostgreSQL has rolled back what was open."""
        self._stop_listening()
        await self.frontend.close_connections("fin")
        await self._admin.leave()
        await self._jobs.close()
        if self._snapshots is not None:
            await self._snapshots.close()
        await self._lock_monitor.close()

    def _stop_listening(self) -> None:
        self.frontend.stop_listening()
        if self._later is not None:
            self._later.cancel()
        if self._reserved is not None:
            self._reserved.close()
        self._later = self._reserved = None

    def _listen_again(self, down: float) -> None:
        """Hold the address for `down` seconds, then listen; nobody else gets it meanwhile. If somebody has it, try again."""
        loop = asyncio.get_running_loop()
        try:
            self._reserved = self._reserved or _bound(self._address)
            if not down:
                self._reserved.listen(BACKLOG)
        except OSError:
            self._later = loop.call_later(RETRY_SECONDS, self._listen_again, max(down - RETRY_SECONDS, 0.0))
            return
        if down:
            self._later = loop.call_later(down, self._listen_again, 0.0)
        else:
            self.frontend.listen(self._reserved)
            self._later = self._reserved = None

    def _new_policy(self, backend: Backend) -> StatementPolicy:
        return StatementPolicy(
            backend,
            limits=self._limits,
            history=self._history,
            schema_conflicts=self._schema_conflicts,
            clock=self._identity.clock,
            jobs=self._jobs,
        )

    async def _new_session(self, backend: Backend, record: RecordEvent, faults: FaultPlan) -> Session:
        await self._chance.prepare(backend)
        return Session(
            backend,
            policy=self._new_policy(backend),
            faults=faults,
            lock_monitor=self._lock_monitor,
            record=record,
            chance=self._chance,
        )

    # --- What it is asked for ---

    async def execute(self, sql: str) -> list[Row]:
        """Run a script past the front. Raises `SqlError`."""
        return await self._admin.execute(sql)

    async def close_connections(self, how: Disconnection) -> None:
        """Cut every client now; returns when PostgreSQL has rolled back what they left open."""
        await self.frontend.close_connections(how)

    async def restart(self, down: float) -> None:
        """Reset every link, and listen again on the same port in `down` seconds; returns when the links are cut.

        PostgreSQL runs on: what was committed is there, what was open is rolled back, a COMMIT that had come is either.
        """
        self._log.add(Event(kind="fault", connection=0, reason=f"restart, {down:g} s"))
        self._stop_listening()
        self._listen_again(down)
        await self.frontend.close_connections("rst")

    async def snapshot(self) -> str:
        """Keep what the database holds; its name."""
        await self._leave_database()
        if self._snapshots is None:
            self._snapshots = Snapshots(await control(self._server))
            await self._lock_monitor.use_connection(await control(self._server))
        return await self._snapshots.take()

    async def restore(self, snapshot: str) -> None:
        """Let the database hold what it held then. Raises KeyError."""
        if self._snapshots is None:
            raise KeyError(snapshot)
        await self._leave_database()
        await self._snapshots.restore(snapshot)

    async def _leave_database(self) -> None:
        await self.frontend.close_connections("fin")
        await self._admin.leave()
        await self._jobs.settle()
