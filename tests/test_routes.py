"""Routes of Powertools' resolvers: decorated, or made transactions by the middleware, with validation and without.

Annotations are text here (`from __future__ import annotations`), as in the modules of most users.
"""

from __future__ import annotations

import asyncio
import json
import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Annotated, Any
from unittest.mock import create_autospec
from uuid import UUID

import pytest
from aws_lambda_powertools.event_handler import (
    APIGatewayHttpResolver,
    AppSyncEventsResolver,
    AppSyncResolver,
    BedrockAgentFunctionResolver,
    BedrockAgentResolver,
    BedrockResponse,
    DependencyResolutionError,
    Depends,
    HttpResolverLocal,
    Request,
    Response,
)
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from aws_lambda_powertools.metrics import EphemeralMetrics
from pydantic import BaseModel
from tests.gateways import GATEWAYS, Gateway, answered

from dsql_lambda import (
    CommitOutcomeUnknown,
    ConfigError,
    DatabaseError,
    DsqlTransactionMiddleware,
    OCCRetryConfig,
    OCCRetryExhausted,
    Pool,
    ResponseError,
    Transaction,
    TransactionError,
    connect,
    dsql_transaction,
    run_transaction,
    with_dsql_transaction,
)
from dsql_local.lambda_context import LambdaContext as LocalContext

if TYPE_CHECKING:
    from dsql_lambda import ConnectOptions

# Powertools types a context as its own class.
LambdaContext: Any = LocalContext

ADD = "UPDATE accounts SET balance = balance + :amount WHERE id = 1"
Tx = Annotated[Transaction, Depends(dsql_transaction)]


class Order(BaseModel):
    """What a client asks for."""

    amount: int


class Receipt(BaseModel):
    """What it gets."""

    added: int
    attempt: int


@pytest.fixture(params=GATEWAYS)
def gateway(request):
    """What stands before the function."""
    return GATEWAYS[request.param]


def balance(dsql, account=1):
    return int(dsql.execute(f"SELECT balance FROM accounts WHERE id = {account}")[0][0])


def in_one_thread(dsql):
    """No session of a client is left inside a transaction."""
    states = dsql.execute("SELECT state FROM pg_stat_activity WHERE application_name LIKE '%dsql-lambda%'")
    return {state for (state,) in states} <= {"idle"}


# Decorated routes


def test_a_decorated_route_is_a_transaction(dsql, options, gateway: Gateway):
    """Its body is validated, its conflicts are retried, and its documentation knows nothing of `tx`."""
    app = gateway.resolver(enable_validation=True)

    @app.post("/orders", description="Adds")
    @with_dsql_transaction(options=options)
    def order(body: Order, tx: Transaction) -> Receipt:
        tx.defer(ADD, amount=body.amount)
        return Receipt(added=body.amount, attempt=tx.attempt)

    dsql.conflict_next(1)
    assert gateway.request(app, LambdaContext(), "POST", "/orders", {"amount": 5}) == (200, {"added": 5, "attempt": 2})
    assert gateway.request(app, LambdaContext(), "POST", "/orders", {"amount": "x"})[0] == 422
    assert balance(dsql) == 105
    schema = json.loads(app.get_openapi_json_schema())
    operation = schema["paths"]["/orders"]["post"]
    assert "parameters" not in operation
    assert operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/Order")
    assert operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/Receipt")
    assert "Transaction" not in json.dumps(schema)


def test_a_decorated_route_without_validation(dsql, options, gateway: Gateway):
    """It takes the body from the resolver, and its path's parameter as text."""
    app = gateway.resolver()

    @app.post("/accounts/1", description="Adds")
    @with_dsql_transaction(options=options)
    def account(tx: Transaction) -> dict[str, Any]:
        tx.defer(ADD, amount=int(app.current_event.json_body["amount"]))
        return {"attempt": tx.attempt}

    dsql.conflict_next(1)
    assert gateway.request(app, LambdaContext(), "POST", "/accounts/1", {"amount": 5}) == (200, {"attempt": 2})
    assert balance(dsql) == 105


