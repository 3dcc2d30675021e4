"""The deadline of an invocation, where the decorated function gets no context: routes, records, plain functions, threads."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, AppSyncResolver
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

from dsql_lambda import DeadlineExceeded, Idempotency, Pool, TransactionError, run_transaction, with_dsql_transaction
from dsql_lambda.claim import published_at
from dsql_lambda.lambda_runtime import deadline_after, remaining_ms
from dsql_lambda.system import NEVER
from dsql_local.lambda_context import LambdaContext as LocalContext

ADD = "UPDATE accounts SET balance = balance + 1 WHERE id = 1"
HTTP = {
    "version": "2.0",
    "rawPath": "/add",
    "headers": {},
    "requestContext": {"http": {"method": "GET", "path": "/add"}, "stage": "$default"},
}
APPSYNC = {"info": {"parentTypeName": "Query", "fieldName": "add"}, "arguments": {}}
SQS = {"Records": [{"messageId": "1", "body": "x", "attributes": {}, "eventSource": "aws:sqs"}]}

# Powertools types a context as its own class.
LambdaContext: Any = LocalContext


@pytest.fixture
def contended(dsql, options, monkeypatch):
    """An add that meets a conflict at every COMMIT, and keeps trying until its deadline."""
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")

    @with_dsql_transaction(options=options)
    def add(*args, tx, **kwargs):
        tx.defer(ADD)

    add()  # the connection is open
    dsql.conflict_next(10**6)
    return add


@pytest.fixture
def has_deadline(caplog):
    """Says whether each attempt knew of an end half a second away. (How soon it comes to it is the machine's affair.)"""

    def check():
        remaining = [getattr(record, "remaining_ms", None) for record in caplog.records if hasattr(record, "attempt")]
        return bool(remaining) and all(each is not None and each <= 500 for each in remaining)

    return check


def exhaust(call):
    with pytest.raises(TransactionError):  # which one depends on what is under way at the deadline
        call()


def test_a_route_of_a_resolver_ends_at_the_invocations_deadline(contended, has_deadline):
    """The running resolver got the context."""
    app = APIGatewayHttpResolver()

    @app.get("/add")
    def route():
        return contended()

    exhaust(lambda: app(HTTP, LambdaContext(timeout=0.5)))
    assert has_deadline()


def test_a_field_of_appsync_too(contended, has_deadline):
    """Its resolver got the context."""
    app = AppSyncResolver()

    @app.resolver(field_name="add")
    def field():
        return contended()

    exhaust(lambda: app(APPSYNC, LambdaContext(timeout=0.5)))
    assert has_deadline()


def test_a_record_handler_too(contended, has_deadline):
    """The batch processor got the context, as the last argument or none."""
    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)

    def record_handler(record):
        return contended()

    answer = process_partial_response(SQS, record_handler, processor, LambdaContext(timeout=0.5))
    assert answer == {"batchItemFailures": [{"itemIdentifier": "1"}]}
    assert has_deadline()


def test_a_record_handler_that_asks_for_the_context(contended, has_deadline):
    """Powertools passes it by the name `lambda_context`."""
    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)

    def record_handler(record, lambda_context):
        return contended(record, lambda_context=lambda_context)

    process_partial_response(SQS, record_handler, processor, LambdaContext(timeout=0.5))
    assert has_deadline()


def test_run_transaction_in_a_handler(contended, has_deadline, options, monkeypatch, dsql):
    """Whatever runs on the invocation's stack."""
    for name, value in dsql.environment.items():
        monkeypatch.setenv(name, value)

    def handler(event, context):
        return run_transaction(lambda tx: tx.defer(ADD))

    exhaust(lambda: handler({}, LambdaContext(timeout=0.5)))
    assert has_deadline()


def test_a_durable_context_has_it_inside():
    """`context.lambda_context`."""

    class Durable:
        lambda_context = LambdaContext(timeout=9)

    remaining = remaining_ms(({}, Durable()), {})
    assert remaining is not None
    assert 8_000 < remaining <= 9_000


def test_a_thread_with_the_functions_context_has_its_deadline(dsql, options):
    """Also a task's; and no more when the function has returned."""
    contexts = []
    with Pool(options) as pool, ThreadPoolExecutor(1) as threads:

        @with_dsql_transaction(source=pool, timeout=5)
        def outer(tx):
            contexts.append(copy_context())
            assert threads.submit(published_at).result() == NEVER
            return threads.submit(contexts[0].run, published_at).result() - time.monotonic()

        assert 4 < outer() <= 5
        assert contexts[0].run(published_at) == published_at() == NEVER

        @with_dsql_transaction(source=pool, timeout=5)
        def with_task(tx):
            return asyncio.run(asyncio.to_thread(published_at)) - time.monotonic()

        assert 4 < with_task() <= 5


def test_timeout_stays_the_smaller():
    """Whatever the invocation has left."""

    def seconds_left():
        return deadline_after(0.2, remaining_ms()) - time.monotonic()

    def handler(event, context):
        return seconds_left()

    assert handler({}, LambdaContext(timeout=9)) == pytest.approx(0.2, abs=0.05)
    assert handler({}, LambdaContext(timeout=0.1)) < 0.1


class Overdue(LocalContext):
    """Managed Instances report a timeout and enforce none: code runs on, and the remaining time falls below 0."""

    def get_remaining_time_in_millis(self):
        return -1500


def test_below_zero_nothing_begins(dsql, options):
    """Lambda may have begun another attempt of the same event: an overdue one commits nothing."""

    @with_dsql_transaction(options=options)
    def handler(event, context, tx):
        tx.defer(ADD)

    for _ in range(2):
        with pytest.raises(DeadlineExceeded):
            handler({}, Overdue())
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["100"]]
    handler({}, LambdaContext())
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["101"]]


class RunsOn(LocalContext):
    """Its remaining time falls below 0, as on Managed Instances."""

    def get_remaining_time_in_millis(self):
        return int((self._ends_at - self.clock()) * 1000)


@pytest.mark.parametrize("lookup", ["first", "ride"])
def test_of_two_attempts_that_are_alive_at_once_one_is_applied(dsql, options, lookup):
    """The first runs on below 0 while the next one of its event begins and ends: it commits nothing, also when it goes on."""
    keyed = Idempotency(key="id", lookup=lookup)
    dsql.execute(keyed.create_table())
    answers = []
    with Pool(options) as pool, ThreadPoolExecutor(1) as elsewhere:

        @with_dsql_transaction(source=pool, idempotency=keyed)
        def handler(event, context, tx):
            tx.defer(ADD)
            if isinstance(context, RunsOn):
                while context.get_remaining_time_in_millis() >= 0:
                    pass
                answers.append(elsewhere.submit(handler, event, LambdaContext()).result())
                assert context.get_remaining_time_in_millis() < 0
                return "first"
            return "second"

        with pytest.raises(DeadlineExceeded):
            handler({"id": "a"}, RunsOn(timeout=0.2))
        answers.append(handler({"id": "a"}, LambdaContext()))
    assert answers == ["second", "second"]
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["101"]]
    dsql.execute("DROP TABLE dsql_lambda_idempotency")
