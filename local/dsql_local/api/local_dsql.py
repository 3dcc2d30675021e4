"""`LocalDsql`: what a program calls, from any thread. PostgreSQL runs beside it, the cluster in a thread of its own.

It knows who the cluster is and what begins and ends with it, and hands on what it is asked: work to the `Cluster` in its event
loop, faults to those that wait.
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
from ..faults.plan import CutPoint, Disconnection, FaultPlan, FaultTarget
from ..frontend.iam import ClusterIdentity
from ..frontend.tls import CertificateAuthority
from ..postgres.server import Postgres
from ..rules.error_responses import ConflictCode, RefusalCode, RefusalReason
from ..rules.limits import Limits
from .admin_session import Row
from .cluster import Cluster, listener

__all__ = ["LocalDsql"]

T = TypeVar("T")
DEFAULT_CLUSTER = "localdsql" + "0" * 16 + "1"
DEFAULT_CREDENTIALS: Mapping[str, str] = {"defaultkey": "defaultsecret"}


class LocalDsql:
    """A DSQL cluster on this machine, from `__enter__` to `__exit__`.

    `cluster_id` are 26 characters of a-z and 0-9; `credentials` map access keys to secret keys (session tokens may be any);
    `principals` map access keys to the ARNs that `AWS IAM GRANT` names; `port` 0 takes a free one; `limits` may be lower than
    DSQL's; `clock` gives seconds since the epoch and judges tokens and ages; `log` keeps the newest `log_events` events; a job
    begins `job_delay` seconds after its statement, or as soon as somebody waits for it. `schema_conflicts` says which statements
    of a session meet another one's DDL with OC001: "touched", those that name an object which was changed since the session named
    it last; "any", the next one, whatever it and the DDL are about. With a `seed`, one thread that drives several connections
    meets the same in each run: flights are executed one at a time in the order in which they come, a job begins after some of
    them, and rates, ids and random() are drawn from the seed. Entering raises `PostgresError` when PostgreSQL cannot be
    started, OSError when the port is taken. All methods may be called from any thread.
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
        cluster_id = cluster_id or DEFAULT_CLUSTER
        if not re.fullmatch("[a-z0-9]{26}", cluster_id):
            raise ValueError(f"cluster_id must be 26 characters of a-z and 0-9, not {cluster_id!r}")
        if schema_conflicts not in get_args(SchemaConflicts):
            raise ValueError(f"schema_conflicts must be one of {', '.join(get_args(SchemaConflicts))}, not {schema_conflicts!r}")
        self._identity = ClusterIdentity(
            cluster_id, region, dict(credentials or DEFAULT_CREDENTIALS), clock, dict(principals or {})
        )
        self._port = port
        self._limits = limits or Limits()
        self._job_delay = job_delay
        self._schema_conflicts: SchemaConflicts = schema_conflicts
        self._seed = seed
        self._faults = FaultPlan(seed=seed or 0)
        self._log = EventLog(log_events)
        self._postgres = Postgres()
        self._cluster: Cluster | None = None

    # --- Where it is ---

    @property
    def endpoint(self) -> str:
        """The cluster's host name: the TLS server name, and what tokens are signed for."""
        return self._identity.endpoint

    @property
    def host(self) -> str:
        """The address to dial."""
        return "127.0.0.1"

    @property
    def port(self) -> int:
        """The port to dial."""
        return self._port

    @property
    def ca_pem(self) -> str:
        """The CA certificate that clients trust, as PEM."""
        return self._ca_pem

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a client needs; DSQL_SSLROOTCERT is the certificate itself, AWS_* the first credentials."""
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
        """The same certificate as a file, for what wants a path; it is there while the server runs."""
        return self._postgres.folder / "ca.pem"

    def token(self, user: str = "admin") -> str:
        """An access token for this user, signed now: the password."""
        return self._identity.token(user)

    def libpq(self, user: str = "admin") -> dict[str, str]:
        """What libpq's drivers connect with, a fresh token included: `psycopg.connect(**dsql.libpq())`."""
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
        """The ARN that the environment's credentials belong to: what `AWS IAM GRANT role TO '…'` names."""
        return self._identity.principal(next(iter(self._identity.credentials)))

    # --- Life ---

    def __enter__(self) -> Self:
        authority = CertificateAuthority(self.endpoint)
        self._ca_pem = authority.pem
        with contextlib.ExitStack() as ends:  # what begins here ends in the reverse order
            listening = ends.enter_context(listener(self.host, self._port))
            self._port = listening.getsockname()[1]
            ends.callback(self._postgres.stop)
            self._postgres.start()
            self.ca_file.write_text(self.ca_pem)
            self._loop = asyncio.new_event_loop()
            thread = threading.Thread(target=self._loop.run_forever, name="local-dsql", daemon=True)
            thread.start()
            ends.callback(self._end_loop, thread)
            self._cluster = Cluster(
                server=self._postgres.socket,
                identity=self._identity,
                authority=authority,
                limits=self._limits,
                faults=self._faults,
                log=self._log,
                run_command=self._carry_out,
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
            raise RuntimeError("The local DSQL does not run: use it inside `with LocalDsql() as dsql:`.")
        return self._cluster

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # --- What the database holds, kept and brought back ---

    def snapshot(self) -> str:
        """Keep what the database holds now, for `restore`. Cuts every connection."""
        return self._call(self._running.snapshot())

    def restore(self, snapshot: str) -> None:
        """Let the database hold what it held at that `snapshot()`, in some milliseconds. Cuts every connection."""
        self._call(self._running.restore(snapshot))

    # --- SQL past the front ---

    def execute(self, sql: str) -> list[Row]:
        """Run one or several statements as `admin`, past the front: no TLS, no token, no faults, no log.

        Each statement is a transaction of its own unless the script says BEGIN. Gives the rows of the last one, every value
        as text or None. Raises `SqlError`.
        """
        return self._call(self._running.execute(sql))

    # --- Faults on demand ---

    def conflict_next(self, n: int = 1, code: ConflictCode = "OC000", *, at: FaultTarget = "commit") -> None:
        """Fail the next `n` COMMITs of open transactions, or the next `n` statements, with 40001 and the text of `code`.

        A COMMIT's transaction is rolled back, a statement's has failed, as with OC001 at a read. The code "40001" has no marker.
        """
        self._faults.conflict_next(n, code, at)

    def conflict_rate(self, p: float, seed: int | None = None, code: ConflictCode = "OC000") -> None:
        """Fail each COMMIT of an open transaction with probability `p`; the same ones for the same seed. 0 ends it.

        The default is the seed of this server, or 0.
        """
        self._faults.conflict_rate(p, seed, code)

    def cut(self, at: CutPoint, n: int = 1, *, applied: bool = True, how: Disconnection = "rst") -> None:
        """Cut the link the next `n` times that this point of the protocol is reached.

        While a connection is opened: "on-connect", "after-tls", "after-startup", "after-password", "before-ready". When a message
        comes: "at-parse", "at-bind", "at-describe", "at-execute", "at-close", "at-flush", "at-sync", "at-query", "at-copy-data",
        "at-copy-done"; its flight is not executed. When a flight has come: "before-first-flight", one outside a transaction;
        "before-commit", one inside a transaction that holds no COMMIT, or one with BEGIN and a statement but no COMMIT; neither
        is executed. "after-commit-sent", one with a COMMIT, which is executed (`applied`) or rolled back. "mid-reply" and
        "after-reply": any one; it is executed, and half or all of its answer leaves. The client sees a reset ("rst"), the end of
        the stream ("fin"), or nothing at all, ever ("silence"). What is open is rolled back before.
        """
        self._faults.cut(at, n, applied=applied, how=how)

    def delay(self, ms: float, n: int | None = None) -> None:
        """Let the next `n` flights, or all until `clear_faults()`, take so many milliseconds longer to come."""
        self._faults.delay(ms, n)

    def restart(self, down: float = 0.0) -> None:
        """Reset every link and accept none for `down` seconds; returns when it is down. What was open is rolled back.

        What was answered as committed stays; of a COMMIT under way the client learns nothing: all of it is applied, or nothing.
        """
        self._call(self._running.restart(down))

    def order(self, words: str) -> None:
        """Ask for a fault in the words of a comment or of the command line: `order("cut before-commit how=fin")`."""
        self._carry_out_now(parse_command(words))

    def _carry_out_now(self, order: FaultCommand) -> None:
        self._log.add(Event(kind="fault", connection=0, reason=str(order)))
        try:
            getattr(self, order.method)(**order.arguments)
        except (TypeError, ValueError) as wrong:
            raise InvalidFaultCommand(str(wrong)) from wrong

    async def _carry_out(self, order: FaultCommand) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._carry_out_now, order)

    def unavailable(self, n: int = 1, *, at: FaultTarget = "commit", applied: bool = False) -> None:
        """Answer XX000 `server unavailable` to the next `n` COMMITs (executed if `applied`) or statements (not executed)."""
        self._faults.unavailable(n, at=at, applied=applied)

    def refuse_connections(self, n: int = 1, reason: RefusalReason | RefusalCode = "rate") -> None:
        """Refuse the next `n` connections: too many a second, too many at once, a cluster that wakes up, or IAM says no.

        By name ("rate", "connections", "waking", "access") or by SQLSTATE: "53400", "53300", and "08006" for access.
        """
        self._faults.refuse_connections(n, reason)

    def expire_tokens(self) -> None:
        """Refuse every token signed up to now as expired. Open connections stay.

        Tokens are dated in whole seconds: one signed in this very second is refused once, so that signing again helps.
        """
        self._identity.expire()

    def close_connections(self, how: Disconnection = "fin") -> None:
        """Cut every client connection now, as DSQL does after 60 minutes; returns when all is rolled back."""
        self._call(self._running.close_connections(how))

    @property
    def faults_waiting(self) -> list[str]:
        """The faults that have not struck yet, as text."""
        return self._faults.pending()

    def clear_faults(self) -> None:
        """Forget the faults that have not struck yet, and that tokens were declared expired."""
        self._faults.clear()
        self._identity.expired_until = None

    def status(self) -> dict[str, object]:
        """Where it is, who is connected, which faults wait: values that JSON has."""
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
        """What happened so far, in order: a copy."""
        return self._log.events()

    def clear_log(self) -> None:
        """Forget what happened so far."""
        self._log.clear()