@pytest.mark.parametrize("validation", [False, True])
def test_depends_and_the_request_reach_a_decorated_route(dsql, options, validation):
    """Powertools looks for both in the type hints, among which `tx` is not."""
    app = APIGatewayHttpResolver(enable_validation=validation)

    def who(request: Request) -> str:
        return f"who asks for {request.route}"

    @app.get("/accounts/<account>")
    @with_dsql_transaction(options=options)
    def route(account: int, user: Annotated[str, Depends(who)], request: Request, tx: Transaction) -> dict[str, Any]:
        return {"user": user, "method": request.method, "balance": tx.value("SELECT balance FROM accounts WHERE id = 1")}

    route.__globals__["who"] = who  # it is of this function, and Powertools reads names in the module
    try:
        got = GATEWAYS["http"].request(app, LambdaContext(), "GET", "/accounts/1")
    finally:
        del route.__globals__["who"]
    assert got == (200, {"user": "who asks for /accounts/{account}", "method": "GET", "balance": 100})


def test_a_field_of_appsync_and_each_of_a_batch(dsql, options):
    """Arguments come by keyword."""
    app = AppSyncResolver()

    @app.resolver(type_name="Mutation", field_name="add")
    @with_dsql_transaction(options=options)
    def add(amount: int, tx: Transaction) -> Receipt:
        tx.defer(ADD, amount=amount)
        return Receipt(added=amount, attempt=tx.attempt)

    @app.batch_resolver(type_name="Account", field_name="balance", aggregate=False)
    @with_dsql_transaction(options=options)
    def one(event: Any, tx: Transaction, account: int) -> int:
        return int(tx.value("SELECT balance FROM accounts WHERE id = :id", id=account))

    @app.batch_resolver(type_name="Account", field_name="all")
    @with_dsql_transaction(options=options)
    def together(event: list[Any], tx: Transaction) -> list[int]:
        return [int(tx.value("SELECT balance FROM accounts WHERE id = :id", id=each.arguments["account"])) for each in event]

    def field(type_name, name, **arguments):
        return {"info": {"parentTypeName": type_name, "fieldName": name}, "arguments": arguments}

    dsql.conflict_next(1)
    assert app.resolve(field("Mutation", "add", amount=5), LambdaContext()) == Receipt(added=5, attempt=2)
    assert balance(dsql) == 105
    for name in ("balance", "all"):
        batch = [field("Account", name, account=each) for each in (1, 2)]
        assert app.resolve(batch, LambdaContext()) == [105, 100]


def test_an_event_of_appsync(dsql, options):
    """Each event of a channel is a transaction; one that fails is reported alone."""
    app = AppSyncEventsResolver()

    @app.on_publish("/orders/*")
    @with_dsql_transaction(options=options)
    def publish(payload: dict[str, Any], tx: Transaction) -> dict[str, Any]:
        tx.run(ADD, amount=payload["amount"])
        return {"attempt": tx.attempt}

    event = {
        "info": {"channel": {"path": "/orders/1", "segments": ["orders", "1"]}, "operation": "PUBLISH"},
        "events": [{"id": "a", "payload": {"amount": 5}}, {"id": "b", "payload": {"amount": -1000}}],
    }
    dsql.conflict_next(1)
    good, bad = app.resolve(event, LambdaContext())["events"]
    assert good == {"id": "a", "payload": {"attempt": 2}}
    assert "accounts_balance_check" in bad["error"]
    assert balance(dsql) == 105


def test_a_function_of_a_bedrock_agent(dsql, options):
    """Its parameters are those of the signature, which has no `tx`."""
    app = BedrockAgentFunctionResolver()

    @app.tool(name="add", description="Adds")
    @with_dsql_transaction(options=options)
    def add(amount: int, tx: Transaction) -> dict[str, int]:
        tx.defer(ADD, amount=amount)
        return {"attempt": tx.attempt}

    event = {
        "messageVersion": "1.0",
        "agent": {"name": "a", "id": "1", "alias": "x", "version": "1"},
        "actionGroup": "orders",
        "function": "add",
        "parameters": [{"name": "amount", "type": "integer", "value": "5"}, {"name": "tx", "type": "string", "value": "no"}],
    }
    dsql.conflict_next(1)
    answer = app.resolve(event, LambdaContext())
    assert answer["response"]["functionResponse"]["responseBody"]["TEXT"]["body"] == '{"attempt": 2}'
    assert balance(dsql) == 105


