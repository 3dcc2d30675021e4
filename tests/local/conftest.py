"""A client that says exactly what a test wants it to say, and a signer of tokens that can be wrong in every way."""

import hashlib
import hmac
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest

from dsql_local import LocalDsql
from dsql_local.protocol.decoder import MessageDecoder
from dsql_local.protocol.messages import (
    SSL_REQUEST,
    SYNC,
    Message,
    bind,
    data_row,
    error_fields,
    execute,
    joined,
    parse,
    query,
    startup,
)

EMPTY = hashlib.sha256(b"").hexdigest()


def sign_token(
    host: str,
    action: str = "DbConnectAdmin",
    *,
    key: str = "defaultkey",
    secret: str = "defaultsecret",
    region: str = "us-east-1",
    service: str = "dsql",
    at: float | None = None,
    expires: str = "900",
    session_token: str | None = None,
    ending: str = "aws4_request",
    algorithm: str = "AWS4-HMAC-SHA256",
) -> str:
    """A token, correct unless a keyword makes it wrong."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() if at is None else at))
    scope = f"{stamp[:8]}/{region}/{service}/{ending}"
    parameters = {
        "Action": action,
        "X-Amz-Algorithm": algorithm,
        "X-Amz-Credential": f"{key}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": expires,
        "X-Amz-SignedHeaders": "host",
    }
    if session_token is not None:
        parameters["X-Amz-Security-Token"] = session_token
    canonical = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(parameters.items()))
    request = f"GET\n/\n{canonical}\nhost:{host}\n\nhost\n{EMPTY}"
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    signature = b"AWS4" + secret.encode()
    for part in (*scope.split("/"), to_sign):
        signature = hmac.new(signature, part.encode(), hashlib.sha256).digest()
    return f"{host}/?{canonical}&X-Amz-Signature={signature.hex()}"


class Failed(Exception):
    """The server answered an error; `sqlstate`, and the rest in `fields`."""

    def __init__(self, message: Message) -> None:
        self.fields = error_fields(message)
        self.sqlstate = self.fields["C"]
        super().__init__(f"{self.sqlstate} {self.fields['M']}")


class Lost(Exception):
    """The server cut the link: `how` is "rst" or "fin"."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


@dataclass
class Client:
    """One connection, spoken to in messages."""

    link: socket.socket
    splitter: MessageDecoder = field(default_factory=MessageDecoder)
    inbox: list[Message] = field(default_factory=list)
    status: bytes = b""
    pid: int = 0
    parameters: dict[str, str] = field(default_factory=dict)

    def send(self, *messages: Message) -> None:
        try:
            self.link.sendall(joined(messages))
        except (ConnectionError, ssl.SSLError):
            raise Lost("rst") from None

    def receive(self) -> Message:
        while not self.inbox:
            try:
                # Python 3.12.1's ssl shows a reset as the end of the stream, so the bare socket is asked first.
                if not (isinstance(self.link, ssl.SSLSocket) and self.link.pending()):
                    socket.socket.recv(self.link, 1, socket.MSG_PEEK)
                data = self.link.recv(65536)
            except ConnectionResetError:
                raise Lost("rst") from None
            except ssl.SSLError:
                raise Lost("fin") from None
            if not data:
                raise Lost("fin")
            self.inbox += self.splitter.feed(data)
        return self.inbox.pop(0)

    def replies(self) -> list[Message]:
        """Everything up to ReadyForQuery, whose status is kept."""
        found = []
        while (message := self.receive()).kind != b"Z":
            found.append(message)
        self.status = message.body
        return found

    def replies_or_error(self) -> list[Message]:
        """The same while the connection is opened, where an error is the last word."""
        found = []
        while (message := self.receive()).kind != b"Z":
            if message.kind == b"E":
                raise Failed(message)
            found.append(message)
        self.status = message.body
        return found

    def outcomes(self) -> list[str]:
        """What the executions of one flight came to: command tags, and the SQLSTATE that ended it."""
        names = {b"C": lambda m: m.body[:-1].decode(), b"E": lambda m: error_fields(m)["C"], b"s": lambda _: "suspended"}
        return [names[message.kind](message) for message in self.replies() if message.kind in names]

    def run(self, sql: str) -> list[list[Any]]:
        """One simple Query; its rows as text. Raises `Failed`."""
        self.send(query(sql))
        return self.rows(self.replies())

    @staticmethod
    def rows(replies: list[Message]) -> list[list[Any]]:
        for message in replies:
            if message.kind == b"E":
                raise Failed(message)
        rows = (data_row(message) for message in replies if message.kind == b"D")
        return [[None if value is None else value.decode() for value in row] for row in rows]

    def flight(self, *statements: str) -> list[str]:
        """Statements by the extended protocol under ONE Sync; what they came to."""
        steps = [(parse("", sql), bind("", ""), execute("")) for sql in statements]
        self.send(*(message for step in steps for message in step), SYNC)
        return self.outcomes()

    def error(self, sql: str) -> str:
        """The SQLSTATE and text with which a simple Query fails."""
        with pytest.raises(Failed) as failed:
            self.run(sql)
        return str(failed.value)

    def close(self) -> None:
        self.link.close()


Connect = Callable[..., Client]


@pytest.fixture
def sign() -> Callable[..., str]:
    return sign_token


@pytest.fixture
def connect(dsql: LocalDsql) -> Iterator[Connect]:
    """Opens connections; keywords say what to do otherwise than a good client does."""
    opened: list[socket.socket] = []

    def connect(
        user: str = "admin",
        *,
        token: str | None = None,
        sni: str | None = dsql.endpoint,
        trust: str | None = dsql.ca_pem,
        direct: bool = False,
        alpn: str | None = "postgresql",
        to: LocalDsql = dsql,
        **parameters: str,
    ) -> Client:
        link = socket.create_connection((to.host, to.port), timeout=20)
        opened.append(link)
        if not direct:
            link.sendall(struct.pack("!ii", 8, SSL_REQUEST))
            assert link.recv(1) == b"S"
        context = ssl.create_default_context(cadata=trust)
        context.check_hostname = sni is not None
        if alpn is not None:
            context.set_alpn_protocols([alpn])
        secured = context.wrap_socket(link, server_hostname=sni)
        opened.append(secured)
        client = Client(secured)
        secured.sendall(startup({"user": user, "database": "postgres", **parameters}))
        asked = client.receive()
        if asked.kind == b"E":
            raise Failed(asked)
        assert asked.body == struct.pack("!i", 3)
        action = "DbConnectAdmin" if user == "admin" else "DbConnect"
        client.send(Message(b"p", (token or sign_token(dsql.endpoint, action)).encode() + b"\0"))
        replies = client.replies_or_error()
        client.pid = next(struct.unpack_from("!i", message.body)[0] for message in replies if message.kind == b"K")
        client.parameters = dict(message.texts(2) for message in replies if message.kind == b"S")
        return client

    yield connect
    for link in opened:
        link.close()
