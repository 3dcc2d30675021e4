"""Takes orders from a queue, each in a transaction of its own. A function to copy.

SQS delivers a message at least once, and Lambda gets several at a time. Each record is a transaction that is keyed by its message
id: a record that failed is reported and delivered again, alone; one that was committed is not done twice, whatever became of its
batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

from dsql_lambda import Idempotency, with_dsql_transaction

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from dsql_lambda import Transaction

logger, metrics = Logger(), Metrics()
# A batch of which every record fails is no error of the function: its records are reported like any others.
processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)


@logger.inject_lambda_context
@metrics.log_metrics
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> Any:
    """Handle a batch: respond with the records to deliver again (`ReportBatchItemFailures`)."""
    return process_partial_response(event=event, record_handler=handle, processor=processor, context=context)


def handle(record: SQSRecord) -> dict[str, str]:
    """One record. The processor reports what is raised here, and says nothing in the log."""
    try:
        return take_order(record)
    except Exception:
        logger.exception("order failed", message_id=record.message_id)
        raise


@with_dsql_transaction(logger=logger, metrics=metrics, idempotency=Idempotency(key="messageId"))
def take_order(record: SQSRecord, tx: Transaction) -> dict[str, str]:
    """Take the stock of one order: `placed`, or `refused` where there is too little. What is raised is reported to SQS."""
    order, product, quantity = parse_order(record.json_body)
    row = tx.row("SELECT stock, price FROM products WHERE id = :id", id=product)
    if row is None:
        raise ValueError(f"order {order}: unknown product {product}")
    state = "placed" if row["stock"] >= quantity else "refused"
    if state == "placed":
        tx.defer("UPDATE products SET stock = stock - :n WHERE id = :id", n=quantity, id=product)
    tx.defer(
        "INSERT INTO orders (id, product, quantity, price, state) VALUES (:id, :product, :n, :price, :state)",
        id=order,
        product=product,
        n=quantity,
        price=row["price"] * quantity,
        state=state,
    )
    tx.after_commit(lambda: logger.info(f"order {state}", order=order, product=product, quantity=quantity))
    return {"order": order, "state": state}


def parse_order(body: Any) -> tuple[str, str, int]:
    """The order's id, product and quantity. Raises ValueError for a message that no try will ever put right."""
    if not isinstance(body, dict):
        raise ValueError("the body must be a JSON object")  # noqa: TRY004 - the message is wrong, not the code
    order, product, quantity = body.get("order"), body.get("product"), body.get("quantity")
    if not isinstance(order, str) or not isinstance(product, str) or not order or not product:
        raise ValueError("order and product must be texts")
    if type(quantity) is not int or not 0 < quantity <= 10_000:
        raise ValueError("quantity must be a whole number from 1 to 10,000")
    return order, product, quantity