# The middleware


@pytest.mark.parametrize("validation", [False, True], ids=["plain", "validation"])
def test_the_middleware_makes_every_route_a_transaction(dsql, options, gateway: Gateway, validation):
    """`Depends` gives `tx`: after a conflict, that of the new attempt. It is not in the documentation."""
    app = gateway.resolver(enable_validation=validation)
    app.use(middlewares=[DsqlTransactionMiddleware(options=options)])
    seen = []

    @app.post("/orders", description="Adds")
    def order(tx: Tx) -> Receipt:
        seen.append(tx)
        tx.defer(ADD, amount=5)
        receipt = Receipt(added=5, attempt=tx.attempt)
        return receipt if validation else receipt.model_dump()  # type: ignore[return-value]

    dsql.conflict_next(2)
    assert gateway.request(app, LambdaContext(), "POST", "/orders", {}) == (200, {"added": 5, "attempt": 3})
    assert len(set(map(id, seen))) == 3
    assert balance(dsql) == 105
    schema = app.get_openapi_json_schema()
    assert not {"tx", "Transaction"} & set(schema.replace('"', " ").split())
    assert in_one_thread(dsql)


def test_a_validated_body_reaches_each_attempt(dsql, options, gateway: Gateway):
    """The resolver's context is put back before each."""
    app = gateway.resolver(enable_validation=True)
    app.use(middlewares=[DsqlTransactionMiddleware(options=options)])

    @app.post("/orders", description="Adds")
    def order(body: Order, tx: Tx) -> Receipt:
        tx.defer(ADD, amount=body.amount)
        return Receipt(added=body.amount, attempt=tx.attempt)

    dsql.conflict_next(1)
    assert gateway.request(app, LambdaContext(), "POST", "/orders", {"amount": 7}) == (200, {"added": 7, "attempt": 2})
    assert balance(dsql) == 107


@pytest.fixture
def app(options):
    """A resolver whose routes are transactions: one that says what it was asked, and how often."""
    app = APIGatewayHttpResolver()
    app.use(middlewares=[DsqlTransactionMiddleware(options=options, retry=OCCRetryConfig(max_attempts=4))])
    return app


def get(app, path="/", context=None):
    return GATEWAYS["http"].request(app, context or LambdaContext(), "GET", path)


@pytest.mark.parametrize(
    ("rollback_from", "status", "is_kept"),
    [
        (500, 200, True),
        (500, 302, True),
        (500, 404, True),
        (500, 500, False),
        (500, 503, False),
        (400, 404, False),
        (400, 399, True),
    ],
)
def test_a_response_is_committed_by_its_status(dsql, options, rollback_from, status, is_kept):
    """5xx rolls back, and 4xx by choice; the client gets the response in each case."""
    app = APIGatewayHttpResolver()
    app.use(middlewares=[DsqlTransactionMiddleware(options=options, rollback_from=rollback_from)])

    @app.get("/")
    def route(tx: Tx):
        tx.defer(ADD, amount=1)
        return {"said": "so"}, status

    assert get(app) == (status, {"said": "so"})
    assert balance(dsql) == 100 + is_kept
    assert in_one_thread(dsql)


@pytest.mark.parametrize(("status", "is_kept"), [(200, True), (500, False)])
def test_a_response_of_a_bedrock_agent_is_committed_by_its_status_too(dsql, options, status, is_kept):
    """It has a class of its own."""
    app = BedrockAgentResolver()
    app.use(middlewares=[DsqlTransactionMiddleware(options=options)])

    @app.get("/claims", description="All claims")
    def claims(tx: Tx):
        tx.defer(ADD, amount=1)
        return BedrockResponse(status_code=status, body={"said": "so"}, session_attributes={"user": "1"})

    answer = app.resolve(GATEWAYS["bedrock"].event("GET", "/claims", None), LambdaContext())
    assert (answered(answer), answer["sessionAttributes"]) == ((status, {"said": "so"}), {"user": "1"})
    assert balance(dsql) == 100 + is_kept


