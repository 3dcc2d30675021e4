"""The cached connection: kept from one invocation to the next, and replaced without the caller noticing."""

import ast
import os
import socket
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from dsql_lambda import ConfigError, ConnectError, TokenError, TransactionError, with_dsql_transaction
from dsql_lambda.connector import close_all
from dsql_lambda.session import FAILED, IDLE, IN_TRANSACTION, Session
from dsql_lambda.transport import Transport

ADD = "UPDATE accounts SET balance = balance + 1 WHERE id = 1"


def pid(tx):
    return tx.value("SELECT pg_backend_pid()")


class Idle:
    """A session that was opened a moment ago, on a socket whose peer a test plays."""

    def __init__(self):
        ours, self.peer = socket.socketpair()
        self.now = 1_000_000.0
        self.connection = SimpleNamespace(_transaction_status=IDLE)
        self.session = Session(self.connection, Transport(ours), clock=lambda: self.now)

    def reason(self, *, age=0.0, expires_after=3300.0):
        self.now += age
        return self.session.reason_to_replace(self.session.opened_at + expires_after)


@pytest.fixture
def idle():
    idle = Idle()
    with idle.peer:
        yield idle
        idle.session.abandon()


@pytest.mark.parametrize(
    ("age", "expires_after", "reason"),
    [(0.0, 3300.0, ""), (3299.9, 3300.0, ""), (3300.0, 3300.0, "age"), (3100.0, 3000.0, "age"), (-1.0, 3300.0, "age")],
)
def test_a_connection_is_replaced_for_its_age(idle, age, expires_after, reason):
    """By wall clock; one that was opened in the future is as old as one can be."""
    assert idle.reason(age=age, expires_after=expires_after) == reason


def test_a_connection_in_a_transaction_is_replaced(idle):
    """By the status that the server reported last; its age comes first."""
    for status in (IN_TRANSACTION, FAILED):
        idle.connection._transaction_status = status
        assert idle.reason() == "in-transaction"
    assert idle.reason(age=4000.0) == "age"


def test_a_connection_with_something_to_read_is_replaced(idle):
    """On an idle connection it means that the peer has closed it; so does the end of the stream."""
    idle.peer.send(b"E")
    assert idle.reason() == "closed"
    idle.connection._transaction_status = IN_TRANSACTION
    assert idle.reason() == "in-transaction"


def test_a_connection_with_something_unsent_is_replaced(idle):
    """Only an interruption leaves that."""
    idle.session.transport.write(b"Q")
    assert idle.reason() == "closed"


def test_a_closed_connection_is_replaced_before_its_age_is_looked_at(idle):
    """The first reason that holds is named."""
    idle.session.abandon()
    assert idle.reason(age=4000.0) == "closed"


def test_a_connection_of_the_parents_is_replaced_before_anything_else(idle):
    """In a forked child, whatever else holds."""
    idle.peer.send(b"E")
    assert in_a_child(lambda: idle.reason(age=4000.0)) == "fork"
    assert idle.reason() == "closed"


def in_a_child(function):
    """What the function returns in a forked process, as text."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = str(function())
        except BaseException as error:
            said = repr(error)
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        return pipe.read()


def test_one_connection_serves_one_invocation_after_another(stage):
    """The same backend, one start."""
    assert stage.run(pid) == stage.run(pid)
    assert stage.events("startup") == 1
    assert stage.source.opened_for == "first"


def test_a_connection_near_its_hour_is_replaced(stage):
    """At 55 minutes less up to 10 of jitter, by wall clock."""
    first = stage.run(pid)
    stage.wall_clock.ahead_by += 44 * 60
    assert stage.run(pid) == first
    stage.wall_clock.ahead_by += 12 * 60
    assert stage.run(pid) != first
    assert stage.source.opened_for == "age"


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_a_connection_that_the_server_closed_is_replaced(stage, how):
    """One poll detects it, before anything is sent."""
    first = stage.run(pid)
    stage.dsql.close_connections(how)
    assert stage.run(pid) != first
    assert stage.source.opened_for == "closed"
    assert stage.logger.records == []


def test_a_connection_left_in_a_transaction_is_replaced(stage):
    """What production met: 25P02 until the environment died. Here the next transaction has a clean one."""
    stage.source.get().run("BEGIN")
    assert stage.run(lambda tx: tx.run(ADD)) == []
    assert stage.source.opened_for == "in-transaction"
    assert stage.balances()[0] == 101


def test_a_forked_process_opens_its_own_and_leaves_the_parents_alone(stage):
    """Not a byte goes out on the parent's session; both transactions commit, on two backends."""
    first = stage.run(pid)
    parents = stage.source.get()

    def in_the_child():
        childs = stage.run(pid)
        assert parents._session.is_closed
        return childs, stage.source.opened_for

    childs, reason = ast.literal_eval(in_a_child(in_the_child))
    assert reason == "fork"
    assert childs != first
    assert not parents._session.is_closed
    assert stage.run(pid) == first
    assert stage.events("startup") == 2


