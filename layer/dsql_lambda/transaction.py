"""One attempt's view of the database: `Transaction`, what a decorated function gets as `tx`.

The only BEGIN, COMMIT and ROLLBACK of the package. Knows which statements share a flight; knows nothing of retries, of where
the connection comes from, or of what an ending means (module `attempt`).

    BEGIN                  leaves in the flight of the first statement, or alone where the loop wants its answer first
    what `defer` queued    leaves in the flight of the next statement, or in COMMIT's
    COMMIT                 leaves with the last deferred statements; a transaction of deferred writes alone is one flight,
                           and an empty one is none
    ROLLBACK               leaves alone, after a failure or at the function's own wish
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

from .errors import TransactionError
from .wire import (
    IDLE,
    IN_TRANSACTION,
    RESERVED_NAMES,
    DatabaseError,
    Result,
    Statement,
    Wire,
    make_statement,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

BEGIN = Statement("BEGIN", "BEGIN")
BEGIN_READ_ONLY = Statement("BEGIN READ ONLY", "BEGIN READ ONLY")
COMMIT = Statement("COMMIT", "COMMIT")
ROLLBACK = Statement("ROLLBACK", "ROLLBACK")

_REFUSED = ("BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "PREPARE")


def _first_word(sql: str) -> str:
    """The first word of a statement, in capitals, past white space, semicolons and comments."""
    start = 0
    if not sql[:1].isalpha():
        import re  # noqa: PLC0415 - few statements begin like that, and the pattern takes half a millisecond to compile

        blank = re.match(r"(?:\s|;|--[^\n]*(?:\n|$)|/\*.*?\*/)*", sql, re.DOTALL)
        start = blank.end() if blank else 0
    end = start
    while sql[end : end + 1].isalpha():
        end += 1
    return sql[start:end].upper()


def _names_of(result: Result) -> list[str]:
    """The columns' names, for rows as dicts. Raises `TransactionError` for two of one name: one value would be lost."""
    names = result.column_names
    if len(set(names)) < len(names):
        raise TransactionError(f"two columns have one name, so a row can't be a dict: {', '.join(names)}; name them with AS")
    return names


