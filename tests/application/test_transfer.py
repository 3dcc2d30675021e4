"""The transfer function end to end: the built layer and function, AWS's emulator, a local DSQL."""

import base64
import json
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsql_local import LocalDsql
from dsql_local.sam.rie import Invocation, RuntimeInterfaceEmulator

Environments = Callable[[str], RuntimeInterfaceEmulator]
EVENTS = Path(__file__).parents[2] / "events"
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
UNCHANGED = {"alice": 100_000, "bob": 25_000, "carol": 0}
WITHOUT_KEY = "send the header idempotency-key: a new UUID for each transfer, the same one when you try again"
REPLAYED = {
    "transfer": (200, {"balances": {"alice": 97_500, "bob": 27_500}}, {"alice": 97_500, "bob": 27_500, "carol": 0}),
    "transfer-too-little-money": (409, {"error": "insufficient funds"}, UNCHANGED),
    "transfer-bad-input": (400, {"error": "amount must be a positive whole number of cents"}, UNCHANGED),
    "transfer-unknown-account": (404, {"error": "unknown account nobody"}, UNCHANGED),
    "transfer-without-key": (400, {"error": WITHOUT_KEY}, UNCHANGED),
}


def event(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text())


def request(body: object, *, encoded: bool = False, header: str = "idempotency-key") -> Any:
    """The transfer's event with another body, and a key of its own."""
    text = body if isinstance(body, str) else json.dumps(body)
    return {
        **event("transfer"),
        "headers": {header: str(uuid.uuid4())},
        "body": base64.b64encode(text.encode()).decode() if encoded else text,
        "isBase64Encoded": encoded,
    }


def transfers(cents: int = 2500) -> Any:
    return request({"source": "alice", "target": "bob", "amount": cents})


def answered(invocation: Invocation) -> tuple[int, Any]:
    assert not invocation.failed, invocation
    return invocation.response["statusCode"], json.loads(invocation.response["body"])


def balances(cluster: LocalDsql) -> dict[str, int]:
    return {str(name): int(str(balance)) for name, balance in cluster.execute("SELECT id, balance FROM accounts")}


def startups(cluster: LocalDsql) -> int:
    return len([each for each in cluster.log if each.kind == "startup"])


@pytest.fixture
def warm(environments: Environments, cluster: LocalDsql) -> RuntimeInterfaceEmulator:
    """An execution environment of the transfer function, connected to the cluster."""
    return environments("TransferFunction")


def test_every_event_is_replayed() -> None:
    """An event that no test replays would be documentation that nobody checks."""
    assert {path.stem for path in EVENTS.glob("transfer*.json")} == set(REPLAYED)


@pytest.mark.parametrize("name", REPLAYED)
def test_an_event_is_answered_as_it_says(warm: RuntimeInterfaceEmulator, cluster: LocalDsql, name: str) -> None:
    """The answer, and what is in the database afterwards."""
    status, body, after = REPLAYED[name]
    assert answered(warm.invoke(event(name))) == (status, body)
    assert balances(cluster) == after


def test_log_lines_carry_the_request_s_correlation_id(warm: RuntimeInterfaceEmulator) -> None:
    """One request can be found across the services it passed."""
    [record] = [record for record in warm.invoke(event("transfer")).records() if record.get("message") == "transfer attempted"]
    assert record["correlation_id"] == "event-transfer"
    assert record["service"] == "transfer"


def test_a_warm_invocation_uses_the_same_connection(warm: RuntimeInterfaceEmulator, cluster: LocalDsql) -> None:
    """Once an environment has a connection, no invocation opens another one."""
    assert answered(warm.invoke(transfers()))[0] == 200
    cluster.clear_log()
    for _ in range(2):
        assert answered(warm.invoke(transfers()))[0] == 200
    assert startups(cluster) == 0
    assert balances(cluster)["alice"] == 92_500


