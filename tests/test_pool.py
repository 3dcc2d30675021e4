"""`Pool`: shared by threads, first come first served; nothing leaks, and what comes back dirty or dead is replaced."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dsql_lambda import (
    ConfigError,
    ConnectError,
    Connection,
    DeadlineExceeded,
    OCCRetryConfig,
    OCCRetryExhausted,
    Pool,
    TransactionError,
    run_transaction,
    with_dsql_transaction,
)
from dsql_lambda.connector import ConnectionFactory
from dsql_lambda.credentials import Credentials
from dsql_lambda.iam_token import Signer
from dsql_lambda.system import System

ADD = "UPDATE accounts SET balance = balance + :amount WHERE id = :id"


@pytest.fixture
def pool_of(options):
    pools = []

    def pool_of(**more):
        pools.append(Pool(options, **more))
        return pools[-1]

    yield pool_of
    for pool in pools:
        pool.close(timeout=5)


def backend_of(connection):
    return connection.run("SELECT pg_backend_pid()")[0][0]


def count(dsql, kind):
    return sum(event.kind == kind for event in dsql.log)


def test_a_connection_is_used_again(dsql, pool_of):
    """Opened when it is wanted, kept when it comes back."""
    pool = pool_of()
    assert pool.statistics.size == 0
    pids = set()
    for _ in range(3):
        with pool.connection() as connection:
            pids.add(backend_of(connection))
            assert connection.run("SELECT 1") == [[1]]
            assert (pool.statistics.size, pool.statistics.idle) == (1, 0)
    assert (len(pids), count(dsql, "startup")) == (1, 1)
    assert (pool.statistics.size, pool.statistics.idle, pool.statistics.opened) == (1, 1, 1)


def test_what_is_acquired_goes_back_to_the_pool(pool_of):
    """By `release`, or at the end of a block, which does not close it; what is not lent is left alone."""
    pool = pool_of(max_size=1)
    with pool.acquire() as first:
        assert pool.statistics.idle == 0
    assert (pool.statistics.idle, first._session.is_closed) == (1, False)
    again = pool.acquire()
    assert again is first
    pool.release(again)
    pool.release(again)
    assert (pool.statistics.size, pool.statistics.idle, pool.statistics.opened) == (1, 1, 1)


def test_transaction_with_retry_and_the_decorator_and_run_transaction(dsql, pool_of):
    """The pool is a source of connections for each."""
    pool = pool_of()

    def add(tx):
        tx.defer(ADD, amount=1, id=1)
        return tx.attempt

    @with_dsql_transaction(source=pool)
    def decorated(tx):
        return add(tx)

    dsql.conflict_next(2)
    assert pool.transaction_with_retry(add, OCCRetryConfig(max_attempts=3)) == 3
    assert run_transaction(add, source=pool) == 1
    assert decorated() == 1
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["103"]]
    assert pool.statistics.idle == pool.statistics.size == 1


def test_a_lost_connection_is_replaced_for_the_next_attempt(dsql, pool_of):
    """Nothing was committed; nothing leaks."""
    pool = pool_of(max_size=1)
    dsql.cut("before-commit")
    assert pool.transaction_with_retry(lambda tx: tx.run(ADD, amount=1, id=1) or tx.attempt) == 2
    assert (pool.statistics.size, pool.statistics.idle, pool.statistics.opened) == (1, 1, 2)


def test_what_comes_back_dirty_is_closed(dsql, pool_of):
    """In a transaction, or with an unread answer; its place is free."""
    pool = pool_of(max_size=1)
    with pool.connection() as connection:
        connection.run("BEGIN")
    assert connection._session.is_closed
    assert pool.statistics.size == 0
    with pool.connection() as connection:
        assert connection.run("SELECT 1") == [[1]]


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_what_died_while_it_idled_is_replaced_when_it_is_wanted(dsql, pool_of, how):
    """By one poll, before it is given out."""
    pool = pool_of()
    with pool.connection() as first:
        pass
    dsql.close_connections(how)
    with pool.connection() as second:
        assert second.run("SELECT 1") == [[1]]
    assert second is not first
    assert pool.statistics.size == 1


def test_each_new_connection_is_configured(pool_of):
    """Before it is used; a failure there closes it and is raised."""
    pool = pool_of(configure=lambda connection: connection.run("SET search_path = 'elsewhere'"))
    with pool.connection() as connection:
        assert connection.run("SHOW search_path") == [["elsewhere"]]
    opened = []

    def refuse(connection):
        opened.append(connection)
        raise ZeroDivisionError

    pool = pool_of(configure=refuse)
    with pytest.raises(ZeroDivisionError):
        pool.connection().__enter__()
    assert opened[0]._session.is_closed
    assert pool.statistics.size == 0


def test_what_is_old_is_replaced(pool_of, wall_clock):
    """At `max_lifetime` less up to a tenth, by wall clock; when it comes back, or when it is wanted."""
    pool = pool_of(max_lifetime=100.0, system=System(clock=wall_clock.time))
    with pool.connection() as first:
        wall_clock.ahead_by += 80
    with pool.connection() as again:
        assert again is first
        wall_clock.ahead_by += 30
    assert first._session.is_closed
    with pool.connection() as second:
        pass
    wall_clock.ahead_by += 110
    with pool.connection() as third:
        assert third is not second
    assert pool.statistics.opened == 3


def test_connections_that_idled_with_a_stale_one_are_closed_too(dsql, pool_of, wall_clock):
    """One dead link after a long idle tells of the others."""
    pool = pool_of(system=System(clock=wall_clock.time))
    with pool.connection(), pool.connection():
        pass
    assert pool.statistics.idle == 2
    wall_clock.ahead_by += 61
    dsql.cut("before-first-flight")
    assert pool.transaction_with_retry(lambda tx: tx.attempt) == 1
    assert (pool.statistics.size, pool.statistics.opened) == (1, 3)


def test_an_empty_pool_says_so_after_its_timeout(pool_of):
    """And what to change."""
    pool = pool_of(max_size=1, acquire_timeout=0.05)
    with pool.connection(), pytest.raises(ConnectError, match="no connection of the pool was free for 0.05 s: all 1 are in use"):
        pool.connection().__enter__()
    assert pool.statistics.waiting == 0
    with pool.connection():
        pass


def test_a_deadline_ends_the_waiting_too(pool_of):
    """`DeadlineExceeded` in the phase `connect`."""
    pool = pool_of(max_size=1)
    with pool.connection(), pytest.raises(DeadlineExceeded) as caught:
        run_transaction(lambda tx: None, source=pool, timeout=0.05)
    assert caught.value.phase == "connect"


def test_first_come_first_served(pool_of):
    """The order in which threads came is the order in which they get one."""
    pool = pool_of(max_size=1)
    order, threads = [], []

    def use(number):
        with pool.connection():
            order.append(number)

    with pool.connection():
        for number in range(8):
            thread = threading.Thread(target=use, args=(number,))
            thread.start()
            threads.append(thread)
            while pool.statistics.waiting <= number:
                pass
    for thread in threads:
        thread.join()
    assert order == list(range(8))


def test_a_failed_opening_gives_its_place_to_the_next(dsql, pool_of):
    """Nobody waits for a connection that will never come."""
    pool = pool_of(max_size=1)
    dsql.refuse_connections(reason="access")
    with pytest.raises(ConnectError, match="not authorized"):
        pool.connection().__enter__()
    assert pool.statistics.size == 0
    with pool.connection():
        pass


def test_closing_closes_all_and_waits_for_what_is_out(pool_of):
    """Idle ones at once; waiting threads are told; one that is out is closed when it comes back."""
    pool = pool_of(max_size=2)
    entered, leave = threading.Event(), threading.Event()
    with pool.connection() as idle:
        pass

    def hold():
        with pool.connection() as held, pool.connection() as other:
            entered.set()
            leave.wait(5)
        return held, other

    with ThreadPoolExecutor() as executor:
        holding = executor.submit(hold)
        entered.wait(5)
        waiting = executor.submit(lambda: pool.connection().__enter__())
        while not pool.statistics.waiting:
            pass
        closing = executor.submit(pool.close)
        with pytest.raises(ConnectError, match="the pool is closed"):
            waiting.result(5)
        assert not closing.done()
        leave.set()
        closing.result(5)
        held, other = holding.result(5)
    assert idle._session.is_closed
    assert held._session.is_closed
    assert other._session.is_closed
    assert pool.statistics.size == 0
    with pytest.raises(ConnectError, match="the pool is closed"):
        pool.connection().__enter__()
    pool.close()


def test_min_size_is_kept_open(dsql, pool_of):
    """Before anybody asks."""
    pool = pool_of(min_size=3)
    end = time.monotonic() + 5
    while pool.statistics.idle < 3 and time.monotonic() < end:
        pass
    assert (pool.statistics.size, pool.statistics.idle) == (3, 3)


def test_the_token_is_refreshed_in_the_background(dsql, options, wall_clock):
    """At 80 % of its life, before anybody connects with the old one; the server refuses that one, and takes the new."""
    credentials = Credentials(access_key="defaultkey", secret_key="defaultsecret")
    with Pool(options, credentials=credentials, token_duration_secs=5, system=System(clock=wall_clock.time)) as pool:
        with pool.connection():
            first = pool._recycler.factory.signer.token()
        end = time.monotonic() + 10
        while pool._recycler.factory.signer._kept and pool._recycler.factory.signer._kept[0] is first and time.monotonic() < end:
            threading.Event().wait(0.02)
        assert pool._recycler.factory.signer._kept
        assert pool._recycler.factory.signer._kept[0].signed_at > first.signed_at
        wall_clock.ahead_by += max(0.0, first.expires_at + 0.5 - wall_clock.time())
        with pool.connection(), pool.connection() as second:
            assert second.run("SELECT 1") == [[1]]
        assert count(dsql, "refused") == 0
        factory = ConnectionFactory(options, keeps_token=False)
        factory.signer = OldToken(first)
        with pytest.raises(ConnectError, match="Signature expired"):
            factory.open(Connection)


class OldToken(Signer):
    """Signs nothing: gives a token that it was given."""

    def __init__(self, token):
        self._token = token

    def sign(self, at=None):
        return self._token

    def forget(self):
        """It has no other."""


def test_in_lambda_there_is_no_thread(pool_of, monkeypatch):
    """Threads freeze there: tokens are signed on demand."""
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")
    pool = pool_of(min_size=1)
    with pool.connection():
        assert not [each for each in threading.enumerate() if each.name == "dsql-pool"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_size", 0),
        ("max_size", 1.5),
        ("min_size", 11),
        ("max_lifetime", 0),
        ("max_lifetime", 3601),
        ("max_idle", -1),
        ("acquire_timeout", 0),
    ],
)
def test_a_size_or_time_that_is_none_is_refused(options, field, value):
    """By name."""
    with pytest.raises(ConfigError, match=field):
        Pool(options, **{field: value})


def test_many_threads_share_a_few_connections(dsql, pool_of, capsys):
    """64 threads on a pool of 4, 20,000 transactions: nothing leaked, nobody starved, every connection used again."""
    pool = pool_of(max_size=4, acquire_timeout=60.0)
    rounds = 20_000 // 64

    def work(number):
        for _ in range(rounds):
            pool.transaction_with_retry(lambda tx: tx.value("SELECT 1"))

    started_at = time.monotonic()
    with ThreadPoolExecutor(max_workers=64) as executor:
        list(executor.map(work, range(64)))
    statistics = pool.statistics
    with capsys.disabled():
        print(f"\npool: {64 * rounds} transactions in {time.monotonic() - started_at:.1f} s, {statistics}")
    assert (statistics.size, statistics.idle, statistics.waiting, statistics.opened) == (4, 4, 0, 4)
    assert statistics.longest_wait < 60


def test_a_thread_that_is_interrupted_while_it_waits_loses_no_place(pool_of):
    """A signal's exception, or Ctrl-C."""
    pool = pool_of(max_size=1)

    class Interrupted(BaseException):
        """What a signal handler raises."""

    def interrupt(*_):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pool.connection():
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(Interrupted):
                pool.connection().__enter__()
            assert pool.statistics.waiting == 0
    finally:
        signal.signal(signal.SIGALRM, before)
    with pool.connection() as connection:
        assert connection.run("SELECT 1") == [[1]]


