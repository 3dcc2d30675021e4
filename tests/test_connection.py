"""`connect` and `Connection`: what is pg8000's stays pg8000's, refusals say what to check, and nothing shows a token."""

import io
import socket
import ssl
import time
import traceback

import pg8000.native
import pytest

from dsql_lambda import (
    CommitOutcomeUnknown,
    ConnectError,
    Connection,
    ConnectOptions,
    DatabaseError,
    DeadlineExceeded,
    OCCRetryConfig,
    OCCRetryExhausted,
    TransactionError,
    connect,
    retry_on_occ,
)
from dsql_lambda.connector import ConnectionFactory
from dsql_lambda.credentials import Credentials
from dsql_lambda.refusal import Refusal, refusal_of, wait_before
from dsql_lambda.system import System
from dsql_lambda.version import __version__

ADD = "UPDATE accounts SET balance = balance + :amount WHERE id = :id"


@pytest.fixture
def connection(options):
    with connect(options) as connection:
        yield connection


def opened(options, **more):
    """Open one, noting the waits instead of waiting."""
    waits: list[float] = []
    system = System(sleep=waits.append, random=lambda: 0.5)
    ConnectionFactory(options, system=system).open(Connection, **more).close()
    return waits


# What is pg8000's


def test_a_connection_is_pg8000s(connection):
    """`run` with and without parameters, `columns`, `row_count`, several statements in a call without parameters."""
    assert isinstance(connection, pg8000.native.Connection)
    assert connection.run("SELECT id FROM accounts ORDER BY id") == [[1], [2], [3]]
    assert connection.run("SELECT :a::int AS one", a=1) == [[1]]
    assert connection.columns[0]["name"] == "one"
    connection.run(ADD, amount=1, id=1)
    assert connection.row_count == 1
    connection.run("BEGIN; UPDATE accounts SET balance = 7 WHERE id = 1; COMMIT")
    assert connection.run("SELECT balance FROM accounts WHERE id = 1") == [[7]]


def test_a_connections_public_attributes_are_pg8000s_and_two_more(dsql, options, connection):
    """None is missing, and of ours only the documented ones have no underscore."""
    sock = socket.create_connection((dsql.host, dsql.port))
    stock = pg8000.native.Connection(
        "admin",
        host=dsql.endpoint,
        database="postgres",
        password=options.token().value,
        sock=sock,
        ssl_context=ssl.create_default_context(cadata=dsql.ca_pem),
    )
    ours, theirs = ({name for name in dir(each) if not name.startswith("_")} for each in (connection, stock))
    stock.close()
    assert ours - theirs == {"transaction", "transaction_with_retry"}
    assert theirs - ours == set()


def test_one_parameterised_statement_is_one_flight(dsql, connection):
    """Stock pg8000 takes three."""
    dsql.clear_log()
    connection.run("SELECT :a::int", a=1)
    assert [event.messages for event in dsql.log if event.kind == "flight"] == [("Parse", "Bind", "Describe", "Execute", "Sync")]


def test_prepared_statements_work(connection):
    """pg8000's `prepare`."""
    prepared = connection.prepare("SELECT :a::int + 1")
    assert prepared.run(a=1) == [[2]]
    assert prepared.run(a=2) == [[3]]
    prepared.close()


def test_copy_works(dsql, connection):
    """In and out, by a stream."""
    connection.run("COPY accounts FROM STDIN", stream=io.StringIO("7\t70\n"))
    out = io.StringIO()
    connection.run("COPY accounts TO STDOUT", stream=out)
    assert "7\t70\n" in out.getvalue()
    assert connection.run("SELECT 1") == [[1]]


def test_an_error_leaves_the_connection_in_use(connection):
    """By either protocol; it is a `DatabaseError` with its SQLSTATE."""
    for params in ({}, {"a": 1}):
        with pytest.raises(DatabaseError) as caught:
            connection.run(f"SELECT nothing{' + :a' if params else ''}", **params)
        assert caught.value.sqlstate == "42703"
        assert connection.run("SELECT 1") == [[1]]


def test_a_connection_says_who_it_is(dsql, connection):
    """Endpoint, user, application name, as the server saw them; and what the server says of itself."""
    startup = next(event for event in dsql.log if event.kind == "startup")
    assert (startup.user, startup.database, startup.application_name) == ("admin", "postgres", f"dsql-lambda/{__version__}")
    assert next(event for event in dsql.log if event.kind == "connect").sni == dsql.endpoint
    assert connection.parameter_statuses["server_version"].startswith("16.15")


