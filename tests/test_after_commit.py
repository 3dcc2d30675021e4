"""`tx.after_commit`: what happens once, after COMMIT was answered."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dsql_lambda import (
    AfterCommitError,
    CommitOutcomeUnknown,
    Idempotency,
    TransactionError,
    connect,
    run_transaction,
    with_dsql_transaction,
)

ADD = "UPDATE accounts SET balance = balance + 1 WHERE id = 1"


@pytest.fixture
def said():
    return []


def test_it_runs_once_in_order_after_commit(stage, said):
    """Over two conflicts too: what the attempts that lost asked for is forgotten."""
    stage.dsql.conflict_next(2)

    def add(tx):
        tx.defer(ADD)
        tx.after_commit(lambda: said.append((tx.attempt, stage.balances()[0])))
        tx.after_commit(said.append, "second")
        return "value"

    assert stage.run(add) == "value"
    assert said == [(3, 101), "second"]


def test_never_after_a_rollback_or_an_error(stage, said):
    """Nothing was committed."""

    def rolls_back(tx):
        tx.after_commit(said.append, 1)
        tx.rollback()
        return "rolled back"

    def raises(tx):
        tx.after_commit(said.append, 1)
        raise ValueError("no")

    def lost(tx):
        tx.defer(ADD)
        tx.after_commit(said.append, 1)

    assert stage.run(rolls_back) == "rolled back"
    with pytest.raises(ValueError, match="no"):
        stage.run(raises)
    stage.dsql.cut("after-commit-sent")
    with pytest.raises(CommitOutcomeUnknown):
        stage.run(lost)
    assert said == []


def test_a_joined_function_adds_to_the_transaction_that_it_joined(options, said):
    """Its functions wait for the one COMMIT."""

    @with_dsql_transaction(options=options)
    def inner(tx):
        tx.after_commit(said.append, "inner")

    @with_dsql_transaction(options=options)
    def outer(tx):
        inner(tx=tx)
        assert said == []
        tx.after_commit(said.append, "outer")

    outer()
    assert said == ["inner", "outer"]


def test_it_may_run_a_transaction_of_its_own(options, said):
    """The connection was given back."""

    @with_dsql_transaction(options=options)
    def other(tx):
        return tx.value("SELECT balance FROM accounts WHERE id = 1")

    @with_dsql_transaction(options=options)
    def handler(tx):
        tx.defer(ADD)
        tx.after_commit(lambda: said.append(other()))

    handler()
    assert said == [101]


def test_what_they_raise_is_logged_collected_and_raised_with_the_value(stage, said):
    """All of them run; the work is committed, and the error says so."""

    def fails(number):
        raise ValueError(f"metric {number}")

    def add(tx):
        tx.defer(ADD)
        tx.after_commit(fails, 1)
        tx.after_commit(said.append, "ran")
        tx.after_commit(fails, 2)
        return "value"

    with pytest.raises(AfterCommitError, match="is committed, and then 2 of 3 functions.*ValueError: metric 1") as caught:
        stage.run(add)
    assert (caught.value.value, [str(each) for each in caught.value.errors]) == ("value", ["metric 1", "metric 2"])
    assert caught.value.__cause__ is caught.value.errors[0]
    assert (said, stage.balances()[0]) == (["ran"], 101)
    assert stage.logger.messages == ["after_commit function failed"] * 2
    assert [fields["error"] for _, _, fields in stage.logger.records] == ["ValueError"] * 2
    assert stage.run(lambda tx: "next") == "next"


def test_in_a_block_too(options, said):
    """A transaction without retry has the same effects after it."""
    with connect(options) as connection:
        with connection.transaction() as tx:
            tx.run(ADD)
            tx.after_commit(said.append, 1)
            assert said == []
        assert said == [1]
        with pytest.raises(ZeroDivisionError), connection.transaction() as tx:
            tx.after_commit(said.append, 2)
            _ = 1 / 0
        with pytest.raises(AfterCommitError), connection.transaction() as tx:
            tx.run(ADD)
            tx.after_commit(lambda: 1 / 0)
        assert connection.run("SELECT balance FROM accounts WHERE id = 1") == [[102]]
    assert said == [1]


@pytest.mark.parametrize("applied", [True, False])
def test_with_a_key_they_run_once_when_a_lost_commit_is_settled(dsql, options, said, applied):
    """If this call's own COMMIT landed, it was answered late; a second delivery has nothing to do."""
    key = Idempotency(key="@", scope="settled")
    dsql.execute("DROP TABLE IF EXISTS dsql_lambda_idempotency")
    dsql.execute(key.create_table())

    def add(tx):
        tx.defer(ADD)
        tx.after_commit(said.append, tx.attempt)
        return "x"

    dsql.cut("after-commit-sent", applied=applied)
    with connect(options) as warm, connect(options):
        warm.run("SELECT 1")

    @with_dsql_transaction(options=options, idempotency=key)
    def handler(event, tx):
        return add(tx)

    assert handler("k") == handler("k") == "x"
    assert said == ([1] if applied else [2])


def test_a_function_is_wanted_and_a_transaction_that_is_open(options):
    """Each error says what was wrong."""
    with connect(options) as connection:

        def wrong(tx):
            with pytest.raises(TypeError, match="not a str"):
                tx.after_commit("print")
            return tx

        tx = run_transaction(wrong, source=connection)
        with pytest.raises(TransactionError, match="has ended"):
            tx.after_commit(print)


def test_the_documentations_example_counts_a_transfer_once_over_two_conflicts(dsql, options):
    """The metric is added after COMMIT, in the attempt that committed."""
    page = (Path(__file__).parents[1] / "docs" / "exactly-once.md").read_text()
    (code,) = [each for each in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if '"Transfers"' in each]
    code += "from dsql_local.lambda_context import LambdaContext\n"
    code += "lambda_handler({'source': 1, 'amount': 5}, LambdaContext())\n"
    dsql.conflict_next(2)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **dsql.environment, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["message"] for each in records if "message" in each] == ["OCC conflict, retrying"] * 2
    assert [each["Transfers"] for each in records if "Transfers" in each] == [[1.0]]
    assert [each["TransactionAttempts"] for each in records if "Transfers" in each] == [[3.0]]
    assert [each["occ_type"] for each in records if "OccConflict" in each] == ["data"] * 2
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["95"]]
