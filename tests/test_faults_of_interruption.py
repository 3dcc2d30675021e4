"""What once went wrong when something came between: an alarm, a dead link, a fork, a snapshot, a server's last words.

Each test is one such case on real parts; the campaigns (`test_interruptions`, `test_alarms`, `test_hostile_server`, `test_cuts`)
look for those that nobody thought of.
"""

import gc
import logging
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
import warnings
import weakref
from contextlib import closing, contextmanager, suppress

import pg8000.dbapi
import pytest
import sqlalchemy
import trustme
from tests.hostile import ENDPOINT, GREETING, Keys, Message, answers, auth, complete, failed, ready
from tests.promises import shows_token

from dsql_lambda import (
    CommitOutcomeUnknown,
    ConnectError,
    ConnectOptions,
    DatabaseError,
    DeadlineExceeded,
    DsqlError,
    OCCRetryConfig,
    OCCRetryExhausted,
    Pool,
    TransactionError,
    connect,
    dbapi,
    is_occ_error,
    retry_on_occ,
    run_transaction,
    with_dsql_transaction,
)


class Timeout(Exception):
    """What the user's alarm raises."""


@pytest.fixture
def alarm():
    """SIGALRM raises `Timeout`; it is set by `signal.setitimer` or `signal.raise_signal`."""

    def ring(*_):
        raise Timeout

    before = signal.signal(signal.SIGALRM, ring)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def source(options):
    """A `Pool` of one connection: any source will do, and this one is closed here."""
    with Pool(options, max_size=1, acquire_timeout=2) as pool:
        run_transaction(lambda tx: tx.run("SELECT 1"), source=pool)
        yield pool


def add(tx):
    tx.defer("UPDATE accounts SET balance = balance + 1 WHERE id = 1")
    return tx.attempt


def balance(dsql):
    return int(dsql.execute("SELECT balance FROM accounts WHERE id = 1")[0][0])


def still_works(source):
    return run_transaction(lambda tx: tx.value("SELECT 4711"), source=source, timeout=5) == 4711


# Alarms


@pytest.mark.parametrize("is_taken", [True, False], ids=["the kernel took COMMIT", "the kernel did not"])
def test_an_alarm_while_commit_is_sent_leaves_its_outcome_open(dsql, source, alarm, monkeypatch, is_taken):
    """Nobody knows how far it came: `CommitOutcomeUnknown` from the alarm, never another attempt."""
    send = ssl.SSLSocket.send
    rung: list[bool] = []

    def interrupted(self, data, flags=0):
        is_commit = b"COMMIT" in data and not rung
        count = send(self, data, flags) if is_taken or not is_commit else 0
        if is_commit:
            rung.append(True)
            time.sleep(0.05)  # the server is done
            signal.raise_signal(signal.SIGALRM)
        return count

    monkeypatch.setattr(ssl.SSLSocket, "send", interrupted)
    with pytest.raises(CommitOutcomeUnknown) as caught:
        run_transaction(add, source=source)
    assert isinstance(caught.value.__cause__, Timeout)
    assert balance(dsql) == 100 + is_taken
    assert still_works(source)


def test_an_alarm_before_commit_is_sent_is_the_callers(dsql, source, alarm):
    """Nothing of it has left: the error as it was, nothing applied, the function not run again."""
    runs = []

    class Amount:
        """A value that is adapted when COMMIT's flight is put together."""

    def ringing(_):
        signal.raise_signal(signal.SIGALRM)
        return "1"

    def add_an_amount(tx):
        runs.append(tx.attempt)
        tx.connection.register_out_adapter(Amount, ringing)
        tx.defer("UPDATE accounts SET balance = balance + CAST(:amount AS int) WHERE id = 1", amount=Amount())

    with pytest.raises(Timeout):
        run_transaction(add_an_amount, source=source)
    assert (runs, balance(dsql)) == ([1], 100)
    assert still_works(source)


