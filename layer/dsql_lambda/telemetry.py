"""What is said of a transaction: a log record for each conflict, each lost connection and each ending that is no success.

Knows the field names, the levels, and who else is told: metrics count what is logged, and an `Observation` is made where somebody
observes the whole transaction. How a record is written is module `records`'s. Powertools is imported with the first record, if
there is time. Nothing here raises, and nothing here sees a statement, a value or a credential.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .system import NEVER, System

if TYPE_CHECKING:
    from .emf import Metrics
    from .errors import OCCRetryExhausted
    from .observation import Observation, Observer
    from .occ import OCCConflict
    from .records import StructuredLogger
    from .subsegments import Tracer

_OPENTELEMETRY = "opentelemetry.trace"
_IMPORT_SECONDS = 1.0  # what Powertools' import may take at 128 MB: not out of the reserve behind the deadline


class Telemetry:
    """What is said of one decorated function or one call. Raises `TypeError` for `metrics` and a `tracer` of another kind."""

    def __init__(
        self,
        function: Callable[..., Any] | None = None,
        *,
        logger: StructuredLogger | None = None,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        if metrics is not None:
            from .emf import refuse_others  # noqa: PLC0415 - loaded where it is wanted, and then in the init phase

            refuse_others(metrics)
        if tracer is not None:
            from . import subsegments  # noqa: PLC0415

            subsegments.refuse_others(tracer)
        self._function = function
        self._logger = logger
        self._metrics = metrics
        self._tracer = None if getattr(tracer, "disabled", False) is True else tracer

    def observe(self, source: object, system: System) -> Observation | None:
        """Let a transaction that begins now be observed. None, as usual, if nobody wants to: all else is imported only then.

        Its records go to the logger of its source of connections, where that has one and the transaction was given none.
        """
        if self._logger is None:
            self._logger = getattr(source, "logger", None)
        if self._metrics is None and self._tracer is None and _OPENTELEMETRY not in sys.modules:
            return None
        try:
            from .observation import Observation  # noqa: PLC0415 - loaded where it is wanted

            module = getattr(self._function, "__module__", None)
            name = f"{module}.{self._name()}" if module else self._name()
            options = getattr(source, "options", None) or getattr(source, "_options", None)  # a Connection's
            return Observation(self._observers(), system=system, function=name, options=options)
        except Exception:  # noqa: BLE001 - what can't be observed runs all the same
            return None

    def _observers(self) -> list[Observer]:
        found: list[Observer] = []
        if self._metrics is not None:
            from .emf import TransactionMetrics  # noqa: PLC0415 - each is loaded where it is wanted

            found.append(TransactionMetrics(self._metrics, self._no_namespace))
        if self._tracer is not None:
            from .subsegments import Subsegments  # noqa: PLC0415

            found.append(Subsegments(self._tracer))
        if _OPENTELEMETRY in sys.modules:
            from .spans import Spans  # noqa: PLC0415

            found.append(Spans())
        return found

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
        if conflict is not None:
            self._count("OccConflict", remaining, occ_type=str(conflict.type))

    def exhausted(
        self,
        *,
        error: OCCRetryExhausted,
        attempt: int,
        max_attempts: int | None,
        remaining: float,
        conflict: OCCConflict | None = None,
    ) -> None:
        """No attempt or no time is left after a conflict: that of this attempt, `conflict`, or an earlier one's."""
        from .occ import OCCConflict, OCCType  # noqa: PLC0415 - loaded with the first conflict

        last = OCCConflict(OCCType(error.occ_type), error.occ_code)
        more = {"elapsed_ms": round(error.elapsed * 1000, 3), "reason": error.reason}
        self._log("error", "OCC retry exhausted", _fields(last, attempt, max_attempts, remaining, **more), remaining)
        if conflict is not None:
            self._count("OccConflict", remaining, occ_type=str(conflict.type))
        self._count("OccRetryExhausted", remaining)

    def outcome_unknown(self, *, attempt: int, max_attempts: int | None, remaining: float) -> None:
        """COMMIT was sent and no answer came."""
        self._log("error", "COMMIT outcome unknown", _fields(None, attempt, max_attempts, remaining), remaining)
        self._count("CommitOutcomeUnknown", remaining)

    def after_commit_failed(self, error: Exception, function: Callable[..., object]) -> None:
        """A function of `tx.after_commit` raised."""
        said = getattr(function, "__qualname__", type(function).__qualname__)
        fields = {"after_commit": said, "error": type(error).__name__}
        self._log("error", "after_commit function failed", fields, NEVER)

    def _count(self, name: str, remaining: float, **dimensions: str) -> None:
        """Count an event. Powertools' metrics are imported for it if there is time."""
        if self._metrics is None and "aws_lambda_powertools.metrics" not in sys.modules and remaining < _IMPORT_SECONDS:
            return
        try:
            from .emf import count  # noqa: PLC0415 - imported when there is something to count

            if not count(self._metrics, name, **dimensions) and sys.modules.get("aws_lambda_powertools"):
                self._no_namespace()
        except Exception:  # noqa: BLE001, S110 - as for a record
            pass

    def _no_namespace(self) -> None:
        """Say once a process why there are no metrics."""
        from .emf import is_first_time  # noqa: PLC0415 - loaded by who found it out

        if is_first_time():
            message = "no metrics: set POWERTOOLS_METRICS_NAMESPACE, or give metrics= a Metrics with a namespace"
            self._log("info", message, {}, NEVER)

    def _name(self) -> str:
        return getattr(self._function, "__qualname__", type(self._function).__qualname__ if self._function else "")

    def _log(self, level: str, message: str, fields: dict[str, Any], remaining: float) -> None:
        fields["function_name"] = os.environ.get("AWS_LAMBDA_FUNCTION_NAME") or self._name()
        try:
            from .records import default_logger, write  # noqa: PLC0415 - imported when there is something to say

            logger = self._logger
            if logger is None:
                logger, is_final = default_logger(self._function, has_time=remaining >= _IMPORT_SECONDS)
                self._logger = logger if is_final else None
            write(logger, level, message, fields, self._function)
        except Exception:  # noqa: BLE001, S110 - a log record that fails must not fail a transaction
            pass


def _fields(
    conflict: OCCConflict | None, attempt: int, max_attempts: int | None, remaining: float, **more: Any
) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if conflict is not None:
        from .occ import SERIALIZATION_FAILURE  # noqa: PLC0415 - whoever has a conflict has loaded it

        fields = {"occ_type": str(conflict.type), "occ_code": conflict.code, "sqlstate": SERIALIZATION_FAILURE}
    fields["attempt"] = attempt
    if max_attempts is not None:  # else the deadline alone bounds them
        fields["max_attempts"] = max_attempts
    if remaining != float("inf"):
        fields["remaining_ms"] = round(remaining * 1000)
    return {**fields, **more}
