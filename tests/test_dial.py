"""How a socket is opened: TLS that is always verified, and a token that never leaves before it is."""

import datetime
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import trustme

from dsql_lambda import ConfigError, ConnectError, Connection, ConnectOptions, connect
from dsql_lambda import dial as dial_module
from dsql_lambda.connector import ConnectionFactory
from dsql_lambda.credentials import Credentials
from dsql_lambda.dial import dial
from dsql_lambda.refusal import Unreachable
from dsql_lambda.system import NEVER, System, open_tcp

HOST = "a1b2c3d4e5f6g7h8i9j0k1l2m3.dsql.us-east-1.on.aws"
SSL_REQUEST = bytes.fromhex("0000000804d2162f")


@dataclass
class Server:
    """A TLS server that reads what clients say after the handshake, and knows what they said before it."""

    context: ssl.SSLContext
    knows_direct: bool = True
    answer: bytes = b"S"
    said: list[bytes] = field(default_factory=list)
    """What arrived in clear, and decrypted."""
    names: list[str | None] = field(default_factory=list)
    versions: list[str | None] = field(default_factory=list)
    talk: Callable[[ssl.SSLSocket], None] | None = None

    def __post_init__(self) -> None:
        self.context.sni_callback = lambda _sock, name, _context: self.names.append(name)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                try:
                    self._serve_one(sock)
                except OSError:
                    pass

    def _serve_one(self, sock: socket.socket) -> None:
        first = sock.recv(8, socket.MSG_PEEK)
        if first[:1] != b"\x16":
            self.said.append(sock.recv(8))
            sock.sendall(self.answer)
            if self.answer != b"S":
                return
        elif not self.knows_direct:
            return
        with self.context.wrap_socket(sock, server_side=True) as secured:
            self.versions.append(secured.version())
            if self.talk:
                self.talk(secured)
            while data := secured.recv(65_536):
                self.said.append(data)

    def close(self) -> None:
        with self._listener:
            try:
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            except OSError:
                return  # it was closed before
        self._thread.join(5)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def serve(authority: trustme.CA) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(
        name: str = HOST,
        alpn: bool = True,
        most: ssl.TLSVersion | None = None,
        not_after: datetime.datetime | None = None,
        **more,
    ) -> Server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name, not_after=not_after).configure_cert(context)
        if alpn:
            context.set_alpn_protocols(["postgresql"])
        if most:
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = most
        servers.append(Server(context, **more))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def options_for(authority: trustme.CA) -> Callable[..., ConnectOptions]:
    def options_for(server: Server, **more) -> ConnectOptions:
        given = {
            "host": HOST,
            "hostaddr": "127.0.0.1",
            "port": server.port,
            "sslrootcert": authority.cert_pem.bytes().decode(),
            "connect_timeout": 5.0,
            "credentials": Credentials(access_key="AKIA", secret_key="topsecret"),
        }
        return ConnectOptions(**{**given, **more})

    return options_for


def test_direct_tls_sends_sni_and_saves_the_question(serve, options_for):
    """The first byte is the handshake's; the name is the endpoint's, whatever is dialled."""
    server = serve()
    transport = dial(options_for(server), NEVER)
    transport.write(b"hello")
    transport.flush()
    transport.close()
    assert server.names == [HOST]
    assert SSL_REQUEST not in server.said


@pytest.mark.parametrize("server_is", [{"knows_direct": False}, {"alpn": False}])
def test_a_server_without_direct_tls_is_asked_and_the_choice_remembered(serve, options_for, server_is):
    """SSLRequest on a second connection; the next one asks at once."""
    server = serve(**server_is)
    for _ in range(2):
        dial(options_for(server), NEVER).close()
    assert server.said.count(SSL_REQUEST) == 2
    assert ("127.0.0.1", server.port) in dial_module._declined_direct


def another_authority() -> str:
    return trustme.CA().cert_pem.bytes().decode()


LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize("knows_direct", [True, False])
@pytest.mark.parametrize(
    ("server_is", "client_is", "sentence"),
    [
        ({}, {"sslrootcert": another_authority()}, "is not trusted, so no token was sent.*set DSQL_SSLROOTCERT"),
        ({}, {"sslrootcert": "system"}, "is not trusted, so no token was sent.*set DSQL_SSLROOTCERT"),
        ({"name": "other.dsql.us-east-1.on.aws"}, {}, "not valid for .*check that DSQL_HOST is the cluster's own endpoint"),
        ({"not_after": LONG_AGO}, {}, "expired; check this machine's clock"),
    ],
)
def test_a_certificate_that_proves_nothing_gets_no_token(serve, options_for, knows_direct, server_is, client_is, sentence):
    """Wrong authority, wrong name, expired: `ConnectError`, and not a byte after the handshake."""
    server = serve(knows_direct=knows_direct, **server_is)
    with pytest.raises(ConnectError, match=sentence):
        connect(options_for(server, **client_is))
    assert [said for said in server.said if said != SSL_REQUEST] == []


def test_a_server_that_declines_tls_gets_no_token(serve, options_for):
    """`ConnectError`; it saw the question and nothing else."""
    server = serve(knows_direct=False, answer=b"N")
    with pytest.raises(ConnectError, match=r"declines TLS, so no token was sent: check that DSQL_HOST"):
        connect(options_for(server))
    assert server.said == [SSL_REQUEST]


def test_what_is_no_postgresql_server_gets_no_token(serve, options_for):
    """Any other answer to the question."""
    server = serve(knows_direct=False, answer=b"HTTP/1.1 400 Bad Request\r\n")
    with pytest.raises(ConnectError, match="declines TLS"):
        connect(options_for(server))
    assert server.said == [SSL_REQUEST]