def test_conflicts_are_retried_and_logged_and_applied_once(warm: RuntimeInterfaceEmulator, cluster: LocalDsql) -> None:
    """Two failed COMMITs: two records that name the conflict's kind, then a success."""
    cluster.conflict_next(2, "OC000")
    invocation = warm.invoke(event("transfer"))
    assert answered(invocation) == (200, {"balances": {"alice": 97_500, "bob": 27_500}})
    assert balances(cluster) == {"alice": 97_500, "bob": 27_500, "carol": 0}
    records = [record for record in invocation.records() if record.get("message") == "OCC conflict, retrying"]
    shown = [json.loads(line) for line in re.findall(r"^\{.*\}$", README, re.MULTILINE)]
    assert [line["message"] for line in shown] == ["OCC conflict, retrying", "OCC conflict, retrying", "transfer attempted"]
    assert [shown[0].keys() <= records[0].keys(), shown[1].keys() <= records[1].keys()] == [True, True]
    kinds = [(each["level"], each["occ_type"], each["occ_code"], each["sqlstate"], each["attempt"]) for each in records]
    assert kinds == [("INFO", "data", "OC000", "40001", 1), ("INFO", "data", "OC000", "40001", 2)]
    counted = [each for each in invocation.records() if "OccConflict" in each]
    assert [(each["occ_type"], each["service"], each["OccConflict"]) for each in counted] == [("data", "transfer", [1.0])] * 2
    [measured] = [each for each in invocation.records() if "TransactionAttempts" in each]
    assert measured["TransactionAttempts"] == [3.0]
    assert measured["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "dsql-lambda"
    assert all(each["delay_ms"] >= 0 and each["correlation_id"] == "event-transfer" for each in records)


def test_a_request_that_is_sent_again_moves_no_money(warm: RuntimeInterfaceEmulator, cluster: LocalDsql) -> None:
    """The same key gets the stored response, whatever the account holds by then."""
    first = answered(warm.invoke(event("transfer")))
    assert answered(warm.invoke(transfers(97_000)))[0] == 200
    assert answered(warm.invoke(event("transfer"))) == first
    assert balances(cluster) == {"alice": 500, "bob": 124_500, "carol": 0}


def test_a_lost_answer_to_commit_is_settled_by_the_key(warm: RuntimeInterfaceEmulator, cluster: LocalDsql) -> None:
    """Applied or not, the caller gets the response of a transfer that was applied once."""
    for applied, after in ((True, 97_500), (False, 95_000)):
        cluster.cut("after-commit-sent", applied=applied)
        status, body = answered(warm.invoke(transfers()))
        assert (status, body["balances"]["alice"]) == (200, after)
    assert balances(cluster) == {"alice": 95_000, "bob": 30_000, "carol": 0}


def test_a_key_belongs_to_one_transfer(warm: RuntimeInterfaceEmulator, cluster: LocalDsql) -> None:
    """With another body it is refused, and the first transfer stands."""
    first = transfers()
    assert answered(warm.invoke(first))[0] == 200
    other = {**first, "body": transfers(1)["body"]}
    assert answered(warm.invoke(other)) == (422, {"error": "this idempotency-key belongs to another transfer: send a new one"})
    assert balances(cluster)["alice"] == 97_500


def test_a_refused_transfer_may_be_tried_again(warm: RuntimeInterfaceEmulator, cluster: LocalDsql) -> None:
    """Its key is rolled back with it: when the account has money, the same request is applied."""
    refused = request({"source": "carol", "target": "bob", "amount": 1})
    assert answered(warm.invoke(refused))[0] == 409
    cluster.execute("UPDATE accounts SET balance = 1 WHERE id = 'carol'")
    assert answered(warm.invoke(refused)) == (200, {"balances": {"carol": 0, "bob": 25_001}})


def test_the_case_of_the_header_does_not_matter(warm: RuntimeInterfaceEmulator) -> None:
    """HTTP APIs send lower case, `sam local start-api` what the client wrote."""
    order = {"source": "alice", "target": "bob", "amount": 1}
    assert answered(warm.invoke(request(order, header="Idempotency-Key")))[0] == 200


BAD = {
    "no body": ("", "the body must be JSON"),
    "no JSON": ("{", "the body must be JSON"),
    "too deep": ("[" * 100_000, "the body must be JSON"),
    "an array": ([], "the body must be a JSON object"),
    "no source": ({"target": "bob", "amount": 1}, "source must be an account id"),
    "a number for an id": ({"source": "alice", "target": 7, "amount": 1}, "target must be an account id"),
    "a NUL in an id": ({"source": "alice", "target": "b\0b", "amount": 1}, "target must be an account id"),
    "to itself": ({"source": "alice", "target": "alice", "amount": 1}, "source and target must differ"),
    "nothing": ({"source": "alice", "target": "bob", "amount": 0}, "amount must be a positive"),
    "a negative amount": ({"source": "alice", "target": "bob", "amount": -1}, "amount must be a positive"),
    "half a cent": ({"source": "alice", "target": "bob", "amount": 0.5}, "amount must be a positive"),
    "a truth": ({"source": "alice", "target": "bob", "amount": True}, "amount must be a positive"),
}


def test_bad_input_is_refused_with_a_reason(warm: RuntimeInterfaceEmulator, cluster: LocalDsql) -> None:
    """Whatever a caller sends is a 400 that says what to change, never a failure of the function."""
    for name, (body, reason) in BAD.items():
        status, answer = answered(warm.invoke(request(body)))
        assert (name, status) == (name, 400)
        assert answer["error"].startswith(reason)
    assert balances(cluster) == UNCHANGED


def test_no_money_comes_from_or_goes_to_an_unknown_account(warm: RuntimeInterfaceEmulator, cluster: LocalDsql) -> None:
    """Either side may be the unknown one."""
    for source, target in (("alice", "nobody"), ("nobody", "alice")):
        order = {"source": source, "target": target, "amount": 1}
        assert answered(warm.invoke(request(order))) == (404, {"error": "unknown account nobody"})
    assert balances(cluster) == UNCHANGED


def test_an_encoded_body_and_the_last_cent(warm: RuntimeInterfaceEmulator, cluster: LocalDsql) -> None:
    """A gateway may encode the body; all of an account's money may go, and an absurd amount is just too much."""
    order = {"source": "bob", "target": "carol", "amount": 25_000}
    assert answered(warm.invoke(request(order, encoded=True))) == (200, {"balances": {"bob": 0, "carol": 25_000}})
    assert answered(warm.invoke(request({**order, "amount": 10**30}))) == (409, {"error": "insufficient funds"})
    assert balances(cluster) == {"alice": 100_000, "bob": 0, "carol": 25_000}
