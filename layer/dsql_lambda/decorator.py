"""The two ways to run a function in a transaction: `with_dsql_transaction` and `run_transaction`.

Knows signatures and where the deadline comes from; what happens to the transaction is decided below.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from .cache import open_at_init, source_for
from .claim import ConnectionSource, published_at
from .lambda_runtime import deadline_after, remaining_ms
from .options import ConnectOptions
from .retry import OCCRetryConfig
from .runner import run_in_transaction
from .stacked import Response, is_durable, refuse_idempotent_below
from .telemetry import StructuredLogger, Telemetry
from .transaction import Transaction

R = TypeVar("R")
T = TypeVar("T")

if TYPE_CHECKING:
    from .emf import Metrics
    from .idempotency import Idempotency, Keys
    from .once import Once
    from .subsegments import Tracer


def run_transaction(
    function: Callable[[Transaction], T],
    *,
    source: ConnectionSource | None = None,
    retry: OCCRetryConfig | None = None,
    timeout: float | None = None,
    read_only: bool = False,
    logger: StructuredLogger | None = None,
    metrics: Metrics | None = None,
    tracer: Tracer | None = None,
    idempotency: Idempotency | None = None,
    event: Any = None,
) -> T:
    """Run `function(tx)` in a transaction and return its value; run it again when DSQL reports a conflict.

    The function may run several times: it must have no effect outside `tx`. `source` is a `Connection` or a `Pool`, None is
    the cached connection. `timeout` is in seconds; inside an invocation its deadline counts too. `logger`, `metrics` and
    `tracer` are Powertools'. With `idempotency` the work is done once for the key of `event`.

    Raises `OCCRetryExhausted`, `DeadlineExceeded`, `CommitOutcomeUnknown`, `ConnectError`, the `DatabaseError` of a failed
    statement, or what the function raised; `AfterCommitError` when a function of `tx.after_commit` did; with `idempotency`,
    `IdempotencyKeyMissing`, `IdempotencyKeyReused` and `ResponseError`.
    """
    _check(source, retry)
    telemetry = Telemetry(function, logger=logger, metrics=metrics, tracer=tracer)
    keys = _keys(idempotency, function, read_only=read_only)
    return run_in_transaction(
        function,
        source_for(None) if source is None else source,
        retry=retry,
        deadline_at=min(deadline_after(timeout, remaining_ms()), published_at()),
        read_only=read_only,
        telemetry=telemetry,
        once=_once(keys, (event,), {"event": event}) if keys is not None else None,
    )


@overload
def with_dsql_transaction(function: Callable[..., R]) -> Callable[..., R]: ...


@overload
def with_dsql_transaction(
    function: None = None,
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
) -> Callable[[Callable[..., R]], Callable[..., R]]: ...


def with_dsql_transaction(
    function: Callable[..., Any] | None = None,
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
) -> Callable[..., Any]:
    """Run a function in a DSQL transaction, which it gets as `tx`. Bare, or called with options.

    **The function may run several times**: it must have no effect outside `tx`, and must not change its arguments. It is run
    again when DSQL reports a conflict and when the connection is lost before COMMIT was sent; its value is returned once
    COMMIT was answered. The Lambda context sets the deadline, in a handler and in what it calls, such as a resolver's route;
    `timeout` (seconds) does elsewhere, and the sooner of the two counts. The value of the handler that Lambda calls is checked
    before COMMIT: what Lambda can't marshal is a `ResponseError`.

    `options` choose the cached connection (None: the environment's variables), `source` is a `Connection` or a `Pool` in its
    place; `retry` is None for `OCCRetryConfig.for_lambda()` in Lambda and `OCCRetryConfig()` elsewhere; `read_only` begins
    with BEGIN READ ONLY; `logger`, `metrics` and `tracer` are the handler's own of Powertools: conflicts, attempts and durations
    go into them. With `idempotency` each event is handled once: a later one with the same key gets the stored result.

    Called with `tx=`, the function joins that transaction. Raises what `run_transaction` raises, and `TypeError` at
    decoration: for a function without a parameter `tx` that can be passed by keyword, for `async def` and generators, for
    `options` together with `source`, and for Powertools' idempotency below the transaction.
    """
    if options is not None and source is not None:
        raise TypeError("with_dsql_transaction() takes options or source, not both: a source has its options already")
    deadline_after(timeout)  # what is wrong is said here, and not at the first invocation
    _check(source, retry)

    def decorate(decorated: Callable[..., R]) -> Callable[..., R]:
        signature, place = _inspected(decorated)
        behind = _behind(signature, place)
        refuse_idempotent_below(decorated)
        response = Response() if os.environ.get("_HANDLER") else None
        telemetry = Telemetry(decorated, logger=logger, metrics=metrics, tracer=tracer)
        keys = _keys(idempotency, decorated, read_only=read_only)
        if source is None:
            open_at_init(options)

        @wraps(decorated)
        def wrapper(*args: Any, **kwargs: Any) -> R:
            joined = kwargs.pop("tx", None)
            before, after = args[:place], args[len(args) if place is None else place :]
            call: Callable[..., R] = partial(decorated, *before, **dict(zip(behind, after, strict=False)), **kwargs)
            by_keyword = len(after) <= len(behind)
            if not by_keyword:  # it takes any number of arguments behind tx

                def call(tx: Transaction) -> R:
                    return decorated(*before, tx, *after, **kwargs)

            for each in args:
                if is_durable(each):
                    raise TypeError(_durable(decorated))
            once = _once(keys, args, kwargs) if keys is not None else None
            if joined is not None:
                return call(tx=joined) if once is None else cast("R", once.within(joined, call))
            return run_in_transaction(
                call,
                source_for(options) if source is None else source,
                retry=retry,
                deadline_at=min(deadline_after(timeout, remaining_ms(args, kwargs)), published_at()),
                read_only=read_only,
                telemetry=telemetry,
                by_keyword=by_keyword,
                check=response.check if response is not None else None,
                once=once,
            )

        wrapper.__signature__ = signature  # type: ignore[attr-defined]
        if response is not None:
            response.function = wrapper
        return wrapper

    return decorate if function is None else decorate(function)


def _behind(signature: inspect.Signature, place: int | None) -> list[str]:
    """The names of the parameters that stand behind `tx` and can be passed by keyword too."""
    parameters = list(signature.parameters.values())[place:] if place is not None else []
    return [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]


def _keys(idempotency: Idempotency | None, function: Callable[..., Any], *, read_only: bool) -> Keys | None:
    """What recognizes the function's events. Raises `TypeError` where its key can't be remembered."""
    if idempotency is None:
        return None
    from .idempotency import Idempotency, Keys  # noqa: PLC0415 - whoever has an Idempotency has loaded it

    if not isinstance(idempotency, Idempotency):
        raise TypeError(f"idempotency is a {type(idempotency).__name__}: it must be an Idempotency, or None")
    if read_only:
        raise TypeError("idempotency= is for a transaction that writes: a read_only one has nothing to do twice")
    return Keys(idempotency, function)


def _once(keys: Keys, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Once:
    from .once import Once  # noqa: PLC0415 - costs nothing where it is not used

    return Once(keys.idempotency, *keys.of(keys.event_of(arguments, keywords)))


def _durable(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", repr(function))
    return (
        f"{name}() is a durable handler, which is run again from its start: it can't be one transaction, for a conflict would "
        "run its finished steps again; write durable_transaction(context, function, name=...) for each transaction in it"
    )


def _check(source: object, retry: object) -> None:
    """Raise `TypeError` for a source that gives no connections, or a retry that is no `OCCRetryConfig`."""
    if source is not None and not hasattr(source, "_checkout"):
        kind = type(source).__name__
        raise TypeError(f"source is a {kind}: it must be a Connection or a Pool, or None for the cached connection")
    if retry is not None and not isinstance(retry, OCCRetryConfig):
        raise TypeError(f"retry is a {type(retry).__name__}: it must be an OCCRetryConfig, or None for the default")


def _inspected(function: Callable[..., Any]) -> tuple[inspect.Signature, int | None]:
    """The signature without `tx`, and the place of `tx` among the positional parameters (None: by keyword alone).

    Raises `TypeError` for a function that can't be run in a transaction.
    """
    name = getattr(function, "__qualname__", repr(function))
    if not callable(function):
        raise TypeError(f"with_dsql_transaction() decorates a function, not a {type(function).__name__}")
    called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
        raise TypeError(f"{name}() is async: with_dsql_transaction() supports only synchronous functions")
    if inspect.isgeneratorfunction(called):
        raise TypeError(f"{name}() is a generator: its body would run after the transaction's end; return a list instead")
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    tx = signature.parameters.get("tx")
    if tx is None or tx.kind not in {tx.POSITIONAL_OR_KEYWORD, tx.KEYWORD_ONLY}:
        raise TypeError(
            f"{name}() has no parameter tx that can be passed by keyword: add one, as in def {name}(event, context, tx)"
        )
    place = parameters.index(tx) if tx.kind is tx.POSITIONAL_OR_KEYWORD else None
    return signature.replace(parameters=[each for each in parameters if each.name != "tx"]), place