def test_a_snapshot_holds_no_connection(stage):
    """What was kept was closed before it was taken, and a new one is opened after it."""
    first = stage.run(pid)
    close_all()
    assert stage.run(pid) != first
    assert stage.source.opened_for == "closed"


def test_a_new_connection_takes_the_kept_token_while_it_is_fresh(stage):
    """And a fresh one once the cluster calls it expired."""
    stage.run(pid)
    stage.dsql.expire_tokens()
    stage.dsql.close_connections()
    stage.run(pid)
    assert stage.events("password") == 3
    assert stage.events("startup") == 3


def test_the_cached_connection_is_a_pg8000_connection(stage):
    """For statements outside a transaction."""
    connection = stage.source.get()
    assert connection.run("SELECT :x::int", x=1) == [[1]]
    assert connection.columns[0]["name"] == "int4"


def test_a_wrong_configuration_is_said_at_the_first_use(stage, monkeypatch, tmp_path):
    """By the error that names it."""
    with pytest.raises(ConfigError, match="sslrootcert names no file"):
        stage.new_source(sslrootcert=str(tmp_path / "none.pem")).get()
    with pytest.raises(ConnectError, match="no connection to 127.0.0.1:1"):
        stage.new_source(port=1, connect_timeout=0.1).get()
    with pytest.raises(TokenError, match="given credentials"):
        stage.new_source(credentials=7).get()


def test_threads_take_turns(stage):
    """Each gets the connection or the sentence that a transaction is running; none is left claimed or open."""
    refused, done = [], []

    def work(_):
        for _ in range(50):
            try:
                done.append(stage.run(pid))
            except TransactionError as error:
                refused.append(str(error))

    with ThreadPoolExecutor(max_workers=4) as executor:
        list(executor.map(work, range(4)))
    assert done
    assert all("a transaction is running" in each for each in refused)
    assert stage.run(pid)
    assert stage.events("startup") == 1


def test_the_cached_connection_is_not_touched_while_a_transaction_runs(stage):
    """Whatever became of it meanwhile."""

    def inside(tx):
        stage.wall_clock.ahead_by += 200
        with pytest.raises(TransactionError, match="use its tx"):
            stage.source.get()
        return tx.value("SELECT 1")

    assert stage.run(inside) == 1


ENTERS_THE_KERNEL = {
    "getpid",
    "poll.poll",
    "socket.settimeout",
    "socket.setblocking",
    "socket.setsockopt",
    "urandom",
    "stat",
    "open",
}


class Context:
    def get_remaining_time_in_millis(self):
        return 30_000


def calls_of(function, *args):
    """How often one call enters each of the C functions above, in this thread."""
    called: Counter[str] = Counter()

    def count(frame, event, arg):
        if event == "c_call" and arg.__qualname__ in ENTERS_THE_KERNEL:
            called[arg.__qualname__] += 1

    sys.setprofile(count)
    try:
        function(*args)
    finally:
        sys.setprofile(None)
    return called


def test_what_a_warm_transaction_asks_the_system_for(options):
    """One poll of the socket: no timeout is set, and forks are counted as they happen. The wait for an answer is another poll."""
    context = Context()

    @with_dsql_transaction(options=options)
    def empty(event, context, tx):
        return tx.attempt

    @with_dsql_transaction(options=options)
    def write(event, context, tx):
        tx.defer("UPDATE accounts SET balance = balance + :a WHERE id = :id", a=1, id=1)

    for each in (empty, write):
        each({}, context)
    assert calls_of(empty, {}, context) == {"poll.poll": 1}
    called = calls_of(write, {}, context)
    assert called.pop("poll.poll") in {1, 2, 3}
    assert called == {}
