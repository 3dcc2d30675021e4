"""Counts its calls, by name, in a table of its own."""

from __future__ import annotations

from typing import Any

from dsql_lambda import Transaction, with_dsql_transaction


@with_dsql_transaction
def lambda_handler(event: dict[str, Any], context: Any, tx: Transaction) -> dict[str, Any]:
    """The number of calls with this name, this one included."""
    sql = "INSERT INTO calls (name, n) VALUES (:name, 1) ON CONFLICT (name) DO UPDATE SET n = calls.n + 1 RETURNING n"
    return {"name": event["name"], "calls": tx.value(sql, name=event["name"])}