class Transaction:
    """One attempt's view of the database: statements, and nothing that could end the transaction but `rollback`.

    Statements have `:name` placeholders, one statement a call. BEGIN leaves with the first of them.
    """

    def __init__(self, connection: Wire, *, attempt: int = 1, read_only: bool = False) -> None:
        self.wire = connection
        """The connection, for the loop: looking at it sends nothing."""
        self.wire.server_error = None
        self.attempt = attempt
        """Which attempt this is, from 1."""
        self._failure: Exception | None = None
        self._begin = BEGIN_READ_ONLY if read_only else BEGIN
        self._has_begun = False
        self._has_ended = False
        self._deferred: list[tuple[Statement, int | None]] = []  # with the `expect_rows` of each
        self._stream: Generator[tuple[Result, list[Any]]] | None = None
        self._commit_index: int | None = None

    def run(self, sql: str, /, **params: Any) -> list[list[Any]]:
        """Run a statement and return its rows as lists; no rows is an empty list."""
        return self._run(sql, params).rows or []

    def rows(self, sql: str, /, **params: Any) -> list[dict[str, Any]]:
        """Run a statement and return its rows as dicts by column name."""
        result = self._run(sql, params)
        names = _names_of(result)
        return [dict(zip(names, row, strict=True)) for row in result.rows or ()]

    def row(self, sql: str, /, **params: Any) -> dict[str, Any] | None:
        """Run a statement and return its first row as a dict, or None if there is none."""
        rows = self.rows(sql, **params)
        return rows[0] if rows else None

    def value(self, sql: str, /, **params: Any) -> Any:
        """Run a statement and return the first column of its first row; NULL is None. No row is a `TransactionError`."""
        rows = self.run(sql, **params)
        if not rows or not rows[0]:
            raise TransactionError(f"no row where tx.value() wants one: {sql}")
        return rows[0][0]

    def stream(self, sql: str, /, **params: Any) -> Iterator[dict[str, Any]]:
        """Run a statement and yield its rows as dicts while they arrive, without keeping them.

        The next statement can be run when all rows were taken or the iterator was closed.
        """
        return self._streamed(self._checked(sql, params))

    def defer(self, sql: str, /, *, expect_rows: int | None = None, **params: Any) -> None:
        """Queue a statement: it leaves with the next one, or with the COMMIT, and costs no round trip of its own.

        `expect_rows` must be the number of rows that it changes, else nothing is committed and `TransactionError` is
        raised. Such a statement leaves one flight ahead of COMMIT. An error comes after the function has returned: what
        the function wants to handle itself, it runs.
        """
        if expect_rows is not None and (isinstance(expect_rows, bool) or not isinstance(expect_rows, int) or expect_rows < 0):
            raise TransactionError(f"expect_rows is {expect_rows!r}: it must be a number of rows, 0 or more")
        self._deferred.append((self._checked(sql, params), expect_rows))

    def rollback(self) -> None:
        """End the transaction now and undo all of it. The function's value is still returned; nothing is retried."""
        self._refuse_if_ended()
        self._deferred.clear()
        self.abandon()

    @property
    def connection(self) -> Wire:
        """The connection, a `pg8000.native.Connection`, for COPY and adapters. What is deferred, and BEGIN, leave first."""
        if not self._has_ended and (self._deferred or not self._has_begun):
            self._fly([])
        return self.wire

    # What the loop does with it.

    @property
    def failure(self) -> Exception | None:
        """The first failure of a statement, also where the function handled it: it decides the ending."""
        return self._failure or self.wire.server_error

    @property
    def has_ended(self) -> bool:
        """Was it rolled back by the function, or is it over?"""
        return self._has_ended

    def begin(self) -> None:
        """Send BEGIN alone and wait for its answer: what proves that an idle link still lives."""
        self._fly([])

    def commit(self) -> None:
        """Send what is deferred and COMMIT, and see that the answer's tag is COMMIT. An empty transaction sends nothing."""
        self._close_stream()
        if self.wire.link.failure is not None:
            raise ConnectionError("the link is broken") from self.wire.link.failure
        if self._failure is not None:
            raise self._failure
        if not self._has_begun and not self._deferred:
            self._has_ended = True
            return
        if not self.wire.pipeline or any(expected is not None for _, expected in self._deferred):
            self._fly([])
        if self._has_begun and self.wire.transaction_status != IN_TRANSACTION:
            self._fail("the transaction was ended past tx, by a statement on its connection")
        flight = [] if self._has_begun else [self._begin]
        flight += [statement for statement, _ in self._deferred]
        self._has_ended = True
        self._commit_index = len(flight)
        try:
            tag = self._sent([*flight, COMMIT])[-1].command_tag
        except DatabaseError:
            raise
        except Exception:
            # COMMIT was answered, and what failed is only what follows its tag, or a value that nobody gets: a success.
            tag = self.wire.last_tag
            if tag != "COMMIT":
                raise
        if tag != "COMMIT":
            self._fail(f"COMMIT was answered with {tag}: nothing was committed")

    @property
    def is_commit_handed(self) -> bool:
        """Did the socket take any byte of COMMIT?"""
        return self._commit_index is not None and self.wire.was_handed(self._commit_index)

    def abandon(self) -> None:
        """Roll back what is open, or close the connection where that can't be done. Never raises an `Exception`."""
        self._has_ended = True
        connection = self.wire
        try:
            self._close_stream()
            if connection.is_broken or connection.transaction_status == IDLE:
                return
            connection.fly([ROLLBACK])
        except Exception:  # noqa: BLE001 - a failing ROLLBACK never hides the error that led to it
            connection.abandon()
        finally:
            if not connection.is_clean and not connection.is_closed:
                connection.abandon()

    def _run(self, sql: str, params: dict[str, Any]) -> Result:
        return self._fly([self._checked(sql, params)])[-1]

    def _streamed(self, statement: Statement) -> Generator[dict[str, Any]]:
        self._refuse_if_ended()
        if self._deferred or not self._has_begun:
            self._fly([])
        self._stream = stream = self.wire.stream_flight([statement])
        names: list[str] = []
        try:
            for result, row in stream:
                names = names or _names_of(result)
                yield dict(zip(names, row, strict=True))
        except Exception as error:
            self._note(error)
            raise
        finally:
            stream.close()
        self._refuse_if_ended()  # else rows that were never seen would look like none

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def _fly(self, statements: Sequence[Statement]) -> list[Result]:
        """Send BEGIN if it is due, what is deferred, and these statements; see that the transaction is still open."""
        self._refuse_if_ended()
        self.wire.refuse_if_unread()
        deferred, self._deferred = self._deferred, []
        flight = [] if self._has_begun else [self._begin]
        first = len(flight)
        flight += [statement for statement, _ in deferred]
        if not flight and not statements:
            return []
        results = self._sent([*flight, *statements])
        self._has_begun = True
        if self.wire.transaction_status != IN_TRANSACTION:
            self._fail("the server left the transaction: its statements are not in one")
        for (statement, expected), result in zip(deferred, results[first:], strict=False):
            if expected is not None and result.row_count != expected:
                self._fail(f"{result.row_count} rows where {expected} were expected, so nothing is committed: {statement.sql}")
        return results

    def _sent(self, flight: Sequence[Statement]) -> list[Result]:
        connection = self.wire
        try:
            if connection.pipeline:
                return connection.fly(flight)
            return [connection.fly([each])[0] for each in flight]
        except Exception as error:
            # Whatever failed, a statement that the function meant to run did not do what it says: never a success.
            self._has_begun = self._has_begun or connection.transaction_status != IDLE
            self._note(error)
            raise

    def _note(self, error: Exception) -> None:
        self._failure = self._failure or error
        if isinstance(error, DatabaseError) and error.statement:
            error.add_note(f"The statement: {error.statement}")

    def _fail(self, message: str) -> NoReturn:
        failure = TransactionError(message)
        self._failure = self._failure or failure
        raise failure

    def _checked(self, sql: str, params: dict[str, Any]) -> Statement:
        self._refuse_if_ended()
        word = _first_word(sql)
        if word in _REFUSED:
            raise TransactionError(
                f"{word} is not for tx: it begins before the function and commits after it; tx.rollback() undoes it"
            )
        taken = [name for name in RESERVED_NAMES if name in params]
        if taken:
            raise TransactionError(f"the placeholder :{taken[0]} has a reserved name; reserved are {', '.join(RESERVED_NAMES)}")
        return make_statement(sql, params)

    def _refuse_if_ended(self) -> None:
        if self._has_ended:
            raise TransactionError("this transaction has ended: use tx only inside the function that it was made for")