def test_the_users_own_timeout_reaches_the_user(dsql, source, alarm):
    """It comes while an answer is awaited: no lost connection, no second run."""
    dsql.delay(2000)
    runs = []

    def slow(tx):
        runs.append(tx.attempt)
        return tx.run("SELECT 7")

    begun = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    with pytest.raises(Timeout):
        run_transaction(slow, source=source)
    assert time.monotonic() - begun < 1
    assert runs == [1]
    dsql.clear_faults()
    assert still_works(source)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Timeout])
def test_no_frame_holds_the_token_when_connecting_is_interrupted(dsql, options, kind):
    """While the server is silent: neither a local variable of the traceback nor of its causes."""

    def ring(*_):
        raise kind

    before = signal.signal(signal.SIGALRM, ring)
    dsql.cut("after-password", how="silence")
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(kind) as caught:
            connect(options)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not shows_token(caught.value)


# The server's last words


@contextmanager
def scripted(conversation):
    """A TLS server for one client; `conversation(read, send)` is what it does behind the greeting. Gives the options."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["postgresql"])
    authority.issue_cert(ENDPOINT).configure_cert(context)

    def serve():
        with suppress(OSError):
            while True:
                accepted, _ = listener.accept()
                with accepted, context.wrap_socket(accepted, server_side=True) as secured:
                    secured.recv(65_536)
                    secured.sendall(bytes(auth(3)))
                    secured.recv(65_536)
                    secured.sendall(b"".join(map(bytes, GREETING)))
                    conversation(lambda: secured.recv(65_536), lambda *found: secured.sendall(b"".join(map(bytes, found))))

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        yield ConnectOptions(
            host=ENDPOINT,
            hostaddr="127.0.0.1",
            port=port,
            sslrootcert=authority.cert_pem.bytes().decode(),
            connect_timeout=1.0,
            credentials=Keys(),
        )
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def answered(tag):
    return Message(b"1"), Message(b"2"), Message(b"n"), complete(tag)


def test_commits_tag_is_a_success_whatever_follows_it():
    """The server commits and then ends the session."""

    def conversation(read, send):
        read()
        fatal = failed("FATAL", "57P01", "terminating connection due to administrator command")
        send(*answered("BEGIN"), *answered("INSERT 0 1"), *answered("COMMIT"), fatal)

    with scripted(conversation) as options, connect(options) as connection:
        assert run_transaction(add, source=connection, timeout=3) == 1


def test_a_statement_above_the_servers_limit_is_its_error_once(source):
    """10 MiB: FATAL 08P01 in the server's words, or refused before a byte leaves; never sent again until the deadline."""
    runs = []

    def too_long(tx):
        runs.append(tx.attempt)
        tx.run("SELECT length(CAST(:a AS text))", a="x" * 11_000_000)

    begun = time.monotonic()
    with pytest.raises((DatabaseError, TransactionError)) as caught:
        run_transaction(too_long, source=source, retry=OCCRetryConfig.for_lambda(), timeout=8)
    assert time.monotonic() - begun < 4
    assert runs == [1]
    assert getattr(caught.value, "sqlstate", "08P01") == "08P01"
    assert not isinstance(caught.value, DeadlineExceeded)
    assert still_works(source)