def test_connect_takes_options_a_connection_string_or_the_environment(dsql, options, monkeypatch):
    """And keywords over all of them."""
    for name, value in dsql.environment.items():
        monkeypatch.setenv(name, value)
    url = f"postgres://{dsql.endpoint}:{dsql.port}/postgres?hostaddr=127.0.0.1&ormPrefix=orm"
    for target in (None, url, options):
        with connect(target, application_name="mine") as connection:
            assert connection.run("SHOW application_name") == [["mine"]]


def test_closing_twice_is_pg8000s_error_and_a_dead_peer_is_none(dsql, options):
    """`close` raises only for a connection that was closed."""
    connection = connect(options)
    dsql.close_connections("rst")
    connection.close()
    with pytest.raises(pg8000.native.InterfaceError, match="connection is closed"):
        connection.close()
    with pytest.raises(pg8000.native.InterfaceError, match="connection is closed"):
        connection.run("SELECT 1")


def test_every_connect_signs_a_fresh_token(dsql, options):
    """A connection string's credentials are read each time."""
    calls = []

    def credentials():
        calls.append(1)
        return Credentials(access_key="defaultkey", secret_key="defaultsecret")

    for _ in range(2):
        connect(options, credentials=credentials).close()
    assert len(calls) == 2


# Transactions on a connection


def test_transaction_with_retry_uses_the_same_connection(dsql, connection):
    """The connectors' name; `retry=None` is their default of three attempts."""
    dsql.conflict_next(2)
    pids = []

    def add(tx):
        pids.append(tx.value("SELECT pg_backend_pid()"))
        tx.defer(ADD, amount=1, id=1)
        return tx.attempt

    assert connection.transaction_with_retry(add) == 3
    assert len(pids) == 3
    assert [list(set(pids))] == connection.run("SELECT pg_backend_pid()")
    dsql.conflict_next(2)
    with pytest.raises(OCCRetryExhausted):
        connection.transaction_with_retry(add, OCCRetryConfig(max_attempts=2))
    assert connection.run("SELECT balance FROM accounts WHERE id = 1") == [[101]]


def test_transaction_is_a_block_without_retry(dsql, connection):
    """COMMIT at its end; ROLLBACK when it raises; a conflict is the error that it is."""
    with connection.transaction() as tx:
        tx.run(ADD, amount=1, id=1)
    with pytest.raises(ZeroDivisionError), connection.transaction() as tx:
        tx.run(ADD, amount=1, id=1)
        raise ZeroDivisionError
    dsql.conflict_next()
    with pytest.raises(DatabaseError) as caught, connection.transaction() as tx:
        tx.run(ADD, amount=1, id=1)
    assert caught.value.sqlstate == "40001"
    with connection.transaction() as tx:
        tx.run(ADD, amount=1, id=1)
        tx.rollback()
    assert connection.run("SELECT balance FROM accounts WHERE id = 1") == [[101]]


def test_a_block_in_which_a_statement_failed_unnoticed_raises_its_error(connection):
    """It is never a success."""
    with pytest.raises(DatabaseError, match="accounts_balance_check"), connection.transaction() as tx:
        try:
            tx.run(ADD, amount=-1000, id=1)
        except DatabaseError:
            pass


def test_a_block_inside_a_block_is_refused(connection):
    """And inside a transaction that was begun by a statement."""
    with connection.transaction(), pytest.raises(TransactionError, match="no savepoints"), connection.transaction():
        pass
    connection.run("BEGIN")
    with pytest.raises(TransactionError, match="begun by a statement"):
        connection.transaction_with_retry(lambda tx: None)
    connection.run("ROLLBACK")
    assert connection.transaction_with_retry(lambda tx: tx.value("SELECT 1")) == 1


@pytest.mark.parametrize("applied", [True, False])
def test_a_block_whose_commit_is_not_answered_says_that_nobody_knows(dsql, options, applied):
    """`CommitOutcomeUnknown`, as everywhere."""
    connection = connect(options)
    dsql.cut("after-commit-sent", applied=applied)
    with pytest.raises(CommitOutcomeUnknown), connection.transaction() as tx:
        tx.run(ADD, amount=1, id=1)
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["101" if applied else "100"]]


@pytest.mark.parametrize("way", ["block", "retry"])
def test_leaving_a_connections_block_hides_nothing(dsql, options, way):
    """The connection was given up inside it: what is raised is why."""
    dsql.cut("after-commit-sent")
    with pytest.raises(CommitOutcomeUnknown), connect(options) as connection:
        if way == "retry":
            connection.transaction_with_retry(lambda tx: tx.run(ADD, amount=1, id=1))
        with connection.transaction() as tx:
            tx.run(ADD, amount=1, id=1)