def test_tls_older_than_1_2_is_refused(options_for):
    """Whatever the server offers."""
    for pem in ("", "system", another_authority()):
        assert dial_module.tls_context(pem).minimum_version == ssl.TLSVersion.TLSv1_2
        assert dial_module.tls_context(pem).verify_mode == ssl.CERT_REQUIRED
        assert dial_module.tls_context(pem).check_hostname


def test_tls_1_2_is_enough(serve, options_for):
    """DSQL's least."""
    server = serve(most=ssl.TLSVersion.TLSv1_2)
    transport = dial(options_for(server), NEVER)
    assert isinstance(transport.sock, ssl.SSLSocket)
    assert transport.sock.version() == "TLSv1.2"
    transport.close()


def test_roots_from_a_file_and_from_escaped_text(serve, options_for, authority, tmp_path):
    """A path; and PEM whose line ends a variable has escaped."""
    pem = authority.cert_pem.bytes().decode()
    (tmp_path / "roots.pem").write_text(pem)
    server = serve()
    dial(options_for(server, sslrootcert=str(tmp_path / "roots.pem")), NEVER).close()
    dial(options_for(server, sslrootcert=pem.replace("\n", "\\n")), NEVER).close()


@pytest.mark.parametrize(
    ("roots", "sentence"),
    [
        ("/no/such/file.pem", "sslrootcert names no file: '/no/such/file.pem'"),
        ("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----", "the PEM text holds no readable certificate"),
    ],
)
def test_roots_that_are_none_are_a_config_error(options_for, serve, roots, sentence):
    """What it must be is in the sentence."""
    with pytest.raises(ConfigError, match=sentence):
        connect(options_for(serve(), sslrootcert=roots))


def test_a_name_that_is_not_there_says_what_to_check():
    """The host, and the VPC's DNS."""

    def opener(address, timeout):
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(ConnectError, match=f"the name {HOST} can't be resolved: check DSQL_HOST"):
        dial(ConnectOptions(host=HOST), NEVER, System(opener=opener))


def test_a_network_without_an_answer_says_what_to_check():
    """Subnet, security group, route."""

    def opener(address, timeout):
        assert 0 < timeout <= 5
        raise TimeoutError

    with pytest.raises(ConnectError, match="no answer from .*security group"):
        dial(ConnectOptions(host=HOST), 5.0, System(opener=opener, monotonic=lambda: 0.0))


@pytest.fixture
def full():
    """The port of a listener whose queue is full: who connects hangs."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for each in fillers:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        yield port
        for each in fillers:
            each.close()


def has_addresses(monkeypatch, *ports):
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: addresses)


def test_a_dead_address_leaves_time_for_the_next_one(full, monkeypatch):
    """Each address of a name gets its share of what is left."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        has_addresses(monkeypatch, full, port)
        with open_tcp(("name", 5432), 1.0) as sock:
            assert sock.getpeername() == ("127.0.0.1", port)


def test_several_dead_addresses_share_the_time(full, monkeypatch):
    """`timeout` is for all of them."""
    has_addresses(monkeypatch, full, full, full)
    started_at = time.monotonic()
    with pytest.raises(TimeoutError):
        open_tcp(("name", 5432), 0.6)
    assert time.monotonic() - started_at < 1.5


def test_a_server_that_is_not_there_says_what_to_check(options_for, serve):
    """Refused by the machine; `connect` tries again until `connect_timeout`."""
    server = serve()
    server.close()
    sentence = "no connection to 127.0.0.1:[0-9]+: Connection refused; check DSQL_HOST"
    with pytest.raises(Unreachable, match=sentence):
        dial(options_for(server), NEVER)
    with pytest.raises(ConnectError, match=sentence):
        connect(options_for(server, connect_timeout=0.2))


# PrivateLink


def test_three_names_may_differ(serve, options_for):
    """What is dialled, what TLS sends and verifies, and what the token is signed for; and the cluster's id in the startup."""
    dialled = []

    def opener(address, timeout):
        dialled.append(address)
        return socket.create_connection(("127.0.0.1", server.port), timeout)

    def talk(secured):
        startup.append(secured.recv(65_536))
        secured.sendall(b"R" + (8).to_bytes(4, "big") + (3).to_bytes(4, "big"))
        startup.append(secured.recv(65_536))

    startup: list[bytes] = []
    private = "a1b2c3d4e5f6g7h8i9j0k1l2m3.dsql-fnh4.us-east-1.on.aws"
    server = serve(name=private, talk=talk)
    options = options_for(
        server,
        host=HOST,
        server_name=private,
        hostaddr="vpce-0a1b2c.dsql-fnh4.us-east-1.vpce.amazonaws.com",
        cluster_id="a1b2c3d4e5f6g7h8i9j0k1l2m3",
    )
    with pytest.raises(ConnectError, match="did not answer within connect_timeout"):
        ConnectionFactory(options, system=System(opener=opener)).open(Connection)
    assert dialled == [("vpce-0a1b2c.dsql-fnh4.us-east-1.vpce.amazonaws.com", server.port)]
    assert server.names == [private]
    assert b"options\0-c amzn-cluster-id=a1b2c3d4e5f6g7h8i9j0k1l2m3\0" in startup[0]
    assert startup[1][5:].startswith(f"{HOST}/?Action=DbConnectAdmin&".encode())


def test_a_private_name_without_anything_else(serve, options_for):
    """With private DNS one name is all three."""
    private = "a1b2c3d4e5f6g7h8i9j0k1l2m3.dsql-fnh4.us-east-1.on.aws"
    server = serve(name=private)
    dial(options_for(server, host=private), NEVER).close()
    assert server.names == [private]
