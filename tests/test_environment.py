"""The cached connection: kept from one invocation to the next, and replaced without the caller noticing."""

import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from dsql_lambda import ConfigError, ConnectError, TokenError, TransactionError, with_dsql_transaction
from dsql_lambda.connection import reason_to_replace
from dsql_lambda.environment import deadline_after

ADD = "UPDATE accounts SET balance = balance + 1 WHERE id = 1"


def pid(tx):
    return tx.value("SELECT pg_backend_pid()")


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ({"is_open": True}, ""),
        ({"is_open": False}, "first"),
        ({"is_open": True, "is_forked": True, "is_readable": True}, "fork"),
        ({"is_open": True, "is_restored": True}, "restore"),
        ({"is_open": True, "age": 3299.9}, ""),
        ({"is_open": True, "age": 3300.0}, "age"),
        ({"is_open": True, "age": 3100.0, "max_age": 3000.0}, "age"),
        ({"is_open": True, "age": -1.0}, "age"),
        ({"is_open": True, "is_idle": False}, "in-transaction"),
        ({"is_open": True, "is_readable": True}, "closed"),
    ],
)
def test_why_a_connection_is_replaced(condition, reason):
    """Decided without a round trip; the first reason that holds is named."""
    assert reason_to_replace(**condition) == reason


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
    """Its goodbye is seen by one poll, before anything is sent."""
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
    """Not a byte goes out on the parent's session."""
    stage.run(pid)
    parents = stage.source.get()
    stage.pid += 1
    stage.run(pid)
    assert stage.source.opened_for == "fork"
    assert parents.is_closed
    assert stage.events("startup") == 2


def test_a_real_fork_shares_no_session(stage):
    """The child's transaction and the parent's next one both commit, on two backends."""
    stage.pid = 0
    stage.source = type(stage.source)(stage.options)
    first = stage.run(pid)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, str(stage.run(pid)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    childs = int(os.read(reader, 20))
    os.close(reader)
    assert childs != first
    assert stage.run(pid) == first


def test_a_restored_snapshot_opens_a_new_one(stage):
    """What was kept belongs to the snapshot."""
    stage.run(pid)
    stage.source.resume()
    stage.run(pid)
    assert stage.source.opened_for == "restore"


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


def test_a_deadline_keeps_a_reserve_of_what_lambda_leaves():
    """Half a second, or a tenth if that is less; the sooner of both limits counts."""
    assert deadline_after(None) == float("inf")
    assert deadline_after(2.0, now=lambda: 100.0) == 102.0
    assert deadline_after(None, 10_000, now=lambda: 100.0) == 109.5
    assert deadline_after(None, 1_000, now=lambda: 100.0) == 100.9
    assert deadline_after(2.0, 10_000, now=lambda: 100.0) == 102.0
    bad: object
    for bad in (0, -1, "5", True):
        with pytest.raises(ConfigError, match="timeout is"):
            deadline_after(bad)  # type: ignore[arg-type]


def test_a_wrong_configuration_is_said_at_the_first_use(stage, monkeypatch, tmp_path):
    """By the error that names it."""
    with pytest.raises(ConfigError, match="sslrootcert names no file"):
        stage.new_source(sslrootcert=str(tmp_path / "none.pem")).get()
    with pytest.raises(ConnectError, match="no connection to 127.0.0.1:1"):
        stage.new_source(port=1).get()
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
    """One look at the process and one poll of the socket: no timeout is set. The wait for an answer is a poll of its own."""
    context = Context()

    @with_dsql_transaction(options=options)
    def empty(event, context, tx):
        return tx.attempt

    @with_dsql_transaction(options=options)
    def write(event, context, tx):
        tx.defer("UPDATE accounts SET balance = balance + :a WHERE id = :id", a=1, id=1)

    for each in (empty, write):
        each({}, context)
    assert calls_of(empty, {}, context) == {"getpid": 1, "poll.poll": 1}
    called = calls_of(write, {}, context)
    assert called.pop("poll.poll") in {1, 2, 3}
    assert called == {"getpid": 1}
