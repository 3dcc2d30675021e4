"""Stacked decorators and Powertools' utilities, for type checkers: checked by mypy and pyright, and never run."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, assert_type
from unittest.mock import create_autospec

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.event_handler import (
    APIGatewayHttpResolver,
    APIGatewayRestResolver,
    AppSyncResolver,
    BedrockAgentFunctionResolver,
    BedrockAgentResolver,
    Depends,
    Response,
)
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from aws_lambda_powertools.utilities.batch import (
    AsyncBatchProcessor,
    BatchProcessor,
    EventType,
    SqsFifoPartialProcessor,
    async_process_partial_response,
    process_partial_response,
)
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2, SQSEvent, event_source
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.idempotency import IdempotencyConfig, idempotent
from aws_lambda_powertools.utilities.parser import BaseModel, event_parser
from aws_lambda_powertools.utilities.typing import LambdaContext
from aws_lambda_powertools.utilities.validation import validator

from dsql_lambda import (
    DsqlPersistenceLayer,
    DsqlTransactionMiddleware,
    Idempotency,
    OCCRetryConfig,
    Pool,
    Transaction,
    dsql_transaction,
    with_dsql_transaction,
)

logger = Logger()
tracer = Tracer()
metrics = Metrics()


class Order(BaseModel):
    """What is parsed."""

    amount: int


@logger.inject_lambda_context(log_event=False)
@tracer.capture_lambda_handler
@metrics.log_metrics(capture_cold_start_metric=True)
@event_source(data_class=APIGatewayProxyEventV2)
@with_dsql_transaction(logger=logger, metrics=metrics, tracer=tracer)
def with_data_class(event: APIGatewayProxyEventV2, context: LambdaContext, tx: Transaction) -> dict[str, Any]:
    """All of Powertools' decorators for a handler, bare where they can be."""
    return {"path": event.raw_path, "rows": tx.rows("SELECT 1 AS one")}


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics
@event_parser(model=Order)
@with_dsql_transaction
def with_model(event: Order, context: LambdaContext, tx: Transaction) -> int:
    """The same with a model."""
    return event.amount + tx.attempt


@idempotent(persistence_store=DsqlPersistenceLayer(), config=IdempotencyConfig(event_key_jmespath="id"))
@with_dsql_transaction(retry=OCCRetryConfig(max_attempts=2))
def with_powertools_idempotency(event: dict[str, Any], context: LambdaContext, tx: Transaction) -> None:
    """Above the transaction."""


@validator(inbound_schema={"type": "object"})
@with_dsql_transaction(idempotency=Idempotency(key="id"))
def with_our_idempotency(event: dict[str, Any], context: LambdaContext, tx: Transaction) -> None:
    """In the transaction."""


# Routes

http = APIGatewayHttpResolver(enable_validation=True)
rest = APIGatewayRestResolver()
bedrock = BedrockAgentResolver()
graphql = AppSyncResolver()
tools = BedrockAgentFunctionResolver()
router = APIGatewayHttpRouter()
middleware = DsqlTransactionMiddleware(
    read_only=True, timeout=2.5, rollback_from=400, logger=logger, metrics=metrics, tracer=tracer
)

http.use(middlewares=[middleware])
http.include_router(router, prefix="/more")


@http.post("/orders")
@tracer.capture_method
@with_dsql_transaction
def decorated_route(order: Order, tx: Transaction) -> Order:
    """A route is outside."""
    tx.defer("INSERT INTO orders (amount) VALUES (:amount)", amount=order.amount)
    return order


@http.get("/orders")
def route_of_the_middleware(tx: Annotated[Transaction, Depends(dsql_transaction)]) -> Response[str]:
    """The transaction is the middleware's."""
    assert_type(tx, Transaction)
    return Response(status_code=200, body=str(tx.attempt))


@router.get("/", middlewares=[middleware])
@rest.get("/", middlewares=[DsqlTransactionMiddleware(idempotency=Idempotency(key="body"))])
def route_that_asks() -> dict[str, Any]:
    """Without `Depends`."""
    assert_type(dsql_transaction(), Transaction)
    return {}


@bedrock.get("/claims", description="All claims")
@with_dsql_transaction
def claims(tx: Transaction) -> list[dict[str, Any]]:
    """An operation of an agent."""
    return tx.rows("SELECT 1 AS one")


@graphql.resolver(type_name="Query", field_name="one")
@with_dsql_transaction
def field(number: int, tx: Transaction) -> int:
    """A field."""
    return number


@tools.tool(name="one", description="Gives one")
@with_dsql_transaction
def tool(number: int, tx: Transaction) -> int:
    """A function of an agent."""
    return number


# Batches

processor = BatchProcessor(event_type=EventType.SQS)
fifo = SqsFifoPartialProcessor()
parallel = AsyncBatchProcessor(event_type=EventType.SQS)
pool = Pool(max_size=4)


@with_dsql_transaction(idempotency=Idempotency(key="messageId"))
def record_handler(record: SQSRecord, tx: Transaction) -> str:
    """Each record is a transaction."""
    return record.body


@with_dsql_transaction(source=pool)
def in_a_thread(record: SQSRecord, tx: Transaction) -> str:
    """Each record is a transaction."""
    return record.body


async def async_record_handler(record: SQSRecord) -> str:
    """In a thread of its own."""
    return await asyncio.to_thread(in_a_thread, record)


def batch(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """By each processor."""
    process_partial_response(event, record_handler, fifo, context)
    async_process_partial_response(event, async_record_handler, parallel, context)
    return process_partial_response(event, record_handler, processor, context)


@event_source(data_class=SQSEvent)
@with_dsql_transaction
def joined_batch(event: SQSEvent, context: LambdaContext, tx: Transaction) -> None:
    """The whole batch is one transaction, and each record joins it."""
    for record in event.records:
        assert_type(record_handler(record, tx=tx), str)


# Without a database


def without_a_database() -> None:
    """A stand-in of the right type."""
    tx = create_autospec(Transaction, instance=True)
    tx.value.return_value = 7
    assert_type(decorated_route(Order(amount=1), tx=tx), Order)
    http.dependency_overrides[dsql_transaction] = lambda: tx
