"""The front: who may come in, how, and what the log says of it."""

import contextlib
import socket
import ssl
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dsql_local.protocol.decoder import MessageDecoder
from dsql_local.protocol.messages import CANCEL_REQUEST, GSSENC_REQUEST, SSL_REQUEST, error_fields, startup
from dsql_local.rules.error_responses import REFUSALS


def kinds(dsql):
    return [event.kind for event in dsql.log]


def refusal(connect, *args, **keywords):
    with pytest.raises(Exception, match="(?i)unable to accept connection|does not exist") as refused:
        connect(*args, **keywords)
    return refused.value


@pytest.mark.parametrize("direct", [False, True], ids=["ssl_request", "direct"])
def test_a_good_client_comes_in(dsql, connect, direct):
    """By SSLRequest and by direct TLS; the log tells each step when it came."""
    client = connect(direct=direct, application_name="me")
    assert client.run("SELECT current_user, current_setting('server_version'), current_setting('TimeZone')") == [
        ["admin", "16.15", "UTC"]
    ]
    number = dsql.log[-1].connection  # the end of an earlier test's connection may come late
    connected, started, password, flight = (event for event in dsql.log if event.connection == number)
    assert (connected.kind, connected.sni) == ("connect", dsql.endpoint)
    assert connected.negotiation == ("direct" if direct else "ssl_request")
    assert (started.kind, started.user, started.database, started.application_name) == ("startup", "admin", "postgres", "me")
    assert password.kind == "password"
    assert (flight.kind, flight.messages) == ("flight", ("Query",))


def test_the_default_isolation_is_repeatable_read(connect):
    """BEGIN means REPEATABLE READ, and READ ONLY is possible."""
    client = connect()
    client.run("BEGIN READ ONLY")
    assert client.run("SHOW transaction_isolation") == [["repeatable read"]]
    assert client.error("DELETE FROM accounts").startswith("25006")


def test_gssapi_is_declined_first(dsql):
    """A GSSENCRequest is answered N, and SSLRequest is still possible."""
    with socket.create_connection((dsql.host, dsql.port)) as link:
        link.sendall(struct.pack("!ii", 8, GSSENC_REQUEST))
        assert link.recv(1) == b"N"
        link.sendall(struct.pack("!ii", 8, SSL_REQUEST))
        assert link.recv(1) == b"S"


def test_plaintext_is_refused(dsql):
    """Without TLS there is only a refusal, in the words that AWS's own tests know, and no password is asked for."""
    with socket.create_connection((dsql.host, dsql.port)) as link:
        link.sendall(startup({"user": "admin"}))
        (message,) = MessageDecoder().feed(link.recv(65536))
        assert error_fields(message) == {"S": "FATAL", "V": "FATAL", "C": "08P01", "M": "SSL is mandatory"}
        assert link.recv(1) == b""
    assert "password" not in kinds(dsql)
    assert "startup" not in kinds(dsql)


def test_direct_tls_needs_its_protocol_name(dsql, connect):
    """Direct TLS without the ALPN name postgresql is dropped before anything is said."""
    with pytest.raises(Exception, match="fin|rst"):
        connect(direct=True, alpn=None)
    assert "startup" not in kinds(dsql)
    assert "tls_failed" in kinds(dsql)


@pytest.mark.parametrize("direct", [False, True])
def test_a_client_that_does_not_trust_us_sends_nothing(dsql, connect, direct):
    """With another CA, or another name, the handshake fails and neither startup nor token comes."""
    for wrong in ({"trust": None}, {"sni": "b" * 26 + ".dsql.us-east-1.on.aws"}):
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(direct=direct, **wrong)
    assert {"startup", "password"}.isdisjoint(kinds(dsql))


def test_old_tls_is_refused(dsql):
    """TLS 1.1 does not get through."""
    context = ssl.create_default_context(cadata=dsql.ca_pem)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection((dsql.host, dsql.port)) as link, pytest.raises(ssl.SSLError):
        link.sendall(struct.pack("!ii", 8, SSL_REQUEST))
        link.recv(1)
        context.wrap_socket(link, server_hostname=dsql.endpoint)


def test_a_missing_server_name_is_refused(dsql, connect):
    """DSQL finds the cluster by SNI: without it there is a refusal and no question for the password."""
    assert "sni was not received" in str(refusal(connect, sni=None))
    assert "password" not in kinds(dsql)


