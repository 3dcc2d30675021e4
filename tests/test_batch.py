"""Batches of SQS, Kinesis and DynamoDB streams: each record a transaction of its own, under a deadline that the records share."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
from aws_lambda_powertools.utilities.batch import (
    AsyncBatchProcessor,
    BatchProcessor,
    EventType,
    SqsFifoPartialProcessor,
    async_process_partial_response,
    process_partial_response,
)
from aws_lambda_powertools.utilities.batch.exceptions import BatchProcessingError
from aws_lambda_powertools.utilities.parser.models import (
    DynamoDBStreamRecordModel,
    KinesisDataStreamRecord,
    SqsRecordModel,
)
from pydantic import BaseModel, Json

from dsql_lambda import DatabaseError, DeadlineExceeded, Idempotency, OCCRetryConfig, Pool, run_transaction, with_dsql_transaction
from dsql_lambda.lambda_runtime import deadline_after, remaining_ms, turns_left
from dsql_local.lambda_context import LambdaContext as LocalContext

# Powertools types a context as its own class.
LambdaContext: Any = LocalContext

ADD = "UPDATE accounts SET balance = balance + :amount WHERE id = :id"
POISON = "not for us"


def sqs(bodies, *, group=None):
    """What SQS delivers; of a FIFO queue if it has a group for each message."""
    records = []
    for number, body in enumerate(bodies, 1):
        attributes = {
            "ApproximateReceiveCount": "1",
            "SentTimestamp": "1545082649183",
            "SenderId": "AIDAIENQZJOLO23YVJ4VO",
            "ApproximateFirstReceiveTimestamp": "1545082649185",
        }
        if group is not None:
            attributes |= {
                "MessageGroupId": group[number - 1],
                "SequenceNumber": f"1884948627235635{number:04}",
                "MessageDeduplicationId": f"d-{number}",
            }
        records.append(
            {
                "messageId": f"059f36b4-87a3-44ab-83d2-66197{number:07}",
                "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
                "body": body,
                "attributes": attributes,
                "messageAttributes": {},
                "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
                "eventSource": "aws:sqs",
                "eventSourceARN": f"arn:aws:sqs:us-east-2:123456789012:my-queue{'.fifo' if group else ''}",
                "awsRegion": "us-east-2",
            }
        )
    return {"Records": records}


def kinesis(bodies):
    """What Kinesis delivers."""
    return {
        "Records": [
            {
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "partitionKey": "1",
                    "sequenceNumber": f"4959033827149025660855969253836157109592157598913{number:07}",
                    "data": base64.b64encode(body.encode()).decode(),
                    "approximateArrivalTimestamp": 1545084650.987,
                },
                "eventSource": "aws:kinesis",
                "eventVersion": "1.0",
                "eventID": f"shardId-000000000006:4959033827149025660855969253836157109592157598913{number:07}",
                "eventName": "aws:kinesis:record",
                "invokeIdentityArn": "arn:aws:iam::123456789012:role/lambda-role",
                "awsRegion": "us-east-2",
                "eventSourceARN": "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream",
            }
            for number, body in enumerate(bodies, 1)
        ]
    }


def dynamodb(bodies):
    """What a DynamoDB stream delivers."""
    return {
        "Records": [
            {
                "eventID": f"c81e728d9d4c2f636f067f89cc148{number:03}",
                "eventVersion": "1.1",
                "dynamodb": {
                    "ApproximateCreationDateTime": 1545084650.0,
                    "Keys": {"Id": {"N": str(number)}},
                    "NewImage": {"Body": {"S": body}, "Id": {"N": str(number)}, "Tags": {"SS": ["a", "b", "c"]}},
                    "StreamViewType": "NEW_AND_OLD_IMAGES",
                    "SequenceNumber": str(number),
                    "SizeBytes": 26,
                },
                "awsRegion": "us-west-2",
                "eventName": "INSERT",
                "eventSourceARN": "arn:aws:dynamodb:us-west-2:123456789012:table/T/stream/2015-06-27T00:48:05.899",
                "eventSource": "aws:dynamodb",
            }
            for number, body in enumerate(bodies, 1)
        ]
    }


class Stream(NamedTuple):
    """A source of batches: its event, how a record is named and read, and Powertools' model of it."""

    event_type: EventType
    event: Callable[..., dict[str, Any]]
    body: Callable[[Any], str]
    identifier: Callable[[dict[str, Any]], str]
    key: str
    model: type[BaseModel]
    body_of_model: Callable[[Any], str]


