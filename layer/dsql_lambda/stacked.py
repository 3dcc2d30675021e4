"""What stands above and below a decorated function: orders that lose or double work, and what those above get of it.

They see it without `tx`, and Lambda gets its value. Knows Powertools' and the durable SDK's decorators by their modules' names,
and imports neither. Functions are followed along `__wrapped__`, as `functools.wraps` leaves it.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from functools import update_wrapper
from types import FunctionType
from typing import Any

_FACTORY = "aws_lambda_powertools.middleware_factory.factory"
_IDEMPOTENCY = "aws_lambda_powertools.utilities.idempotency.idempotency"
_DURABLE = "aws_durable_execution_sdk_python"
_MARSHALLER = "awslambdaric.lambda_runtime_marshaller"

MOST_BYTES = 6_291_556  # of a response: what Lambda's own refusal names


def refuse_idempotent_below(function: Callable[..., Any]) -> None:
    """Raise `TypeError` for a function under Powertools' `@idempotent` or `@idempotent_function`.

    It would store the result before COMMIT. After a conflict it would answer from its record, and the write would be lost.
    """
    for each in _layers(function):
        if _written_in(each) == _IDEMPOTENCY:
            name = getattr(function, "__qualname__", repr(function))
            raise TypeError(
                f"{name}() has Powertools' idempotency below the transaction: it would store the result before COMMIT, and a "
                "conflict would lose the write; put it above @with_dsql_transaction, or use idempotency=Idempotency(...)"
            )


def is_durable(context: object) -> bool:
    """Is it the context of a durable function? Its handler is run again from the start, so it can't be one transaction."""
    return type(context).__module__.startswith(_DURABLE) and hasattr(context, "lambda_context")


def called_of(function: Any) -> Any:
    """What has the code and the annotations of a callable: itself, or the `__call__` of its class."""
    return function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """The signature. Where a name in an annotation is not there yet, its annotation is text, to be read when it is asked for."""
    try:
        return inspect.signature(function)
    except NameError:  # Python 3.14 evaluates annotations when somebody asks for them
        from .lazy_annotations import signature_with_texts  # noqa: PLC0415 - few need it

        return signature_with_texts(function, called_of(function))


def seen_without_tx(
    wrapper: Callable[..., Any], function: Callable[..., Any], signature: inspect.Signature
) -> Callable[..., Any]:
    """The wrapper, looking like the function without its parameter `tx` to whoever reads signatures and annotations.

    Its globals are the function's: there Powertools and FastAPI look up the names in annotations that are text. So it must not
    use any global of its own.
    """
    called = called_of(function)
    names = getattr(inspect.unwrap(called), "__globals__", None)
    if isinstance(wrapper, FunctionType) and names is not None:
        wrapper = FunctionType(wrapper.__code__, names, closure=wrapper.__closure__)
    seen: Any = update_wrapper(wrapper, function)
    seen.__signature__ = signature
    if sys.version_info < (3, 14):
        seen.__annotations__ = {name: each for name, each in getattr(called, "__annotations__", {}).items() if name != "tx"}
    else:

        def annotate(form: Any, /) -> dict[str, Any]:
            from .lazy_annotations import annotations_without  # noqa: PLC0415 - for who asks

            return annotations_without("tx", called, form)

        seen.__annotate__ = annotate
    found: Callable[..., Any] = seen
    return found


class Response:
    """The value of one decorated function, where that is what Lambda marshals: checked before COMMIT.

    Lambda marshals it after the handler has returned, so that an error comes when the work is committed.
    """

    def __init__(self) -> None:
        self.function: Callable[..., Any] | None = None
        """The decorated function with its transaction: what Lambda may call."""
        self._encoder: Any = None
        self._is_lambdas: bool | None = None

    def check(self, value: Any) -> None:
        """Raise `ResponseError` for a value that Lambda can't marshal, with the place of what it can't."""
        if self._is_lambdas is None:
            self._is_lambdas = self.function is not None and is_handed_to_lambda(self.function, os.environ.get("_HANDLER", ""))
            self._encoder = _encoder() if self._is_lambdas else None
        if self._encoder is None or isinstance(value, bytes):
            return
        try:
            size = len(self._write(value))
        except Exception as error:
            from .json_text import ResponseError, place_of_failure  # noqa: PLC0415 - only to say what is wrong

            raise ResponseError(
                f"Lambda can't marshal the response: {place_of_failure(value, self._write)}; dsql_lambda.jsonable() converts rows"
            ) from error
        if size > MOST_BYTES:
            from .json_text import ResponseError  # noqa: PLC0415 - the same

            raise ResponseError(f"the response is {size} bytes as JSON, and Lambda takes at most {MOST_BYTES}: return less")

    def _write(self, value: Any) -> bytes:
        encoded: bytes = self._encoder.encode(value).encode()
        return encoded


def is_handed_to_lambda(function: Callable[..., Any], handler: str) -> bool:
    """Is the function the handler that Lambda calls, or under decorators of Powertools' that hand its value through?"""
    module, _, name = handler.rpartition(".")
    found = getattr(sys.modules.get(module.replace("/", ".")), name, None)
    for each in _layers(found):
        if each is function:
            return True
        if not _written_in(each).startswith("aws_lambda_powertools."):
            return False
    return False


def _layers(function: Any) -> list[Any]:
    """The function and what it wraps, from the outside in."""
    layers: list[Any] = []
    while function is not None and not any(each is function for each in layers):
        layers.append(function)
        function = getattr(function, "__wrapped__", None)
    return layers


def _written_in(function: Any) -> str:
    """The module that a wrapper is from: of Powertools' factory of decorators, that of the decorator it was made of."""
    module = str(getattr(function, "__globals__", {}).get("__name__", ""))
    if module != _FACTORY:
        return module
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
    decorator = cells["decorator"].cell_contents if "decorator" in cells else None
    return str(getattr(decorator, "__module__", ""))


def _encoder() -> Any:
    """awslambdaric's own; None where it is not there, and so not used."""
    try:
        __import__(_MARSHALLER)
    except ImportError:
        return None
    return sys.modules[_MARSHALLER].Encoder()
