"""A ledger with several routes, and a page that shows accounts and transfers as they come. A function to copy.

    GET  /ledger                      the page, which asks for the two lists every second
    GET  /ledger/accounts             every account and its balance
    POST /ledger/accounts             {"id": "dave", "balance": 5000}
    GET  /ledger/accounts/<account>   one account
    GET  /ledger/transfers            the newest transfers, at most ?limit=50
    POST /ledger/transfers            {"source": "alice", "target": "bob", "amount": 2500}; the header idempotency-key names it

Each request is one transaction. The page is for `sam local start-api`: the deployed API asks for signed requests, which a browser
does not send.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response, content_types
from aws_lambda_powertools.event_handler.exceptions import BadRequestError, NotFoundError, ServiceError
from aws_lambda_powertools.logging import correlation_paths

from dsql_lambda import Idempotency, IdempotencyKeyMissing, IdempotencyKeyReused, jsonable, with_dsql_transaction

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from dsql_lambda import Transaction

logger, metrics = Logger(), Metrics()
# A request without a transaction adds no metrics, which Powertools would warn about.
warnings.filterwarnings("ignore", "No application metrics to publish")
app = APIGatewayHttpResolver()

FOLDER = Path(__file__).parent
PAGE, SCRIPT = (FOLDER / "page.html").read_text(encoding="utf-8"), (FOLDER / "page.js").read_text(encoding="utf-8")
# The page runs its own script and talks to its own origin; nothing else.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'self'"
)
MOST_TRANSFERS = 200
MOST_CENTS = 10**12


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP)
@metrics.log_metrics
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Handle a request of the HTTP API (payload format 2.0)."""
    return app.resolve(event, context)


@app.get("/ledger")
def page() -> Response[str]:
    headers = {"content-security-policy": POLICY, "cache-control": "no-cache"}
    return Response(status_code=200, content_type=content_types.TEXT_HTML + "; charset=utf-8", body=PAGE, headers=headers)


@app.get("/ledger/page.js")
def script() -> Response[str]:
    return Response(200, "text/javascript; charset=utf-8", SCRIPT, headers={"cache-control": "no-cache"})


@app.get("/ledger/accounts")
@with_dsql_transaction(read_only=True, logger=logger, metrics=metrics)
def accounts(tx: Transaction) -> dict[str, Any]:
    return {"accounts": tx.rows("SELECT id, balance FROM accounts ORDER BY id LIMIT 1000")}


@app.post("/ledger/accounts")
@with_dsql_transaction(logger=logger, metrics=metrics)
def open_account(tx: Transaction) -> tuple[dict[str, Any], int]:
    account, balance = parse_account(body(), "id"), parse_cents(body(), "balance", least=0)
    opened = tx.run(
        "INSERT INTO accounts (id, balance) VALUES (:id, :balance) ON CONFLICT DO NOTHING RETURNING id",
        id=account,
        balance=balance,
    )
    if not opened:
        raise ServiceError(409, f"account {account} exists")
    return {"id": account, "balance": balance}, 201


@app.get("/ledger/accounts/<account>")
@with_dsql_transaction(read_only=True, logger=logger, metrics=metrics)
def one_account(account: str, tx: Transaction) -> dict[str, Any]:
    found = tx.row("SELECT id, balance FROM accounts WHERE id = :id", id=account)
    if found is None:
        raise NotFoundError(f"unknown account {account}")
    return found


@app.get("/ledger/transfers")
@with_dsql_transaction(read_only=True, logger=logger, metrics=metrics)
def transfers(tx: Transaction) -> dict[str, Any]:
    wanted = app.current_event.query_string_parameters.get("limit", "50")
    if not re.fullmatch("[1-9][0-9]{0,2}", wanted) or int(wanted) > MOST_TRANSFERS:
        raise BadRequestError(f"limit must be a whole number from 1 to {MOST_TRANSFERS}")
    rows = tx.rows("SELECT id, source, target, amount, made_at FROM transfers ORDER BY made_at DESC LIMIT :n", n=int(wanted))
    return {"transfers": jsonable(rows)}


@app.post("/ledger/transfers")
def make_transfer() -> tuple[dict[str, Any], int]:
    source, target = parse_account(body(), "source"), parse_account(body(), "target")
    if source == target:
        raise BadRequestError("source and target must differ")
    try:
        return transfer(app.current_event.raw_event, source, target, parse_cents(body(), "amount", least=1)), 201
    except IdempotencyKeyMissing:
        reason = "send the header idempotency-key: a new UUID for each transfer, the same one when you try again"
        raise BadRequestError(reason) from None
    except IdempotencyKeyReused:
        raise ServiceError(422, "this idempotency-key belongs to another transfer: send a new one") from None


@with_dsql_transaction(
    logger=logger, metrics=metrics, idempotency=Idempotency(key=lambda _: app.current_event.headers.get("idempotency-key"))
)
def transfer(event: dict[str, Any], source: str, target: str, amount: int, tx: Transaction) -> dict[str, Any]:
    """Move money, and write down that it was moved. What is raised rolls back, and leaves the key for another try."""
    rows = tx.rows("SELECT id, balance FROM accounts WHERE id IN (:source, :target)", source=source, target=target)
    balance = {row["id"]: row["balance"] for row in rows}
    for account in (source, target):
        if account not in balance:
            raise NotFoundError(f"unknown account {account}")
    if balance[source] < amount:
        raise ServiceError(409, "insufficient funds")
    tx.defer("UPDATE accounts SET balance = balance - :amount WHERE id = :id", amount=amount, id=source)
    tx.defer("UPDATE accounts SET balance = balance + :amount WHERE id = :id", amount=amount, id=target)
    tx.defer(
        "INSERT INTO transfers (source, target, amount) VALUES (:source, :target, :amount)",
        source=source,
        target=target,
        amount=amount,
    )
    balances = {source: balance[source] - amount, target: balance[target] + amount}
    return {"source": source, "target": target, "amount": amount, "balances": balances}


def body() -> dict[str, Any]:
    """The request's JSON object. Raises `BadRequestError`."""
    try:
        found = app.current_event.json_body
    except (ValueError, TypeError, RecursionError):
        raise BadRequestError("the body must be JSON") from None
    if not isinstance(found, dict):
        raise BadRequestError("the body must be a JSON object")
    return found


def parse_account(fields: dict[str, Any], name: str) -> str:
    account = fields.get(name)
    if not isinstance(account, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", account):
        raise BadRequestError(f"{name} must be an account id: 1 to 64 letters, digits, - or _")
    return account


def parse_cents(fields: dict[str, Any], name: str, *, least: int) -> int:
    cents = fields.get(name)
    if type(cents) is not int or not least <= cents <= MOST_CENTS:
        raise BadRequestError(f"{name} must be a whole number of cents, at least {least}")
    return cents
