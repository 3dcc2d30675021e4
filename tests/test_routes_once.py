"""Routes of Powertools' resolvers under a middleware with a key: what the first request got, a later one gets too."""

from __future__ import annotations

import copy
from http import HTTPStatus
from typing import Annotated, Any

import pytest
from aws_lambda_powertools.event_handler import (
    APIGatewayHttpResolver,
    BedrockAgentResolver,
    BedrockResponse,
    CORSConfig,
    Depends,
    Response,
)
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.shared.cookies import Cookie, SameSite
from tests.gateways import GATEWAYS, Gateway

from dsql_lambda import (
    ConfigError,
    DsqlTransactionMiddleware,
    Idempotency,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    ResponseError,
    Transaction,
    dsql_transaction,
)
from dsql_local.lambda_context import LambdaContext as LocalContext

# Powertools types a context as its own class.
LambdaContext: Any = LocalContext

ADD = "UPDATE accounts SET balance = balance + :amount WHERE id = 1"
BY_HEADER = Idempotency(key=lambda event: event.headers.get("idempotency-key"))
Tx = Annotated[Transaction, Depends(dsql_transaction)]


@pytest.fixture(autouse=True)
def table(dsql):
    """The keys' own."""
    dsql.execute("DROP TABLE IF EXISTS dsql_lambda_idempotency")
    dsql.execute(BY_HEADER.create_table())


@pytest.fixture(params=["first", "ride"])
def middleware(request, options):
    """One with keys, by either lookup."""
    return DsqlTransactionMiddleware(options=options, idempotency=BY_HEADER.replace(lookup=request.param))


def event(key: str | None = "a", path: str = "/", body: str | None = None, gateway: str = "http") -> dict[str, Any]:
    """A request with a key."""
    found = copy.deepcopy(GATEWAYS[gateway].event("POST", path, body))
    if key is not None:
        found["headers"] = {**found.get("headers", {}), "Idempotency-Key": key}
    return found


def balance(dsql):
    return int(dsql.execute("SELECT balance FROM accounts WHERE id = 1")[0][0])


@pytest.mark.parametrize("name", GATEWAYS)
def test_a_request_that_comes_again_gets_the_same_response(dsql, options, name):
    """Of every gateway; the route is called once, and again only after a conflict. A key is found by an expression too."""
    gateway: Gateway = GATEWAYS[name]
    by_path = Idempotency(key="[apiPath, rawPath, path, raw_path]")
    app = gateway.resolver(enable_validation=True)
    app.use(middlewares=[DsqlTransactionMiddleware(options=options, idempotency=by_path)])

    @app.post("/orders", description="Adds")
    def order(tx: Tx) -> dict[str, int]:
        tx.defer(ADD, amount=5)
        return {"attempt": tx.attempt}

    dsql.conflict_next(1)
    for _ in range(2):
        assert gateway.request(app, LambdaContext(), "POST", "/orders", {}) == (200, {"attempt": 2})
    assert balance(dsql) == 105


COOKIES = [Cookie("session", "s=1", path="/", http_only=True, same_site=SameSite.LAX_MODE), Cookie("plain", "", secure=False)]


@pytest.mark.parametrize(
    "answer",
    [
        lambda: ({"made": [1, 2.5, "ü"]}, 201),
        lambda: Response(HTTPStatus.ACCEPTED, "application/json", {"x": None}, headers={"X-A": "1", "X-B": ["2", "3"]}),
        lambda: Response(200, "text/plain; charset=utf-8", "text", cookies=COOKIES),
        lambda: Response(200, "image/png", b"\x89PNG\x00\xff"),
        lambda: Response(204),
        lambda: Response(404, "application/json", '{"no": "such account"}'),
        lambda: Response(200, "application/json", {"long": "x" * 100}, compress=True),
    ],
    ids=["tuple", "headers", "cookies", "bytes", "nothing", "404", "compressed"],
)
def test_the_whole_response_is_given_again(dsql, middleware, answer):
    """As Lambda marshals it: status, headers, cookies, body; and as it is without a key."""
    app = APIGatewayHttpResolver()
    app.post("/without", middlewares=[])(answer)

    @app.post("/", middlewares=[middleware])
    def route(tx: Tx):
        tx.defer(ADD, amount=1)
        return answer()

    asked = event()
    asked["headers"]["accept-encoding"] = "gzip"
    first, again = app.resolve(asked, LambdaContext()), app.resolve(asked, LambdaContext())
    assert first == again == app.resolve(event(None, "/without") | {"headers": asked["headers"]}, LambdaContext())
    assert balance(dsql) == 101


def test_a_response_of_a_bedrock_agent_is_given_again(dsql, options):
    """With its session."""
    app = BedrockAgentResolver()
    app.use(middlewares=[DsqlTransactionMiddleware(options=options, idempotency=Idempotency(key="sessionId"))])

    @app.get("/claims", description="All claims")
    def claims(tx: Tx):
        tx.defer(ADD, amount=1)
        return BedrockResponse(body={"said": "so"}, session_attributes={"user": "1"})

    first, again = (app.resolve(GATEWAYS["bedrock"].event("GET", "/claims", None), LambdaContext()) for _ in range(2))
    assert first == again
    assert first["sessionAttributes"] == {"user": "1"}
    assert balance(dsql) == 101


def test_a_lost_commit_is_settled(dsql, middleware):
    """Its response is the one that landed, or another attempt's."""
    app = APIGatewayHttpResolver()
    app.use(middlewares=[middleware])

    @app.post("/")
    def route(tx: Tx):
        tx.defer(ADD, amount=1)
        return {"attempt": tx.attempt}, 201

    dsql.cut("after-commit-sent")
    first = app.resolve(event(), LambdaContext())
    assert (first["statusCode"], balance(dsql)) == (201, 101)
    assert app.resolve(event(), LambdaContext()) == first
    assert balance(dsql) == 101