def test_a_server_name_may_be_replaced_by_the_cluster_option(connect, dsql):
    """As through PrivateLink: the startup option amzn-cluster-id names the cluster, and PostgreSQL never sees it."""
    cluster = dsql.endpoint.split(".")[0]
    client = connect(sni=None, options=f"-c amzn-cluster-id={cluster} -c extra_float_digits=2")
    assert client.run("SHOW extra_float_digits") == [["2"]]
    assert "sni" in str(refusal(connect, sni=None, options="-c amzn-cluster-id=" + "z" * 26))


@pytest.mark.parametrize(
    ("wrong", "user", "reason"),
    [
        ({"key": "AKIA"}, "admin", "set AWS_ACCESS_KEY_ID=defaultkey"),
        ({"secret": "x"}, "admin", "signature"),
        ({"action": "DbConnect"}, "admin", "Wrong user to action mapping. user: admin, action: DbConnect"),
    ],
)
def test_a_wrong_token_is_refused_with_its_reason(dsql, connect, sign, wrong, user, reason):
    """FATAL 08006, DSQL's text, and the reason in the hint; the log has the reason and no part of the token."""
    token = sign(dsql.endpoint, **wrong)
    refused = refusal(connect, user, token=token)
    assert (refused.sqlstate, refused.fields["S"]) == ("08006", "FATAL")
    assert refused.fields["M"] == "unable to accept connection, access denied"
    assert reason in refused.fields["H"]
    (event,) = [event for event in dsql.log if event.kind == "refused"]
    assert reason in event.reason
    assert token not in repr(dsql.log)
    assert token.rsplit("=", 1)[1] not in repr(dsql.log)


def test_roles_come_in_with_their_own_privileges(dsql, connect):
    """A role with LOGIN that is mapped comes in with DbConnect, and PostgreSQL keeps it from what it was not granted."""
    dsql.execute(f"CREATE ROLE app WITH LOGIN; AWS IAM GRANT app TO '{dsql.principal}'")
    client = connect("app")
    assert client.run("SELECT current_user") == [["app"]]
    assert client.error("SELECT * FROM accounts").startswith("42501")
    dsql.execute(f"AWS IAM REVOKE app FROM '{dsql.principal}'; DROP ROLE app")


@pytest.mark.parametrize("user", ["nobody", "dsql_control", "admin2"])
def test_an_unknown_role_does_not_exist(connect, user):
    """A role that is not there is refused, and so is the front's own: 08P01, as the tests of AWS's Python connector have it."""
    refused = refusal(connect, user)
    assert (refused.sqlstate, refused.fields["M"]) == ("08P01", "unable to accept connection, access denied")
    assert refused.fields["H"] == f'role "{user}" does not exist'


def test_admin_is_no_superuser(dsql):
    """Admin owns the database and its schema, makes roles, and is otherwise an ordinary role."""
    assert dsql.execute("SELECT rolsuper, rolcreaterole, rolbypassrls FROM pg_roles WHERE rolname = 'admin'") == [["f", "t", "f"]]
    assert dsql.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'accounts'") == [["admin"]]


@pytest.mark.parametrize("reason", ["rate", "connections", "waking"])
def test_connections_can_be_refused_before_the_password(dsql, connect, reason):
    """As often as asked for: FATAL with DSQL's code and text; then one is let in again."""
    dsql.refuse_connections(2, reason)
    for _ in range(2):
        refused = refusal(connect)
        assert (refused.sqlstate, refused.fields["M"]) == (REFUSALS[reason].sqlstate, REFUSALS[reason].message)
    assert "password" not in kinds(dsql)
    connect()


def test_iam_can_say_no(dsql, connect):
    """The refusal of IAM comes after the token, as 08006 with the action in the hint."""
    dsql.refuse_connections(1, "access")
    refused = refusal(connect)
    assert refused.sqlstate == "08006"
    assert "is not authorized to perform: dsql:DbConnectAdmin" in refused.fields["H"]
    assert "password" in kinds(dsql)