@pytest.mark.parametrize(
    "sent",
    [
        Message(b"N", b"", 0xFFFFFFFF),
        Message(b"N", b"", 3),
        Message(b"T", b"", 1 << 30),
        Message(b"~", b"x"),
        auth(5, b"salt"),
        auth(10, b"SCRAM-SHA-256\0\0"),
    ],
    ids=["length -1", "length 3", "a gibibyte", "unknown type", "MD5", "SCRAM"],
)
def test_a_server_that_breaks_the_protocol_is_refused_at_once(sent):
    """A `ConnectError` within `connect_timeout`; the token is in no frame."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["postgresql"])
    authority.issue_cert(ENDPOINT).configure_cert(context)
    over = threading.Event()

    def serve():
        with suppress(OSError), listener.accept()[0] as accepted, context.wrap_socket(accepted, server_side=True) as secured:
            secured.recv(65_536)
            secured.sendall(bytes(sent))
            over.wait(5)

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        begun = time.monotonic()
        try:
            with pytest.raises(ConnectError) as caught:
                connect(
                    host=ENDPOINT,
                    hostaddr="127.0.0.1",
                    port=listener.getsockname()[1],
                    sslrootcert=authority.cert_pem.bytes().decode(),
                    connect_timeout=3.0,
                    credentials=Keys(),
                    user="admin",
                )
        finally:
            over.set()
            thread.join(5)
    assert time.monotonic() - begun < 2
    assert not shows_token(caught.value)


# The deadline


@pytest.mark.parametrize(
    ("rows", "sql"),
    [
        (100_000, "SELECT now() - timestamptz '2020-01-01' FROM generate_series(1, 100000)"),
        (30_000, "SELECT array_agg(i) FROM generate_series(1, 30) i, generate_series(1, 10000) g GROUP BY g"),
    ],
)
def test_rows_are_not_decoded_past_the_deadline(source, rows, sql):
    """A deadline of half a second ends them within 0.6 s of it."""
    begun = time.monotonic()
    with suppress(DeadlineExceeded):
        run_transaction(lambda tx: tx.run(sql), source=source, timeout=0.5)
    assert time.monotonic() - begun < 1.1
    assert still_works(source)


def test_a_stream_that_is_left_early_ends_before_the_deadline(source):
    """What nobody wants is not decoded."""

    def first(tx):
        with tx.stream("SELECT i, now() - timestamptz '2020-01-01' AS age FROM generate_series(1, 100000) i") as stream:
            return next(stream)["i"]

    begun = time.monotonic()
    found = None
    with suppress(DeadlineExceeded):
        found = run_transaction(first, source=source, timeout=0.5)
    assert time.monotonic() - begun < 1.1
    assert found in {None, 1}
    assert still_works(source)


# Connecting again


def test_a_server_that_is_away_for_a_moment_is_waited_for(dsql, source):
    """Refused and reset are tried again while there is time: nothing was committed before."""

    def through_a_restart(tx):
        tx.run("UPDATE accounts SET balance = balance + 1 WHERE id = 1")
        if tx.attempt == 1:
            dsql.restart(0.3)
        return tx.attempt

    assert run_transaction(through_a_restart, source=source, timeout=10, retry=OCCRetryConfig.for_lambda()) == 2
    assert balance(dsql) == 101


def test_a_dead_first_address_leaves_time_for_the_second(dsql, options, monkeypatch):
    """A name with two addresses, the first of which answers nothing: each gets its share."""
    with closing(socket.socket()) as dead:
        dead.bind(("127.0.0.2", dsql.port))
        dead.listen(0)
        waiting = [socket.socket() for _ in range(6)]  # a full backlog: a SYN gets no answer
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.2", dsql.port))
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, dsql.port)) for host in ("127.0.0.2", "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        try:
            with connect(options, connect_timeout=4.0) as connection:
                assert connection.run("SELECT 1") == [[1]]
        finally:
            for each in waiting:
                each.close()


# pg8000's contract, as SQLAlchemy relies on it


def stock(dsql):
    """pg8000 itself, on the same server."""
    context = ssl.create_default_context(cadata=dsql.ca_pem)
    sock = socket.create_connection((dsql.host, dsql.port))
    return pg8000.dbapi.connect(
        "admin", host=dsql.endpoint, password=dsql.token(), database="postgres", sock=sock, ssl_context=context
    )


def outcomes(dsql, creator, how, *, pre_ping):
    """What each of six statements makes of a link that is cut after the first."""
    opened = []

    def create():
        connection = creator()
        opened.append(weakref.ref(connection))  # it is the engine's to drop
        return connection

    engine = sqlalchemy.create_engine(
        "postgresql+pg8000://", creator=create, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=0, pool_pre_ping=pre_ping
    )
    found = []
    for number in range(6):
        if number == 1:
            dsql.close_connections(how)
            first = opened[0]()
            assert first is not None
            select.select([first._usock], [], [], 5.0)  # until the end has arrived: pre_ping can't see a later one
        try:
            with engine.connect() as connection:
                found.append(connection.execute(sqlalchemy.text("SELECT CAST(:a AS int)"), {"a": number}).scalar())
        except sqlalchemy.exc.DBAPIError as error:
            found.append(type(error).__name__)
    engine.dispose()
    return found


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("pre_ping", [False, True])
def test_sqlalchemys_pool_recovers_from_a_dead_link_as_with_stock_pg8000(dsql, options, how, pre_ping):
    """At most one statement meets it, as PEP 249's error; the next has a new connection."""
    ours = outcomes(dsql, lambda: dbapi.connect(options), how, pre_ping=pre_ping)
    assert ours == ([0, 1, 2, 3, 4, 5] if pre_ping else [0, "InterfaceError", 2, 3, 4, 5])
    if sys.version_info >= (3, 14):
        return  # there stock pg8000 lets a BrokenPipeError through, so that its pool does not recover
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # stock pg8000 can leave a dead link's socket to the GC
        theirs = outcomes(dsql, lambda: stock(dsql), how, pre_ping=pre_ping)
        gc.collect()
    assert [isinstance(each, int) for each in theirs] == [isinstance(each, int) for each in ours]


