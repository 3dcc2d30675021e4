"""The orders function end to end: the built layer and function, AWS's emulator, a local DSQL."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsql_local import LocalDsql
from dsql_local.sam.rie import RuntimeInterfaceEmulator

Environments = Callable[[str], RuntimeInterfaceEmulator]
EVENTS = Path(__file__).parents[2] / "events"
POISON = ["11111111-0000-4000-8000-000000000003", "11111111-0000-4000-8000-000000000004"]
BOTH = [["o-1", "desk", "2", "59800", "placed"], ["o-2", "lamp", "1", "4500", "placed"]]
# The records to deliver again, the orders, and the stock of desks and lamps.
REPLAYED: dict[str, tuple[list[str], list[list[str]], list[str]]] = {
    "orders": ([], BOTH, ["98", "2"]),
    "orders-redelivered": ([], BOTH, ["98", "2"]),
    "orders-with-poison": (POISON, BOTH, ["98", "2"]),
    "orders-too-many": ([], [["o-5", "lamp", "4", "18000", "refused"]], ["100", "3"]),
}


def event(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text())


def holds(cluster: LocalDsql) -> tuple[list[Any], list[Any]]:
    orders = cluster.execute("SELECT id, product, quantity, price, state FROM orders ORDER BY id")
    stock = cluster.execute("SELECT stock FROM products WHERE id IN ('desk', 'lamp') ORDER BY id")
    return orders, [row[0] for row in stock]


def failed(answer: Any) -> list[str]:
    return [each["itemIdentifier"] for each in answer["batchItemFailures"]]


@pytest.fixture
def function(environments: Environments, cluster: LocalDsql) -> RuntimeInterfaceEmulator:
    return environments("OrdersFunction")


def test_every_event_is_replayed() -> None:
    """An event that no test replays would be documentation that nobody checks."""
    assert {path.stem for path in EVENTS.glob("orders*.json")} == set(REPLAYED)


@pytest.mark.parametrize("name", REPLAYED)
def test_a_batch_is_answered_as_it_says(function: RuntimeInterfaceEmulator, cluster: LocalDsql, name: str) -> None:
    """The records to deliver again, and what is in the database afterwards."""
    again, orders, stock = REPLAYED[name]
    done = function.invoke(event(name))
    assert not done.failed, done
    assert failed(done.response) == again
    assert holds(cluster) == (orders, stock)


def test_a_batch_that_is_delivered_again_changes_nothing(function: RuntimeInterfaceEmulator, cluster: LocalDsql) -> None:
    """Lambda may deliver a batch again whose answer it did not get."""
    for _ in range(2):
        assert failed(function.invoke(event("orders")).response) == []
    assert holds(cluster) == (BOTH, ["98", "2"])


def test_a_conflict_concerns_one_record(function: RuntimeInterfaceEmulator, cluster: LocalDsql) -> None:
    """It is retried alone, and the log of each order comes once, when it is committed."""
    cluster.conflict_next(1)
    done = function.invoke(event("orders"))
    messages = [record.get("message") for record in done.records()]
    assert messages.count("OCC conflict, retrying") == 1
    assert messages.count("order placed") == 2
    assert holds(cluster) == (BOTH, ["98", "2"])


@pytest.mark.parametrize("applied", [True, False])
def test_a_lost_answer_to_commit_neither_loses_nor_doubles_an_order(
    function: RuntimeInterfaceEmulator, cluster: LocalDsql, applied: bool
) -> None:
    """The message id settles what became of it."""
    cluster.cut("after-commit-sent", applied=applied)
    assert failed(function.invoke(event("orders")).response) == []
    assert holds(cluster) == (BOTH, ["98", "2"])


def test_a_failed_record_is_named_in_the_log_and_succeeds_when_its_cause_is_gone(
    function: RuntimeInterfaceEmulator, cluster: LocalDsql
) -> None:
    """It left no key: delivered again, it is tried again, and the others of its batch are not repeated."""
    done = function.invoke(event("orders-with-poison"))
    named = [record["message_id"] for record in done.records() if record.get("message") == "order failed"]
    assert named == POISON
    cluster.execute("INSERT INTO products VALUES ('unicorn', 1, 100)")
    assert failed(function.invoke(event("orders-with-poison")).response) == POISON[:1]
    assert holds(cluster) == ([*BOTH, ["o-4", "unicorn", "1", "100", "placed"]], ["98", "2"])


BAD: dict[str, object] = {
    "an array": [],
    "no order": {"product": "desk", "quantity": 1},
    "a number for a product": {"order": "o-9", "product": 7, "quantity": 1},
    "nothing": {"order": "o-9", "product": "desk", "quantity": 0},
    "a truth": {"order": "o-9", "product": "desk", "quantity": True},
    "too much": {"order": "o-9", "product": "desk", "quantity": 10_001},
}


def test_a_batch_of_nothing_but_bad_messages_is_reported(function: RuntimeInterfaceEmulator, cluster: LocalDsql) -> None:
    """Each is reported to SQS, which moves it to the dead letters in the end; the function itself does not fail."""
    [template] = event("orders-too-many")["Records"]
    records = [{**template, "messageId": name, "body": json.dumps(body)} for name, body in BAD.items()]
    done = function.invoke({"Records": records})
    assert not done.failed
    assert failed(done.response) == list(BAD)
    assert holds(cluster) == ([], ["100", "3"])
