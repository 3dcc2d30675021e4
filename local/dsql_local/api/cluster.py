"""The parts of a local DSQL that run in its event loop: frontend, engine, jobs, admin session, snapshots.

It starts, stops and restarts them in order. All of it runs in one thread; `LocalDsql` is for the others.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from ..engine.jobs import JobRunner
from ..engine.lock_monitor import LockMonitor
from ..engine.scheduler import Scheduler
from ..engine.schema_conflicts import CatalogHistory, SchemaConflicts
from ..engine.session import Session
from ..engine.statement_policy import StatementPolicy
from ..events import Event, EventLog, RecordEvent
from ..faults.commands import FaultCommand
from ..faults.kinds import Disconnection
from ..faults.plan import FaultPlan
from ..frontend.connection_limiter import ConnectionLimiter
from ..frontend.context import ConnectionContext
from ..frontend.iam import ClusterIdentity
from ..frontend.server import Frontend
from ..frontend.tls import CertificateAuthority
from ..postgres.backend import Backend
from ..postgres.snapshots import Snapshots, connect_control
from ..rules.limits import Limits
from .admin_session import AdminSession, Row

__all__ = ["Cluster", "create_listener"]

BACKLOG = 512
LISTEN_RETRY_SECONDS = 0.01


def create_listener(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises OSError if the port is taken."""
    listener = socket.create_server((host, port), backlog=BACKLOG)
    listener.setblocking(False)  # noqa: FBT003 - its only parameter
    return listener


def _bind(address: tuple[str, int]) -> socket.socket:
    """A socket that holds this address, and refuses connections until it listens. Raises OSError."""
    bound = socket.socket()
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    bound.setblocking(False)  # noqa: FBT003 - its only parameter
    return bound


class Cluster:
    """Runs from `open` to `close`. `run_command` executes fault commands that concern the whole server."""

    def __init__(
        self,
        *,
        postgres_socket: Path,
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
        self._postgres_socket = postgres_socket
        self._job_delay = job_delay
        self._identity = identity
        self._limits = limits
        self._log = log
        self._schema_conflicts = schema_conflicts
        self._history = CatalogHistory()
        self._scheduler = Scheduler(seed)
        self._snapshots: Snapshots | None = None
        self._reserved: socket.socket | None = None  # holds the address while the cluster is down
        self._restart_timer: asyncio.TimerHandle | None = None
        self.frontend = Frontend(
            ConnectionContext(
                identity=identity,
                authority=authority,
                limits=limits,
                limiter=ConnectionLimiter(limits, identity.clock),
                faults=faults,
                log=log,
                postgres_socket=postgres_socket,
                new_session=self._new_session,
                run_command=run_command,
            )
        )

    async def open(self, listening: socket.socket) -> None:
        """Serve this listening socket, and own it."""
        self._lock_monitor = await LockMonitor.connect(self._postgres_socket)
        self._jobs = JobRunner(self._postgres_socket, self._lock_monitor, self._scheduler, self._job_delay)
        self._admin = AdminSession(self._postgres_socket, self._new_policy, self._lock_monitor, self._scheduler)
        self._address: tuple[str, int] = listening.getsockname()
        self.frontend.listen(listening)

    async def close(self) -> None:
        """Close all connections and stop. Returns when PostgreSQL has rolled back open transactions."""
        self._stop_listening()
        await self.frontend.close_connections("fin")
        await self._admin.disconnect()
        await self._jobs.close()
        if self._snapshots is not None:
            await self._snapshots.close()
        await self._lock_monitor.close()

    def _stop_listening(self) -> None:
        self.frontend.stop_listening()
        if self._restart_timer is not None:
            self._restart_timer.cancel()
        if self._reserved is not None:
            self._reserved.close()
        self._restart_timer = self._reserved = None

    def _listen_again(self, down: float) -> None:
        """Hold the address for `down` seconds, then listen. If another process has taken it, try again until it is free."""
        loop = asyncio.get_running_loop()
        try:
            self._reserved = self._reserved or _bind(self._address)
            if not down:
                self._reserved.listen(BACKLOG)
        except OSError:
            remaining = max(down - LISTEN_RETRY_SECONDS, 0.0)
            self._restart_timer = loop.call_later(LISTEN_RETRY_SECONDS, self._listen_again, remaining)
            return
        if down:
            self._restart_timer = loop.call_later(down, self._listen_again, 0.0)
        else:
            self.frontend.listen(self._reserved)
            self._restart_timer = self._reserved = None

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
        await self._scheduler.seed_session(backend)
        return Session(
            backend,
            policy=self._new_policy(backend),
            faults=faults,
            lock_monitor=self._lock_monitor,
            record=record,
            scheduler=self._scheduler,
        )

    # --- Requests ---

    async def execute(self, sql: str) -> list[Row]:
        """Run a script in the admin session. Raises `SqlError`."""
        return await self._admin.execute(sql)

    async def close_connections(self, how: Disconnection) -> None:
        """Cut all client connections. Returns when PostgreSQL has rolled back their transactions."""
        await self.frontend.close_connections(how)

    async def restart(self, down: float) -> None:
        """Reset all connections, and listen again on the same port after `down` seconds. Returns when they are closed.

        PostgreSQL keeps running: committed transactions stay, open ones are rolled back, a COMMIT in flight is applied or not.
        """
        self._log.add(Event(kind="fault", connection=0, reason=f"restart, {down:g} s"))
        self._stop_listening()
        self._listen_again(down)
        await self.frontend.close_connections("rst")

    async def snapshot(self) -> str:
        """Take a snapshot; returns its name."""
        await self._leave_database()
        if self._snapshots is None:
            self._snapshots = Snapshots(await connect_control(self._postgres_socket))
            await self._lock_monitor.use_connection(await connect_control(self._postgres_socket))
        return await self._snapshots.take()

    async def restore(self, snapshot: str) -> None:
        """Restore a snapshot. Raises KeyError for an unknown name."""
        if self._snapshots is None:
            raise KeyError(snapshot)
        await self._leave_database()
        await self._snapshots.restore(snapshot)

    async def _leave_database(self) -> None:
        await self.frontend.close_connections("fin")
        await self._admin.disconnect()
        await self._jobs.run_submitted()
