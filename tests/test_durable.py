"""`durable_transaction`, and the durable order: killed at every checkpoint and at every message of COMMIT, applied once.

`DURABLE_STEPS` says how many steps the campaign has. `make test` fetches the SDK.
"""

import gc
import importlib.util
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.campaigns import figures_of
from tests.durable_runner import AFTER, BEFORE, IS_THERE, run

if not IS_THERE:
    pytest.skip("the SDK of durable functions is not there: `make test` fetches it", allow_module_level=True)

from aws_durable_execution_sdk_python import durable_execution

from dsql_lambda import Idempotency, TransactionError, durable_transaction, with_dsql_transaction

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # its runner leaves event loops behind

ROOT = Path(__file__).parents[1]
STEPS = int(os.environ.get("DURABLE_STEPS", "10000"))
CUTS = [
    *(("at-parse", "at-bind", "at-describe", "at-execute", "at-sync")),
    *(("before-first-flight", "before-commit", "after-commit-sent", "after-commit-sent applied=no", "mid-reply", "after-reply")),
]


@pytest.fixture(autouse=True)
def environment(dsql, options, monkeypatch):
    """The environment of a function, and the tables of the order."""
    for name, value in {**dsql.environment, "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    dsql.execute("DROP TABLE IF EXISTS products, customers, orders, dsql_lambda_idempotency")
    for role in ("orders", "durable_order"):
        if not dsql.execute(f"SELECT 1 FROM pg_roles WHERE rolname = '{role}'"):
            dsql.execute(f"CREATE ROLE {role} WITH LOGIN")
    dsql.execute(Idempotency(key="id").create_table())
    dsql.execute((ROOT / "migrations" / "0002_orders.sql").read_text())
    dsql.execute("DELETE FROM products WHERE id <> 'book'")  # the other products are the queue's
    logging.disable(logging.CRITICAL)  # the SDK logs each kill
    yield
    logging.disable(logging.NOTSET)
    gc.collect()


@pytest.fixture
def order(monkeypatch):
    """The example, as Lambda imports it."""
    spec = importlib.util.spec_from_file_location("durable_order_app", ROOT / "src" / "durable_order" / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.lambda_handler


def event(customer="rich", quantity=2):
    return {"order": "o-1", "product": "book", "quantity": quantity, "customer": customer}


def state(dsql):
    """Stock, balances, and orders."""
    return (
        [int(row[0]) for row in dsql.execute("SELECT stock FROM products")],
        [int(row[0]) for row in dsql.execute("SELECT balance FROM customers ORDER BY id")],
        dsql.execute("SELECT id, state FROM orders"),
    )


SETTLED = ([8], [10, 40], [["o-1", "settled"]])
CANCELLED = ([10], [10, 100], [["o-1", "cancelled"]])


def test_an_order_is_settled_cancelled_or_refused(dsql, order):
    """Reserve, wait a day, settle; or give the stock back."""
    assert run(order, event())[:2] == ("SUCCEEDED", {"order": "o-1", "state": "settled", "paid": 60})
    assert state(dsql) == SETTLED
    dsql.execute("DELETE FROM orders; UPDATE products SET stock = 10; UPDATE customers SET balance = 100 WHERE id = 'rich'")
    assert run(order, event("poor"))[1] == {"order": "o-1", "state": "cancelled"}
    assert state(dsql) == CANCELLED
    assert run(order, event(quantity=99))[1] == {"order": "o-1", "state": "refused"}
    assert state(dsql) == CANCELLED


@pytest.mark.parametrize("dies", ["before", "after"])
@pytest.mark.parametrize(("customer", "checkpoints", "ending"), [("rich", 3, SETTLED), ("poor", 4, CANCELLED)])
def test_killed_at_every_checkpoint_it_is_applied_once(dsql, order, customer, checkpoints, ending, dies):
    """Also where the step ran and was not checkpointed: it answers from its receipt."""
    for number in range(1, checkpoints + 1):
        dsql.execute("DELETE FROM orders; UPDATE products SET stock = 10; UPDATE customers SET balance = 100 WHERE id = 'rich'")
        status, _, count = run(order, event(customer), {number: dies})
        assert (status, state(dsql)) == ("SUCCEEDED", ending), number
        assert count >= number


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("cut", CUTS)
def test_cut_at_every_message_of_commit_it_is_applied_once(dsql, order, cut, nth):
    """With the checkpoint that follows killed too, so that the step runs again."""
    place, _, applied = cut.partition(" ")
    dsql.cut(place, applied=applied != "applied=no")
    assert run(order, event(), {nth: "before", nth + 2: "after"})[0] == "SUCCEEDED"
    assert state(dsql) == SETTLED


def test_a_step_whose_outcome_stays_unknown_is_settled_by_its_next_run(dsql, order):
    """The SDK runs a step again that raised; the receipt tells whether it was applied."""
    dsql.cut("after-commit-sent")
    dsql.refuse_connections(1, "access")
    assert run(order, event())[0] == "SUCCEEDED"
    assert state(dsql) == SETTLED


def test_what_a_step_returns_is_the_same_in_each_run(dsql):
    """What JSON makes of it: numerics as text, also the first time."""
    seen = []

    @durable_execution
    def handler(event, context):
        seen.append(durable_transaction(context, lambda tx: tx.row("SELECT 1.10::numeric AS n, 2 AS i"), name="read"))
        return seen[-1]

    assert run(handler, {}, {2: "after"})[1] == {"n": "1.10", "i": 2}
    assert run(handler, {}, {1: "before"})[1] == {"n": "1.10", "i": 2}
    assert all(each == {"n": "1.10", "i": 2} for each in seen)


def test_a_durable_handler_is_no_transaction(dsql):
    """It is run again from its start: the error says what to write instead."""

    @durable_execution
    @with_dsql_transaction
    def handler(event, context, tx):
        return 1

    status, error, _ = run(handler, {})
    assert status == "FAILED"
    assert "write durable_transaction(context, function, name=...)" in error.message


def test_an_sdk_that_does_not_name_the_operation_is_refused():
    """No receipt without a key."""
    context: Any = SimpleNamespace(
        lambda_context=None, step=lambda function, name, config: function(SimpleNamespace(logger=object()))
    )
    with pytest.raises(TransactionError, match="knows version 3 of"):
        durable_transaction(context, lambda tx: 1)


def test_a_campaign_of_steps_with_kills_and_cuts_loses_and_doubles_none():
    """Ten thousand, by two processes; every sixth checkpoint kills, every sixth step meets a fault. `make soak`: every one."""
    found = figures_of(*(f"tests.durable_steps --count {STEPS // 2} --every 6 --first {first}" for first in (0, 5_000)))
    print(*found, sep="\n")
    assert sum(each["steps"] for each in found) == STEPS
    assert [(each["lost"], each["doubled"]) for each in found] == [(0, 0)] * 2
    assert all(each["kinds"][f"killed {when} its checkpoint"] > 0 for each in found for when in (BEFORE, AFTER))
