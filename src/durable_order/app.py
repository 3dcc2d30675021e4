"""An order that lasts for days: reserve the stock, wait for the payment's due date, settle, or give the stock back.

A durable function is run again from its start after each wait and after each failure; what its steps returned is replayed. Each
transaction is a step with a receipt, so that it is applied once however often its step runs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from aws_durable_execution_sdk_python import durable_execution
from aws_durable_execution_sdk_python.config import Duration

from dsql_lambda import durable_transaction

if TYPE_CHECKING:
    from aws_durable_execution_sdk_python import DurableContext

    from dsql_lambda import Transaction

DUE_AFTER_SECONDS = int(os.environ.get("DUE_AFTER_SECONDS", "86400"))


@durable_execution  # type: ignore[untyped-decorator] # the SDK is not among this project's own packages
def lambda_handler(event: dict[str, Any], context: DurableContext) -> dict[str, Any]:
    """Order `quantity` of `product` for `customer`: what became of it, and what was paid."""
    order, product, quantity, customer = event["order"], event["product"], event["quantity"], event["customer"]

    def reserve(tx: Transaction) -> dict[str, Any] | None:
        row = tx.row("SELECT stock, price FROM products WHERE id = :id", id=product)
        if row is None or row["stock"] < quantity:
            return None
        tx.defer("UPDATE products SET stock = stock - :n WHERE id = :id", n=quantity, id=product)
        price = row["price"] * quantity
        placed = {"id": order, "product": product, "n": quantity, "price": price}
        tx.defer(
            "INSERT INTO orders (id, product, quantity, price, state) VALUES (:id, :product, :n, :price, 'reserved')", **placed
        )
        return {"price": price}

    def settle(tx: Transaction) -> bool:
        price = reserved["price"]
        balance = tx.value("SELECT balance FROM customers WHERE id = :id", id=customer)
        if balance < price:
            return False
        tx.defer("UPDATE customers SET balance = balance - :price WHERE id = :id", price=price, id=customer)
        tx.defer("UPDATE orders SET state = 'settled' WHERE id = :id", expect_rows=1, id=order)
        return True

    def compensate(tx: Transaction) -> None:
        tx.defer("UPDATE products SET stock = stock + :n WHERE id = :id", n=quantity, id=product)
        tx.defer("UPDATE orders SET state = 'cancelled' WHERE id = :id", expect_rows=1, id=order)

    reserved: Any = durable_transaction(context, reserve, name="reserve")
    if reserved is None:
        return {"order": order, "state": "refused"}
    context.wait(Duration.from_seconds(DUE_AFTER_SECONDS), name="until it is due")
    if durable_transaction(context, settle, name="settle"):
        return {"order": order, "state": "settled", "paid": reserved["price"]}
    durable_transaction(context, compensate, name="compensate")
    return {"order": order, "state": "cancelled"}
