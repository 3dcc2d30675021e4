"""`LocalDsql`: the interface for programs, callable from any thread.

It starts PostgreSQL and an event loop in a thread, in which `Cluster` does the work.
"""

import asyncio
import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, get_args

from ..engine.schema_conflicts import SchemaConflicts
from ..events import Event, EventLog
from ..faults.commands import FaultCommand, InvalidFaultCommand, parse_command
from ..faults.kinds import Disconnection
from ..faults.plan import FaultPlan
from ..faults.requests import FaultRequests
from ..frontend.iam import ClusterIdentity
from ..frontend.tls import CertificateAuthority
from ..postgres.server import Postgres
from ..rules.limits import Limits
from .admin_session import Row
from .cluster import Cluster, create_listener

__all__ = ["LocalDsql"]

T = TypeVar("T")
DEFAULT_CLUSTER = "localdsql" + "0" * 16 + "1"
DEFAULT_CREDENTIALS: Mapping[str, str] = {"defaultkey": "defaultsecret"}


class LocalDsql(FaultRequests):
    """A DSQL cluster on this machine, from `__enter__` to `__exit__`. All methods are thread-safe.

    - `cluster_id`: 26 characters of a-z and 0-9.
    - `credentials`: access keys and their secret keys. Session tokens are not checked.
    - `principals`: access keys and their ARNs, for `AWS IAM GRANT`; looked up when a client connects, so they may change.
    - `port`: 0 takes a free one.
    - `limits`: DSQL's limits, or lower ones.
    - `clock`: returns seconds since the epoch; tokens, transactions and connections expire by it.
    - `log_events`: how many events `log` keeps, the newest ones.
    - `job_delay`: seconds from a statement to the start of its job, which starts at once when a client waits for it.
    - `schema_conflicts`: which statements fail with OC001 after another session's DDL. "touched": those that name an object that
      was changed since the session last named it. "any": the next one, whatever it names.
    - `seed`: makes what one thread sees repeatable. Flights are executed one at a time, in the order of their arrival; a job
      starts after some of them; rates, ids and SQL's random() are drawn from the seed.

    Entering raises `PostgresError` if PostgreSQL cannot be started, and OSError if the port is taken.
    """

    def __init__(
        self,
        *,
        cluster_id: str | None = None,
        region: str = "us-east-1",
        credentials: Mapping[str, str] | None = None,
        port: int = 0,
        clock: Callable[[], float] = time.time,
        log_events: int = 10_000,
        limits: Limits | None = None,
        principals: Mapping[str, str] | None = None,
        job_delay: float | None = None,
        schema_conflicts: SchemaConflicts = "touched",
        seed: int | None = None,
    ) -> None:
        super().__init__(FaultPlan(seed=seed or 0))
        cluster_id = cluster_id or DEFAULT_CLUSTER
        if not re.fullmatch("[a-z0-9]{26}", cluster_id):
            raise ValueError(f"cluster_id must be 26 characters of a-z and 0-9, not {cluster_id!r}")
        if schema_conflicts not in get_args(SchemaConflicts):
            raise ValueError(f"schema_conflicts must be one of {', '.join(get_args(SchemaConflicts))}, not {schema_conflicts!r}")
        self._identity = ClusterIdentity(
            cluster_id, region, dict(credentials or DEFAULT_CREDENTIALS), clock, {} if principals is None else principals
        )
        self._port = port
        self._limits = limits or Limits()
        self._job_delay = job_delay
        self._schema_conflicts: SchemaConflicts = schema_conflicts
        self._seed = seed
        self._log = EventLog(log_events)
        self._postgres = Postgres()
        self._cluster: Cluster | None = None

    # --- Address and credentials ---

    @property
    def endpoint(self) -> str:
        """The cluster's host name, for TLS and tokens."""
        return self._identity.endpoint

    @property
    def host(self) -> str:
        """The IP address to connect to."""
        return "127.0.0.1"

    @property
    def port(self) -> int:
        """The port to connect to."""
        return self._port

    @property
    def ca_pem(self) -> str:
        """The certificate of the CA that clients must trust, as PEM."""
        return self._ca_pem

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables for clients. DSQL_SSLROOTCERT is the certificate as PEM, AWS_* are the first credentials."""
        key, secret = next(iter(self._identity.credentials.items()))
        return {
            "DSQL_HOST": self.endpoint,
            "DSQL_HOSTADDR": self.host,
            "DSQL_PORT": str(self.port),
            "DSQL_SSLROOTCERT": self.ca_pem,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": self._identity.region,
        }

    @property
    def ca_file(self) -> Path:
        """The CA certificate as a file, which exists while the server runs."""
        return self._postgres.folder / "ca.pem"

    def token(self, user: str = "admin") -> str:
        """An access token for this user, signed now. It is the password."""
        return self._identity.token(user)

    def libpq(self, user: str = "admin") -> dict[str, str]:
        """Connection parameters for libpq, with a fresh token: `psycopg.connect(**dsql.libpq())`."""
        return {
            "host": self.endpoint,
            "hostaddr": self.host,
            "port": str(self.port),
            "user": user,
            "dbname": "postgres",
            "password": self.token(user),
            "sslmode": "verify-full",
            "sslrootcert": str(self.ca_file),
        }

    @property
    def principal(self) -> str:
        """The ARN of the environment's credentials, for `AWS IAM GRANT role TO '…'`."""
        return self._identity.principal(next(iter(self._identity.credentials)))

    # --- Start and stop ---

    def __enter__(self) -> Self:
        authority = CertificateAuthority(self.endpoint)
        self._ca_pem = authority.pem
        with contextlib.ExitStack() as ends:  # stops everything in reverse order
            listening = ends.enter_context(create_listener(self.host, self._port))
            self._port = listening.getsockname()[1]
            ends.callback(self._postgres.stop)
            self._postgres.start()
            self.ca_file.write_text(self.ca_pem)
            self._loop = asyncio.new_event_loop()
            thread = threading.Thread(target=self._loop.run_forever, name="local-dsql", daemon=True)
            thread.start()
            ends.callback(self._end_loop, thread)
            self._cluster = Cluster(
                postgres_socket=self._postgres.socket,
                identity=self._identity,
                authority=authority,
                limits=self._limits,
                faults=self._faults,
                log=self._log,
                run_command=self._run_command,
                job_delay=self._job_delay,
                schema_conflicts=self._schema_conflicts,
                seed=self._seed,
            )
            self._call(self._cluster.open(listening))
            ends.callback(lambda: self._call(self._running.close()))
            self._ends = ends.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._ends.close()

    def _end_loop(self, thread: threading.Thread) -> None:
        self._cluster = None
        self._loop.call_soon_threadsafe(self._loop.stop)
        thread.join()
        self._loop.close()

    @property
    def _running(self) -> Cluster:
        if self._cluster is None:
            raise RuntimeError("The local DSQL is not running; use it inside `with LocalDsql() as dsql:`.")
        return self._cluster

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # --- Snapshots ---

    def snapshot(self) -> str:
        """Take a snapshot of the database, for `restore`. Closes all connections."""
        return self._call(self._running.snapshot())

    def restore(self, snapshot: str) -> None:
        """Restore a snapshot, in milliseconds. Closes all connections."""
        self._call(self._running.restore(snapshot))

    # --- SQL ---

    def execute(self, sql: str) -> list[Row]:
        """Run a script as `admin`, without TLS, token, faults or log.

        Each statement is its own transaction, unless the script contains BEGIN. Returns the rows of the last statement, with
        values as text or None. Raises `SqlError`.
        """
        return self._call(self._running.execute(sql))

    # --- Faults on demand; more in `FaultRequests` ---

    def restart(self, down: float = 0.0) -> None:
        """Reset all connections, and accept none for `down` seconds. Returns when open transactions are rolled back.

        Committed transactions stay. A transaction whose COMMIT is in flight is applied or not; its client gets no answer.
        """
        self._call(self._running.restart(down))

    def order(self, words: str) -> None:
        """Run a fault command, such as `order("cut before-commit how=fin")`. Raises ValueError."""
        self._execute_command(parse_command(words))

    def _execute_command(self, command: FaultCommand) -> None:
        self._log.add(Event(kind="fault", connection=0, reason=str(command)))
        try:
            getattr(self, command.method)(**command.arguments)
        except (TypeError, ValueError) as wrong:
            raise InvalidFaultCommand(str(wrong)) from wrong

    async def _run_command(self, command: FaultCommand) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._execute_command, command)

    def expire_tokens(self) -> None:
        """Refuse every token signed so far as expired. Open connections stay open.

        The date of a token has whole seconds. One signed in the current second is refused once, so signing again succeeds.
        """
        self._identity.expire()

    def close_connections(self, how: Disconnection = "fin") -> None:
        """Close all connections, as DSQL does after 60 minutes. Returns when open transactions are rolled back."""
        self._call(self._running.close_connections(how))

    @property
    def faults_waiting(self) -> list[str]:
        """The faults not yet injected, as text."""
        return self._faults.pending()

    def clear_faults(self) -> None:
        """Forget the faults not yet injected, and `expire_tokens`."""
        self._faults.clear()
        self._identity.expired_at = None

    def status(self) -> dict[str, object]:
        """Address, connections and pending faults, as JSON values."""
        return {
            "endpoint": self.endpoint,
            "host": self.host,
            "port": self.port,
            "pid": os.getpid(),
            "connections": self._running.frontend.connections,
            "accepted": self._running.frontend.accepted,
            "faults_waiting": self.faults_waiting,
            "postgres": self._postgres.version,
        }

    @property
    def log(self) -> list[Event]:
        """A copy of the event log, in order."""
        return self._log.events()

    def clear_log(self) -> None:
        """Clear the event log."""
        self._log.clear()
