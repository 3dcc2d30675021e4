"""Stacked decorators: a response that Lambda can't marshal fails before COMMIT, and orders that lose work are refused."""

import sys
import types
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import wraps
from uuid import UUID

import pytest
from aws_lambda_powertools import Logger
from aws_lambda_powertools.middleware_factory import lambda_handler_decorator
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2, event_source
from aws_lambda_powertools.utilities.idempotency import BasePersistenceLayer, idempotent, idempotent_function
from awslambdaric.lambda_runtime_marshaller import to_json

from dsql_lambda import ResponseError, jsonable, with_dsql_transaction
from dsql_local.lambda_context import LambdaContext

ADD = "UPDATE accounts SET balance = balance + 1 WHERE id = 1"
SOME_ID = UUID(int=7)


@pytest.fixture
def app(monkeypatch):
    """A module whose `lambda_handler` Lambda calls."""
    module = types.ModuleType("app_of_test")
    monkeypatch.setitem(sys.modules, "app_of_test", module)
    monkeypatch.setenv("_HANDLER", "app_of_test.lambda_handler")
    monkeypatch.setenv("AWS_EXECUTION_ENV", "AWS_Lambda_python3.12")
    return module


def returning(options, value):
    @with_dsql_transaction(options=options)
    def lambda_handler(event, context, tx):
        tx.defer(ADD)
        return value

    return lambda_handler


def balance(dsql):
    return int(dsql.execute("SELECT balance FROM accounts WHERE id = 1")[0][0])


# What Lambda marshals


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"body": {"id": SOME_ID}}, r"body\.id: UUID"),
        ({"rows": [1, {"at": datetime(2026, 1, 1, tzinfo=UTC)}]}, r"rows\[1\]\.at: datetime"),
        ({"day": date(2026, 1, 1)}, "day: date"),
        (SOME_ID, "the value itself: UUID"),
        ({"set": {1}}, "set: set"),
        ({"a": {(1, 2): 3}}, "a: a key of type tuple"),
        ({"a": "\ud800"}, "a: str"),
    ],
)
def test_a_response_that_lambda_cant_marshal_fails_before_commit(dsql, options, app, value, place):
    """It names the place and the type; nothing is applied."""
    app.lambda_handler = returning(options, value)
    with pytest.raises(ResponseError, match=place):
        app.lambda_handler({}, LambdaContext())
    assert balance(dsql) == 100


def test_a_response_that_holds_itself_or_is_too_long_fails_before_commit(dsql, options, app):
    """Lambda takes 6 MB."""
    endless: dict[str, object] = {}
    endless["again"] = endless
    app.lambda_handler = returning(options, endless)
    with pytest.raises(ResponseError, match="it holds itself"):
        app.lambda_handler({}, LambdaContext())
    app.lambda_handler = returning(options, "x" * 6_291_556)
    with pytest.raises(ResponseError, match="6291558 bytes"):
        app.lambda_handler({}, LambdaContext())
    assert balance(dsql) == 100


@pytest.mark.parametrize("value", [None, {"n": Decimal("1.5"), "nan": Decimal("NaN"), 1: (2, 3)}, b"\xff", [1.5, "é"], {True: 1}])
def test_what_lambda_marshals_is_committed(dsql, options, app, value):
    """By awslambdaric's own rules: Decimal is a number, bytes are the response itself."""
    app.lambda_handler = returning(options, value)
    assert app.lambda_handler({}, LambdaContext()) is value
    assert balance(dsql) == 101
    if not isinstance(value, bytes):
        to_json(value)


def test_decorators_that_hand_the_value_through_are_looked_through(dsql, options, app):
    """Powertools' own, whatever name the handler's function has."""
    logger = Logger(service="test")

    @logger.inject_lambda_context
    @event_source(data_class=APIGatewayProxyEventV2)
    @with_dsql_transaction(options=options)
    def transfer(event, context, tx):
        tx.defer(ADD)
        return {"id": SOME_ID}

    app.lambda_handler = transfer
    with pytest.raises(ResponseError, match="id: UUID"):
        app.lambda_handler({}, LambdaContext())
    assert balance(dsql) == 100


def test_a_decorator_that_may_change_the_value_ends_the_look(dsql, options, app):
    """What it makes of the value is marshalled, and not the value: somebody's own, also one of Powertools' factory."""

    def as_text(function):
        @wraps(function)
        def wrapper(event, context):
            return str(function(event, context))

        return wrapper

    @lambda_handler_decorator
    def as_text_too(handler, event, context):
        return str(handler(event, context))

    for decorate in (as_text, as_text_too):
        app.lambda_handler = decorate(returning(options, SOME_ID))
        assert app.lambda_handler({}, LambdaContext()) == str(SOME_ID)
    assert balance(dsql) == 102


def test_only_the_handlers_own_value_is_checked(dsql, options, app):
    """What other functions return goes to the handler."""
    app.lambda_handler = None
    assert returning(options, SOME_ID)({}, LambdaContext()) == SOME_ID


# jsonable


def test_jsonable_turns_rows_into_jsons_types(options):
    """UUID, Decimal and dates as text; no digit is lost."""
    rows = [{"id": SOME_ID, "n": Decimal("1.10"), "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "on": date(2026, 1, 2)}]
    assert jsonable({"rows": rows, "t": time(1, 2), "none": None, "more": (1, 2.5, True)}) == {
        "rows": [
            {"id": "00000000-0000-0000-0000-000000000007", "n": "1.10", "at": "2026-01-02T03:04:05+00:00", "on": "2026-01-02"}
        ],
        "t": "01:02:00",
        "none": None,
        "more": [1, 2.5, True],
    }
    assert jsonable({SOME_ID: 1, 2: 3}) == {str(SOME_ID): 1, "2": 3}
    with pytest.raises(ResponseError, match=r"rows\[0\]\.photo: bytes has no JSON type"):
        jsonable({"rows": [{"photo": b"x"}]})


# Dangerous orders


class Store(BasePersistenceLayer):
    """Nobody gets this far."""

    def _get_record(self, idempotency_key):
        raise NotImplementedError

    _put_record = _update_record = _delete_record = _get_record


def test_powertools_idempotency_below_the_transaction_is_refused(options):
    """It would store its result before COMMIT, and a conflict would lose the write."""
    with pytest.raises(TypeError, match="put it above @with_dsql_transaction, or use idempotency="):

        @with_dsql_transaction(options=options)
        @idempotent(persistence_store=Store())  # type: ignore[arg-type]
        def handler(event, context, tx):
            return 1

    logger = Logger(service="test")
    with pytest.raises(TypeError, match="put it above @with_dsql_transaction"):

        @with_dsql_transaction(options=options)
        @logger.inject_lambda_context
        @idempotent(persistence_store=Store())  # type: ignore[arg-type]
        def deeper(event, context, tx):
            return 1

    with pytest.raises(TypeError, match="put it above @with_dsql_transaction"):

        @with_dsql_transaction(options=options)
        @idempotent_function(data_keyword_argument="order", persistence_store=Store())
        def pay(order, tx):
            return 1


def test_powertools_idempotency_above_the_transaction_is_fine(options):
    """The order that the documentation shows."""

    @idempotent(persistence_store=Store())
    @with_dsql_transaction(options=options)
    def handler(event, context, tx):
        return 1

    assert callable(handler)
