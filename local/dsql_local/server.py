"""`LocalDsql`: PostgreSQL, the front and the faults, put together and run in a thread of their own."""

import asyncio
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from .answers import ConflictCode, RefusalReason
from .authority import Authority
from .backend import Backend
from .faults import CutPoint, Faults, How, Place
from .flights import Flights
from .front import Front
from .guard import Guard
from .identity import Identity
from .jobs import JOB_DELAY, Jobs
from .ledger import Catalog
from .limits import Limits
from .log import Event, Log
from .messages import Message, Splitter, data_row, error_fields, query
from .orders import BadOrder, Order, read_order
from .postgres import Postgres
from .rivals import Rivals
from .session import Note, Session
from .snapshots import Snapshots, control
from .statements import split

__all__ = ["LocalDsql", "SqlError"]

T = TypeVar("T")
DEFAULT_CLUSTER = "localdsql" + "0" * 16 + "1"
DEFAULT_CREDENTIALS: Mapping[str, str] = {"defaultkey": "defaultsecret"}
Row = list[str | None]


class SqlError(Exception):
    """A statement given to `LocalDsql.execute` failed. The text is PostgreSQL's message, `sqlstate` its code."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(f"{sqlstate}: {message}")
        self.sqlstate = sqlstate


class LocalDsql:
    """A DSQL cluster on this machine, from `__enter__` to `__exit__`.

    `cluster_id` are 26 characters of a-z and 0-9; `credentials` map access keys to secret keys (session tokens may be any);
    `principals` map access keys to the ARNs that `AWS IAM GRANT` names; `port` 0 takes a free one; `limits` may be lower than
    DSQL's; `clock` gives seconds since the epoch and judges tokens and ages; `log` keeps the newest `log_events` events; a job
    begins `job_delay` seconds after its statement, or as soon as somebody waits for it. Entering raises `PostgresError` when
    PostgreSQL cannot be started and OSError when the port is taken. All methods may be called from any thread.
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
        job_delay: float = JOB_DELAY,
    ) -> None:
        cluster_id = cluster_id or DEFAULT_CLUSTER
        if not re.fullmatch("[a-z0-9]{26}", cluster_id):
            raise ValueError(f"cluster_id must be 26 characters of a-z and 0-9, not {cluster_id!r}")
        self._identity = Identity(cluster_id, region, dict(credentials or DEFAULT_CREDENTIALS), clock, dict(principals or {}))
        self._port = port
        self._limits = limits or Limits()
        self._job_delay = job_delay
        self._catalog = Catalog()
        self._faults = Faults()
        self._log = Log(log_events)
        self._postgres = Postgres()
        self._loop: asyncio.AbstractEventLoop | None = None

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
        return self._authority.pem

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
        self._authority = Authority(self.endpoint)
        self._listen()
        try:
            self._postgres.start()
            self.ca_file.write_text(self.ca_pem)
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="local-dsql", daemon=True)
            self._thread.start()
            self._call(self._open())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        try:
            if self._loop is not None:
                self._call(self._close())
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join()
                self._loop.close()
                self._loop = None
        finally:
            self._listener.close()
            self._postgres.stop()

    async def _open(self) -> None:
        self._admin: Session | None = None
        self._snapshots: Snapshots | None = None
        self._admin_turn = asyncio.Lock()
        self._rivals = await Rivals.connect(self._postgres.socket)
        self._jobs = Jobs(self._postgres.socket, self._rivals, self._job_delay)
        self._front = Front(
            identity=self._identity,
            authority=self._authority,
            faults=self._faults,
            log=self._log,
            server=self._postgres.socket,
            sessions=self._new_session,
            limits=self._limits,
            orders=self._carry_out,
        )
        self._serving = asyncio.create_task(self._front.serve(self._listener))

    async def _close(self) -> None:
        await self._stop_serving()
        await self._front.close_connections("fin")
        if self._admin is not None:
            await self._admin.close()
        await self._jobs.close()
        if self._snapshots is not None:
            await self._snapshots.close()
        await self._rivals.close()

    async def _stop_serving(self) -> None:
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)

    async def _serve_again(self, down: float) -> None:
        if down:
            await asyncio.sleep(down)
        self._listen()
        await self._front.serve(self._listener)

    def _listen(self) -> None:
        self._listener = socket.create_server((self.host, self._port), backlog=512)
        self._listener.setblocking(False)  # noqa: FBT003 - its only parameter
        self._port = self._listener.getsockname()[1]

    def _new_session(self, backend: Backend, note: Note, faults: Faults) -> Session:
        guard = Guard(backend, self._limits, self._catalog, self._identity.clock, self._jobs)
        return Session(backend, guard=guard, faults=faults, rivals=self._rivals, note=note)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            work.close()
            raise RuntimeError("The local DSQL does not run: use it inside `with LocalDsql() as dsql:`.")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # --- What the database holds, kept and brought back ---

    def snapshot(self) -> str:
        """Keep what the database holds now, for `restore`. Cuts every connection."""
        return self._call(self._snapshot())

    async def _snapshot(self) -> str:
        await self._leave_database()
        if self._snapshots is None:
            self._snapshots = Snapshots(await control(self._postgres.socket))
            await self._rivals.ask_through(await control(self._postgres.socket))
        return await self._snapshots.take()

    def restore(self, snapshot: str) -> None:
        """Let the database hold what it held at that `snapshot()`, in some milliseconds. Cuts every connection."""
        self._call(self._restore(snapshot))

    async def _restore(self, snapshot: str) -> None:
        if self._snapshots is None:
            raise KeyError(snapshot)
        await self._leave_database()
        await self._snapshots.restore(snapshot)

    async def _leave_database(self) -> None:
        await self._front.close_connections("fin")
        async with self._admin_turn:
            if self._admin is not None:
                await self._admin.close()
                self._admin = None
        await self._jobs.settle()

    # --- SQL past the front ---

    def execute(self, sql: str) -> list[Row]:
        """Run one or several statements as `admin`, past the front: no TLS, no token, no faults, no log.

        Each statement is a transaction of its own unless the script says BEGIN. Gives the rows of the last one, every value
        as text or None. Raises `SqlError`.
        """
        return self._call(self._execute(sql))

    async def _execute(self, sql: str) -> list[Row]:
        async with self._admin_turn:
            if self._admin is None:
                backend = await Backend.connect(self._postgres.socket, {"user": "admin", "database": "postgres"})
                self._admin_guard = Guard(backend, self._limits, self._catalog, self._identity.clock, self._jobs)
                self._admin = Session(backend, guard=self._admin_guard, faults=Faults(), rivals=self._rivals, note=_ignore)
            rows: list[Row] = []
            try:
                for statement in split(sql):
                    self._admin_guard.look()  # only clients meet OC001
                    rows = await _collect(self._admin, statement)
            finally:
                if self._admin.inside:
                    await _collect(self._admin, "ROLLBACK")
            return rows

    # --- Faults on demand ---

    def conflict_next(self, n: int = 1, code: ConflictCode = "OC000", *, at: Place = "commit") -> None:
        """Fail the next `n` COMMITs of open transactions, or the next `n` statements, with 40001 and the text of `code`.

        A COMMIT's transaction is rolled back, a statement's has failed, as with OC001 at a read. The code "40001" has no marker.
        """
        self._faults.conflict_next(n, code, at)

    def conflict_rate(self, p: float, seed: int = 0, code: ConflictCode = "OC000") -> None:
        """Fail each COMMIT of an open transaction with probability `p`; the same ones for the same seed. 0 ends it."""
        self._faults.conflict_rate(p, seed, code)

    def cut(self, at: CutPoint, n: int = 1, *, applied: bool = True, how: How = "rst") -> None:
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
        """Reset every link and accept none for `down` seconds. What was committed stays. Returns when it is down."""
        self._call(self._restart(down))

    async def _restart(self, down: float) -> None:
        self._log.add(Event(kind="fault", connection=0, reason=f"restart, {down:g} s"))
        await self._stop_serving()
        self._listener.close()
        if not down:
            self._listen()
            self._serving = asyncio.create_task(self._front.serve(self._listener))
        else:
            self._serving = asyncio.create_task(self._serve_again(down))
        await self._front.close_connections("rst")

    def order(self, words: str) -> None:
        """Ask for a fault in the words of a comment or of the command line: `order("cut before-commit how=fin")`."""
        self._carry_out_now(read_order(words))

    def _carry_out_now(self, order: Order) -> None:
        self._log.add(Event(kind="fault", connection=0, reason=str(order)))
        try:
            getattr(self, order.method)(**order.arguments)
        except (TypeError, ValueError) as wrong:
            raise BadOrder(str(wrong)) from wrong

    async def _carry_out(self, order: Order) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._carry_out_now, order)

    def unavailable(self, n: int = 1, *, at: Place = "commit", applied: bool = False) -> None:
        """Answer XX000 `server unavailable` to the next `n` COMMITs (executed if `applied`) or statements (not executed)."""
        self._faults.unavailable(n, at=at, applied=applied)

    def refuse_connections(self, n: int = 1, reason: RefusalReason = "rate") -> None:
        """Refuse the next `n` connections: too many a second, too many, a cluster that wakes up, or IAM says no."""
        self._faults.refuse_connections(n, reason)

    def expire_tokens(self) -> None:
        """Refuse every token signed up to now as expired. Open connections stay.

        Tokens are dated in whole seconds: one signed in this very second is refused once, so that signing again helps.
        """
        self._identity.expire()

    def close_connections(self, how: How = "fin") -> None:
        """Cut every client connection now, as DSQL does after 60 minutes; returns when all is rolled back."""
        self._call(self._front.close_connections(how))

    @property
    def faults_waiting(self) -> list[str]:
        """The faults that have not struck yet, as text."""
        return self._faults.waiting()

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
            "connections": self._front.connections,
            "accepted": self._front.accepted,
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


def _ignore(*_: object, **__: object) -> None:
    """Take no note."""


async def _collect(session: Session, statement: str) -> list[Row]:
    flight = Flights().feed(query(statement))
    assert flight is not None  # noqa: S101 - a Query is a flight
    collector = Collector()
    await session.run(flight, collector)
    return collector.rows()


class Collector:
    """A client that keeps the answers."""

    def __init__(self) -> None:
        self._splitter = Splitter()
        self._messages: list[Message] = []

    def write(self, data: bytes) -> None:
        """Keep an answer."""
        self._messages.extend(self._splitter.feed(data))

    async def drain(self) -> None:
        """It is never slow."""

    async def receive(self) -> Message:
        """It has no data for COPY FROM STDIN."""
        return Message(b"f", b"execute() has no data for COPY FROM STDIN\0")

    def rows(self) -> list[Row]:
        """The rows as text. Raises `SqlError` if the statement failed."""
        for message in self._messages:
            if message.kind == b"E":
                fields = error_fields(message)
                raise SqlError(fields.get("C", ""), fields.get("M", ""))
        rows = (data_row(message) for message in self._messages if message.kind == b"D")
        return [[None if value is None else value.decode() for value in row] for row in rows]
