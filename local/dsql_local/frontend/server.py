"""The server that clients reach: who may come in, then flights to a session until one side ends it.

Everything here is about one connection's life. Its bytes are in `link`, whether a token is good in `identity`, what
PostgreSQL is told in `session`.
"""

import asyncio
import contextlib
import functools
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

from ..engine.flights import Flight, Flights, TooMuch
from ..engine.session import Session
from ..events import Event, EventLog, RecordEvent
from ..faults.commands import FaultCommand, InvalidFaultCommand
from ..faults.injector import ConnectionCut, FaultInjector, MutedClient, ObservedClient, TruncatedClient
from ..faults.plan import Disconnection, FaultPlan
from ..postgres.backend import Backend, BackendLost, CommandFailed, StartupRefused
from ..postgres.template import SUPERUSER
from ..protocol.messages import (
    CANCEL_REQUEST,
    PASSWORD_PLEASE,
    Message,
    ProtocolError,
    StartupPacket,
    TooLong,
    error_fields,
    joined,
)
from ..rules.error_responses import (
    NO_SNI,
    PLAINTEXT,
    REFUSALS,
    ConnectionRefusal,
    RefusalReason,
    access_denied,
    foreign_sni,
    no_such_role,
    not_authorized,
    not_mapped,
)
from ..rules.limits import Limits
from ..rules.quoting import quote_literal
from ..rules.rulebook import SHOWN, answer
from ..rules.verdict import refused_at_startup
from . import access_token
from .connection_limiter import ConnectionLimiter
from .iam import ClusterIdentity
from .tls import CertificateAuthority
from .transport import Disconnected, HandshakeFailed, Plaintext, Transport

__all__ = ["Frontend"]

OPENING_SECONDS = 30.0
LOOKING_SECONDS = 0.05
PAUSE_SECONDS = 0.05  # after an accept() that failed
_MAPPED = "SELECT 1 FROM sys.iam_pg_role_mappings WHERE pg_role_name = {user} AND arn = {arn}"
_VERSION = Message(b"S", f"server_version\0{SHOWN['server_version']}\0".encode())
_SETTING = re.compile(r"(?:-c\s*|--)([\w.-]+)=")
_CLUSTER_OPTION = re.compile(r"(?:-c\s*|--)amzn-cluster-id=(\S+)\s*")