def test_tokens_can_be_declared_expired(dsql, connect, sign):
    """An open connection outlives its token; the old token opens no other."""
    token = sign(dsql.endpoint)
    client = connect(token=token)
    dsql.expire_tokens()
    assert "Signature expired" in refusal(connect, token=token).fields["H"]
    assert client.run("SELECT 1") == [["1"]]
    assert connect().run("SELECT 1") == [["1"]]


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_all_connections_can_be_closed(dsql, connect, how):
    """Every client sees the link's end, without an error, and what was open is rolled back when the call returns."""
    first, second = connect(), connect()
    first.run("BEGIN")
    first.run("DELETE FROM accounts")
    numbers = {event.connection for event in dsql.log if event.kind == "startup"}
    dsql.close_connections(how)
    for client in (first, second):
        with pytest.raises(Exception, match=how):
            client.receive()
    assert dsql.execute("SELECT count(*) FROM accounts") == [["3"]]
    pids = f"{first.pid}, {second.pid}"
    assert dsql.execute(f"SELECT count(*) FROM pg_stat_activity WHERE pid IN ({pids})") == [["0"]]
    closed = [event.reason for event in dsql.log if event.kind == "close" and event.connection in numbers]
    assert closed == ["server", "server"]


def test_a_request_to_cancel_has_no_effect(dsql, connect):
    """It is accepted, noted, and nothing is cancelled."""
    client = connect()
    with socket.create_connection((dsql.host, dsql.port)) as link:
        link.sendall(struct.pack("!iiii", 16, CANCEL_REQUEST, client.pid, 0))
        with contextlib.suppress(ConnectionResetError):
            assert link.recv(1) == b""
    assert "cancel" in kinds(dsql)
    assert client.run("SELECT 1") == [["1"]]


def test_noise_is_refused(dsql):
    """Bytes that are no PostgreSQL end the connection, and the next client is served."""
    with socket.create_connection((dsql.host, dsql.port)) as link:
        link.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert link.recv(100) == b""


def test_the_environment_is_what_a_client_needs(dsql):
    """The variables name endpoint, address, port, CA and credentials."""
    environment = dsql.environment
    assert environment["DSQL_HOST"] == dsql.endpoint
    assert (environment["DSQL_HOSTADDR"], environment["DSQL_PORT"]) == ("127.0.0.1", str(dsql.port))
    assert environment["DSQL_SSLROOTCERT"] == dsql.ca_pem
    assert (environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]) == ("defaultkey", "defaultsecret")
    assert environment["AWS_REGION"] == "us-east-1"


LINGER = struct.pack("ii", 1, 0)  # closing sends a reset


def test_a_reset_before_tls_is_an_end_like_any_other(dsql, caplog):
    """Before the first byte or inside the first packet: nothing is left, and no task ends with an exception that nobody takes."""
    for number in range(20):
        with socket.create_connection((dsql.host, dsql.port)) as link:
            link.send(b"\0\0" if number % 2 else b"")
            while dsql.status()["connections"] == 0:
                pass
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        while dsql.status()["connections"]:
            pass
    assert [record for record in caplog.records if record.name == "asyncio"] == []


def test_ends_under_churn_raise_nothing(dsql, connect, caplog):
    """Links that are cut and a server that restarts, while clients come and go and several threads ask for it."""
    stop = threading.Event()

    def come_and_go():
        while not stop.is_set():
            with contextlib.suppress(psycopg.Error), psycopg.connect(make_conninfo(**dsql.libpq())) as connection:
                connection.execute("SELECT 1")

    def end_them(number):
        for how in ("rst", "fin", "silence") * 5:
            dsql.close_connections(how) if number % 2 else dsql.restart(down=0.002 * number)

    with ThreadPoolExecutor(8) as threads:
        clients = [threads.submit(come_and_go) for _ in range(4)]
        for ending in [threads.submit(end_them, number) for number in range(4)]:
            ending.result()
        stop.set()
        for client in clients:
            client.result()
    while not _listens(dsql):
        pass
    assert connect().run("SELECT 1") == [["1"]]
    assert [record for record in caplog.records if record.name == "asyncio"] == []


def test_the_port_is_kept_while_the_server_is_down(dsql):
    """Who comes is refused, and nobody else can listen there, so that it comes up again at the same address."""
    dsql.restart(down=0.3)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((dsql.host, dsql.port))
    assert not _listens(dsql)
    while not _listens(dsql):
        pass


def _listens(dsql):
    with contextlib.suppress(ConnectionError), socket.create_connection((dsql.host, dsql.port)):
        return True
    return False
