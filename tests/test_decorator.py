"""`with_dsql_transaction`: bare or called, on functions and methods, in the order of stacked decorators, under a deadline."""

import copy
import inspect
import json
import pickle
import sys
import unittest.mock

import pytest
from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2, event_source

from dsql_lambda import (
    ConfigError,
    DatabaseError,
    DeadlineExceeded,
    OCCRetryConfig,
    OCCRetryExhausted,
    TransactionError,
    cache,
    connect,
    with_dsql_transaction,
)

ADD = "UPDATE accounts SET balance = balance + :amount WHERE id = 1"


class Context:
    """A Lambda context."""

    function_name = "transfer"
    memory_limit_in_mb = 128
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:transfer"
    aws_request_id = "request-1"

    def __init__(self, remaining_ms=30_000):
        self._remaining_ms = remaining_ms

    def get_remaining_time_in_millis(self):
        return self._remaining_ms


def test_bare_on_a_handler(dsql, options, monkeypatch):
    """Its options are the environment's."""
    for name, value in dsql.environment.items():
        monkeypatch.setenv(name, value)

    @with_dsql_transaction
    def lambda_handler(event, context, tx):
        """Adds."""
        tx.defer(ADD, amount=event["amount"])
        return "added"

    assert lambda_handler({"amount": 5}, Context()) == "added"
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["105"]]
    assert (lambda_handler.__name__, lambda_handler.__doc__) == ("lambda_handler", "Adds.")


def test_called_with_options_on_a_method(options):
    """`self` stays first."""

    class Accounts:
        step = 3

        @with_dsql_transaction(options=options)
        def add(self, tx, factor=1):
            return tx.value(ADD + " RETURNING balance", amount=self.step * factor)

    assert Accounts().add(factor=2) == 106


def test_on_a_source(options):
    """A connection in the place of the cached one."""
    with connect(options) as connection:

        @with_dsql_transaction(source=connection, read_only=True)
        def read(tx):
            return tx.connection is connection and tx.value("SELECT balance FROM accounts WHERE id = 1")

        assert read() == 100


def test_the_signature_hides_tx(options):
    """Resolvers and event sources look at it."""

    @with_dsql_transaction(options=options)
    def handler(event, context, *, tx, more=1):
        return more

    assert str(inspect.signature(handler)) == "(event, context, *, more=1)"


def test_called_with_tx_it_joins_that_transaction(options):
    """One COMMIT for both; without `tx=`, a second transaction inside is refused."""

    @with_dsql_transaction(options=options)
    def add(amount, tx):
        tx.defer(ADD, amount=amount)

    @with_dsql_transaction(options=options)
    def twice(tx):
        add(1, tx=tx)
        add(2, tx=tx)
        with pytest.raises(TransactionError, match="pass its tx on to join"):
            add(4)

    twice()
    with connect(options) as connection:
        assert connection.run("SELECT balance FROM accounts WHERE id = 1") == [[103]]


def test_a_conflict_runs_the_handler_again_and_logs_its_type(dsql, options, capsys):
    """Through the handler's own Powertools Logger, with its keys."""
    logger = Logger(service="transfers")

    @logger.inject_lambda_context(correlation_id_path="id")
    @with_dsql_transaction(options=options, logger=logger)
    def handler(event, context, tx):
        tx.defer(ADD, amount=1)
        return tx.attempt

    dsql.conflict_next(2)
    assert handler({"id": "abc"}, Context()) == 3
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["message"] for each in records] == ["OCC conflict, retrying"] * 2
    for attempt, record in enumerate(records, 1):
        assert (record["level"], record["occ_type"], record["occ_code"], record["sqlstate"]) == ("INFO", "data", "OC000", "40001")
        assert (record["attempt"], record["max_attempts"], record["correlation_id"]) == (attempt, 3, "abc")
        assert record["service"] == "transfers"
        assert 0 < record["remaining_ms"] <= 29_500
        assert record["delay_ms"] > 0


