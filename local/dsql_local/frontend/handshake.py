"""Opening one connection: TLS, the startup packet, the access token, the backend.

It decides who may connect and answers up to ReadyForQuery. It executes no statement; `connection` ends what was opened.
"""

import re

from ..engine.session import Session
from ..events import RecordEvent
from ..faults.injector import FaultInjector
from ..postgres.backend import Backend, StartupRefused
from ..postgres.template import SUPERUSER
from ..protocol.messages import (
    CANCEL_REQUEST,
    CLEARTEXT_PASSWORD,
    Message,
    ProtocolError,
    StartupPacket,
    error_fields,
    joined,
)
from ..rules.error_responses import (
    NO_SNI,
    REFUSALS,
    ConnectionRefusal,
    RefusalReason,
    access_denied,
    foreign_sni,
    no_such_role,
    not_authorized,
    not_mapped,
)
from ..rules.quoting import quote_literal
from ..rules.rulebook import SHOWN
from ..rules.verdict import refused_at_startup
from . import access_token
from .context import ConnectionContext
from .transport import Transport

__all__ = ["ConnectionRefused", "Handshake"]

_MAPPED = "SELECT 1 FROM sys.iam_pg_role_mappings WHERE pg_role_name = {user} AND arn = {arn}"
_SERVER_VERSION = Message(b"S", f"server_version\0{SHOWN['server_version']}\0".encode())
_SETTING = re.compile(r"(?:-c\s*|--)([\w.-]+)=")
_CLUSTER_OPTION = re.compile(r"(?:-c\s*|--)amzn-cluster-id=(\S+)\s*")


def _is_server_version(message: Message) -> bool:
    return message.kind == b"S" and message.texts(1) == ["server_version"]


class ConnectionRefused(Exception):
    """The connection must be refused with this answer."""

    def __init__(self, refusal: ConnectionRefusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Handshake:
    """Opens one connection. `session` and `has_slot` tell what the connection must release at its end."""

    def __init__(self, context: ConnectionContext, transport: Transport, injector: FaultInjector, record: RecordEvent) -> None:
        self._context = context
        self._transport = transport
        self._injector = injector
        self._record = record
        self.session: Session | None = None
        self.has_slot = False

    async def run(self) -> Session | None:
        """Open the connection. Returns None for a cancel request, which has no effect. Raises `ConnectionRefused`."""
        self._injector.check("on-connect")
        negotiated = await self._transport.negotiate(self._context.authority)
        if negotiated is None:
            self._record("cancel")
            return None
        negotiation, sni = negotiated
        self._record("connect", negotiation=negotiation, sni=sni)
        self._injector.check("after-tls")
        packet = await self._transport.startup()
        if packet.code == CANCEL_REQUEST:
            self._record("cancel")
            return None
        parameters = self._check_startup(packet, sni)
        self._injector.check("after-startup")
        principal = await self._authenticate(parameters["user"])
        return await self._connect(parameters, principal)

    def _check_startup(self, packet: StartupPacket, sni: str | None) -> dict[str, str]:
        """Check the startup packet, and return the parameters for PostgreSQL.

        A client names its cluster by SNI, or, through PrivateLink, by the option amzn-cluster-id.
        """
        parameters = dict(packet.parameters)
        named = _CLUSTER_OPTION.search(parameters.get("options", ""))
        if named:
            parameters["options"] = _CLUSTER_OPTION.sub("", parameters["options"]).strip()
        user = parameters.setdefault("user", "")
        application = parameters.get("application_name")
        self._record("startup", user=user, database=parameters.get("database", user), application_name=application)
        identity = self._context.identity
        if not (named and named[1] == identity.cluster) and sni != identity.endpoint:
            raise ConnectionRefused(NO_SNI if sni is None else foreign_sni(sni, identity.endpoint))
        settings = [name.replace("-", "_") for name in _SETTING.findall(parameters.get("options", ""))]
        for name in (*parameters, *settings):
            refused = refused_at_startup(name)
            if refused is not None:
                raise ConnectionRefused(ConnectionRefusal(refused.sqlstate, refused.message))
        return parameters

    async def _authenticate(self, user: str) -> str:
        """Ask for the access token, verify it, and return the ARN of its signer."""
        reason = self._context.faults.take_refusal() or self._acquire_slot()
        if reason is not None and reason in REFUSALS:
            raise ConnectionRefused(REFUSALS[reason])
        self._transport.write(CLEARTEXT_PASSWORD.data)
        await self._transport.drain()
        message = await self._transport.receive()
        if message.kind != b"p":
            raise ProtocolError("expected a password message")
        self._record("password")
        self._injector.check("after-password")
        identity = self._context.identity
        if reason == "access":
            raise ConnectionRefused(not_authorized(user, identity.cluster, identity.region))
        try:
            return identity.check(message.texts(1)[0], user)
        except access_token.InvalidToken as invalid:
            raise ConnectionRefused(access_denied(str(invalid))) from None

    def _acquire_slot(self) -> RefusalReason | None:
        reason = self._context.limiter.acquire()
        self.has_slot = reason is None
        return reason

    async def _connect(self, parameters: dict[str, str], principal: str) -> Session:
        """Connect to PostgreSQL, check the role's IAM mapping, and send PostgreSQL's greeting to the client."""
        user = parameters["user"]
        if user == SUPERUSER:
            raise ConnectionRefused(no_such_role(user))
        try:
            backend = await Backend.connect(self._context.postgres_socket, parameters)
        except OSError:  # more connections at once than the backlog of PostgreSQL's socket
            raise ConnectionRefused(REFUSALS["connections"]) from None
        except StartupRefused as refused:
            fields = error_fields(refused.answer)
            if fields.get("C") == "53300":  # PostgreSQL's max_connections is lower than DSQL's limit
                raise ConnectionRefused(REFUSALS["connections"]) from None
            if fields.get("C") == "28000" and fields.get("M", "").endswith("does not exist"):
                raise ConnectionRefused(no_such_role(user)) from None
            raise ConnectionRefused(ConnectionRefusal(fields.get("C", "08006"), fields.get("M", ""), fields.get("H"))) from None
        self.session = await self._context.new_session(backend, self._record, self._injector.faults)
        if user != "admin" and not await backend.run(_MAPPED.format(user=quote_literal(user), arn=quote_literal(principal))):
            identity = self._context.identity
            raise ConnectionRefused(not_mapped(user, identity.cluster, identity.region, principal))
        self._injector.check("before-ready")
        greeting = [_SERVER_VERSION if _is_server_version(each) else each for each in backend.greeting]
        self._transport.write(joined(greeting))
        await self._transport.drain()
        return self.session
