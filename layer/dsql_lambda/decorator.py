"""`with_dsql_transaction`: a function with a parameter `tx` becomes one that runs in a transaction.

Knows signatures and the Lambda context; what happens to the transaction is decided below.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import FunctionType

from .attempt import ConnectionSource
from .environment import check_arguments, deadline_after, open_at_init, transact
from .options import ConnectOptions
from .retry import OCCRetryConfig
from .telemetry import StructuredLogger, Telemetry
from .transaction import Transaction

TYPE_CHECKING = False
if TYPE_CHECKING:
    import inspect
    from typing import Any, TypeVar, overload

    R = TypeVar("R")

# A code object's flags, as `inspect` names them.
_GENERATOR = 0x20
_COROUTINE = 0x80
_ASYNC_GENERATOR = 0x200


if TYPE_CHECKING:

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
        place = _place_of_tx(decorated)
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

        wrapper.__signature__ = _SignatureWithoutTx(decorated)  # type: ignore[attr-defined]
        return wrapper

    return decorate if function is None else decorate(function)


def _place_of_tx(function: Callable[..., Any]) -> int | None:
    """The place of `tx` among the positional parameters; None if it goes by keyword alone.

    Raises `TypeError` for a function that can't be run in a transaction.
    """
    name = getattr(function, "__qualname__", repr(function))
    if not callable(function):
        raise TypeError(f"with_dsql_transaction() decorates a function, not a {type(function).__name__}")
    if type(function) is FunctionType and not function.__dict__:  # which may say otherwise: what it wraps, a signature, a mark
        code = function.__code__
        flags, before = code.co_flags, code.co_posonlyargcount
        positional = code.co_varnames[: code.co_argcount]
        keyword = code.co_varnames[before : code.co_argcount + code.co_kwonlyargcount]
    else:
        flags, before, positional, keyword = _inspected(function)
    if flags & (_COROUTINE | _ASYNC_GENERATOR):
        raise TypeError(f"{name}() is async: with_dsql_transaction() takes a plain function, for Lambda handlers and pg8000 are")
    if flags & _GENERATOR:
        raise TypeError(f"{name}() is a generator: its body would run after the transaction's end; return a list instead")
    if "tx" not in keyword:
        raise TypeError(
            f"{name}() has no parameter tx that can be passed by keyword: add one, as in def {name}(event, context, tx)"
        )
    return positional.index("tx") if "tx" in positional else None


def _inspected(function: Callable[..., Any]) -> tuple[int, int, tuple[str, ...], tuple[str, ...]]:
    """The same of whatever else can be called: wrapped functions, partials, objects."""
    import inspect  # noqa: PLC0415 - 10 ms of cold start, for those who need it

    called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    flags = _COROUTINE * inspect.iscoroutinefunction(called)
    flags |= _ASYNC_GENERATOR * inspect.isasyncgenfunction(called)
    flags |= _GENERATOR * inspect.isgeneratorfunction(called)
    found = inspect.signature(function).parameters.values()
    only = [each.name for each in found if each.kind is each.POSITIONAL_ONLY]
    either = [each.name for each in found if each.kind is each.POSITIONAL_OR_KEYWORD]
    keyword = [each.name for each in found if each.kind is each.KEYWORD_ONLY]
    return flags, len(only), (*only, *either), (*either, *keyword)


class _SignatureWithoutTx:
    """Stands for the `inspect.Signature` that callers see until one of them looks: `inspect` is 10 ms of cold start.

    To `isinstance` it is one, as the standard library's mocks are what they stand for.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @property
    def _signature(self) -> inspect.Signature:
        from inspect import signature  # noqa: PLC0415

        whole = signature(self._function)
        return whole.replace(parameters=[each for each in whole.parameters.values() if each.name != "tx"])

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._signature)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._signature, name)

    def __eq__(self, other: object) -> bool:
        return self._signature == other

    def __hash__(self) -> int:
        return hash(self._signature)

    def __reduce__(self) -> tuple[Any, ...] | str:
        """Copied or pickled, it is the signature."""
        return self._signature.__reduce__()

    def __repr__(self) -> str:
        return repr(self._signature)

    def __str__(self) -> str:
        return str(self._signature)


def _remaining_ms(args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
    """What is left of the invocation, in milliseconds, if a Lambda context is among the arguments."""
    for each in (*args, *kwargs.values()):
        get = getattr(each, "get_remaining_time_in_millis", None)
        if get is not None and isinstance(remaining := get(), int | float):
            return float(remaining)
    return None