@pytest.mark.parametrize("refusal", ["error", "500", "404"])
def test_what_rolls_back_leaves_the_key_for_another_try(dsql, options, middleware, refusal):
    """An exception, a 5xx, and a 4xx by choice."""
    if refusal == "404":
        chosen = middleware._idempotency
        middleware = DsqlTransactionMiddleware(options=options, idempotency=chosen, rollback_from=400)
    app = APIGatewayHttpResolver()
    app.use(middlewares=[middleware])
    refused = [True]

    @app.post("/")
    def route(tx: Tx):
        tx.run(ADD, amount=1)
        if refused[0] and refusal == "error":
            raise NotFoundError("no account")
        return {}, int(refusal) if refused[0] else 200

    assert app.resolve(event(), LambdaContext())["statusCode"] == (500 if refusal == "500" else 404)
    assert balance(dsql) == 100
    refused[0] = False
    assert app.resolve(event(), LambdaContext())["statusCode"] == 200
    assert app.resolve(event(), LambdaContext())["statusCode"] == 200
    assert balance(dsql) == 101


def test_what_stands_before_it_runs_each_time_and_what_stands_behind_it_once(dsql, middleware):
    """A middleware before it sees the response, whose body is the text that was stored."""
    app = APIGatewayHttpResolver()
    ran = []

    def before(app, next_middleware):
        response = next_middleware(app)
        ran.append(("before", response.body))
        response.headers["X-Time"] = str(len(ran))
        return response

    def behind(app, next_middleware):
        ran.append(("behind", None))
        return next_middleware(app)

    app.use(middlewares=[before, middleware, behind])

    @app.post("/")
    def route(tx: Tx):
        return {"balance": tx.value("SELECT balance FROM accounts WHERE id = 1")}

    headers = [app.resolve(event(), LambdaContext())["headers"]["X-Time"] for _ in range(2)]
    ends = [each for each in ran if each[0] == "before"]
    assert ends == [("before", '{"balance":100}')] * 2
    assert headers[0] != headers[1]
    if middleware._idempotency.lookup == "first":
        assert len(ran) == 3


def test_a_key_is_one_of_its_route_and_of_its_payload(dsql, middleware):
    """Another route's is another one; the same with another body, and none at all, are the resolver's to answer."""
    app = APIGatewayHttpResolver()
    app.use(middlewares=[middleware])

    @app.post("/one")
    def one(tx: Tx):
        tx.defer(ADD, amount=1)
        return {}

    @app.post("/two")
    def two(tx: Tx):
        tx.defer(ADD, amount=10)
        return {}

    @app.exception_handler(IdempotencyKeyMissing)
    def missing(error):
        return Response(status_code=400)

    @app.exception_handler(IdempotencyKeyReused)
    def reused(error):
        return Response(status_code=422)

    asked = [event("a", "/one"), event("a", "/two"), event("a", "/one", '{"another": "one"}'), event("a", "/one")]
    assert [app.resolve(each, LambdaContext())["statusCode"] for each in asked] == [200, 200, 422, 200]
    dsql.clear_log()
    assert app.resolve(event(None, "/one"), LambdaContext())["statusCode"] == 400
    assert [each for each in dsql.log if each.kind == "flight"] == []
    assert balance(dsql) == 111


def test_no_route_found_and_preflights_need_no_key(dsql, middleware):
    """Powertools sends them through the middlewares of all routes, as routes of its own."""
    app = APIGatewayHttpResolver(cors=CORSConfig())
    app.use(middlewares=[middleware])
    app.post("/")(dict)
    for method, path, status in (("OPTIONS", "/", 204), ("GET", "/nothing", 404)):
        for key in (None, "a", "a"):
            asked = {
                **event(key),
                "rawPath": path,
                "requestContext": {"http": {"method": method, "path": path}, "stage": "$default"},
            }
            assert app.resolve(asked, LambdaContext())["statusCode"] == status
    assert [each for each in dsql.log if each.kind == "flight"] == []


def test_a_response_that_cant_be_stored_fails_before_commit(dsql, middleware):
    """What the resolver can't write, and what is too long for a key's row."""
    app = APIGatewayHttpResolver()
    app.use(middlewares=[middleware])

    @app.post("/<kind>")
    def route(kind: str, tx: Tx):
        tx.defer(ADD, amount=1)
        return {"rows": [object()]} if kind == "object" else {"rows": "x" * 1024 * 1024}

    with pytest.raises(ResponseError, match=r"can't write the response's body: rows\[0\]: object"):
        app.resolve(event("a", "/object"), LambdaContext())
    with pytest.raises(ResponseError, match="at most 1048576 can be stored"):
        app.resolve(event("b", "/long"), LambdaContext())
    assert balance(dsql) == 100


@pytest.mark.parametrize(
    ("wrong", "error", "sentence"),
    [
        ({"idempotency": "key"}, TypeError, "idempotency is a str"),
        ({"idempotency": BY_HEADER, "read_only": True}, TypeError, "is for a transaction that writes"),
        ({"idempotency": Idempotency(key="[")}, ConfigError, "no JMESPath expression"),
    ],
)
def test_a_wrong_key_is_refused_when_the_middleware_is_made(wrong, error, sentence):
    """Not at the first request."""
    with pytest.raises(error, match=sentence):
        DsqlTransactionMiddleware(**wrong)