def test_a_link_lost_and_swallowed_in_a_block_is_not_unknown(dsql, options):
    """COMMIT was never sent."""
    connection = connect(options)
    with connection.transaction() as tx:
        tx.run(ADD, amount=1, id=2)
    dsql.cut("before-commit")
    with pytest.raises((ConnectionError, pg8000.native.InterfaceError)), connection.transaction() as tx:
        try:
            tx.run(ADD, amount=1, id=1)
        except Exception:
            pass
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["100"]]


def test_a_lost_connection_can_not_be_replaced_by_itself(dsql, options):
    """The sentence says to open a new one; nothing was committed."""
    connection = connect(options)
    dsql.cut("before-commit")
    with pytest.raises(TransactionError, match="was lost: open a new one"):
        connection.transaction_with_retry(lambda tx: tx.run(ADD, amount=1, id=1))
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["100"]]


def test_retry_on_occ_runs_a_function_that_has_its_own_transaction(dsql, connection):
    """Again on a conflict; any other error at once."""
    dsql.conflict_next()
    attempts = []

    def own_transaction():
        attempts.append(1)
        with connection.transaction() as tx:
            tx.run(ADD, amount=1, id=1)
        return "done"

    assert retry_on_occ(own_transaction) == "done"
    assert len(attempts) == 2
    with pytest.raises(ZeroDivisionError):
        retry_on_occ(lambda: 1 / 0)
    with pytest.raises(OCCRetryExhausted) as caught:
        retry_on_occ(lambda: own_transaction() if dsql.conflict_next() is None else None, OCCRetryConfig(max_attempts=2))
    assert caught.value.attempts == 2
    assert connection.run("SELECT balance FROM accounts WHERE id = 1") == [[101]]


# Refusals


@pytest.mark.parametrize(
    ("sqlstate", "message", "hint", "refusal"),
    [
        ("53300", "Unable to accept connection, too many open connections.", "", Refusal.BUSY),
        ("53400", "unable to accept connection, rate exceeded.", "", Refusal.BUSY),
        ("08006", "unable to accept connection", "Waking up cluster, please retry later", Refusal.WAKING),
        ("08006", "unable to accept connection, access denied", "Signature expired: 2026", Refusal.EXPIRED),
        ("08006", "unable to accept connection, access denied", "Wrong user to action mapping.", Refusal.FINAL),
        ("28000", "role does not exist", "", Refusal.FINAL),
    ],
)
def test_what_a_refusal_means(sqlstate, message, hint, refusal):
    """By SQLSTATE and words, whatever their case."""
    assert refusal_of(DatabaseError({"C": sqlstate, "M": message, "H": hint})) is refusal


@pytest.mark.parametrize("reason", ["rate", "connections", "waking"])
def test_a_busy_cluster_is_waited_for_with_jitter(dsql, options, reason):
    """Twice as long each time; longer where it wakes up."""
    dsql.refuse_connections(n=3, reason=reason)
    first = 0.5 if reason == "waking" else 0.1
    assert opened(options) == pytest.approx([first, first * 2, first * 4])


@pytest.mark.parametrize(
    ("tries", "random", "expected"), [(1, 0.0, 0.05), (1, 1.0, 0.15), (5, 0.5, 1.6), (6, 0.5, 2.0), (999, 1.0, 3.0)]
)
def test_the_wait_doubles_up_to_two_seconds(tries, random, expected):
    """Half to one and a half of it; longer ones would leave admissions unused when thousands wait."""
    assert wait_before(Refusal.BUSY, tries, lambda: random) == pytest.approx(expected)


def test_a_cluster_that_stays_busy_is_a_connect_error(dsql, options):
    """After `connect_timeout`; the sentence says what to change."""
    dsql.refuse_connections(n=50, reason="rate")
    with pytest.raises(ConnectError, match="raise connect_timeout") as caught:
        connect(options, connect_timeout=0.05)
    assert caught.value.sqlstate == "53400"


def test_a_deadline_that_comes_first_is_said(dsql, options):
    """`DeadlineExceeded` in the phase `connect`."""
    dsql.refuse_connections(n=50, reason="rate")
    with pytest.raises(DeadlineExceeded) as caught:
        opened(options, deadline_at=time.monotonic() + 0.05)
    assert caught.value.phase == "connect"


