"""What OpenTelemetry is told of transactions: `Spans`. Loaded only in a process that has `opentelemetry` loaded already.

A span a transaction (the logical operation, with all its retries), below it one an attempt, below that one for COMMIT, by the
stable conventions for database client spans. They are current while the function runs, so that the user's own are below them.

    db.system.name           postgresql
    db.namespace             the database; the schema is not known without another query
    db.operation.name        transaction, attempt, COMMIT
    server.address           `host` of the options; server.port only where it is not PostgreSQL's
    db.response.status_code  the server's SQLSTATE, if it was an error
    error.type               the SQLSTATE, else the name of the exception's class; its text may hold values and is left out
    code.function.name       the decorated function
    dsql_lambda.*            what is this library's own: ending, attempts or attempt, occ_type, occ_code, connection.reused

https://opentelemetry.io/docs/specs/semconv/db/database-spans/
https://opentelemetry.io/docs/specs/semconv/db/postgresql/
"""

from __future__ import annotations

from typing import Any

from opentelemetry import trace
from opentelemetry.context import attach, get_current

from .observation import Attempt, Observation, name_of, sqlstate_of
from .version import __version__

_DEFAULT_PORT = 5432
_SCHEMA_URL = "https://opentelemetry.io/schemas/1.33.0"  # the first version with these conventions as stable ones


class Spans:
    """The spans of one transaction."""

    def __init__(self) -> None:
        self._tracer = trace.get_tracer("dsql_lambda", __version__, schema_url=_SCHEMA_URL)
        # What was current is put back by value: a token may be lost in an interruption.
        self._outside = self._inside = get_current()
        self._of_database: dict[str, Any] = {"db.system.name": "postgresql"}
        self._transaction: trace.Span = trace.INVALID_SPAN
        self._attempt: trace.Span = trace.INVALID_SPAN

    def begin(self, seen: Observation) -> None:
        """Below the current span."""
        options = seen.options
        if options is not None:
            self._of_database |= {"db.namespace": options.database, "server.address": options.host}
            if options.port != _DEFAULT_PORT:
                self._of_database["server.port"] = options.port
        self._transaction = self._start("transaction", seen.began_at, {"code.function.name": seen.function})
        self._inside = trace.set_span_in_context(self._transaction, self._outside)
        attach(self._inside)

    def begin_attempt(self, attempt: Attempt) -> None:
        """Below the transaction's."""
        self._attempt = self._start("attempt", attempt.began_at, {"dsql_lambda.attempt": attempt.number})
        attach(trace.set_span_in_context(self._attempt, self._inside))

    def end_attempt(self, attempt: Attempt) -> None:
        """End it, with the COMMIT in it."""
        if attempt.has_sent_commit and attempt.commit_began_at is not None:
            commit = self._start("COMMIT", attempt.commit_began_at, {}, trace.set_span_in_context(self._attempt, self._inside))
            self._end(commit, attempt.commit_ended_at or attempt.ended_at, {}, attempt.error)
        found: dict[str, Any] = {"dsql_lambda.ending": attempt.ending}
        if attempt.opened_for is not None:
            found["dsql_lambda.connection.reused"] = not attempt.opened_for
        if attempt.opened_for:
            found["dsql_lambda.connection.opened_for"] = attempt.opened_for
        if attempt.conflict is not None:
            found |= {"dsql_lambda.occ_type": str(attempt.conflict.type), "dsql_lambda.occ_code": attempt.conflict.code}
        attach(self._inside)
        self._end(self._attempt, attempt.ended_at, found, attempt.error)

    def end(self, seen: Observation) -> None:
        """End the transaction's span. What was current before it is so again."""
        attach(self._outside)
        found: dict[str, Any] = {"dsql_lambda.ending": seen.ending, "dsql_lambda.attempts": seen.attempts}
        if seen.conflict is not None:
            found["dsql_lambda.occ_type"] = str(seen.conflict.type)
        self._end(self._transaction, seen.ended_at, found, seen.error)

    def _start(self, operation: str, at: float, more: dict[str, Any], context: Any = None) -> trace.Span:
        target = self._of_database.get("db.namespace")
        return self._tracer.start_span(
            f"{operation} {target}" if target else operation,
            context,
            trace.SpanKind.CLIENT,
            {**self._of_database, "db.operation.name": operation, **more},
            start_time=_nanoseconds(at),
        )

    def _end(self, span: trace.Span, at: float, found: dict[str, Any], error: BaseException | None) -> None:
        if error is not None:
            sqlstate = sqlstate_of(error)
            if sqlstate:
                found["db.response.status_code"] = sqlstate
            found["error.type"] = name_of(error)
            span.set_status(trace.StatusCode.ERROR)
        span.set_attributes(found)
        span.end(_nanoseconds(at))


def _nanoseconds(at: float) -> int:
    return int(at * 1e9)