def test_exhausted_retries_are_an_error_record(dsql, options, caplog):
    """With the elapsed time and the reason; through a logger of the layer's own when none was given."""

    @with_dsql_transaction(options=options, retry=OCCRetryConfig(max_attempts=2))
    def handler(event, context, tx):
        tx.defer(ADD, amount=1)

    dsql.conflict_next(2, "OC001")
    with pytest.raises(OCCRetryExhausted):
        handler({}, Context())
    records = [record for record in caplog.records if record.funcName == "handler"]
    assert {record.pathname for record in records} == {__file__}
    assert [each.getMessage() for each in records][-1:] == ["OCC retry exhausted"]
    assert (records[-1].levelname, records[-1].occ_type, records[-1].reason) == ("ERROR", "schema", "attempts")
    assert records[-1].elapsed_ms > 0


def test_the_context_sets_the_deadline(options):
    """A tenth of a second is left, less a tenth of it."""

    @with_dsql_transaction(options=options)
    def handler(event, context, tx):
        tx.run("SELECT pg_sleep(30)")

    with pytest.raises(DeadlineExceeded) as caught:
        handler({}, Context(remaining_ms=300))
    assert caught.value.phase == "statement"


def test_a_timeout_sets_the_deadline_elsewhere(options):
    """In seconds; in a handler the sooner of the two counts."""

    @with_dsql_transaction(options=options, timeout=0.2)
    def sleep(tx):
        tx.run("SELECT pg_sleep(30)")

    with pytest.raises(DeadlineExceeded):
        sleep()


def test_powertools_decorators_stand_outside(options, capsys):
    """Logger, Tracer, Metrics and `event_source` above, each getting what it gets today."""
    logger, tracer, metrics = Logger(service="outside"), Tracer(disabled=True), Metrics(namespace="Tests", service="outside")

    @logger.inject_lambda_context
    @tracer.capture_lambda_handler
    @metrics.log_metrics()
    @event_source(data_class=APIGatewayProxyEventV2)
    @with_dsql_transaction(options=options)
    def handler(event: APIGatewayProxyEventV2, context, tx):
        metrics.add_metric("Reads", "Count", 1)
        return event.json_body["amount"] + tx.value("SELECT balance FROM accounts WHERE id = 1")

    assert handler({"body": '{"amount": 1}'}, Context()) == 101
    assert '"Reads":[1.0]' in capsys.readouterr().out


def test_a_resolvers_route_stands_outside(options):
    """The route's own parameters are found; `tx` is not one of them."""
    app = APIGatewayHttpResolver()

    @app.get("/accounts/<account>")
    @with_dsql_transaction(options=options)
    def account(account, tx):
        return {"balance": tx.value("SELECT balance FROM accounts WHERE id = :id", id=int(account))}

    event = {
        "rawPath": "/accounts/2",
        "requestContext": {"http": {"method": "GET", "path": "/accounts/2"}, "stage": "$default"},
        "headers": {},
    }
    response = app.resolve(event, Context())  # type: ignore[arg-type]
    assert (response["statusCode"], json.loads(response["body"])) == (200, {"balance": 100})


def no_tx(event, context):
    """Has none."""


def only_positional(tx, /):
    """Can't be passed by keyword."""


def swallowed(**tx):
    """Is not a parameter of its own."""


async def coroutine(tx):
    """Runs elsewhere."""


async def async_generator(tx):
    """Runs elsewhere."""
    yield tx


def marked(tx):
    """Is plain, and returns what somebody must await."""
    return coroutine(tx)


if sys.version_info >= (3, 12):
    inspect.markcoroutinefunction(marked)
else:
    marked = coroutine


def generator(tx):
    """Its body runs after the end."""
    yield tx


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (no_tx, "no_tx.. has no parameter tx that can be passed by keyword: add one, as in def no_tx.event, context, tx."),
        (only_positional, "no parameter tx"),
        (swallowed, "no parameter tx"),
        (coroutine, "is async"),
        (async_generator, "is async"),
        (marked, "is async"),
        (generator, "is a generator"),
        (7, "decorates a function, not a int"),
    ],
)
def test_a_function_that_can_not_run_in_a_transaction_is_refused_at_decoration(function, sentence):
    """`TypeError`, in one sentence; called or bare."""
    with pytest.raises(TypeError, match=sentence):
        with_dsql_transaction(function)
    with pytest.raises(TypeError, match=sentence):
        with_dsql_transaction(timeout=1.0)(function)


