"""The two ways to run a function in a transaction: `with_dsql_transaction` and `run_transaction`.

Knows signatures and where the deadline comes from; what happens to the transaction is decided below.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .cache import open_at_init, source_for
from .claim import ConnectionSource, published_at
from .lambda_runtime import deadline_after, remaining_ms, turns_left
from .options import ConnectOptions
from .runner import run_in_transaction
from .stacked import Response, called_of, is_durable, refuse_idempotent_below, seen_without_tx, signature_of
from .telemetry import Telemetry
from .transaction import Transaction

R = TypeVar("R")
T = TypeVar("T")

if TYPE_CHECKING:
    from .emf import Metrics
    from .idempotency import Idempotency, Keys
    from .once import Once
    from .records import StructuredLogger
    from .retry import OCCRetryConfig
    from .subsegments import Tracer
else:  # for `typing.get_type_hints`: whoever uses one has loaded it
    Idempotency = Metrics = OCCRetryConfig = StructuredLogger = Tracer = Any


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
    check_call(source, retry)
    telemetry = Telemetry(function, logger=logger, metrics=metrics, tracer=tracer)
    keys = keys_for(idempotency, function, read_only=read_only)
    source = source_for(None) if source is None else source
    return run_in_transaction(
        function,
        source,
        retry=retry,
        deadline_at=deadline_of(source, timeout),
        read_only=read_only,
        telemetry=telemetry,
        once=once_for(keys, event) if keys is not None else None,
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
    the records of a batch share it. `timeout` (seconds) does elsewhere, and the sooner of the two counts. The value of the
    handler that Lambda calls is checked before COMMIT: what Lambda can't marshal is a `ResponseError`.

    `options` choose the cached connection (None: the environment's variables), `source` is a `Connection` or a `Pool` in its
    place; `retry` is None for `OCCRetryConfig.for_lambda()` in Lambda and `OCCRetryConfig()` elsewhere; `read_only` begins
    with BEGIN READ ONLY; `logger`, `metrics` and `tracer` are the handler's own of Powertools: conflicts, attempts and durations
    go into them. With `idempotency` each event is handled once: a later one with the same key gets the stored result.

    Called with `tx=`, the function joins that transaction. Raises what `run_transaction` raises, and `TypeError` at
    decoration: for a function without a parameter `tx` that can be passed by keyword, for `async def` and generators, for
    `options` together with `source`, and for Powertools' idempotency below the transaction.
    """
    deadline_after(timeout)  # what is wrong is said here, and not at the first invocation
    check_call(source, retry, options)

    def decorate(decorated: Callable[..., R]) -> Callable[..., R]:
        signature, place = _inspected(decorated)
        behind = _behind(signature, place)
        refuse_idempotent_below(decorated)
        response = Response() if os.environ.get("_HANDLER") else None
        check = response.check if response is not None else None
        telemetry = Telemetry(decorated, logger=logger, metrics=metrics, tracer=tracer)
        keys = keys_for(idempotency, decorated, names=list(signature.parameters), read_only=read_only)
        if source is None:
            open_at_init(options)
        run = run_in_transaction

        def bound(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Callable[..., R], bool, Once | None]:
            """The call, which wants tx alone; whether it wants it by keyword; the row of its key."""
            for each in args:
                if is_durable(each):
                    raise TypeError(_durable(decorated))
            once = once_for(keys, keys.event_of(args, kwargs)) if keys is not None else None
            before, after = args[:place], args[len(args) if place is None else place :]
            if len(after) <= len(behind):
                return partial(decorated, *before, **dict(zip(behind, after, strict=False)), **kwargs), True, once

            def call(tx: Transaction) -> R:  # any number of arguments stands behind tx
                return decorated(*before, tx, *after, **kwargs)

            return call, False, once

        def begun(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[ConnectionSource, float]:
            connections = source_for(options) if source is None else source
            return connections, deadline_of(connections, timeout, args, kwargs)

        def wrapper(*args: Any, **kwargs: Any) -> R:
            # Its globals become those of the decorated function (`seen_without_tx`), so it names nothing of this module.
            joined = kwargs.pop("tx", None)
            call, by_keyword, once = bound(args, kwargs)
            if joined is not None:
                value: R = call(tx=joined) if once is None else once.within(joined, call)
                return value
            connections, deadline_at = begun(args, kwargs)
            return run(
                call,
                connections,
                retry=retry,
                deadline_at=deadline_at,
                read_only=read_only,
                telemetry=telemetry,
                by_keyword=by_keyword,
                check=check,
                once=once,
            )

        seen = seen_without_tx(wrapper, decorated, signature)
        if response is not None:
            response.function = seen
        return seen

    return decorate if function is None else decorate(function)


def deadline_of(
    source: ConnectionSource, timeout: float | None, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
) -> float:
    """The moment that a transaction has to be done by: its own timeout's, the invocation's, or that of the one around it."""
    turns = turns_left(getattr(source, "max_size", 1))
    return min(deadline_after(timeout, remaining_ms(arguments, keywords), turns=turns), published_at())


def _behind(signature: inspect.Signature, place: int | None) -> list[str]:
    """The names of the parameters that stand behind `tx` and can be passed by keyword too."""
    parameters = list(signature.parameters.values())[place:] if place is not None else []
    return [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]


def keys_for(
    idempotency: Idempotency | None, function: Callable[..., Any], *, names: Sequence[str] = (), read_only: bool
) -> Keys | None:
    """What recognizes the function's events. Raises `TypeError` where its key can't be remembered."""
    if idempotency is None:
        return None
    from .idempotency import Idempotency, Keys  # noqa: PLC0415 - whoever has an Idempotency has loaded it

    if not isinstance(idempotency, Idempotency):
        raise TypeError(f"idempotency is a {type(idempotency).__name__}: it must be an Idempotency, or None")
    if read_only:
        raise TypeError("idempotency= is for a transaction that writes: a read_only one has nothing to do twice")
    return Keys(idempotency, function, names)


def once_for(keys: Keys, event: Any) -> Once:
    """The row of an event's key. Raises `IdempotencyKeyMissing`."""
    from .once import Once  # noqa: PLC0415 - costs nothing where it is not used

    return Once(keys.idempotency, *keys.of(event))


def _durable(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", repr(function))
    return (
        f"{name}() is a durable handler, which is run again from its start: it can't be one transaction, for a conflict would "
        "run its finished steps again; write durable_transaction(context, function, name=...) for each transaction in it"
    )


def check_call(source: object, retry: object, options: object = None) -> None:
    """Raise `TypeError` for options with a source, a source that gives no connections, or a retry that is no `OCCRetryConfig`."""
    if options is not None and source is not None:
        raise TypeError("give options or source, not both: a source has its options already")
    if source is not None and not hasattr(source, "_checkout"):
        kind = type(source).__name__
        raise TypeError(f"source is a {kind}: it must be a Connection or a Pool, or None for the cached connection")
    if retry is not None:
        from .retry import check_retry  # noqa: PLC0415 - whoever has an OCCRetryConfig has loaded it

        check_retry(retry)


def _inspected(function: Callable[..., Any]) -> tuple[inspect.Signature, int | None]:
    """The signature without `tx`, and the place of `tx` among the positional parameters (None: by keyword alone).

    Raises `TypeError` for a function that can't be run in a transaction.
    """
    name = getattr(function, "__qualname__", repr(function))
    if not callable(function):
        raise TypeError(f"with_dsql_transaction() decorates a function, not a {type(function).__name__}")
    called = called_of(function)
    if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
        raise TypeError(f"{name}() is async: with_dsql_transaction() supports only synchronous functions")
    if inspect.isgeneratorfunction(called):
        raise TypeError(f"{name}() is a generator: its body would run after the transaction's end; return a list instead")
    signature = signature_of(function)
    parameters = list(signature.parameters.values())
    tx = signature.parameters.get("tx")
    if tx is None or tx.kind not in {tx.POSITIONAL_OR_KEYWORD, tx.KEYWORD_ONLY}:
        raise TypeError(
            f"{name}() has no parameter tx that can be passed by keyword: add one, as in def {name}(event, context, tx)"
        )
    place = parameters.index(tx) if tx.kind is tx.POSITIONAL_OR_KEYWORD else None
    return signature.replace(parameters=[each for each in parameters if each.name != "tx"]), place