STREAMS = {
    "sqs": Stream(
        EventType.SQS,
        sqs,
        lambda record: record.body,
        lambda record: record["messageId"],
        "messageId",
        SqsRecordModel,
        lambda record: record.body,
    ),
    "kinesis": Stream(
        EventType.KinesisDataStreams,
        kinesis,
        lambda record: record.kinesis.data_as_text(),
        lambda record: record["kinesis"]["sequenceNumber"],
        "eventID",
        KinesisDataStreamRecord,
        lambda record: record.kinesis.data.decode(),
    ),
    "dynamodb": Stream(
        EventType.DynamoDBStreams,
        dynamodb,
        lambda record: record.dynamodb.new_image["Body"],
        lambda record: record["dynamodb"]["SequenceNumber"],
        "eventID",
        DynamoDBStreamRecordModel,
        lambda record: record.dynamodb.NewImage["Body"],
    ),
}


@pytest.fixture(params=STREAMS)
def stream(request):
    """Where the batches come from."""
    return STREAMS[request.param]


@pytest.fixture
def runs(request, monkeypatch):
    """Powertools runs an asynchronous batch in a loop of its own, but in Lambda in one that the environment keeps."""
    monkeypatch.delenv("LAMBDA_TASK_ROOT", raising=False)
    if getattr(request, "param", "") != "in Lambda":
        yield
        return
    monkeypatch.setenv("LAMBDA_TASK_ROOT", "/var/task")
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


def balances(dsql):
    return [int(row[0]) for row in dsql.execute("SELECT balance FROM accounts ORDER BY id")]


def add(body, tx):
    """The work of a record, with one statement that fails for a poison record."""
    order = json.loads(body)
    tx.run(ADD, amount=order["amount"], id=order["id"])
    if order.get("also"):
        tx.run(ADD, amount=-1000, id=order["also"])
    return order["amount"]


def body(amount, id=1, **more):  # noqa: A002 - the column's name
    return json.dumps({"amount": amount, "id": id, **more})


BATCH = [body(1), body(2, also=2), body(4), POISON, body(8, id=3)]
GOOD = [105, 100, 108]


def failures(stream, event, *numbers):
    return {"batchItemFailures": [{"itemIdentifier": stream.identifier(event["Records"][number])} for number in numbers]}


def by_identifier(answer):
    """Records that are handled at once fail in any order."""
    return {"batchItemFailures": sorted(answer["batchItemFailures"], key=lambda each: each["itemIdentifier"])}


# Each record a transaction


def test_each_record_is_a_transaction(dsql, options, stream):
    """A failing record rolls back alone and is reported, as a poison record is; conflicts are retried inside of it."""

    @with_dsql_transaction(options=options)
    def record_handler(record, tx):
        return add(stream.body(record), tx)

    dsql.conflict_next(2)
    processor = BatchProcessor(event_type=stream.event_type)
    event = stream.event(BATCH)
    answer = process_partial_response(event, record_handler, processor, LambdaContext())
    assert answer == failures(stream, event, 1, 3)
    assert balances(dsql) == GOOD
    kinds = [kind for kind, _, _ in processor.exceptions if kind]
    assert kinds == [DatabaseError, json.JSONDecodeError]
    commits = [event for event in dsql.log if event.kind == "flight" and "COMMIT" in event.statements]
    assert len(commits) == 3 + 2


@pytest.mark.parametrize("runs", ["elsewhere", "in Lambda"], indirect=True)
def test_records_at_once_have_connections_of_a_pool(runs, dsql, options, stream):
    """The asynchronous processor, with `asyncio.to_thread`: their conflicts with each other are real, and retried."""
    with Pool(options, max_size=3) as pool:

        @with_dsql_transaction(source=pool, retry=OCCRetryConfig(max_attempts=50))
        def in_a_thread(record, tx):
            return add(stream.body(record), tx)

        async def record_handler(record):
            return await asyncio.to_thread(in_a_thread, record)

        dsql.conflict_next(2)
        event = stream.event(BATCH)
        answer = async_process_partial_response(
            event, record_handler, AsyncBatchProcessor(event_type=stream.event_type), LambdaContext()
        )
        assert pool.statistics.size > 1
    assert by_identifier(answer) == failures(stream, event, 1, 3)
    assert balances(dsql) == GOOD


def test_a_batch_that_fails_as_a_whole_raises(dsql, options):
    """Powertools' way, unless it is told otherwise; nothing is committed."""

    @with_dsql_transaction(options=options)
    def record_handler(record, tx):
        return add(record.body, tx)

    event = sqs([POISON, body(1, also=2)])
    with pytest.raises(BatchProcessingError, match="All records failed"):
        process_partial_response(event, record_handler, BatchProcessor(event_type=EventType.SQS), LambdaContext())
    assert balances(dsql) == [100, 100, 100]


