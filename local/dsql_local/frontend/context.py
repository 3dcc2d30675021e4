"""What all connections of one cluster share. Values only; nothing here acts."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from ..engine.session import Session
from ..events import EventLog, RecordEvent
from ..faults.commands import FaultCommand
from ..faults.plan import FaultPlan
from ..postgres.backend import Backend
from ..rules.limits import Limits
from .connection_limiter import ConnectionLimiter
from .iam import ClusterIdentity
from .tls import CertificateAuthority

__all__ = ["ConnectionContext"]


@dataclass(frozen=True, kw_only=True)
class ConnectionContext:
    """The cluster as a connection sees it.

    `postgres_socket` is PostgreSQL's unix socket, `new_session` makes the session of a backend, and `run_command` executes a
    fault command that concerns the whole server.
    """

    identity: ClusterIdentity
    authority: CertificateAuthority
    limits: Limits
    limiter: ConnectionLimiter
    faults: FaultPlan
    log: EventLog
    postgres_socket: Path
    new_session: Callable[[Backend, RecordEvent, FaultPlan], Awaitable[Session]]
    run_command: Callable[[FaultCommand], Awaitable[None]]
