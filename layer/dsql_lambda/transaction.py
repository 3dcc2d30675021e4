"""One attempt's view of the database: `Transaction`, what a decorated function gets as `tx`.

The only BEGIN, COMMIT and ROLLBACK of the package. Knows which statements share a flight; knows nothing of retries, of where
the connection comes from, or of what an ending means (module `failure`).

    BEGIN                  leaves in the flight of the first statement, or alone where the loop wants its answer first
    RESET ALL              leaves with BEGIN where an earlier transaction has SET something
    what `defer` queued    leaves in the flight of the next statement, or in COMMIT's
    COMMIT                 leaves with the last deferred statements; a transaction of deferred writes alone is one flight,
                           and an empty one is none
    ROLLBACK               leaves alone, after a failure or at the function's own wish
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from . import sql as sql_text
from .attempt import Evidence
from .errors import TransactionError
from .flight import Statement
from .server_errors import DatabaseError, InterfaceError
from .session import IDLE, IN_TRANSACTION, Session

if TYPE_CHECKING:
    from .row_stream import RowStream
else:
    RowStream = Any  # for `typing.get_type_hints`: whoever has one has loaded it

BEGIN = Statement("BEGIN", "BEGIN")
BEGIN_READ_ONLY = Statement("BEGIN READ ONLY", "BEGIN READ ONLY")
COMMIT = Statement("COMMIT", "COMMIT")
ROLLBACK = Statement("ROLLBACK", "ROLLBACK")
RESET_ALL = Statement("RESET ALL", "RESET ALL")

RESERVED_NAMES = ("expect_rows", "stream", "types")
"""Arguments of a call, here or in pg8000: no placeholder may have their names."""

_IN_FAILED_TRANSACTION = "25P02"


class Transaction:
    """One attempt's view of the database: statements, and nothing that could end the transaction but `rollback`.

    Statements have `:name` placeholders, one statement a call. BEGIN leaves with the first of them. `types` names the OID of
    a placeholder's type, where PostgreSQL can't tell it from the statement. Each call raises `DatabaseError` for what the
    server says against the statement, `InterfaceError` for a connection that was lost, and `TransactionError` after the end.
    """

    attempt = 1
    """Which attempt this is, from 1."""

    def __init__(self, session: Session, *, evidence: Evidence | None = None, attempt: int = 1, read_only: bool = False) -> None:
        self.attempt = attempt  # of the class too, so that a mock made after it has one
        self.after: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        """What `after_commit` was given."""
        self._session = session
        self._evidence = session.evidence = evidence or Evidence()
        self._begin = BEGIN_READ_ONLY if read_only else BEGIN
        self._has_begun = False
        self._has_ended = False
        self._has_reset = False
        self._deferred: list[tuple[Statement, int | None]] = []  # with the `expect_rows` of each
        self._stream: weakref.ref[RowStream] | None = None  # a loop that was left has dropped it

    def run(self, sql: str, /, *, types: Mapping[str, int] | None = None, **params: Any) -> list[list[Any]]:
        """Run a statement and return its rows as lists; no rows is an empty list."""
        return self._fly((self._checked(sql, types, params),))[-1].rows or []

    def rows(self, sql: str, /, *, types: Mapping[str, int] | None = None, **params: Any) -> list[dict[str, Any]]:
        """Run a statement and return its rows as dicts by column name.

        Raises `TransactionError` where two columns have one name: a value would be lost.
        """
        result = self._fly((self._checked(sql, types, params),))[-1]
        keys = result.keys()
        return [dict(zip(keys, row, strict=True)) for row in result.rows or ()]

    def row(self, sql: str, /, *, types: Mapping[str, int] | None = None, **params: Any) -> dict[str, Any] | None:
        """Run a statement and return its first row as a dict, or None if there is none."""
        rows = self.rows(sql, types=types, **params)
        return rows[0] if rows else None

    def value(self, sql: str, /, *, types: Mapping[str, int] | None = None, **params: Any) -> Any:
        """Run a statement and return the first column of its first row; NULL is None. No row is a `TransactionError`."""
        rows = self.run(sql, types=types, **params)
        if not rows or not rows[0]:
            raise TransactionError(f"no row where tx.value() wants one: {sql}")
        return rows[0][0]

    def stream(self, sql: str, /, *, types: Mapping[str, int] | None = None, **params: Any) -> RowStream:
        """Run a statement now, and return an iterator that yields its rows as dicts while they arrive, and keeps none.

        The next statement can be run when all rows were taken, or the iterator was closed or dropped, as a `for` loop drops it.
        """
        from .row_stream import RowStream  # noqa: PLC0415 - an import is cold start

        statement = self._checked(sql, types, params)
        if self._deferred or not self._has_begun:
            self._fly(())
        try:
            flight = self._session.compose((statement,))
            stream = RowStream(self._session, flight, self._evidence, note=self._note, check=self._refuse_if_ended)
        except Exception as error:
            self._note(error)
            raise
        self._stream = weakref.ref(stream)
        return stream

    def defer(
        self, sql: str, /, *, expect_rows: int | None = None, types: Mapping[str, int] | None = None, **params: Any
    ) -> None:
        """Queue a statement: it leaves with the next one, or with the COMMIT, and costs no round trip of its own.

        `expect_rows` must be the number of rows that it changes, else nothing is committed and `TransactionError` is
        raised. Such a statement leaves one flight ahead of COMMIT. An error comes after the function has returned: what
        the function wants to handle itself, it runs.
        """
        if expect_rows is not None and (isinstance(expect_rows, bool) or not isinstance(expect_rows, int) or expect_rows < 0):
            raise TransactionError(f"expect_rows is {expect_rows!r}: it must be a number of rows, 0 or more")
        self._evidence.unfinished = sql
        self._deferred.append((self._checked(sql, types, params), expect_rows))
        self._evidence.unfinished = ""

    def after_commit(self, function: Callable[..., object], /, *args: Any) -> None:
        """Have `function(*args)` called once COMMIT was answered, after those that were given before it.

        Never after a rollback, or in an attempt that lost. For what must not happen twice or too early: metrics, logs, messages,
        invalidation of a cache. What it raises is logged, and raised as `AfterCommitError` when all were called. If the process
        ends in between, it is not called: what must not be lost belongs into the transaction, as a row.
        """
        self._refuse_if_ended()
        if not callable(function):
            raise TypeError(f"after_commit() takes a function and its arguments, not a {type(function).__name__}")
        self.after.append((function, args))

    def rollback(self) -> None:
        """End the transaction now and undo all of it. The function's value is still returned; nothing is retried."""
        self._refuse_if_ended()
        self._deferred.clear()
        self.end()

    @property
    def connection(self) -> Any:
        """The connection, a `pg8000.native.Connection`, for COPY and adapters. What is deferred, and BEGIN, leave first."""
        if not self._has_ended and (self._deferred or not self._has_begun):
            self._fly(())
        return self._session.connection

    # What the loop, and others of the package, do with it.

    @property
    def has_ended(self) -> bool:
        """Was it rolled back by the function, or is it over?"""
        return self._has_ended

    @property
    def has_failed(self) -> bool:
        """Has a statement failed, or was it lost? Then nothing of the transaction is committed."""
        return self._evidence.failure is not None or self._session.is_closed

    def fly(self, statements: Sequence[Statement]) -> list[Any]:
        """Run statements that are made already in one flight, and return what each answered."""
        return self._fly(statements)[-len(statements) :] if statements else []

    def queue(self, statement: Statement) -> None:
        """Queue a statement that is made already, as `defer` does."""
        self._refuse_if_ended()
        self._deferred.append((statement, None))

    def begin(self) -> None:
        """Send BEGIN alone and wait for its answer: what proves that an idle connection still lives."""
        self._fly(())

    def commit(self) -> None:
        """Send what is deferred and COMMIT, and see that the answer's tag is COMMIT. An empty transaction sends nothing.

        What is known of COMMIT, also where this raises, is in the attempt's `Evidence`.
        """
        evidence, session = self._evidence, self._session
        self._close_stream()
        if evidence.failure is not None:
            raise evidence.failure
        if evidence.unfinished:
            self._fail(f"a statement was interrupted, so nothing is committed: {evidence.unfinished}")
        if not self._has_begun and not self._deferred:
            self._has_ended = True
            return
        if not session.pipeline or any(expected is not None for _, expected in self._deferred):
            self._fly(())
        if self._has_begun and session.transaction_status != IN_TRANSACTION:
            self._fail("the transaction was ended past tx, by a statement on its connection")
        flight = session.compose([*self._prologue(), *(statement for statement, _ in self._deferred), COMMIT])
        self._has_ended = True
        evidence.commit = flight
        try:
            session.exchange(flight, decodes=False)  # nobody gets its rows, so no value of theirs can fail it
        except DatabaseError as error:
            self._note(error)
            raise
        if evidence.commit_tag != "COMMIT":
            self._fail(f"COMMIT was answered with {evidence.commit_tag or 'nothing'}: nothing was committed")
        self._has_reset = False  # what it took back is gone for good

    def end(self) -> None:
        """Roll back what is open, or close the connection where that can't be done.

        What the server or the connection says against it is not raised: it never hides the error before it.
        """
        self._has_ended = True
        session = self._session
        session.has_settings = session.has_settings or self._has_reset  # a rollback brings back what RESET ALL took
        try:
            self._close_stream()
            if not session.is_closed and not session.is_busy and session.transaction_status != IDLE:
                session.fly((ROLLBACK,))
        except (DatabaseError, InterfaceError):
            pass
        finally:
            if not session.is_clean and not session.is_closed:
                session.abandon()

    def _prologue(self) -> tuple[Statement, ...]:
        """What begins the transaction, if it has not begun."""
        if self._has_begun:
            return ()
        if not self._session.has_settings:
            return (self._begin,)
        self._has_reset = True
        return (self._begin, RESET_ALL)

    def _fly(self, statements: Sequence[Statement]) -> list[Any]:
        """Send BEGIN if it is due, what is deferred, and these statements; see that the transaction is still open."""
        self._refuse_if_ended()
        session, evidence = self._session, self._evidence
        session.refuse_if_busy()
        evidence.unfinished = statements[-1].sql if statements else self._begin.sql
        deferred, self._deferred = self._deferred, []
        prologue = self._prologue()
        flight = [*prologue, *(statement for statement, _ in deferred), *statements]
        if not flight:
            evidence.unfinished = ""
            return []
        try:
            results = session.fly(flight) if session.pipeline else [session.fly((each,))[0] for each in flight]
        except Exception as error:
            self._has_begun = self._has_begun or session.transaction_status != IDLE
            self._note(error)
            raise
        self._has_begun = True
        if session.transaction_status != IN_TRANSACTION:
            self._fail("the server left the transaction: its statements are not in one")
        for (statement, expected), result in zip(deferred, results[len(prologue) :], strict=False):
            if expected is not None and result.row_count != expected:
                self._fail(_unexpected(statement, expected, result))
        evidence.unfinished = ""
        return results

    def _note(self, error: Exception) -> None:
        """A failed statement: remember it, and name the first one where the server says only that there was one."""
        evidence = self._evidence
        first = evidence.failure
        evidence.failure = first or error
        if isinstance(error, DatabaseError) and error.statement:
            error.add_note(f"The statement: {error.statement}")
        evidence.unfinished = ""
        is_a_consequence = isinstance(error, DatabaseError) and error.sqlstate == _IN_FAILED_TRANSACTION
        if is_a_consequence and first is not None and first is not error:
            raise error from first

    def _fail(self, message: str) -> NoReturn:
        failure = TransactionError(message)
        self._evidence.failure = self._evidence.failure or failure
        raise failure

    def _checked(self, sql: str, types: Mapping[str, int] | None, params: dict[str, Any]) -> Statement:
        self._refuse_if_ended()
        query, values = sql_text.bind(sql, params)
        word = sql_text.refused_word(query)
        if word:
            raise TransactionError(
                f"{word} is not for tx: it begins before the function and commits after it; tx.rollback() undoes it"
            )
        taken = [name for name in RESERVED_NAMES if name in params]
        if taken:
            raise TransactionError(f"the placeholder :{taken[0]} has a reserved name; reserved are {', '.join(RESERVED_NAMES)}")
        return Statement(sql, query.text, values, _oids(query.names, types), query.names)

    def _close_stream(self) -> None:
        stream = self._stream() if self._stream is not None else None
        if stream is not None:
            stream.close()

    def _refuse_if_ended(self) -> None:
        if self._has_ended:
            raise TransactionError("this transaction has ended: use tx only inside the function that it was made for")


def _oids(names: tuple[str, ...], types: Mapping[str, int] | None) -> tuple[int | None, ...]:
    """The OID of each placeholder's type, where one was given."""
    if types is None:
        return ()
    if not isinstance(types, Mapping):
        raise TransactionError(
            f"types is a {type(types).__name__}: it must map placeholders to the OIDs of their types, so no placeholder can have "
            f"its name; reserved are {', '.join(RESERVED_NAMES)}"
        )
    unknown = [name for name in types if name not in names]
    if unknown:
        raise TransactionError(f"types names {unknown[0]!r}, which is no placeholder of the statement: leave it out")
    return tuple(types.get(name) for name in names)


def _unexpected(statement: Statement, expected: int, result: Any) -> str:
    if result.row_count < 0:
        return f"expect_rows is for statements that count rows, and {result.command_tag} does not: {statement.sql}"
    return f"{result.row_count} rows where {expected} were expected, so nothing is committed: {statement.sql}"
