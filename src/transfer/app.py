"""Moves money between two accounts in one DSQL transaction: a function to copy.

The handler may run several times for one request, for DSQL reports conflicts at COMMIT and the transaction is then tried again:
so it changes nothing but the database, and that only through `tx`.
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
    """Answer one request of the HTTP API (payload format 2.0): 200, or 400, 404 or 409 with a reason."""
    try:
        source, target, amount = read_transfer(event)
    except ValueError as reason:
        return answer(400, error=str(reason))
    rows = tx.rows("SELECT id, balance FROM accounts WHERE id IN (:source, :target)", source=source, target=target)
    balance = {row["id"]: row["balance"] for row in rows}
    for account in (source, target):
        if account not in balance:
            return answer(404, error=f"unknown account {account}")
    if balance[source] < amount:
        return answer(409, error="insufficient funds")
    tx.defer("UPDATE accounts SET balance = balance - :amount WHERE id = :id", amount=amount, id=source)
    tx.defer("UPDATE accounts SET balance = balance + :amount WHERE id = :id", amount=amount, id=target)
    logger.info("transfer tried", source=source, target=target, amount=amount, attempt=tx.attempt)
    return answer(200, balances={source: balance[source] - amount, target: balance[target] + amount})


def read_transfer(event: dict[str, Any]) -> tuple[str, str, int]:
    """The source, target and amount (in cents) that a request asks for; a ValueError says what is wrong with it."""
    body = event.get("body") or ""
    try:
        order = json.loads(base64.b64decode(body) if event.get("isBase64Encoded") else body)
    except (ValueError, RecursionError):
        raise ValueError("the body must be JSON") from None
    if not isinstance(order, dict):
        raise ValueError("the body must be a JSON object")  # noqa: TRY004 - the request is wrong, not the program
    source, target, amount = read_account(order, "source"), read_account(order, "target"), order.get("amount")
    if source == target:
        raise ValueError("source and target must differ")
    if type(amount) is not int or amount <= 0:
        raise ValueError("amount must be a positive whole number of cents")
    return source, target, amount


def read_account(order: dict[str, Any], name: str) -> str:
    account = order.get(name)
    if not isinstance(account, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", account):
        raise ValueError(f"{name} must be an account's id: 1 to 64 letters, digits, - or _")
    return account


def answer(status: int, **body: Any) -> dict[str, Any]:
    """A response of the HTTP API."""
    return {"statusCode": status, "headers": {"content-type": "application/json"}, "body": json.dumps(body)}
