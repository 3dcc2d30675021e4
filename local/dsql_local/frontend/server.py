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

from ..engine.flights import Flight, Flights
from ..engine.session import Session
from ..events import Event, Log, Note
from ..faults.commands import BadOrder, Order
from ..faults.injector import Deaf, Halved, Listening, Strikes, Struck
from ..faults.plan import Faults, How
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
from ..rules.dialect import literal
from ..rules.error_responses import (
    NO_SNI,
    PLAINTEXT,
    REFUSALS,
    Refusal,
    RefusalReason,
    access_denied,
    foreign_sni,
    not_authorized,
    not_mapped,
)
from ..rules.limits import Limits
from ..rules.verdict import SHOWN, answer, refused_at_startup
from . import access_token
from .connection_limiter import Admission
from .iam import Identity
from .tls import Authority
from .transport import Gone, HandshakeFailed, Link, Plaintext

__all__ = ["Front"]

OPENING_SECONDS = 30.0
LOOKING_SECONDS = 0.05
_MAPPED = "SELECT 1 FROM sys.iam_pg_role_mappings WHERE pg_role_name = {user} AND arn = {arn}"
_VERSION = Message(b"S", f"server_version\0{SHOWN['server_version']}\0".encode())
_SETTING = re.compile(r"(?:-c\s*|--)([\w.-]+)=")
_CLUSTER_OPTION = re.compile(r"(?:-c\s*|--)amzn-cluster-id=(\S+)\s*")