@pytest.mark.parametrize(
    ("skips_group", "failed", "left"), [(False, (1, 2, 3), [101, 100, 100]), (True, (1, 2), [101, 100, 108])]
)
def test_a_fifo_queue_keeps_its_order(dsql, options, skips_group, failed, left):
    """What follows a failed message, or one of its group, is not begun."""

    @with_dsql_transaction(options=options)
    def record_handler(record, tx):
        return add(record.body, tx)

    event = sqs([body(1), body(2, also=2), body(4), body(8, id=3)], group=["a", "b", "b", "a"])
    dsql.conflict_next(1)
    processor = SqsFifoPartialProcessor(skip_group_on_error=skips_group)
    answer = process_partial_response(event, record_handler, processor, LambdaContext())
    assert answer == failures(STREAMS["sqs"], event, *failed)
    assert balances(dsql) == left


def test_a_record_that_its_model_refuses_is_reported(dsql, options):
    """It never gets to the database; the others do."""

    class Order(BaseModel):
        amount: int
        id: int

    class Message(SqsRecordModel):
        body: Json[Order]

    @with_dsql_transaction(options=options)
    def record_handler(record, tx):
        tx.run(ADD, amount=record.body.amount, id=record.body.id)

    event = sqs([body(1), POISON, body("much"), body(4)])
    processor = BatchProcessor(event_type=EventType.SQS, model=Message)
    assert process_partial_response(event, record_handler, processor, LambdaContext()) == failures(STREAMS["sqs"], event, 1, 2)
    assert balances(dsql)[0] == 105


# Exactly once


@pytest.fixture
def keys(dsql):
    """The table of keys."""
    dsql.execute("DROP TABLE IF EXISTS dsql_lambda_idempotency")
    dsql.execute(Idempotency(key="x").create_table())


def delivered_again(event):
    """The same records, as a second delivery has them."""
    again = json.loads(json.dumps(event))
    for record in again["Records"]:
        if "attributes" in record:
            record["receiptHandle"] = "another"
            record["attributes"]["ApproximateReceiveCount"] = "2"
        if "invokeIdentityArn" in record:
            record["invokeIdentityArn"] = "arn:aws:iam::123456789012:role/another"
    return again


@pytest.mark.parametrize("lookup", ["first", "ride"])
@pytest.mark.parametrize("by_model", [False, True], ids=["data class", "model"])
@pytest.mark.usefixtures("keys")
def test_a_record_that_comes_again_counts_once(dsql, options, stream, by_model, lookup):
    """By its id, of Powertools' data classes and models: what succeeded is not done again, what failed is tried again."""
    read = stream.body_of_model if by_model else stream.body
    once = Idempotency(key=stream.key, lookup=lookup)

    @with_dsql_transaction(options=options, idempotency=once)
    def record_handler(record, tx):
        return add(read(record), tx)

    event = stream.event(BATCH)
    processor = BatchProcessor(event_type=stream.event_type, model=stream.model if by_model else None)
    dsql.conflict_next(2)
    for each in (event, delivered_again(event), event):
        assert process_partial_response(each, record_handler, processor, LambdaContext()) == failures(stream, event, 1, 3)
    assert balances(dsql) == GOOD
    results = [result for _, result, _ in processor(event["Records"], record_handler).process() if isinstance(result, int)]
    assert results == [1, 4, 8]


@pytest.mark.usefixtures("keys", "runs")
def test_records_at_once_count_once_too(dsql, options):
    """The same message twice in one batch, on two connections: one wins, the other gets its result."""
    with Pool(options, max_size=4) as pool:
        once = Idempotency(key=lambda record: record.message_id)

        @with_dsql_transaction(source=pool, idempotency=once, retry=OCCRetryConfig(max_attempts=50))
        def in_a_thread(record, tx):
            return add(record.body, tx)

        async def record_handler(record):
            return await asyncio.to_thread(in_a_thread, record)

        event = sqs([body(1), body(2)])
        event["Records"] += delivered_again(event)["Records"]
        processor = AsyncBatchProcessor(event_type=EventType.SQS)
        assert async_process_partial_response(event, record_handler, processor, LambdaContext()) == {"batchItemFailures": []}
    assert balances(dsql)[0] == 103


@pytest.mark.usefixtures("keys")
def test_a_record_of_bytes_that_are_no_text(options):
    """Of Kinesis, by its model: its payload is compared all the same."""

    @with_dsql_transaction(options=options, idempotency=Idempotency(key="eventID"))
    def record_handler(record, tx):
        return len(record.kinesis.data)

    event = kinesis(["x"])
    event["Records"][0]["kinesis"]["data"] = base64.b64encode(b"\xff\xfe\x00").decode()
    processor = BatchProcessor(event_type=EventType.KinesisDataStreams, model=KinesisDataStreamRecord)
    for _ in range(2):
        assert process_partial_response(event, record_handler, processor, LambdaContext()) == {"batchItemFailures": []}
        assert processor(event["Records"], record_handler).process()[0][1] == 3


