"""A log record, and the logger that it goes to. Loaded with the first record.

Knows how each logging library takes fields. The default logger is the Powertools Logger of the function's module, else one of
Powertools' own, else the standard library's. Knows nothing of transactions.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any, Protocol


class StructuredLogger(Protocol):
    """Powertools' `Logger`, the standard library's, a `LoggerAdapter`, structlog's, loguru's, or what takes `extra`."""

    def info(self, msg: Any, *args: Any, **kwargs: Any) -> Any:
        """Log at INFO."""

    def error(self, msg: Any, *args: Any, **kwargs: Any) -> Any:
        """Log at ERROR."""


def default_logger(function: Callable[..., Any] | None, *, has_time: bool) -> tuple[Any, bool]:
    """The logger to use, and whether it is the one to use next time too. Powertools is imported if it `has_time`."""
    if "aws_lambda_powertools.logging" not in sys.modules and not has_time:
        return _standard_logger(), False
    try:
        from aws_lambda_powertools import Logger  # noqa: PLC0415 - not everybody has it
    except ImportError:
        return _standard_logger(), True
    of_module = getattr(function, "__globals__", {}).values()
    return next((each for each in of_module if isinstance(each, Logger)), None) or Logger(service=_service_in_use()), True


def _service_in_use() -> str | None:
    """The service of a Powertools Logger that this process has, if it has one: its records carry the handler's keys."""
    loggers = logging.Logger.manager.loggerDict
    return next((name for name, each in loggers.items() if getattr(each, "powertools_handler", None)), None)


def _standard_logger() -> Any:
    return logging.getLogger("dsql_lambda")


def write(logger: Any, level: str, message: str, fields: dict[str, Any], function: Callable[..., Any] | None) -> None:
    """Hand a record to a logger, in the way of its library, so that the fields are kept."""
    say = _in_the_place_of(function)
    library = type(logger).__module__.partition(".")[0]
    if library == "structlog":
        say(getattr(logger, level), message, fields)
    elif library == "loguru":
        say(getattr(logger.bind(**fields), level), message, {})
    elif _is_standard(logger):
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
    return isinstance(logger, logging.Logger | logging.LoggerAdapter)


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