class ConnectionRefused(Exception):
    """The connection is not opened."""

    def __init__(self, refusal: ConnectionRefusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Frontend:
    """Accepts connections and serves them. `sessions` makes a session of a backend, `orders` carries out faults of the server."""

    def __init__(
        self,
        *,
        identity: ClusterIdentity,
        authority: CertificateAuthority,
        faults: FaultPlan,
        log: EventLog,
        server: Path,
        new_session: Callable[[Backend, RecordEvent, FaultPlan], Awaitable[Session]],
        run_command: Callable[[FaultCommand], Awaitable[None]],
        limits: Limits,
    ) -> None:
        self.identity = identity
        self.authority = authority
        self.faults = faults
        self.log = log
        self.server = server
        self.new_session = new_session
        self.limits = limits
        self.limiter = ConnectionLimiter(limits, identity.clock)
        self.run_command = run_command
        self._tasks: dict[Connection, asyncio.Task[None]] = {}
        self._listener: socket.socket | None = None
        self.accepted = 0

    @property
    def connections(self) -> int:
        """How many there are now, those that open or end included."""
        return len(self._tasks)

    def listen(self, listener: socket.socket) -> None:
        """Accept who comes to this socket, which does not block, until `stop_listening`."""
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._accept)

    def stop_listening(self) -> None:
        """Accept nobody more, and close the socket."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self) -> None:
        listener, loop = self._listener, asyncio.get_running_loop()
        if listener is None:
            return
        try:
            accepted, _ = listener.accept()
        except (BlockingIOError, ConnectionError):  # it has gone already
            return
        except OSError:  # out of file descriptors, say: try again soon, and do not spin until then
            loop.remove_reader(listener)
            loop.call_later(PAUSE_SECONDS, self._resume, listener)
            return
        accepted.setblocking(False)  # noqa: FBT003 - its only parameter
        with contextlib.suppress(OSError):
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.accepted += 1
        connection = Connection(self, Transport(accepted, longest=self.limits.message), self.accepted)
        task = loop.create_task(connection.serve())
        self._tasks[connection] = task
        task.add_done_callback(functools.partial(self._forget, connection))

    def _resume(self, listener: socket.socket) -> None:
        if self._listener is listener:
            asyncio.get_running_loop().add_reader(listener, self._accept)

    def _forget(self, connection: "Connection", _: "asyncio.Task[None]") -> None:
        self._tasks.pop(connection, None)

    async def close_connections(self, how: Disconnection) -> None:
        """Cut every client now; returns when PostgreSQL has rolled back what they left open."""
        tasks = dict(self._tasks)
        for connection, task in tasks.items():
            if not connection.ending:  # one that ends already is only waited for
                connection.cut(how, "server")
                task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


class Connection:
    """One client, from its first byte to its last."""

    def __init__(self, frontend: Frontend, transport: Transport, number: int) -> None:
        self._frontend = frontend
        self._transport = transport
        self._number = number
        self._flights = Flights(frontend.limits.flight)
        self._injector = FaultInjector(frontend.faults, frontend.run_command, self._record)
        self._session: Session | None = None
        self._ended_by = "client"
        self._has_slot = False
        self._opened = frontend.identity.clock()
        self._timer: asyncio.TimerHandle | None = None
        self.ending = False

    async def serve(self) -> None:
        """Open, serve, end; nothing that a client does raises out of here."""
        try:
            async with asyncio.timeout(OPENING_SECONDS):
                session = await self._open()
            if session is not None:
                await self._serve_flights(session)
        except ConnectionRefused as refused:
            self._refuse(refused.refusal)
        except TooLong:
            self._refuse(ConnectionRefusal(*astuple(answer("message"))))
        except TooMuch as much:
            self._refuse(ConnectionRefusal(*astuple(much.error)))
        except ConnectionCut as struck:
            await self._cut_off(struck)
        except InvalidFaultCommand as bad:
            self._refuse(ConnectionRefusal("42601", f"/* dsql: */ {bad}"))
        except ProtocolError as broken:
            self._refuse(ConnectionRefusal("08P01", f"protocol violation: {broken}"))
        except Plaintext:
            self._record("refused", sqlstate=PLAINTEXT.sqlstate, reason=PLAINTEXT.message)
            await self._transport.refuse_plaintext(PLAINTEXT.answer)
        except HandshakeFailed as failed:
            self._record("tls_failed", reason=str(failed))
        except (BackendLost, CommandFailed) as failed:
            self._ended_by = f"backend: {failed}"
        except (Disconnected, TimeoutError):
            pass
        finally:
            self.ending = True
            await self._end()

    def cut(self, how: Disconnection, ended_by: str) -> None:
        """Cut the link without a word."""
        self._ended_by = ended_by
        self._transport.cut(how)

    # --- Opening ---

    async def _open(self) -> Session | None:
        """TLS, startup, token, backend. None for a request to cancel, which has no effect."""
        self._injector.at("on-connect")
        agreed = await self._transport.negotiate(self._frontend.authority)
        if agreed is None:
            self._record("cancel")
            return None
        negotiation, sni = agreed
        self._record("connect", negotiation=negotiation, sni=sni)
        self._injector.at("after-tls")
        packet = await self._transport.startup()
        if packet.code == CANCEL_REQUEST:
            self._record("cancel")
            return None
        parameters = self._parameters(packet, sni)
        self._injector.at("after-startup")
        user = parameters["user"]
        principal = await self._authenticate(user)
        return await self._connect(user, parameters, principal)

    def _parameters(self, packet: StartupPacket, sni: str | None) -> dict[str, str]:
        """What PostgreSQL will be told. The cluster is named by the server name, or by an option as through PrivateLink."""
        parameters = dict(packet.parameters)
        named = _CLUSTER_OPTION.search(parameters.get("options", ""))
        if named:
            parameters["options"] = _CLUSTER_OPTION.sub("", parameters["options"]).strip()
        user = parameters.setdefault("user", "")
        application = parameters.get("application_name")
        self._record("startup", user=user, database=parameters.get("database", user), application_name=application)
        identity = self._frontend.identity
        if not (named and named[1] == identity.cluster) and sni != identity.endpoint:
            raise ConnectionRefused(NO_SNI if sni is None else foreign_sni(sni, identity.endpoint))
        settings = [name.replace("-", "_") for name in _SETTING.findall(parameters.get("options", ""))]
        for name in (*parameters, *settings):
            refused = refused_at_startup(name)
            if refused is not None:
                raise ConnectionRefused(ConnectionRefusal(refused.sqlstate, refused.message))
        return parameters

    async def _authenticate(self, user: str) -> str:
        """Ask for the token and believe nothing of it before it is verified: the ARN of its signer."""
        reason = self._frontend.faults.at_connect() or self._acquire_slot()
        if reason is not None and reason in REFUSALS:
            raise ConnectionRefused(REFUSALS[reason])
        self._transport.write(PASSWORD_PLEASE.data)
        await self._transport.drain()
        message = await self._transport.receive()
        if message.kind != b"p":
            raise ProtocolError("expected a password message")
        self._record("password")
        self._injector.at("after-password")
        identity = self._frontend.identity
        if reason == "access":
            raise ConnectionRefused(not_authorized(user, identity.cluster, identity.region))
        try:
            return identity.check(message.texts(1)[0], user)
        except access_token.InvalidToken as refused:
            raise ConnectionRefused(access_denied(str(refused))) from None

    def _acquire_slot(self) -> RefusalReason | None:
        reason = self._frontend.limiter.acquire()
        self._has_slot = reason is None
        return reason

    async def _connect(self, user: str, parameters: dict[str, str], principal: str) -> Session:
        if user == SUPERUSER:
            raise ConnectionRefused(no_such_role(user))
        try:
            backend = await Backend.connect(self._frontend.server, parameters)
        except OSError:  # more at once than PostgreSQL's socket takes
            raise ConnectionRefused(REFUSALS["connections"]) from None
        except StartupRefused as refused:
            fields = error_fields(refused.answer)
            if fields.get("C") == "53300":  # PostgreSQL's own limit is lower
                raise ConnectionRefused(REFUSALS["connections"]) from None
            if fields.get("C") == "28000" and fields.get("M", "").endswith("does not exist"):
                raise ConnectionRefused(no_such_role(user)) from None
            raise ConnectionRefused(ConnectionRefusal(fields.get("C", "08006"), fields.get("M", ""), fields.get("H"))) from None
        self._session = await self._frontend.new_session(backend, self._record, self._injector.faults)
        if user != "admin" and not await backend.run(_MAPPED.format(user=quote_literal(user), arn=quote_literal(principal))):
            identity = self._frontend.identity
            raise ConnectionRefused(not_mapped(user, identity.cluster, identity.region, principal))
        self._injector.at("before-ready")
        greeting = (_VERSION if each.kind == b"S" and each.texts(1) == ["server_version"] else each for each in backend.greeting)
        self._transport.write(joined([*greeting]))
        await self._transport.drain()
        return self._session

    def _refuse(self, refusal: ConnectionRefusal) -> None:
        self._ended_by = "refused"
        self._record("refused", sqlstate=refusal.sqlstate, reason=refusal.hint or refusal.message)
        self._transport.write(refusal.answer.data)

    # --- Serving ---

    async def _serve_flights(self, session: Session) -> None:
        clock, longest, opened = self._frontend.identity.clock, self._frontend.limits.connection_age, self._opened
        self._timer = asyncio.get_running_loop().call_later(longest, self.cut, "fin", "age")
        while True:
            message = await self._transport.receive()
            if clock() - opened > longest:
                self.cut("fin", "age")
            if message.kind == b"X" or clock() - opened > longest:
                raise Disconnected
            flight = self._flights.feed(await self._injector.hear(message), more=self._transport.has_more)
            if flight is None:
                continue
            self._record("flight", messages=flight.messages, statements=flight.statements)
            await self._answer(flight, session)

    async def _answer(self, flight: Flight, session: Session) -> None:
        """Execute a flight and answer it, later or only in part if a fault says so."""
        outline = flight.outline(inside=session.inside)
        self._injector.decide(outline)
        late = self._injector.faults.lateness()
        if late:
            self._record("delayed", reason=f"{late * 1000:g} ms")
            await asyncio.sleep(late)
        cut = self._injector.faults.at_flight(outline)
        if cut is None:
            await self._run(flight, session, ObservedClient(self._transport, self._injector))
            await self._transport.drain()
            return
        applied = cut.at in ("mid-reply", "after-reply") or (cut.at == "after-commit-sent" and cut.applied)
        kinds = {"mid-reply": TruncatedClient, "after-reply": ObservedClient}
        client = kinds.get(cut.at, MutedClient)(self._transport, self._injector)
        if applied:
            await self._run(flight, session, client)
        if isinstance(client, TruncatedClient):
            client.give_half()
        await self._transport.flush()
        raise ConnectionCut(cut, applied=applied)

    async def _run(self, flight: Flight, session: Session, client: ObservedClient) -> None:
        """Execute a flight, unless its client goes away meanwhile: then its backend is let go, and with it the locks."""
        with self._unless_gone():
            await session.run(flight, client)

    @contextlib.contextmanager
    def _unless_gone(self) -> Iterator[None]:
        """While this is entered, it is looked now and then whether the client is still there: else what runs ends with `Gone`."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        gone = False
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal gone, timer
            gone = self._transport.is_gone
            if not gone:
                timer = loop.call_later(LOOKING_SECONDS, look)
            elif task is not None:
                task.cancel()

        timer = loop.call_later(LOOKING_SECONDS, look)
        try:
            yield
        except asyncio.CancelledError:
            if gone and task is not None and task.uncancel() == 0:
                raise Disconnected from None
            raise
        finally:
            timer.cancel()

    async def _cut_off(self, struck: ConnectionCut) -> None:
        """Let a cut happen, after what is not to be applied was rolled back."""
        cut = struck.cut
        if self._session is not None:
            await self._session.close()
        self._record("cut", at=cut.at, how=cut.how, applied=struck.applied)
        if cut.how == "silence":
            await self._transport.wait_for_end()
        else:
            self.cut(cut.how, "fault")

    async def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._session is not None:
            await self._session.close()
        await self._transport.close()
        if self._has_slot:
            self._frontend.limiter.release()
        self._record("close", reason=self._ended_by)

    def _record(self, kind: Any, /, **fields: Any) -> None:
        self._frontend.log.add(Event(kind=kind, connection=self._number, **fields))