# The deadline


SLOW = "SELECT pg_sleep(30)"


def test_a_slow_record_leaves_the_others_their_time(dsql, options):
    """The time that is left is shared among the records that are left: one that is stuck fails, and the others are done."""

    @with_dsql_transaction(options=options)
    def record_handler(record, tx):
        if record.body == "slow":
            tx.run(SLOW)
        return add(record.body, tx)

    event = sqs(["slow", body(1), body(2), "slow", body(4)])
    processor = BatchProcessor(event_type=EventType.SQS)
    context = LambdaContext(timeout=2.5)
    assert process_partial_response(event, record_handler, processor, context) == failures(STREAMS["sqs"], event, 0, 3)
    assert [kind for kind, _, _ in processor.exceptions] == [DeadlineExceeded, DeadlineExceeded]
    assert balances(dsql)[0] == 107
    assert context.get_remaining_time_in_millis() > 250


def test_a_record_that_meets_conflicts_forever_leaves_the_others_their_time(dsql, options, monkeypatch):
    """In Lambda, attempts follow each other until the deadline: the record's, and not the invocation's."""
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")

    @with_dsql_transaction(options=options)
    def record_handler(record, tx, lambda_context=None):
        if record.body == "contended":
            dsql.conflict_next(1)
            return tx.run(ADD, amount=1, id=2)
        dsql.clear_faults()
        return add(record.body, tx)

    event = sqs(["contended", body(1), body(2)])
    processor = BatchProcessor(event_type=EventType.SQS)
    assert process_partial_response(event, record_handler, processor, LambdaContext(timeout=2)) == failures(
        STREAMS["sqs"], event, 0
    )
    assert balances(dsql) == [103, 100, 100]


@pytest.mark.usefixtures("runs")
def test_slow_records_at_once_leave_the_others_their_time(dsql, options, monkeypatch):
    """Two connections, four records: two turns."""
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")
    with Pool(options, max_size=2) as pool, ThreadPoolExecutor(2) as threads:

        @with_dsql_transaction(source=pool)
        def in_a_thread(record, tx):
            if record.body == "slow":
                tx.run(SLOW)
            return add(record.body, tx)

        async def record_handler(record):
            return await asyncio.get_running_loop().run_in_executor(threads, in_a_thread, record)

        event = sqs(["slow", "slow", body(1), body(2, id=3)])
        processor = AsyncBatchProcessor(event_type=EventType.SQS)
        context = LambdaContext(timeout=2.5)
        answer = async_process_partial_response(event, record_handler, processor, context)
        assert context.get_remaining_time_in_millis() > 250
    assert by_identifier(answer) == failures(STREAMS["sqs"], event, 0, 1)
    assert balances(dsql) == [101, 100, 102]


def shares(record):
    return turns_left(2)


@pytest.mark.usefixtures("runs")
def test_how_many_turns_are_left(monkeypatch):
    """One after another, counted down as records succeed and fail; by twos where threads handle them."""
    seen = []

    def record_handler(record):
        seen.append(shares(record))
        if record.body == "1":
            raise ValueError

    process_partial_response(sqs("0123"), record_handler, BatchProcessor(event_type=EventType.SQS), LambdaContext())
    assert seen == [4, 3, 2, 1]
    assert turns_left(2) == 1

    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")

    async def in_threads(record):
        seen.append(await asyncio.to_thread(shares, record))

    async def in_the_loop(record):
        seen.append(shares(record))

    for handler, turns in ((in_threads, [3]), (in_the_loop, [5, 4, 3, 2, 1])):
        seen.clear()
        async_process_partial_response(sqs("01234"), handler, AsyncBatchProcessor(event_type=EventType.SQS), LambdaContext())
        assert seen[: len(turns)] == turns


def test_transactions_that_a_record_handler_runs_share_too(options, monkeypatch, dsql):
    """`run_transaction`, and what is in a thread of the handler's: both know the invocation."""
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")
    for name, value in dsql.environment.items():
        monkeypatch.setenv(name, value)
    seen = []

    def left():
        return deadline_after(None, remaining_ms(), turns=turns_left()) - time.monotonic()

    def record_handler(record):
        with ThreadPoolExecutor(1) as threads:
            seen.extend([left(), threads.submit(left).result()])
        if record.body == "slow":
            run_transaction(lambda tx: tx.run(SLOW))

    event = sqs(["slow", "2"])
    frozen = LambdaContext(timeout=2, clock=lambda: 0.0)
    answer = process_partial_response(event, record_handler, BatchProcessor(event_type=EventType.SQS), frozen)
    assert answer == failures(STREAMS["sqs"], event, 0)
    assert seen == pytest.approx([0.9, 0.9, 1.8, 1.8], abs=0.1)  # of 1.8 s without the reserve