class Refused(Exception):
    """The connection is not opened."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Front:
    """Accepts connections and serves them. `sessions` makes a session of a backend, `orders` carries out faults of the server."""

    def __init__(
        self,
        *,
        identity: Identity,
        authority: Authority,
        faults: Faults,
        log: Log,
        server: Path,
        sessions: Callable[[Backend, Note, Faults], Session],
        orders: Callable[[Order], Awaitable[None]],
        limits: Limits,
    ) -> None:
        self.identity = identity
        self.authority = authority
        self.faults = faults
        self.log = log
        self.server = server
        self.sessions = sessions
        self.limits = limits
        self.admission = Admission(limits, identity.clock)
        self.orders = orders
        self._tasks: dict[Connection, asyncio.Task[None]] = {}
        self.accepted = 0

    @property
    def connections(self) -> int:
        """How many there are now, those that open or end included."""
        return len(self._tasks)

    async def serve(self, listener: socket.socket) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listener)
            except OSError:  # out of file descriptors, say: the next one may do
                await asyncio.sleep(0.05)
                continue
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.accepted += 1
            connection = Connection(self, Link(accepted, longest=self.limits.message), self.accepted)
            task = loop.create_task(connection.serve())
            self._tasks[connection] = task
            task.add_done_callback(functools.partial(self._forget, connection))

    def _forget(self, connection: "Connection", _: "asyncio.Task[None]") -> None:
        self._tasks.pop(connection, None)

    async def close_connections(self, how: How) -> None:
        """Cut every client now; returns when PostgreSQL has rolled back what they left open."""
        tasks = dict(self._tasks)
        for connection, task in tasks.items():
            if not connection.ending:  # one that ends already is only waited for
                connection.cut(how, "server")
                task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


class Connection:
    """One client, from its first byte to its last."""

    def __init__(self, front: Front, link: Link, number: int) -> None:
        self._front = front
        self._link = link
        self._number = number
        self._flights = Flights()
        self._strikes = Strikes(front.faults, front.orders, self._note)
        self._session: Session | None = None
        self._ended_by = "client"
        self._admitted = False
        self._opened = front.identity.clock()
        self._timer: asyncio.TimerHandle | None = None
        self.ending = False

    async def serve(self) -> None:
        """Open, serve, end; nothing that a client does raises out of here."""
        try:
            async with asyncio.timeout(OPENING_SECONDS):
                session = await self._open()
            if session is not None:
                await self._serve_flights(session)
        except Refused as refused:
            self._refuse(refused.refusal)
        except TooLong:
            self._refuse(Refusal(*astuple(answer("message"))))
        except Struck as struck:
            await self._cut_off(struck)
        except BadOrder as bad:
            self._refuse(Refusal("42601", f"/* dsql: */ {bad}"))
        except ProtocolError as broken:
            self._refuse(Refusal("08P01", f"protocol violation: {broken}"))
        except Plaintext:
            self._note("refused", sqlstate=PLAINTEXT.sqlstate, reason=PLAINTEXT.message)
            await self._link.refuse_plaintext(PLAINTEXT.answer)
        except HandshakeFailed as failed:
            self._note("tls_failed", reason=str(failed))
        except (BackendLost, CommandFailed) as failed:
            self._ended_by = f"backend: {failed}"
        except (Gone, TimeoutError):
            pass
        finally:
            self.ending = True
            await self._end()

    def cut(self, how: How, ended_by: str) -> None:
        """Cut the link without a word."""
        self._ended_by = ended_by
        self._link.cut(how)

    # --- Opening ---

    async def _open(self) -> Session | None:
        """TLS, startup, token, backend. None for a request to cancel, which has no effect."""
        self._strikes.at("on-connect")
        agreed = await self._link.negotiate(self._front.authority)
        if agreed is None:
            self._note("cancel")
            return None
        negotiation, sni = agreed
        self._note("connect", negotiation=negotiation, sni=sni)
        self._strikes.at("after-tls")
        packet = await self._link.startup()
        if packet.code == CANCEL_REQUEST:
            self._note("cancel")
            return None
        parameters = self._parameters(packet, sni)
        self._strikes.at("after-startup")
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
        self._note("startup", user=user, database=parameters.get("database", user), application_name=application)
        identity = self._front.identity
        if not (named and named[1] == identity.cluster) and sni != identity.endpoint:
            raise Refused(NO_SNI if sni is None else foreign_sni(sni, identity.endpoint))
        settings = [name.replace("-", "_") for name in _SETTING.findall(parameters.get("options", ""))]
        for name in (*parameters, *settings):
            refused = refused_at_startup(name)
            if refused is not None:
                raise Refused(Refusal(refused.sqlstate, refused.message))
        return parameters

    async def _authenticate(self, user: str) -> str:
        """Ask for the token and believe nothing of it before it is verified: the ARN of its signer."""
        reason = self._front.faults.at_connect() or self._admit()
        if reason is not None and reason in REFUSALS:
            raise Refused(REFUSALS[reason])
        self._link.write(PASSWORD_PLEASE.data)
        await self._link.drain()
        message = await self._link.receive()
        if message.kind != b"p":
            raise ProtocolError("expected a password message")
        self._note("password")
        self._strikes.at("after-password")
        identity = self._front.identity
        if reason == "access":
            raise Refused(not_authorized(user, identity.cluster, identity.region))
        try:
            return identity.check(message.texts(1)[0], user)
        except access_token.Refused as refused:
            raise Refused(access_denied(str(refused))) from None

    def _admit(self) -> RefusalReason | None:
        reason = self._front.admission.admit()
        self._admitted = reason is None
        return reason

    async def _connect(self, user: str, parameters: dict[str, str], principal: str) -> Session:
        if user == SUPERUSER:
            raise Refused(Refusal("28000", f'role "{user}" does not exist'))
        try:
            backend = await Backend.connect(self._front.server, parameters)
        except StartupRefused as refused:
            fields = error_fields(refused.answer)
            if fields.get("C") == "53300":  # PostgreSQL's own limit is lower
                raise Refused(REFUSALS["connections"]) from None
            raise Refused(Refusal(fields.get("C", "08006"), fields.get("M", ""), fields.get("H"))) from None
        self._session = self._front.sessions(backend, self._note, self._strikes.faults)
        if user != "admin" and not await backend.run(_MAPPED.format(user=literal(user), arn=literal(principal))):
            identity = self._front.identity
            raise Refused(not_mapped(user, identity.cluster, identity.region, principal))
        self._strikes.at("before-ready")
        greeting = (_VERSION if each.kind == b"S" and each.texts(1) == ["server_version"] else each for each in backend.greeting)
        self._link.write(joined([*greeting]))
        await self._link.drain()
        return self._session

    def _refuse(self, refusal: Refusal) -> None:
        self._ended_by = "refused"
        self._note("refused", sqlstate=refusal.sqlstate, reason=refusal.hint or refusal.message)
        self._link.write(refusal.answer.data)

    # --- Serving ---

    async def _serve_flights(self, session: Session) -> None:
        clock, longest, opened = self._front.identity.clock, self._front.limits.connection_age, self._opened
        self._timer = asyncio.get_running_loop().call_later(longest, self.cut, "fin", "age")
        while True:
            message = await self._link.receive()
            if clock() - opened > longest:
                self.cut("fin", "age")
            if message.kind == b"X" or clock() - opened > longest:
                raise Gone
            flight = self._flights.feed(await self._strikes.hear(message), more=self._link.has_more)
            if flight is None:
                continue
            self._note("flight", messages=flight.messages, statements=flight.statements)
            await self._answer(flight, session)

    async def _answer(self, flight: Flight, session: Session) -> None:
        """Execute a flight and answer it, later or only in part if a fault says so."""
        outline = flight.outline(inside=session.inside)
        self._strikes.decide(outline)
        late = self._strikes.faults.lateness()
        if late:
            self._note("delayed", reason=f"{late * 1000:g} ms")
            await asyncio.sleep(late)
        cut = self._strikes.faults.at_flight(outline)
        if cut is None:
            await self._run(flight, session, Listening(self._link, self._strikes))
            await self._link.drain()
            return
        applied = cut.at in ("mid-reply", "after-reply") or (cut.at == "after-commit-sent" and cut.applied)
        client = {"mid-reply": Halved, "after-reply": Listening}.get(cut.at, Deaf)(self._link, self._strikes)
        if applied:
            await self._run(flight, session, client)
        if isinstance(client, Halved):
            client.give_half()
        await self._link.flush()
        raise Struck(cut, applied=applied)

    async def _run(self, flight: Flight, session: Session, client: Listening) -> None:
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
            gone = self._link.is_gone
            if not gone:
                timer = loop.call_later(LOOKING_SECONDS, look)
            elif task is not None:
                task.cancel()

        timer = loop.call_later(LOOKING_SECONDS, look)
        try:
            yield
        except asyncio.CancelledError:
            if gone and task is not None and task.uncancel() == 0:
                raise Gone from None
            raise
        finally:
            timer.cancel()

    async def _cut_off(self, struck: Struck) -> None:
        """Let a cut happen, after what is not to be applied was rolled back."""
        cut = struck.cut
        if self._session is not None:
            await self._session.close()
        self._note("cut", at=cut.at, how=cut.how, applied=struck.applied)
        if cut.how == "silence":
            await self._link.wait_for_end()
        else:
            self.cut(cut.how, "fault")

    async def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._session is not None:
            await self._session.close()
        await self._link.close()
        if self._admitted:
            self._front.admission.leave()
        self._note("close", reason=self._ended_by)

    def _note(self, kind: Any, /, **fields: Any) -> None:
        self._front.log.add(Event(kind=kind, connection=self._number, **fields))
