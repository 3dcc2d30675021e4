"""Unit tests of a handler with no database: `create_autospec(Transaction, instance=True)` stands in for `tx`."""

import inspect
from unittest.mock import Mock, create_autospec

import pytest

from dsql_lambda import Idempotency, Transaction, cache, with_dsql_transaction

WITHDRAW = "UPDATE accounts SET balance = balance - :a WHERE id = :id"


@pytest.fixture
def tx(monkeypatch):
    """A stand-in, in an environment that knows no cluster."""
    for name in ("DSQL_HOST", "DSQL_URL", "DSQL_CLUSTER_ID", "CLUSTER_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    cache._from_environment.clear()
    return create_autospec(Transaction, instance=True)


@with_dsql_transaction
def lambda_handler(event, context, tx):
    """What is tested."""
    if tx.value("SELECT balance FROM accounts WHERE id = :id", id=event["id"]) < event["amount"]:
        return {"statusCode": 409}
    tx.defer(WITHDRAW, expect_rows=1, a=event["amount"], id=event["id"])
    tx.after_commit(print, "withdrawn")
    return {"statusCode": 200, "attempt": tx.attempt}


def test_a_handler_runs_on_a_stand_in(tx):
    """Called with `tx=` it joins: nothing is connected, nothing is committed, nothing is retried."""
    tx.value.return_value = 100
    tx.attempt = 2
    assert lambda_handler({"id": 1, "amount": 40}, None, tx=tx) == {"statusCode": 200, "attempt": 2}
    tx.defer.assert_called_once_with(WITHDRAW, expect_rows=1, a=40, id=1)
    tx.after_commit.assert_called_once_with(print, "withdrawn")
    assert lambda_handler({"id": 1, "amount": 400}, None, tx=tx) == {"statusCode": 409}
    tx.run.side_effect = ValueError("refused")
    with pytest.raises(ValueError, match="refused"):
        tx.run("SELECT 1")


def test_it_has_what_a_transaction_has_and_nothing_else(tx):
    """A misspelt method, and a call that would fail, fail in the test."""
    for name, member in inspect.getmembers(Transaction, inspect.isfunction):
        if not name.startswith("_"):
            assert callable(getattr(tx, name)), member
    assert tx.attempt is not None
    tx.connection = Mock()
    tx.connection.run("COPY accounts FROM STDIN")
    with tx.stream("SELECT id FROM accounts") as rows:
        assert list(rows) == []
    with pytest.raises(AttributeError, match="querry"):
        tx.querry("SELECT 1")
    with pytest.raises(TypeError, match="sql"):
        tx.run()
    with pytest.raises(TypeError, match="too many positional"):
        tx.rows("SELECT :a", {"a": 1})
    assert isinstance(tx, Transaction)


def test_a_key_asks_the_stand_in_for_its_row(tx):
    """No row is a new key."""

    @with_dsql_transaction(idempotency=Idempotency(key="id"))
    def handler(event, context, tx):
        return "done"

    tx.run.return_value = []
    tx.has_ended = False
    assert handler({"id": 1}, None, tx=tx) == "done"
    assert tx.defer.call_args.kwargs["result"] == '"done"'
