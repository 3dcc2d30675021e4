"""The ledger's routes end to end: the built layer and function, AWS's emulator, a local DSQL."""

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
ACCOUNTS = [{"id": "alice", "balance": 100_000}, {"id": "bob", "balance": 25_000}, {"id": "carol", "balance": 0}]
WITHOUT_KEY = "send the header idempotency-key: a new UUID for each transfer, the same one when you try again"
MADE = {"source": "alice", "target": "bob", "amount": 2500, "balances": {"alice": 97_500, "bob": 27_500}}
REPLAYED: dict[str, tuple[int, Any]] = {
    "ledger-page": (200, None),
    "ledger-accounts": (200, {"accounts": ACCOUNTS}),
    "ledger-account": (200, ACCOUNTS[0]),
    "ledger-open-account": (201, {"id": "dave", "balance": 5000}),
    "ledger-transfer": (201, MADE),
    "ledger-transfer-without-key": (400, {"statusCode": 400, "message": WITHOUT_KEY}),
    "ledger-transfers": (200, {"transfers": []}),
}


def event(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text())


def post(path: str, body: object, key: str = "") -> Any:
    asked = event("ledger-transfer")
    http = {**asked["requestContext"]["http"], "path": path}
    text = body if isinstance(body, str) else json.dumps(body)
    headers = {"content-type": "application/json", "idempotency-key": key or str(uuid.uuid4())}
    return {
        **asked,
        "rawPath": path,
        "requestContext": {**asked["requestContext"], "http": http},
        "body": text,
        "headers": headers,
    }


def get(path: str, **query: str) -> Any:
    asked = event("ledger-transfers")
    http = {**asked["requestContext"]["http"], "path": path}
    context = {**asked["requestContext"], "http": http}
    return {**asked, "rawPath": path, "requestContext": context, "queryStringParameters": query}


def answered(invocation: Invocation) -> tuple[int, Any]:
    assert not invocation.failed, invocation
    return invocation.response["statusCode"], json.loads(invocation.response["body"])


def balances(cluster: LocalDsql) -> dict[Any, Any]:
    return dict(cluster.execute("SELECT id, balance FROM accounts ORDER BY id"))  # type: ignore[arg-type]


@pytest.fixture
def ledger(environments: Environments, cluster: LocalDsql) -> RuntimeInterfaceEmulator:
    return environments("LedgerFunction")


def test_every_event_is_replayed() -> None:
    """An event that no test replays would be documentation that nobody checks."""
    assert {path.stem for path in EVENTS.glob("ledger*.json")} == set(REPLAYED)


@pytest.mark.parametrize("name", [name for name, (_, body) in REPLAYED.items() if body is not None])
def test_an_event_is_answered_as_it_says(ledger: RuntimeInterfaceEmulator, name: str) -> None:
    """Each route, with its status and its body."""
    assert answered(ledger.invoke(event(name))) == REPLAYED[name]


def test_the_page_runs_its_own_script_and_no_other(ledger: RuntimeInterfaceEmulator) -> None:
    """Its policy forbids what it does not need, and what it names is there."""
    page = ledger.invoke(event("ledger-page")).response
    assert page["headers"]["Content-Type"] == "text/html; charset=utf-8"
    policy = page["headers"]["content-security-policy"]
    assert "default-src 'none'; script-src 'self'" in policy
    [source] = re.findall(r'<script src="([^"]+)"', page["body"])
    assert re.findall(r"<script|onclick|javascript:", page["body"]) == ["<script"]
    script = ledger.invoke(get(source)).response
    assert (script["statusCode"], script["headers"]["Content-Type"]) == (200, "text/javascript; charset=utf-8")
    assert "innerHTML" not in script["body"]


def test_a_transfer_is_made_once_and_shown(ledger: RuntimeInterfaceEmulator, cluster: LocalDsql) -> None:
    """Sent again it gets the same response; the list has it once, with its moment."""
    for _ in range(2):
        assert answered(ledger.invoke(event("ledger-transfer"))) == (201, MADE)
    assert balances(cluster) == {"alice": "97500", "bob": "27500", "carol": "0"}
    [shown] = answered(ledger.invoke(event("ledger-transfers")))[1]["transfers"]
    assert {"source": "alice", "target": "bob", "amount": 2500}.items() <= shown.items()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*\+00:00", shown["made_at"])
    assert uuid.UUID(shown["id"])


def test_a_key_belongs_to_one_transfer(ledger: RuntimeInterfaceEmulator, cluster: LocalDsql) -> None:
    """With another body it is refused."""
    order = {"source": "alice", "target": "bob", "amount": 1}
    assert answered(ledger.invoke(post("/ledger/transfers", order, "k")))[0] == 201
    assert answered(ledger.invoke(post("/ledger/transfers", {**order, "amount": 2}, "k")))[0] == 422
    assert balances(cluster)["alice"] == "99999"


def test_a_conflict_is_retried_in_its_route(ledger: RuntimeInterfaceEmulator, cluster: LocalDsql) -> None:
    """And nothing of the lost attempt is seen."""
    cluster.conflict_next(2)
    done = ledger.invoke(event("ledger-transfer"))
    assert answered(done) == (201, MADE)
    assert [each.get("message") for each in done.records()].count("OCC conflict, retrying") == 2
    assert cluster.execute("SELECT count(*) FROM transfers") == [["1"]]


REFUSED: dict[str, tuple[Any, int, str]] = {
    "an unknown account": (get("/ledger/accounts/nobody"), 404, "unknown account nobody"),
    "too long a list": (get("/ledger/transfers", limit="201"), 400, "limit must be a whole number from 1 to 200"),
    "no number": (get("/ledger/transfers", limit="many"), 400, "limit must be a whole number from 1 to 200"),
    "an account that is there": (post("/ledger/accounts", {"id": "bob", "balance": 1}), 409, "account bob exists"),
    "a debt": (
        post("/ledger/accounts", {"id": "eve", "balance": -1}),
        400,
        "balance must be a whole number of cents, at least 0",
    ),
    "no JSON": (post("/ledger/transfers", "{"), 400, "the body must be JSON"),
    "an array": (post("/ledger/transfers", []), 400, "the body must be a JSON object"),
    "to itself": (
        post("/ledger/transfers", {"source": "bob", "target": "bob", "amount": 1}),
        400,
        "source and target must differ",
    ),
    "half a cent": (
        post("/ledger/transfers", {"source": "bob", "target": "alice", "amount": 0.5}),
        400,
        "amount must be a whole number of cents, at least 1",
    ),
    "to nobody": (
        post("/ledger/transfers", {"source": "bob", "target": "nobody", "amount": 1}),
        404,
        "unknown account nobody",
    ),
    "more than there is": (
        post("/ledger/transfers", {"source": "bob", "target": "alice", "amount": 25_001}),
        409,
        "insufficient funds",
    ),
}


def test_what_is_refused_says_why_and_changes_nothing(ledger: RuntimeInterfaceEmulator, cluster: LocalDsql) -> None:
    """A caller's mistake is a 4xx with a reason, never a failure of the function."""
    before = balances(cluster)
    for name, (asked, status, reason) in REFUSED.items():
        answer = answered(ledger.invoke(asked))
        assert (name, answer[0], answer[1]["message"]) == (name, status, reason)
    assert balances(cluster) == before
    assert cluster.execute("SELECT count(*) FROM transfers") == [["0"]]
    assert cluster.execute("SELECT count(*) FROM dsql_lambda_idempotency") == [["0"]]
