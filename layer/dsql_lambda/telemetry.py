"""What the logs say of a transaction: a record for each conflict, each lost connection and each ending that is no success.

Knows the field names and the levels, and which logger is there: the one that was given, else Powertools' Logger of the
function's service, else the standard library's. Powertools is imported with the first record. Nothing here ever raises,
and nothing here sees a statement, a value or a credential.
"""

from __future__ import annotations

import os
import sys

from .errors import OCCRetryExhausted
from .occ import SERIALIZATION_FAILURE, OCCConflict, OCCType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol
else:
    Protocol = object


class StructuredLogger(Protocol):
    """Powertools' `Logger`, the standard library's, or anything that takes `extra`."""

    def info(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Log at INFO."""

    def error(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Log at ERROR."""


class Telemetry:
    """The records of one decorated function or one call."""

    def __init__(self, *, logger: StructuredLogger | None = None, function_name: str = "") -> None:
        self._logger = logger
        self._function_name = function_name

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
        self._log("info", f"{what}, retrying", conflict, attempt, max_attempts, remaining, delay_ms=round(delay * 1000, 3))

    def exhausted(self, *, error: OCCRetryExhausted, attempt: int, max_attempts: int | None, remaining: float) -> None:
        """No attempt or no time is left after a conflict."""
        self._log(
            "error",
            "OCC retry exhausted",
            OCCConflict(OCCType(error.occ_type), error.occ_code),
            attempt,
            max_attempts,
            remaining,
            elapsed_ms=round(error.elapsed * 1000, 3),
            reason=error.reason,
        )

    def outcome_unknown(self, *, attempt: int, max_attempts: int | None, remaining: float) -> None:
        """COMMIT was sent and no answer came."""
        self._log("error", "COMMIT outcome unknown", None, attempt, max_attempts, remaining)

    def _log(  # noqa: PLR0917
        self,
        level: str,
        message: str,
        conflict: OCCConflict | None,
        attempt: int,
        max_attempts: int | None,
        remaining: float,
        **more: Any,
    ) -> None:
        # 0 for "until the deadline": the field stays a number for whatever reads the logs, and Powertools drops a null.
        fields: dict[str, Any] = {"attempt": attempt, "max_attempts": max_attempts or 0, **more}
        if conflict is not None:
            fields = {"occ_type": str(conflict.type), "occ_code": conflict.code, "sqlstate": SERIALIZATION_FAILURE, **fields}
        if remaining != float("inf"):
            fields["remaining_ms"] = round(remaining * 1000)
        fields["function_name"] = os.environ.get("AWS_LAMBDA_FUNCTION_NAME") or self._function_name
        try:
            logger = self._logger = self._logger or _default_logger()
            if _is_of_the_standard_library(logger):
                message += "".join(f" {name}={value}" for name, value in fields.items())
            getattr(logger, level)(message, extra=fields)
        except Exception:  # noqa: BLE001, S110 - a log line that fails must not fail a transaction
            pass


def _default_logger() -> StructuredLogger:
    try:
        from aws_lambda_powertools import Logger  # noqa: PLC0415 - imported when there is something to say
    except ImportError:
        import logging  # noqa: PLC0415

        return logging.getLogger("dsql_lambda")
    return Logger()


def _is_of_the_standard_library(logger: StructuredLogger) -> bool:
    """Would it drop the fields? (Whose logger is one has `logging` loaded.)"""
    logging = sys.modules.get("logging")
    return logging is not None and isinstance(logger, logging.Logger)