@pytest.mark.parametrize("error", [NotFoundError("no such account"), ValueError("a bug")])
def test_an_exception_rolls_back_and_reaches_the_resolver(dsql, app: APIGatewayHttpResolver, error):
    """As it was: the resolver's own handlers, and its answers to service errors, see it."""

    @app.get("/")
    def route(tx: Tx):
        tx.run(ADD, amount=1)
        raise error

    @app.exception_handler(ValueError)
    def handle(error):
        return Response(status_code=418, content_type="application/json", body=json.dumps({"said": str(error)}))

    status, said = get(app)
    assert (status, str(error) in json.dumps(said)) == (404 if isinstance(error, NotFoundError) else 418, True)
    assert balance(dsql) == 100
    assert in_one_thread(dsql)


def test_an_answer_to_a_refused_statement_is_returned(dsql, app: APIGatewayHttpResolver):
    """The route has handled it, with a 4xx: there is nothing to commit. A 2xx would be a lie, and is the statement's error."""

    @app.get("/<status>")
    def route(status: str, tx: Tx):
        tx.run(ADD, amount=1)
        try:
            tx.run(ADD, amount=-1000)
        except DatabaseError:
            return {"error": "insufficient funds"}, int(status)

    assert get(app, "/409") == (409, {"error": "insufficient funds"})
    assert get(app, "/500") == (500, {"error": "insufficient funds"})
    with pytest.raises(DatabaseError, match="accounts_balance_check"):
        get(app, "/200")
    assert balance(dsql) == 100
    assert in_one_thread(dsql)


def test_a_conflict_that_the_route_made_a_500_of_is_retried(dsql, app: APIGatewayHttpResolver):
    """Whatever the route made of it: the server's word counts."""
    attempts = []

    @app.get("/")
    def route(tx: Tx):
        attempts.append(tx.attempt)
        try:
            if tx.attempt < 3:
                dsql.conflict_next(1, "OC001", at="statement")
            tx.run(ADD, amount=1)
        except Exception:
            return {"error": "no luck"}, 500
        return {"attempt": tx.attempt}

    assert get(app) == (200, {"attempt": 3})
    assert (attempts, balance(dsql)) == ([1, 2, 3], 101)


def test_exhausted_retries_are_the_resolvers_to_answer(dsql, app: APIGatewayHttpResolver):
    """By an exception handler of the user's."""

    @app.get("/")
    def route(tx: Tx):
        tx.defer(ADD, amount=1)
        return {}

    @app.exception_handler(OCCRetryExhausted)
    def busy(error):
        return Response(status_code=503, content_type="application/json", body="{}", headers={"Retry-After": "1"})

    dsql.conflict_next(4)
    assert get(app) == (503, {})
    assert balance(dsql) == 100


def test_a_lost_commit_is_the_resolvers_to_answer(dsql, app: APIGatewayHttpResolver):
    """It is never run again unasked."""

    @app.get("/")
    def route(tx: Tx):
        tx.defer(ADD, amount=1)
        return {}

    @app.exception_handler(CommitOutcomeUnknown)
    def unknown(error):
        return Response(status_code=500, content_type="application/json", body=json.dumps({"attempts": error.attempts}))

    dsql.cut("after-commit-sent")
    assert get(app) == (500, {"attempts": 1})
    assert balance(dsql) == 101


def test_what_the_route_asks_for_to_be_rolled_back_is(dsql, app: APIGatewayHttpResolver):
    """`tx.rollback()`, with a 200."""

    @app.get("/")
    def route(tx: Tx):
        tx.run(ADD, amount=1)
        tx.rollback()
        return {"dry": "run"}

    assert get(app) == (200, {"dry": "run"})
    assert balance(dsql) == 100


