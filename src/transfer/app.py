"""Transfers money between two accounts, once for each idempotency key. A function to copy.

`transfer` may run several times for one request: DSQL reports conflicts at COMMIT, and the layer then retries the transaction.
So it changes nothing except the database, and does that only through `tx`. The key is written in the same transaction: a request
that is sent again, because its response was lost, gets the stored response, and moves no money.
"""

from __future__ import annotations

import base64
import json
import re
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.logging import correlation_paths

from dsql_lambda import Idempotency, IdempotencyKeyMissing, IdempotencyKeyReused, with_dsql_transaction

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from dsql_lambda import Transaction

logger, metrics = Logger(), Metrics()
# A request without a transaction adds no metrics, which Powertools would warn about.
warnings.filterwarnings("ignore", "No application metrics to publish")


class Order(NamedTuple):
    """What a request asks for; the amount is in cents."""

    source: str
    target: str
    amount: int


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP)
@metrics.log_metrics
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Handle a request of the HTTP API (payload format 2.0): respond 200, or 400, 404, 409 or 422 with a reason."""
    # `sam local start-api` keeps the case of headers, an HTTP API does not.
    request = {**event, "headers": {name.lower(): value for name, value in event["headers"].items()}}
    try:
        order = parse_transfer(event)
    except ValueError as reason:
        return response(400, error=str(reason))
    try:
        return transfer(request, context, order)
    except IdempotencyKeyMissing:
        return response(
            400, error="send the header idempotency-key: a new UUID for each transfer, the same one when you try again"
        )
    except IdempotencyKeyReused:
        return response(422, error="this idempotency-key belongs to another transfer: send a new one")


@with_dsql_transaction(logger=logger, metrics=metrics, idempotency=Idempotency(key='headers."idempotency-key"'))
def transfer(event: dict[str, Any], context: LambdaContext, order: Order, tx: Transaction) -> dict[str, Any]:
    """Move the money. A refused transfer is rolled back with its key, so the same request may be tried again."""
    source, target, amount = order
    rows = tx.rows("SELECT id, balance FROM accounts WHERE id IN (:source, :target)", source=source, target=target)
    balance = {row["id"]: row["balance"] for row in rows}
    for account in (source, target):
        if account not in balance:
            tx.rollback()
            return response(404, error=f"unknown account {account}")
    if balance[source] < amount:
        tx.rollback()
        return response(409, error="insufficient funds")
    tx.defer("UPDATE accounts SET balance = balance - :amount WHERE id = :id", amount=amount, id=source)
    tx.defer("UPDATE accounts SET balance = balance + :amount WHERE id = :id", amount=amount, id=target)
    logger.info("transfer attempted", source=source, target=target, amount=amount, attempt=tx.attempt)
    return response(200, balances={source: balance[source] - amount, target: balance[target] + amount})


def parse_transfer(event: dict[str, Any]) -> Order:
    """What a request asks for. Raises ValueError with what is wrong with it."""
    body = event.get("body") or ""
    try:
        found = json.loads(base64.b64decode(body) if event.get("isBase64Encoded") else body)
    except (ValueError, RecursionError):
        raise ValueError("the body must be JSON") from None
    if not isinstance(found, dict):
        raise ValueError("the body must be a JSON object")  # noqa: TRY004 - the request is wrong, not the code
    source, target, amount = parse_account(found, "source"), parse_account(found, "target"), found.get("amount")
    if source == target:
        raise ValueError("source and target must differ")
    if type(amount) is not int or amount <= 0:
        raise ValueError("amount must be a positive whole number of cents")
    return Order(source, target, amount)


def parse_account(found: dict[str, Any], name: str) -> str:
    account = found.get(name)
    if not isinstance(account, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", account):
        raise ValueError(f"{name} must be an account id: 1 to 64 letters, digits, - or _")
    return account


def response(status: int, **body: Any) -> dict[str, Any]:
    """A response for the HTTP API."""
    return {"statusCode": status, "headers": {"content-type": "application/json"}, "body": json.dumps(body)}
