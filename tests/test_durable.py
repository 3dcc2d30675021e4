"""`durable_transaction`, and the durable order: killed at every checkpoint and at every message of COMMIT, applied once.

`DURABLE_STEPS` says how many steps the campaign has. The SDK lives in `.venv/durable`, which `make test` fills.
"""

import gc
import importlib.util
import json
import logging
import os
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SDK = os.environ.get("DURABLE_SDK", str(Path(sys.prefix) / "durable"))
if SDK not in sys.path:
    sys.path.append(SDK)
if importlib.util.find_spec("aws_durable_execution_sdk_python_testing") is None:
    pytest.skip("the SDK of durable functions is not there: `make test` fetches it", allow_module_level=True)

from aws_durable_execution_sdk_python import durable_execution  # noqa: E402
from aws_durable_execution_sdk_python.exceptions import CheckpointError  # noqa: E402
from aws_durable_execution_sdk_python_testing import DurableFunctionTestRunner  # noqa: E402

from dsql_lambda import Pool, TransactionError, durable_transaction, with_dsql_transaction  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # its runner leaves event loops behind

STEPS = int(os.environ.get("DURABLE_STEPS", "1000"))
STEPS_AN_EXECUTION = 50
CUTS = [
    *(("at-parse", "at-bind", "at-describe", "at-execute", "at-sync")),
    *(("before-first-flight", "before-commit", "after-commit-sent", "after-commit-sent applied=no", "mid-reply", "after-reply")),
]


class Service:
    """The service of checkpoints, with the runs of a function that die at one of them: before it was recorded, or just after."""

    def __init__(self, inner):
        self.inner = inner
        self.count = 0
        self.kills: dict[int, str] = {}

    def get_execution_state(self, *args, **keywords):
        return self.inner.get_execution_state(*args, **keywords)

    def checkpoint(self, *args, **keywords):
        self.count += 1
        dies = self.kills.pop(self.count, "")
        if dies == "before":
            raise CheckpointError("killed")
        answer = self.inner.checkpoint(*args, **keywords)
        if dies:
            raise CheckpointError("killed")
        return answer


def run(handler, event, kills=None, seconds=60):
    """Execute a durable handler to its end: its status, its result, and the number of checkpoints."""
    with DurableFunctionTestRunner(handler=handler, poll_interval=0.005) as runner:
        runner._executor.RETRY_BACKOFF_SECONDS = 0
        runner._executor.MAX_CONSECUTIVE_FAILED_ATTEMPTS = 10**6
        service = runner._invoker.service_client = Service(runner._service_client)
        service.kills.update(kills or {})
        done = runner.run(input=json.dumps(event), execution_timeout=seconds)
    return done.status.value, json.loads(done.result) if done.result else done.error, service.count


@pytest.fixture(autouse=True)
def environment(dsql, options, monkeypatch):
    """The environment of a function, and the tables of the order."""
    for name, value in {**dsql.environment, "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    dsql.execute("DROP TABLE IF EXISTS products, customers, orders, dsql_lambda_idempotency")
    dsql.execute((ROOT / "migrations" / "0002_orders.sql").read_text())
    dsql.execute("INSERT INTO products VALUES ('book', 10, 30); INSERT INTO customers VALUES ('rich', 100), ('poor', 10)")
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


def test_a_campaign_of_steps_with_kills_and_cuts_loses_and_doubles_none(dsql, options):
    """By seed: a kill in every fifth checkpoint, a fault in every fourth run of a step."""
    seed = random.Random(12)
    dsql.execute(
        "DROP TABLE IF EXISTS done; CREATE TABLE done (execution int, step int, runs int, PRIMARY KEY (execution, step))"
    )
    faults: list[Any] = [
        lambda: dsql.cut("after-commit-sent"),
        lambda: dsql.cut("after-commit-sent", applied=False),
        lambda: dsql.cut("before-commit"),
        lambda: dsql.cut("mid-reply"),
        lambda: dsql.cut("after-reply"),
        dsql.conflict_next,
        lambda: dsql.unavailable(applied=seed.random() < 0.5),
    ]
    injected = killed = 0
    with Pool(options) as pool:

        @durable_execution
        def handler(event, context):
            def step(number):
                def add(tx):
                    nonlocal injected
                    if tx.attempt == 1 and seed.random() < 0.25:
                        injected += 1
                        seed.choice(faults)()
                    tx.defer("UPDATE done SET runs = runs + 1 WHERE execution = :e AND step = :s", e=event["execution"], s=number)
                    return number

                return add

            for number in range(STEPS_AN_EXECUTION):
                assert durable_transaction(context, step(number), name=f"step {number}", source=pool) == number
            return "done"

        for execution in range(STEPS // STEPS_AN_EXECUTION):
            kills = {n: seed.choice(["before", "after"]) for n in range(1, 4 * STEPS_AN_EXECUTION) if seed.random() < 0.2}
            dsql.clear_faults()
            dsql.execute(f"INSERT INTO done SELECT {execution}, n, 0 FROM generate_series(0, {STEPS_AN_EXECUTION - 1}) AS n")
            status, result, checkpoints = run(handler, {"execution": execution}, kills, seconds=600)
            killed += sum(number <= checkpoints for number in kills)
            assert (status, result) == ("SUCCEEDED", "done"), result
    dsql.clear_faults()
    count = STEPS // STEPS_AN_EXECUTION * STEPS_AN_EXECUTION
    ((lost, doubled),) = dsql.execute("SELECT count(*) FILTER (WHERE runs = 0), count(*) FILTER (WHERE runs > 1) FROM done")
    print(f"durable steps: {count}, kills {killed}, faults {injected}, lost {lost}, doubled {doubled}")
    assert (lost, doubled) == ("0", "0")