def test_the_thread_survives_any_failure(dsql, pool_of):
    """One that `configure` raised, say; it tries again with the next turn."""
    tried = threading.Event()

    def fail(connection):
        tried.set()
        raise ZeroDivisionError

    thread = pool_of(min_size=1, configure=fail)._recycler._thread
    assert tried.wait(5)
    assert thread is not None
    thread.join(0.2)
    assert thread.is_alive()


def test_two_threads_end_when_the_pool_is_closed(pool_of):
    """Two that are the first to want a connection may start one each; neither is waited for in vain."""
    pool = pool_of()
    threads = []
    for _ in range(2):
        pool._recycler._thread = None
        pool._recycler.start()
        threads.append(pool._recycler._thread)
    started = time.monotonic()
    pool.close()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert time.monotonic() - started < 5


def test_a_forked_child_leaves_the_parents_connections_alone(dsql, pool_of):
    """Also when it closes the pool: not a byte goes out on them."""
    pool = pool_of()
    with pool.connection() as connection:
        first = backend_of(connection)
    child = os.fork()
    if child == 0:
        try:
            pool.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    with pool.connection() as connection:
        assert backend_of(connection) == first
        assert connection.run("SELECT 1") == [[1]]


def test_a_transaction_inside_a_transaction_of_the_pool_is_refused(pool_of):
    """It would be another one, and commit by itself."""
    pool = pool_of()

    def outer(tx):
        with pytest.raises(TransactionError, match="no savepoints: pass its tx on to join it"):
            pool.transaction_with_retry(lambda inner: None)
        return tx.value("SELECT 1")

    assert pool.transaction_with_retry(outer) == 1
    assert pool.statistics.opened == 1