# Failures


def test_the_first_failure_is_named(source):
    """A function that swallowed an error and went on is told which one it was, not only that the transaction has failed."""

    def careless(tx):
        with suppress(DatabaseError):
            tx.run("SELECT nope")
        return tx.run("SELECT 1")

    with pytest.raises(DatabaseError) as caught:
        run_transaction(careless, source=source)
    assert "nope" in "".join(traceback.format_exception(caught.value))


class SerializationFailure(Exception):
    """As psycopg's."""

    sqlstate = "40001"


class OperationalError(Exception):
    """As Django's and Tortoise's: no SQLSTATE of its own."""


def test_a_wrapped_conflict_is_a_conflict():
    """Found along `__cause__`, as ORMs wrap it."""
    runs = []

    def work():
        runs.append(1)
        try:
            raise SerializationFailure("change conflicts with another transaction (OC000)")
        except SerializationFailure as error:
            raise OperationalError(*error.args) from error

    with pytest.raises(OCCRetryExhausted) as caught:
        retry_on_occ(work)
    assert len(runs) == 3
    assert is_occ_error(caught.value.__cause__)


# Sources


def test_acquire_is_a_block_that_gives_back(options):
    """`with pool.acquire()`, as in asyncpg: the connection goes back to the pool and keeps its session."""
    with Pool(options, max_size=1, acquire_timeout=2) as pool:
        with pool.acquire() as connection:
            (first,) = connection.run("SELECT pg_backend_pid()")
        assert pool.statistics.idle == 1
        with pool.acquire() as connection:
            assert connection.run("SELECT pg_backend_pid()") == [first]


def test_what_an_invocation_sets_is_gone_in_the_next(dsql, options):
    """For the cached connection and for a pool; and nothing is sent for it where nothing was SET."""
    sets = "SET timezone TO 'Asia/Tokyo'"

    @with_dsql_transaction(options=options)
    def handler(event, context, tx):
        if event:
            tx.run(sets)
        return tx.value("SHOW timezone")

    assert handler(0, None) != "Asia/Tokyo"
    assert [handler(event, None) == "Asia/Tokyo" for event in (1, 0)] == [True, False]
    with Pool(options, max_size=1) as pool:
        assert run_transaction(lambda tx: tx.run(sets), source=pool) == []
        assert run_transaction(lambda tx: tx.value("SHOW timezone"), source=pool) != "Asia/Tokyo"
    flights = [event.statements for event in dsql.log if event.kind == "flight"]
    assert sum(any("RESET" in sql for sql in flight) for flight in flights) == 2