def test_an_expired_token_is_signed_again_once(dsql, options):
    """A second refusal is a matter of the clock."""
    dsql.expire_tokens()
    opened(options)
    late = ConnectionFactory(options, keeps_token=False, system=System(clock=lambda: time.time() - 3600))
    with pytest.raises(ConnectError, match="Signature expired.*check this machine's clock"):
        late.open(Connection)
    assert sum(event.kind == "password" for event in dsql.log) == 4


@pytest.mark.parametrize("age", [0, 1])
def test_a_busy_cluster_and_then_an_expired_token_are_both_met(dsql, options, age):
    """In any order, be the token of this second or of the one before."""
    ages = iter([age])
    system = System(clock=lambda: time.time() - next(ages, 0), sleep=lambda seconds: None)
    factory = ConnectionFactory(options, system=system)
    factory.signer.token()
    dsql.refuse_connections()
    dsql.expire_tokens()
    factory.open(Connection).close()


def test_a_role_without_the_permission_says_to_check_the_policy(dsql, options):
    """Never tried again."""
    dsql.refuse_connections(reason="access")
    with pytest.raises(ConnectError, match="not authorized.*check the IAM policy: the role must be allowed dsql:DbConnectAdmin"):
        connect(options)
    assert sum(event.kind == "password" for event in dsql.log) == 1


def test_a_role_that_is_not_there_says_to_check_the_mapping(options):
    """By the statement that makes it."""
    with pytest.raises(ConnectError, match="AWS IAM GRANT nobody TO"):
        connect(options, user="nobody")


def test_an_unknown_key_is_named_with_what_to_set(options):
    """The local DSQL's own hint."""
    stranger = Credentials(access_key="AKIASTRANGER", secret_key="topsecret")
    with pytest.raises(ConnectError, match="AKIASTRANGER.*defaultkey"):
        connect(options, credentials=stranger)


def test_a_wrong_secret_is_refused_and_not_shown(options):
    """Neither the key's secret nor the token is in the error, its cause, or a traceback with all local variables."""
    liar = Credentials(access_key="defaultkey", secret_key="topsecret", session_token="sessionsecret")
    with pytest.raises(ConnectError) as caught:
        connect(options, credentials=liar)
    shown = everything_of(caught.value)
    assert "access denied" in shown
    for secret in ("topsecret", "sessionsecret", "X-Amz-Signature", "X-Amz-Security-Token"):
        assert secret not in shown


def test_an_open_connection_keeps_no_token(dsql, options):
    """Not in the object, nor in a traceback of a later error with all local variables."""
    connection = connect(options)
    assert "X-Amz-Signature" not in repr({name: repr(value) for name, value in vars(connection).items()})
    assert "X-Amz-Signature" not in repr(vars(connection._session.transport))
    dsql.close_connections("rst")
    with pytest.raises(Exception) as caught:
        connection.run("SELECT :a::int", a=1)
    assert "X-Amz-Signature" not in everything_of(caught.value)
    connection.close()


def test_a_server_that_hangs_up_while_connecting_keeps_no_token_in_the_error(dsql, options):
    """pg8000's frames hold the password: they are not in the traceback."""
    dsql.refuse_connections(reason="access")
    with pytest.raises(ConnectError) as caught:
        connect(options)
    assert "X-Amz-Signature" not in everything_of(caught.value)
    frames = [frame for each in chain_of(caught.value) for frame in traceback.extract_tb(each.__traceback__)]
    assert frames
    assert not any("pg8000" in frame.filename for frame in frames)


def chain_of(error: BaseException | None):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def everything_of(error: BaseException) -> str:
    """What the most talkative traceback shows: every frame but the test's own, with all local variables."""
    shown = []
    for each in chain_of(error):
        frames = [frame for frame in traceback.walk_tb(each.__traceback__) if frame[0].f_code.co_filename != __file__]
        shown += traceback.StackSummary.extract(iter(frames), capture_locals=True).format()
        shown += [repr(each), str(each), repr(vars(each))]
    return "".join(shown)


def test_options_of_the_connection_reach_the_loop(options):
    """`pipeline` and `probe_after_secs`."""
    with connect(options, pipeline=False, probe_after_secs=5.0) as connection:
        assert isinstance(connection, Connection)
        assert (connection._session.pipeline, connection._session.probe_after_secs) == (False, 5.0)


def test_the_constructor_takes_pg8000s_arguments():
    """So that pg8000's own tests can run on it; its own error for a host that is not there."""
    with pytest.raises(pg8000.native.InterfaceError, match="Can't create a connection to host 127.0.0.1 and port 1"):
        Connection("admin", host="127.0.0.1", port=1, database="postgres", timeout=1)
    assert ConnectOptions.__doc__
