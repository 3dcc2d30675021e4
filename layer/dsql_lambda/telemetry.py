"""What the logs say of a transaction: a record for each conflict, each lost connection and each ending that is no success.

Knows the field names, the levels, and how each logging library takes fields. The logger is the one that was given, else the
Powertools Logger of the function's module, else one of Powertools' own, else the standard library's. Powertools is imported
with the first record, if there is time. Nothing here raises, and nothing here sees a statement, a value or a credential.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any, Protocol

from .errors import OCCRetryExhausted
from .occ import SERIALIZATION_FAILURE, OCCConflict, OCCType

_IMPORT_SECONDS = 1.0  # what Powertools' import may take at 128 MB: not out of the reserve behind the deadline


class StructuredLogger(Protocol):
    """Powertools' `Logger`, the standard library's, a `LoggerAdapter`, structlog's, loguru's, or what takes `extra`."""

    def info(self, msg: Any, *args: Any, **kwargs: Any) -> Any:
        """Log at INFO."""

    def error(self, msg: Any, *args: Any, **kwargs: Any) -> Any:
        """Log at ERROR."""


class Telemetry:
    """The records of one decorated function or one call."""

    def __init__(self, function: Callable[..., Any] | None = None, *, logger: StructuredLogger | None = None) -> None:
        self._function = function
        self._logger = logger

    def retrying(
        self,
        *,
        conflict: OCCConflict | None,
        what: str,
        attempt: int,
        max_attempts: int | None,
        delay: float,
        remaining: float,
    ) -> None:
        """Another attempt follows. `what` happened: `OCC conflict`, `connection lost` or `server unavailable`."""
        fields = _fields(conflict, attempt, max_attempts, remaining, delay_ms=round(delay * 1000, 3))
        self._log("info", f"{what}, retrying", fields, remaining)

    def exhausted(self, *, error: OCCRetryExhausted, attempt: int, max_attempts: int | None, remaining: float) -> None:
        """No attempt or no time is left after a conflict."""
        conflict = OCCConflict(OCCType(error.occ_type), error.occ_code)
        more = {"elapsed_ms": round(error.elapsed * 1000, 3), "reason": error.reason}
        self._log("error", "OCC retry exhausted", _fields(conflict, attempt, max_attempts, remaining, **more), remaining)

    def outcome_unknown(self, *, attempt: int, max_attempts: int | None, remaining: float) -> None:
        """COMMIT was sent and no answer came."""
        self._log("error", "COMMIT outcome unknown", _fields(None, attempt, max_attempts, remaining), remaining)

    def after_commit_failed(self, error: Exception, function: Callable[..., object]) -> None:
        """A function of `tx.after_commit` raised."""
        said = getattr(function, "__qualname__", type(function).__qualname__)
        fields = {"after_commit": said, "error": type(error).__name__}
        self._log("error", "after_commit function failed", fields, float("inf"))

    def _log(self, level: str, message: str, fields: dict[str, Any], remaining: float) -> None:
        name = getattr(self._function, "__qualname__", type(self._function).__qualname__ if self._function else "")
        fields["function_name"] = os.environ.get("AWS_LAMBDA_FUNCTION_NAME") or name
        try:
            logger = self._logger
            if logger is None:
                logger, is_final = _default_logger(self._function, remaining)
                self._logger = logger if is_final else None
            _write(logger, level, message, fields, self._function)
        except Exception:  # noqa: BLE001, S110 - a log record that fails must not fail a transaction
            pass


def _fields(
    conflict: OCCConflict | None, attempt: int, max_attempts: int | None, remaining: float, **more: Any
) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if conflict is not None:
        fields = {"occ_type": str(conflict.type), "occ_code": conflict.code, "sqlstate": SERIALIZATION_FAILURE}
    fields["attempt"] = attempt
    if max_attempts is not None:  # else the deadline alone bounds them
        fields["max_attempts"] = max_attempts
    if remaining != float("inf"):
        fields["remaining_ms"] = round(remaining * 1000)
    return {**fields, **more}


def _default_logger(function: Callable[..., Any] | None, remaining: float) -> tuple[Any, bool]:
    """The logger to use, and whether it is the one to use next time too."""
    if "aws_lambda_powertools.logging" not in sys.modules and remaining < _IMPORT_SECONDS:
        return _standard_logger(), False
    try:
        from aws_lambda_powertools import Logger  # noqa: PLC0415 - imported when there is something to say
    except ImportError:
        return _standard_logger(), True
    of_module = getattr(function, "__globals__", {}).values()
    return next((each for each in of_module if isinstance(each, Logger)), None) or Logger(service=_service_in_use()), True


def _service_in_use() -> str | None:
    """The service of a Powertools Logger that this process has, if it has one: its records carry the handler's keys."""
    import logging  # noqa: PLC0415 - Powertools has loaded it

    loggers = logging.Logger.manager.loggerDict
    return next((name for name, each in loggers.items() if getattr(each, "powertools_handler", None)), None)


def _standard_logger() -> Any:
    import logging  # noqa: PLC0415 - imported when there is something to say

    return logging.getLogger("dsql_lambda")


def _write(logger: Any, level: str, message: str, fields: dict[str, Any], function: Callable[..., Any] | None) -> None:
    """Hand a record to a logger, in the way of its library, so that the fields are kept."""
    say = _in_the_place_of(function)
    library = type(logger).__module__.partition(".")[0]
    if library == "structlog":
        say(getattr(logger, level), message, fields)
    elif library == "loguru":
        say(getattr(logger.bind(**fields), level), message, {})
    elif _is_standard(logger):
        import logging  # noqa: PLC0415 - whose logger it is has loaded it

        text = message + "".join(f" {name}={value}" for name, value in fields.items())
        keywords: dict[str, Any] = {"extra": fields}
        if isinstance(logger, logging.LoggerAdapter):  # its `process` replaces `extra`
            text, processed = logger.process(text, keywords)
            keywords = {**processed, "extra": {**(processed.get("extra") or {}), **fields}}
            logger = logger.logger
        say(getattr(logger, level), text, keywords)
    else:
        say(getattr(logger, level), message, {"extra": fields})


def _is_standard(logger: Any) -> bool:
    """Is it of the standard library, whose formatters show no extra fields?"""
    logging = sys.modules.get("logging")
    return logging is not None and isinstance(logger, logging.Logger | logging.LoggerAdapter)


def _say(log: Callable[..., Any], message: str, keywords: dict[str, Any]) -> None:
    log(message, **keywords)


def _in_the_place_of(function: Callable[..., Any] | None) -> Callable[..., None]:
    """`_say`, with the name and line of the user's function: loggers take a record's location from their caller's code."""
    inner: Any = function
    while hasattr(inner, "__wrapped__"):
        inner = inner.__wrapped__
    code = getattr(inner, "__code__", None)
    if code is None:
        return _say
    place = {"co_filename": code.co_filename, "co_firstlineno": code.co_firstlineno - 1, "co_name": code.co_name}
    return FunctionType(_say.__code__.replace(**place), {"__name__": getattr(inner, "__module__", "") or ""})
