"""Round trips, counted at the server's side: what a client sent before it waited for an answer is one.

They do not depend on the machine. `benchmarks/round_trips.py` counts the same for other clients.
"""

import pytest

from dsql_lambda import connect, dial

READ = "SELECT balance FROM accounts WHERE id = :id"
ADD = "UPDATE accounts SET balance = balance + :amount WHERE id = :id"
LONG_IDLE = 61


@pytest.fixture
def warm(stage):
    """A stage whose connection is open, and the log empty."""
    stage.source.get()
    stage.dsql.clear_log()
    return stage


def test_one_statement_outside_a_transaction_is_one(options, dsql):
    """Parse, Bind, Describe, Execute and Sync travel together. (Stock pg8000: 3.)"""
    with connect(options) as connection:
        dsql.clear_log()
        assert connection.run(READ, id=1) == [[100]]
        (flight,) = [event for event in dsql.log if event.kind == "flight"]
    assert flight.messages == ("Parse", "Bind", "Describe", "Execute", "Sync")


@pytest.mark.parametrize("count", [1, 3, 7])
def test_dependent_statements_are_one_each_and_one_for_the_commit(warm, count):
    """BEGIN leaves in the first one's flight: N + 1. (Stock pg8000: 3N + 2.)"""

    def read(tx):
        for _ in range(count):
            tx.value(READ, id=1)

    warm.run(read)
    assert warm.flights() == [("BEGIN", "SELECT"), *[("SELECT",)] * (count - 1), ("COMMIT",)]


@pytest.mark.parametrize("count", [1, 3])
def test_a_long_idle_connection_costs_one_more(warm, wall_clock, count):
    """BEGIN goes ahead alone, so that a link that died is noticed before the function runs."""
    wall_clock.ahead_by += LONG_IDLE

    def read(tx):
        for _ in range(count):
            tx.value(READ, id=1)

    warm.run(read)
    assert warm.flights() == [("BEGIN",), *[("SELECT",)] * count, ("COMMIT",)]


@pytest.mark.parametrize("writes", [1, 2, 10])
def test_a_read_and_then_writes_are_two(warm, writes):
    """The writes leave with the COMMIT. (Stock pg8000: 3N + 2.)"""

    def transfer(tx):
        tx.value(READ, id=1)
        for _ in range(writes):
            tx.defer(ADD, amount=1, id=1)

    warm.run(transfer)
    assert warm.flights() == [("BEGIN", "SELECT"), (*["UPDATE"] * writes, "COMMIT")]
    assert warm.balances()[0] == 100 + writes


@pytest.mark.parametrize("writes", [1, 2, 10])
def test_writes_alone_are_one(warm, writes):
    """BEGIN, all of them and COMMIT, under one Sync."""

    def write(tx):
        for _ in range(writes):
            tx.defer(ADD, amount=1, id=1)

    warm.run(write)
    (flight,) = [event for event in warm.dsql.log if event.kind == "flight"]
    assert flight.messages.count("Sync") == 1
    assert warm.flights() == [("BEGIN", *["UPDATE"] * writes, "COMMIT")]
    assert warm.balances()[0] == 100 + writes


def test_an_empty_transaction_is_none(warm):
    """Nothing is sent. (Stock pg8000: 2.)"""
    assert warm.run(lambda tx: "nothing to do") == "nothing to do"
    assert warm.flights() == []


def test_connecting_asks_for_no_permission_to_speak_tls(options, dsql):
    """Direct TLS: no SSLRequest and no answer to wait for."""
    connect(options).close()
    assert [event.negotiation for event in dsql.log if event.kind == "connect"] == ["direct"]


def test_a_server_that_declined_direct_tls_is_not_asked_again(options, dsql):
    """The choice is remembered for the address: one SSLRequest a connection from then on."""
    address = options.dial_host, options.port
    dial._declined_direct.add(address)
    try:
        connect(options).close()
    finally:
        dial._declined_direct.discard(address)
    assert [event.negotiation for event in dsql.log if event.kind == "connect"] == ["ssl_request"]
