"""Transfers money between two accounts in one DSQL transaction. A function to copy.

The handler may run several times for one request: DSQL reports conflicts at COMMIT, and the layer then retries the transaction.
So the handler changes nothing except the database, and does that only through `tx`.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging import correlation_paths

from dsql_lambda import with_dsql_transaction

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from dsql_lambda import Transaction

logger = Logger()


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP)
@with_dsql_transaction(logger=logger)
def lambda_handler(event: dict[str, Any], context: LambdaContext, tx: Transaction) -> dict[str, Any]:
    """Handle a request of the HTTP API (payload format 2.0): respond 200, or 400, 404 or 409 with a reason."""
    try:
        source, target, amount = parse_transfer(event)
    except ValueError as reason:
        return response(400, error=str(reason))
    rows = tx.rows("SELECT id, balance FROM accounts WHERE id IN (:source, :target)", source=source, target=target)
    balance = {row["id"]: row["balance"] for row in rows}
    for account in (source, target):
        if account not in balance:
            return response(404, error=f"unknown account {account}")
    if balance[source] < amount:
        return response(409, error="insufficient funds")
    tx.defer("UPDATE accounts SET balance = balance - :amount WHERE id = :id", amount=amount, id=source)
    tx.defer("UPDATE accounts SET balance = balance + :amount WHERE id = :id", amount=amount, id=target)
    logger.info("transfer attempted", source=source, target=target, amount=amount, attempt=tx.attempt)
    return response(200, balances={source: balance[source] - amount, target: balance[target] + amount})


def parse_transfer(event: dict[str, Any]) -> tuple[str, str, int]:
    """The source, target and amount (in cents) of a request. Raises ValueError with what is wrong with it."""
    body = event.get("body") or ""
    try:
        order = json.loads(base64.b64decode(body) if event.get("isBase64Encoded") else body)
    except (ValueError, RecursionError):
        raise ValueError("the body must be JSON") from None
    if not isinstance(order, dict):
        raise ValueError("the body must be a JSON object")  # noqa: TRY004 - the request is wrong, not the code
    source, target, amount = parse_account(order, "source"), parse_account(order, "target"), order.get("amount")
    if source == target:
        raise ValueError("source and target must differ")
    if type(amount) is not int or amount <= 0:
        raise ValueError("amount must be a positive whole number of cents")
    return source, target, amount


def parse_account(order: dict[str, Any], name: str) -> str:
    account = order.get(name)
    if not isinstance(account, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", account):
        raise ValueError(f"{name} must be an account id: 1 to 64 letters, digits, - or _")
    return account


def response(status: int, **body: Any) -> dict[str, Any]:
    """A response for the HTTP API."""
    return {"statusCode": status, "headers": {"content-type": "application/json"}, "body": json.dumps(body)}