def test_a_response_that_cant_be_written_fails_before_commit(dsql, app: APIGatewayHttpResolver):
    """The resolver writes it after its middlewares, when it would be committed. A response of text or bytes is as it is."""

    @app.get("/<kind>")
    def route(kind: str, tx: Tx):
        tx.defer(ADD, amount=1)
        if kind == "text":
            return Response(status_code=200, content_type="text/plain", body='"text"')
        return {"rows": [{"id": UUID(int=7)}]}

    with pytest.raises(ResponseError, match=r"can't write the response's body: rows\[0\]\.id: UUID"):
        get(app, "/json")
    assert balance(dsql) == 100
    assert get(app, "/text") == (200, "text")
    assert balance(dsql) == 101


def test_what_stands_before_it_runs_once_and_what_stands_behind_it_again(dsql, options):
    """Each attempt finds the resolver's context as the first one did."""
    seen: dict[str, list[Any]] = {"outside": [], "inside": [], "route": [], "dependency": []}

    def outside(app, next_middleware):
        app.append_context(outside="kept")
        response = next_middleware(app)
        seen["outside"].append(dict(app.context).get("inside"))
        return response

    def inside(app, next_middleware, tx: Tx):
        seen["inside"].append((app.context.get("inside"), tx.attempt))
        app.append_context(inside=tx.attempt)
        return next_middleware(app)

    def account(tx: Tx) -> int:
        seen["dependency"].append(tx.attempt)
        return int(tx.value("SELECT balance FROM accounts WHERE id = 1"))

    app = APIGatewayHttpResolver()
    app.use(middlewares=[outside, DsqlTransactionMiddleware(options=options), inside])

    @app.get("/<name>")
    def route(name: str, held: Annotated[int, Depends(account)], again: Annotated[int, Depends(account)], tx: Tx):
        seen["route"].append((name, app.context["outside"], held, sorted(app.context["_route_args"])))
        tx.defer(ADD, amount=1)
        return {"attempt": tx.attempt}

    route.__globals__["account"] = account
    try:
        dsql.conflict_next(2)
        assert get(app, "/x") == (200, {"attempt": 3})
    finally:
        del route.__globals__["account"]
    assert seen["outside"] == [3]
    assert seen["inside"] == [(None, 1), (None, 2), (None, 3)]
    assert seen["dependency"] == [1, 2, 3]  # once an attempt, though it is asked for twice
    assert [each[:3] for each in seen["route"]] == [("x", "kept", 100)] * 3
    assert balance(dsql) == 101
    assert app.context == {}


def test_routes_of_a_router_and_a_middleware_of_one_route(dsql, options):
    """Where a transaction is wanted, and nowhere else."""
    app = APIGatewayHttpResolver()
    router = APIGatewayHttpRouter()

    @router.get("/write", middlewares=[DsqlTransactionMiddleware(options=options)])
    def write():
        dsql_transaction().defer(ADD, amount=1)
        return {"attempt": dsql_transaction().attempt}

    @router.get("/health")
    def health():
        with pytest.raises(TransactionError, match="no transaction runs here"):
            dsql_transaction()
        return {}

    app.include_router(router, prefix="/v1")
    dsql.conflict_next(1)
    assert get(app, "/v1/write") == (200, {"attempt": 2})
    connections = len(dsql.log)
    assert get(app, "/v1/health") == (200, {})
    assert len(dsql.log) == connections
    assert balance(dsql) == 101


def test_no_route_found_and_preflights_send_nothing(dsql, app: APIGatewayHttpResolver):
    """A transaction without statements is none."""
    get(app)
    dsql.clear_log()
    assert get(app, "/nowhere")[0] == 404
    assert [event for event in dsql.log if event.kind == "flight"] == []


def test_the_invocations_deadline_holds(dsql, options, monkeypatch):
    """The resolver has the context."""
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")
    app = APIGatewayHttpResolver()
    app.use(middlewares=[DsqlTransactionMiddleware(options=options)])

    @app.get("/")
    def route(tx: Tx):
        tx.defer(ADD, amount=1)
        return {}

    assert get(app) == (200, {})
    dsql.conflict_next(10**6)
    context = LambdaContext(timeout=0.5)
    with pytest.raises(TransactionError):
        get(app, context=context)
    assert context.get_remaining_time_in_millis() > 0
    assert balance(dsql) == 101