# Processes


def output_of(script, dsql, **environment):
    """What a program prints in a process of its own, whose environment leads to the local DSQL."""
    variables = {"PYTHONPATH": os.pathsep.join(sys.path), **dsql.environment, **environment}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=variables, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


FORK = """
import os
from dsql_lambda import run_transaction

def function(tx):
    tx.run("UPDATE accounts SET balance = balance + 1 WHERE id = 1")
    child = os.fork()
    if child == 0:
        try:
            tx.run("UPDATE accounts SET balance = 0 WHERE id = 1")
        except Exception as error:
            print("child:", error, flush=True)
        raise SystemExit
    os.waitpid(child, 0)
    return tx.value("SELECT balance FROM accounts WHERE id = 1")

try:
    print("parent:", run_transaction(function), flush=True)
except SystemExit:
    os._exit(0)
print("parent:", run_transaction(lambda tx: tx.value("SELECT 4711")))
"""


def test_a_child_neither_uses_nor_ends_its_parents_transaction(dsql):
    """It is told why, sends nothing, and unwinds without touching the session; the parent commits."""
    child, *parent = output_of(FORK, dsql)
    assert parent == ["parent: 101", "parent: 4711"]
    assert "process" in child
    assert balance(dsql) == 101


SNAPSHOT = """
import os, sys, types
module = types.ModuleType("snapshot_restore_py")
before, after = [], []
module.register_before_snapshot, module.register_after_restore = before.append, after.append
sys.modules["snapshot_restore_py"] = module
from dsql_lambda import InterfaceError, Pool, connect, run_transaction

pool = Pool(max_size=1)
own = connect()
def pid(tx):
    return tx.value("SELECT pg_backend_pid()")

old = run_transaction(pid), pool.transaction_with_retry(pid)
for each in before + after:
    each()
new = run_transaction(pid), pool.transaction_with_retry(pid)
print(len(before) > 0, [x == y for x, y in zip(old, new)])
try:
    own.run("SELECT 1")
    print("a session survived")
except InterfaceError as error:
    print("closed:", error)
pool.close()
"""


def test_no_session_survives_a_snapshot(dsql):
    """The first connection of any kind registers the hook: `run_transaction`, a `Pool`, `connect`."""
    found = output_of(SNAPSHOT, dsql, AWS_LAMBDA_INITIALIZATION_TYPE="snap-start", AWS_LAMBDA_RUNTIME_API="127.0.0.1:1")
    assert found == ["True [False, False]", "closed: connection is closed"]


# Records


def test_a_logger_adapter_keeps_the_fields(dsql, options):
    """As the logger that it wraps: `occ_type` is on the record, and so is the adapter's own field."""
    seen = []

    class Kept(logging.Handler):
        def emit(self, record):
            seen.append(record)

    logger = logging.getLogger("tests.adapted")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler := Kept())
    try:
        for each in (logger, logging.LoggerAdapter(logger, {"tenant": "a"})):
            dsql.conflict_next(1)
            with_dsql_transaction(options=options, logger=each)(add)()
    finally:
        logger.removeHandler(handler)
    assert [record.occ_type for record in seen] == ["data", "data"]
    assert seen[1].tenant == "a"


def test_the_answers_of_the_hostile_server_are_honest_where_they_are_not_spoilt():
    """What the campaign's server answers to a flight of a read and a COMMIT, message by message."""
    flight = [(b"P", b"\0BEGIN\0"), (b"B", b"\0\0\0\0\0\0\0\0"), (b"D", b"P\0"), (b"E", b"\0\0\0\0\0"), (b"S", b"")]
    found, status = answers(flight, b"I")
    assert [each.code for each in found] == [b"1", b"2", b"n", b"C", b"Z"]
    assert (bytes(found[-1]), status) == (bytes(ready(b"T")), b"T")
    assert issubclass(CommitOutcomeUnknown, DsqlError)
