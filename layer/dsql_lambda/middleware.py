"""A middleware of Powertools' resolvers that makes each route a transaction: `DsqlTransactionMiddleware`.

Knows Powertools' resolvers and responses, and imports them: it is imported only when it is named. What happens to the transaction
is decided by the loop. What stands behind the middleware, the route with it, is one attempt, and runs again after a conflict.

    the resolver's context   put back before each attempt to what it was before the first: the values of dependencies, `tx` among
                             them, are the attempt's own
    the response             2xx and 3xx commit; 5xx rolls back; 4xx commits, unless a statement had failed, or the user chose
    an exception             rolls back, and goes on to the resolver's exception handlers as it was
    a key                    the route's: what it answers is committed with its work, and given again (module `stored_response`)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from aws_lambda_powertools.event_handler.api_gateway import ApiGatewayResolver, Response
from aws_lambda_powertools.event_handler.middlewares import BaseMiddlewareHandler, NextMiddleware

from . import stored_response
from .attempt import Ending
from .cache import open_at_init, source_for
from .claim import ConnectionSource
from .decorator import check_call, deadline_of, keys_for, once_for
from .failure import outcome_of
from .fields import check_number
from .json_text import ResponseError, place_of_failure
from .lambda_runtime import deadline_after
from .options import ConnectOptions
from .records import StructuredLogger
from .retry import OCCRetryConfig
from .runner import run_in_transaction
from .running import dsql_transaction
from .telemetry import Telemetry
from .transaction import Transaction

if TYPE_CHECKING:
    from .emf import Metrics
    from .idempotency import Idempotency
    from .once import Once
    from .subsegments import Tracer
else:
    Idempotency = Metrics = Tracer = Any  # for `typing.get_type_hints`: whoever uses one has loaded it


class DsqlTransactionMiddleware(BaseMiddlewareHandler[ApiGatewayResolver]):
    """Run each route of a resolver in a transaction, which `Depends(dsql_transaction)` gives to it.

        app.use(middlewares=[DsqlTransactionMiddleware()])

    **What stands behind it may run several times**: put it last. It is run again when DSQL reports a conflict and when the
    connection is lost before COMMIT was sent; the response is returned once COMMIT was answered. An exception rolls back, and
    so does a response with the status `rollback_from` or above: 400 rolls back what the client got wrong, too. A response of
    400 or above is returned also where a statement had failed; any other is replaced by that statement's error. The response is
    serialized before COMMIT: what the resolver can't write is a `ResponseError`.

    With `idempotency` each event is handled once by each route: a later one with the same key gets the stored response, with its
    status, headers, cookies and body. A response that rolls back is not stored. The event is Powertools' data class of it.

    The other keywords are those of `with_dsql_transaction`, and so is what is raised. Raises `ConfigError` and `TypeError` for
    a keyword that is none. In a test without a database an override of `dsql_transaction` in the resolver's
    `dependency_overrides` takes the transaction's place.
    """

    def __init__(
        self,
        *,
        options: ConnectOptions | None = None,
        source: ConnectionSource | None = None,
        retry: OCCRetryConfig | None = None,
        read_only: bool = False,
        timeout: float | None = None,
        logger: StructuredLogger | None = None,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
        idempotency: Idempotency | None = None,
        rollback_from: int = 500,
    ) -> None:
        super().__init__()
        check_call(source, retry, options)
        deadline_after(timeout)
        check_number("rollback_from", rollback_from, 400, 600, whole=True)
        self._options = options
        self._source = source
        self._retry = retry
        self._read_only = read_only
        self._timeout = timeout
        self._observed_by: dict[str, Any] = {"logger": logger, "metrics": metrics, "tracer": tracer}
        Telemetry(**self._observed_by)  # what is wrong is said here, and not at the first request
        keys_for(idempotency, type(self), read_only=read_only)
        self._idempotency = idempotency
        self._rollback_from = rollback_from
        if source is None:
            open_at_init(options)

    def handler(self, app: ApiGatewayResolver, next_middleware: NextMiddleware) -> Response[Any]:
        """What Powertools calls."""
        if dsql_transaction in getattr(app, "dependency_overrides", ()):
            return next_middleware(app)
        source = source_for(self._options) if self._source is None else self._source
        before = _copy(app.context)
        route = getattr(before.get("_route"), "func", None)
        once = self._once(route, app.current_event)

        def attempt(tx: Transaction) -> Any:
            app.context.clear()
            app.context.update(_copy(before))
            response: Any = app._to_response(next_middleware(app))
            if not tx.has_ended and self._rolls_back(response.status_code, tx):
                tx.rollback()
            return response if once is None else stored_response.stored(response, _body(app, response))

        value = run_in_transaction(
            attempt,
            source,
            retry=self._retry,
            deadline_at=deadline_of(source, self._timeout, (app.lambda_context,)),
            read_only=self._read_only,
            telemetry=Telemetry(route, **self._observed_by),
            check=partial(_body, app) if once is None else None,
            once=once,
        )
        return cast("Response[Any]", value if once is None else stored_response.restored(value))

    def _once(self, route: Callable[..., Any] | None, event: Any) -> Once | None:
        """The row of the event's key, which is one of the route's. A route of Powertools' own, as that of a 404, has none."""
        if (getattr(route, "__module__", None) or "").startswith("aws_lambda_powertools."):
            return None
        keys = keys_for(self._idempotency, route or type(self), read_only=self._read_only)
        return once_for(keys, event) if keys is not None else None

    def _rolls_back(self, status: int, tx: Transaction) -> bool:
        """Is a response with this status the answer to what can't, or must not, be committed?"""
        if status < HTTPStatus.BAD_REQUEST:
            return False
        evidence = tx._evidence
        ended = outcome_of(evidence, None, tx._session.transport.failure, "statement")
        if ended.ending is not Ending.FAILED or evidence.interruption is not None:
            return False  # the loop runs the route again, or raises
        return status >= self._rollback_from or ended.error is not None


def _copy(context: dict[str, Any]) -> dict[str, Any]:
    """The resolver's context, with copies of Powertools' own dicts: each attempt changes the route's arguments, for one."""
    return {name: dict(each) if name.startswith("_") and type(each) is dict else each for name, each in context.items()}


def _body(app: ApiGatewayResolver, response: Response[Any]) -> Any:
    """The body as the resolver writes it. Raises `ResponseError` for one that it could not write once the route is committed."""
    serialize: Callable[[Any], str] = app._serializer
    if not response.is_json() or isinstance(response.body, str):
        return response.body
    try:
        return serialize(response.body)
    except Exception as error:
        place = place_of_failure(response.body, serialize)
        raise ResponseError(
            f"the resolver can't write the response's body: {place}; dsql_lambda.jsonable() converts rows"
        ) from error