def test_a_record_names_the_route_and_goes_to_its_logger(dsql, options, caplog):
    """Not the middleware, which all routes share."""
    app = APIGatewayHttpResolver()
    app.use(middlewares=[DsqlTransactionMiddleware(options=options)])

    @app.get("/")
    def transfer(tx: Tx):
        tx.defer(ADD, amount=1)
        return {}

    dsql.conflict_next(1)
    get(app)
    record = next(each for each in caplog.records if "OCC conflict" in each.getMessage())
    assert (record.funcName, record.pathname) == ("transfer", __file__)


def test_the_pools_retry_and_logger_are_those_of_its_routes(dsql, options, stage):
    """As of every other way to run a transaction on it; a logger that the middleware is given comes first."""
    own = type(stage.logger)()
    with Pool(options, retry=OCCRetryConfig(max_attempts=2), logger=stage.logger) as pool:
        for given in ({}, {"logger": own}):
            app = APIGatewayHttpResolver()
            app.use(middlewares=[DsqlTransactionMiddleware(source=pool, **given)])

            @app.get("/")
            def route(tx: Tx):
                tx.defer(ADD, amount=1)
                return {}

            dsql.conflict_next(2)
            with pytest.raises(OCCRetryExhausted):
                get(app)
    assert own.messages == stage.logger.messages == ["OCC conflict, retrying", "OCC retry exhausted"]


def test_metrics_and_a_tracer_are_told(dsql, options):
    """Of each route's transaction."""
    metrics = EphemeralMetrics(namespace="Bank", service="routes")
    app = APIGatewayHttpResolver()
    app.use(middlewares=[DsqlTransactionMiddleware(options=options, metrics=metrics)])

    @app.get("/")
    def route(tx: Tx):
        tx.defer(ADD, amount=1)
        return {}

    dsql.conflict_next(1)
    get(app)
    assert metrics.metric_set["TransactionAttempts"]["Value"] == [2.0]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_asynchronous_resolver(dsql, options, kind):
    """Powertools runs the middleware in a thread, and the route in the loop: `tx` is the same."""
    app = APIGatewayHttpResolver(enable_validation=True)
    app.use(middlewares=[DsqlTransactionMiddleware(options=options)])

    def add(tx: Transaction) -> Receipt:
        tx.defer(ADD, amount=5)
        assert dsql_transaction() is tx
        return Receipt(added=5, attempt=tx.attempt)

    if kind == "sync":

        @app.post("/orders")
        def order(tx: Tx) -> Receipt:
            return add(tx)
    else:

        @app.post("/orders")
        async def order_later(tx: Tx) -> Receipt:
            await asyncio.sleep(0)
            return add(tx)

    dsql.conflict_next(2)
    event = GATEWAYS["http"].event("POST", "/orders", "{}")
    answer = asyncio.run(app.resolve_async(event, LambdaContext()))
    assert answered(answer) == (200, {"added": 5, "attempt": 3})
    assert balance(dsql) == 105
    assert in_one_thread(dsql)


def test_requests_at_once_have_transactions_of_their_own(dsql, options):
    """On a `Pool`, by Powertools' resolver for a web server."""
    both = threading.Barrier(2, timeout=20)
    with Pool(options, max_size=2) as pool:
        app = HttpResolverLocal()
        app.use(middlewares=[DsqlTransactionMiddleware(source=pool, retry=OCCRetryConfig(max_attempts=9))])

        @app.get("/add")
        async def add(tx: Tx):
            tx.run(ADD, amount=1)
            if tx.attempt == 1:
                await asyncio.to_thread(both.wait)
            return {"attempt": tx.attempt}

        async def request() -> int:
            sent: list[Any] = []

            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message: dict[str, Any]) -> None:
                sent.append(message)

            scope = {"type": "http", "method": "GET", "path": "/add", "headers": [], "query_string": b""}
            await app(scope, receive, send)
            return int(sent[0]["status"])

        async def two() -> list[int]:
            return list(await asyncio.gather(request(), request()))

        assert asyncio.run(two()) == [200, 200]
    assert balance(dsql) == 102