class AsyncCallable:
    """An object that is called, and answers later."""

    async def __call__(self, tx):
        """Runs elsewhere."""


def test_an_object_whose_call_is_async_is_refused():
    """As `async def` is."""
    with pytest.raises(TypeError, match="is async"):
        with_dsql_transaction(AsyncCallable())


def test_tx_may_stand_anywhere(options):
    """Between the others, also when they are passed by position."""

    @with_dsql_transaction(options=options)
    def handler(event, tx, context=None):
        return event, tx.value("SELECT 1"), context

    assert handler("e", "c") == ("e", 1, "c")
    assert handler("e") == ("e", 1, None)
    assert handler(event="e", context="c") == ("e", 1, "c")


@pytest.mark.parametrize(("wrong", "sentence"), [({"source": "url"}, "source is a str"), ({"retry": 5}, "retry is a int")])
def test_what_is_no_source_or_retry_is_refused_at_decoration(wrong, sentence):
    """By what it is."""
    with pytest.raises(TypeError, match=sentence):
        with_dsql_transaction(**wrong)


def test_a_mocks_remaining_time_is_no_deadline(options):
    """A test's MagicMock is no Lambda context."""

    @with_dsql_transaction(options=options)
    def handler(event, context, tx):
        return tx.value("SELECT 1")

    assert handler({}, unittest.mock.MagicMock()) == 1


def test_options_together_with_a_source_are_refused_at_decoration(options):
    """A source has its own."""
    with connect(options) as connection, pytest.raises(TypeError, match="options or source, not both"):
        with_dsql_transaction(options=options, source=connection)


def test_a_timeout_that_is_none_is_refused_at_decoration():
    """By its value."""
    with pytest.raises(ConfigError, match="timeout is 0"):
        with_dsql_transaction(timeout=0)


def test_an_environment_without_an_endpoint_says_what_to_set(monkeypatch):
    """At the first invocation, not at import."""
    for name in ("DSQL_HOST", "DSQL_URL", "CLUSTER_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    cache._from_environment.clear()

    @with_dsql_transaction
    def handler(event, context, tx):
        """Never runs."""

    with pytest.raises(ConfigError, match="no host: set DSQL_HOST"):
        handler({}, Context())


def test_a_failed_statement_is_raised_through_the_decorator(options):
    """As it was."""

    @with_dsql_transaction(options=options)
    def handler(event, context, tx):
        tx.run(ADD, amount=-1000)

    with pytest.raises(DatabaseError, match="accounts_balance_check"):
        handler({}, Context())


def test_the_signature_that_callers_see_is_one_in_every_respect():
    """A signature of the standard library's, equal to that of the function without `tx`."""
    import typing

    def plain(event: dict[str, int], /, context: object = None, *, tx: object, flag: bool = False) -> int:
        """What it does."""
        return 1

    def without(event: dict[str, int], /, context: object = None, *, flag: bool = False) -> int:
        return 1

    decorated = with_dsql_transaction(plain)
    seen = inspect.signature(decorated)
    assert isinstance(seen, inspect.Signature)
    assert seen == inspect.signature(without)
    assert inspect.signature(without) == seen
    assert hash(seen) == hash(inspect.signature(without))
    assert str(seen) == str(inspect.signature(without))
    assert repr(seen) == repr(inspect.signature(without))
    assert seen.bind({}).arguments == {"event": {}}
    assert seen.replace(parameters=[]).parameters == {}
    assert pickle.loads(pickle.dumps(seen.replace(parameters=[]))) == seen.replace(parameters=[])
    assert copy.copy(seen) == copy.deepcopy(seen) == seen
    assert inspect.isfunction(decorated)
    assert (decorated.__name__, decorated.__doc__) == ("plain", "What it does.")
    assert typing.get_type_hints(decorated)["return"] is int
