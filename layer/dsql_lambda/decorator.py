"""`with_dsql_transaction`: a function with a parameter `tx` becomes one that runs in a transaction.

Knows signatures and the Lambda context; what happens to the transaction is decided below.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, overload

from .attempt import ConnectionSource
from .environment import check_arguments, deadline_after, open_at_init, transact
from .options import ConnectOptions
from .retry import OCCRetryConfig
from .telemetry import StructuredLogger, Telemetry
from .transaction import Transaction

R = TypeVar("R")


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
) -> Callable[..., Any]:
    """Run a function in a DSQL transaction, which it gets as `tx`. Bare, or called with options.

    **The function may run several times**: it must have no effect outside `tx`, and must not change its arguments. It is run
    again when DSQL reports a conflict and when the connection is lost before COMMIT was sent; its value is returned once
    COMMIT was answered. In a handler the Lambda context sets the deadline; `timeout` (seconds) does elsewhere, and the
    sooner of the two counts.

    `options` choose the cached connection (None: the environment's variables), `source` is a `Connection` or a `Pool` in its
    place; `retry` is None for `OCCRetryConfig.for_lambda()` in Lambda and `OCCRetryConfig()` elsewhere; `read_only` begins
    with BEGIN READ ONLY; `logger` is the handler's own Powertools Logger.

    Called with `tx=`, the function joins that transaction. Raises what `run_transaction` raises, and `TypeError` at
    decoration: for a function without a parameter `tx` that can be passed by keyword, for `async def` and generators,
    and for `options` together with `source`.
    """
    if options is not None and source is not None:
        raise TypeError("with_dsql_transaction() takes options or source, not both: a source has its options already")
    deadline_after(timeout)  # what is wrong is said here, and not at the first invocation
    check_arguments(source, retry)

    def decorate(decorated: Callable[..., R]) -> Callable[..., R]:
        signature, place = _signature_without_tx(decorated)
        telemetry = Telemetry(logger=logger, function_name=getattr(decorated, "__qualname__", ""))
        if source is None:
            open_at_init(options)

        @wraps(decorated)
        def wrapper(*args: Any, **kwargs: Any) -> R:
            def in_transaction(tx: Transaction) -> R:
                if place is not None and len(args) > place:
                    return decorated(*args[:place], tx, *args[place:], **kwargs)
                return decorated(*args, tx=tx, **kwargs)

            joined = kwargs.pop("tx", None)
            if joined is not None:
                return in_transaction(joined)

            return transact(
                in_transaction,
                source=source,
                options=options,
                retry=retry,
                deadline_at=deadline_after(timeout, _remaining_ms(args, kwargs)),
                read_only=read_only,
                telemetry=telemetry,
            )

        wrapper.__signature__ = signature  # type: ignore[attr-defined]
        return wrapper

    return decorate if function is None else decorate(function)


def _signature_without_tx(function: Callable[..., Any]) -> tuple[inspect.Signature, int | None]:
    """The signature that callers see, and the place of `tx` among the positional parameters (None: it has none).

    Raises `TypeError` for a function that can't be run in a transaction.
    """
    name = getattr(function, "__qualname__", repr(function))
    if not callable(function):
        raise TypeError(f"with_dsql_transaction() decorates a function, not a {type(function).__name__}")
    called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
        raise TypeError(f"{name}() is async: with_dsql_transaction() takes a plain function, for Lambda handlers and pg8000 are")
    if inspect.isgeneratorfunction(called):
        raise TypeError(f"{name}() is a generator: its body would run after the transaction's end; return a list instead")
    signature = inspect.signature(function)
    tx = signature.parameters.get("tx")
    if tx is None or tx.kind not in {tx.POSITIONAL_OR_KEYWORD, tx.KEYWORD_ONLY}:
        raise TypeError(
            f"{name}() has no parameter tx that can be passed by keyword: add one, as in def {name}(event, context, tx)"
        )
    others = [each for each in signature.parameters.values() if each.name != "tx"]
    place = list(signature.parameters).index("tx") if tx.kind is tx.POSITIONAL_OR_KEYWORD else None
    return signature.replace(parameters=others), place


def _remaining_ms(args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
    """What is left of the invocation, in milliseconds, if a Lambda context is among the arguments."""
    for each in (*args, *kwargs.values()):
        get = getattr(each, "get_remaining_time_in_millis", None)
        if get is not None and isinstance(remaining := get(), int | float):
            return float(remaining)
    return None