# The running transaction


def test_dsql_transaction_is_the_tx_of_whoever_runs(dsql, options):
    """Of a decorated handler, of `run_transaction`, in a thread with its context; of none after it."""

    @with_dsql_transaction(options=options)
    def handler(event: Any, context: Any, tx: Transaction) -> None:
        assert dsql_transaction() is tx
        threads = []
        here = copy_context()
        thread = threading.Thread(target=lambda: threads.append(here.run(dsql_transaction)))
        thread.start()
        thread.join()
        assert threads == [tx]

    handler({}, None)
    with connect(options) as connection:
        assert run_transaction(lambda tx: dsql_transaction() is tx, source=connection)
    with pytest.raises(TransactionError, match=r"give the resolver, or the route, DsqlTransactionMiddleware\(\)"):
        dsql_transaction()


def test_a_resolver_inside_of_a_decorated_handler(dsql, options):
    """One transaction for the invocation, whatever the route."""
    app = APIGatewayHttpResolver()

    @app.get("/")
    def route(tx: Tx):
        tx.defer(ADD, amount=1)
        return {"attempt": tx.attempt}

    @with_dsql_transaction(options=options)
    def lambda_handler(event: Any, context: Any, tx: Transaction) -> dict[str, Any]:
        return app.resolve(event, context)

    dsql.conflict_next(1)
    assert answered(lambda_handler(GATEWAYS["http"].event("GET", "/", None), LambdaContext())) == (200, {"attempt": 2})
    assert balance(dsql) == 101


def test_a_second_transaction_inside_the_middlewares_is_refused(app: APIGatewayHttpResolver, options):
    """A decorated route joins it by `tx=`, or stands alone."""

    @app.get("/")
    @with_dsql_transaction(options=options)
    def route(tx: Transaction):
        raise AssertionError("is not called")

    with pytest.raises(TransactionError, match="pass its tx on to join it"):
        get(app)


def test_without_a_transaction_depends_says_what_is_missing():
    """Powertools wraps it."""
    app = APIGatewayHttpResolver()

    @app.get("/")
    def route(tx: Tx):
        raise AssertionError("is not called")

    with pytest.raises(DependencyResolutionError, match="no transaction runs here"):
        get(app)


def test_a_test_without_a_database_overrides_the_dependency():
    """As Powertools' documentation does it: no connection is opened."""
    app = APIGatewayHttpResolver()
    app.use(middlewares=[DsqlTransactionMiddleware()])

    @app.get("/")
    def route(tx: Tx):
        return {"balance": tx.value("SELECT balance FROM accounts WHERE id = 1")}

    tx = create_autospec(Transaction, instance=True)
    tx.value.return_value = 7
    app.dependency_overrides[dsql_transaction] = lambda: tx
    assert get(app) == (200, {"balance": 7})
    tx.value.assert_called_once_with("SELECT balance FROM accounts WHERE id = 1")


@pytest.mark.parametrize(
    ("wrong", "error", "sentence"),
    [
        ({"source": "url"}, TypeError, "source is a str"),
        ({"retry": 5}, TypeError, "retry is a int"),
        ({"timeout": 0}, ConfigError, "timeout is 0"),
        ({"metrics": "EMF"}, TypeError, "metrics is a str"),
        ({"tracer": "X-Ray"}, TypeError, "tracer is a str"),
        ({"rollback_from": 200}, ConfigError, "rollback_from is 200"),
        ({"rollback_from": "500"}, ConfigError, "rollback_from is '500'"),
    ],
)
def test_a_wrong_keyword_is_refused_when_it_is_made(wrong, error, sentence):
    """By what it is."""
    with pytest.raises(error, match=sentence):
        DsqlTransactionMiddleware(**wrong)


def test_options_together_with_a_source_are_refused(options: ConnectOptions):
    """A source has its own."""
    with connect(options) as connection, pytest.raises(TypeError, match="options or source, not both"):
        DsqlTransactionMiddleware(options=options, source=connection)