# What transactions on it get that are given none


def test_its_retry_and_logger_are_the_defaults_of_its_transactions(dsql, pool_of, stage):
    """Of each way to run one on it; what a transaction is given itself comes first."""
    pool = pool_of(retry=OCCRetryConfig(max_attempts=2), logger=stage.logger)

    def add(tx):
        tx.run(ADD, amount=1, id=1)

    ways = [
        lambda **more: pool.transaction_with_retry(add, **more),
        lambda **more: run_transaction(add, source=pool, **more),
        lambda **more: with_dsql_transaction(source=pool, **more)(add)(),
    ]
    for run in ways:
        dsql.conflict_next(2)
        with pytest.raises(OCCRetryExhausted):
            run()
        assert stage.logger.messages == ["OCC conflict, retrying", "OCC retry exhausted"]
        dsql.conflict_next(2)
        run(retry=OCCRetryConfig(max_attempts=3))
        stage.logger.records.clear()
    assert stage.balances()[0] == 103


def test_a_logger_that_is_given_comes_before_the_pools(dsql, pool_of, stage):
    """A handler's own."""
    own = type(stage.logger)()

    @with_dsql_transaction(source=pool_of(logger=stage.logger), logger=own)
    def handler(tx):
        tx.run(ADD, amount=1, id=1)

    dsql.conflict_next()
    handler()
    assert (own.messages, stage.logger.messages) == (["OCC conflict, retrying"], [])


def test_a_retry_that_is_none_is_refused(options):
    """When the pool is made."""
    with pytest.raises(TypeError, match="OCCRetryConfig"):
        Pool(options, retry=3)  # type: ignore[arg-type]
