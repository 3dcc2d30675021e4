"""pg8000 as this package uses it: `Wire`, a `pg8000.native.Connection` whose statements travel in flights.

Knows pg8000 (as module `driver` imports it), messages, flights, the transaction status that each ReadyForQuery reports, and
the server's errors; knows nothing of what a transaction is for, of tokens, or of retries.

A flight is what goes out before an answer is waited for: Parse, Bind, Describe, Execute for each statement, and one Sync
at its end. An error skips the rest of its flight, COMMIT included. Stock pg8000 takes three round trips for one statement.
https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-PIPELINING
"""

from __future__ import annotations

import time
from _thread import allocate_lock  # `threading.Lock`, without the rest of it
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import lru_cache
from struct import Struct

from . import rows
from .driver import converters, core, dbapi, exceptions, native
from .errors import TransactionError
from .link import Link
from .parameters import WRITERS, Writers, to_texts
from .values import READERS, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# pg8000's own arguments of a parameterised call: no placeholder may have their names.
RESERVED_NAMES = ("expect_rows", "stream", "types")

IDLE = core.IDLE
IN_TRANSACTION = core.IN_TRANSACTION
FAILED = core.IN_FAILED_TRANSACTION

_int32 = Struct("!i").pack
_int16 = Struct("!H").pack
_header_at = Struct("!ci").unpack_from
_EXECUTE_ALL = b"E\x00\x00\x00\x09\x00\x00\x00\x00\x00"
_DESCRIBE_PORTAL = b"D\x00\x00\x00\x06P\x00"
_ENDS_OF_A_STATEMENT = (core.COMMAND_COMPLETE, core.EMPTY_QUERY_RESPONSE, core.PORTAL_SUSPENDED)

InterfaceError = exceptions.InterfaceError


class DatabaseError(exceptions.DatabaseError):  # type: ignore[misc]
    """What the server said against a statement: pg8000's error, with the fields that matter as attributes.

    `args[0]` is pg8000's dict of the fields by their one-letter codes.
    https://www.postgresql.org/docs/current/protocol-error-fields.html
    """

    statement = ""
    """The SQL, with its placeholders and never their values, where the statement is known."""

    def _field(self, code: str) -> str:
        fields = self.args[0] if self.args else None
        return str(fields.get(code, "")) if isinstance(fields, Mapping) else ""

    @property
    def sqlstate(self) -> str:
        """The five characters of the SQLSTATE, as `23505`."""
        return self._field("C")

    @property
    def message(self) -> str:
        """The primary message."""
        return self._field("M")

    @property
    def detail(self) -> str:
        """More about the failure; may hold values of the row."""
        return self._field("D")

    @property
    def hint(self) -> str:
        """What to do about it, in the server's words."""
        return self._field("H")

    @property
    def constraint_name(self) -> str:
        """The constraint that was violated, if one was."""
        return self._field("n")

    def __str__(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.message} (SQLSTATE {self.sqlstate}){hint}" if self.sqlstate else super().__str__()


class ConnectionTerminated(DatabaseError, exceptions.InterfaceError):  # type: ignore[misc]
    """The server's last words, and then the end of the stream: pg8000, which loses them, has an `InterfaceError` here."""

    def __str__(self) -> str:
        return f"{super().__str__()}: network error"


class Statement:
    """One statement, ready to be sent."""

    __slots__ = ("oids", "sql", "text", "values")

    def __init__(self, sql: str, text: str, values: tuple[Any, ...] = (), oids: tuple[Any, ...] = ()) -> None:
        self.sql = sql
        """As it was written, with `:name` placeholders."""
        self.text = text
        """As it is sent, with `$1` placeholders."""
        self.values = values
        self.oids = oids


class Result:
    """What one statement of a flight answered; pg8000's handlers fill it in, by these names."""

    def __init__(self, statement: Statement, stream: Any = None) -> None:
        self.sql = statement.sql
        self.statement = statement.text
        self.stream = stream
        self.rows: list[list[Any]] | None = None
        self.row_count = -1
        self.columns: list[dict[str, Any]] | None = None
        self.input_funcs: list[Any] = []
        self.error: Exception | None = None
        self.command_tag = ""

    @property
    def column_names(self) -> list[str]:
        """The names of the columns, in their order."""
        return [column["name"] for column in self.columns or ()]


@lru_cache(maxsize=512)
def _parsed(sql: str) -> tuple[str, Any]:
    """pg8000's own reading of the placeholders, once for each text."""
    text, make_vals = native.to_statement(sql)
    return text, make_vals


def make_statement(sql: str, params: Mapping[str, Any]) -> Statement:
    """Put a statement and its parameters together. Raises pg8000's `InterfaceError` for a placeholder without a value."""
    try:
        text, make_vals = _parsed(sql)
    except (TypeError, AttributeError):  # what pg8000's reader raises when the text ends in ":" or "$"
        raise InterfaceError("the statement ends in a placeholder without a name") from None
    return Statement(sql, text, make_vals(params))


class Flights(core.CoreConnection):  # type: ignore[misc]
    """What both of pg8000's connections get: its own constructor, methods and answers, in fewer round trips.

    `clock` is wall time in seconds: ages are judged by it, for a monotonic clock may stand still in a frozen environment.
    """

    # What the transaction loop asks of its connection; `connect` sets them from the options.
    pipeline = True
    probe_after_secs = 60.0

    def __init__(self, user: Any, host: Any = "localhost", database: Any = None, port: Any = 5432, **kwargs: Any) -> None:
        link = kwargs.pop("sock", None)
        self.clock: Callable[[], float] = kwargs.pop("clock", time.time)
        if not isinstance(link, Link):
            sock = core._make_socket(
                kwargs.pop("unix_sock", None),
                link,
                host,
                port,
                kwargs.get("timeout"),
                kwargs.get("source_address"),
                kwargs.get("tcp_keepalive", True),
                kwargs.pop("ssl_context", None),
            )
            link = Link(sock, timeout=kwargs.get("timeout"))
        self.link: Link = link
        self._marks: list[int] = []
        self.last_tag = ""
        """What the server answered to the last statement that `fly` sent; empty if that answer did not come."""
        self._awaits_ready = False
        self.server_error: DatabaseError | None = None
        """The first error of the server since somebody set this to None: what the loop judges a transaction by."""
        self._claim = allocate_lock()
        try:
            super().__init__(user, host, database, port, sock=link, ssl_context=False, **kwargs)
        except BaseException:
            link.close()
            raise
        finally:
            self.password = None  # it is the token; nothing needs it once the connection is open
        self._transaction_status = IDLE
        self.opened_at = self.used_at = self.clock()
        self.flights = 0

    # The state of the connection.

    @property
    def is_closed(self) -> bool:
        """Was it closed at this side?"""
        return self._usock is None

    @property
    def is_broken(self) -> bool:
        """Did its link fail, or is it closed? Then it is of no more use."""
        return self._usock is None or self.link.failure is not None

    @property
    def is_clean(self) -> bool:
        """Is it open, outside any transaction, and is no answer owed?"""
        return not self.is_broken and not self._awaits_ready and self._transaction_status == IDLE

    @property
    def transaction_status(self) -> bytes:
        """What the last ReadyForQuery said: `IDLE`, `IN_TRANSACTION` or `FAILED`."""
        return bytes(self._transaction_status)

    @property
    def backend_pid(self) -> int:
        """The process that serves this connection, as the server named it."""
        return int.from_bytes(self._backend_key_data[:4], "big")

    def was_handed(self, index: int) -> bool:
        """Did the socket take any byte of the last flight's statement `index`?"""
        return index < len(self._marks) and self.link.handed > self._marks[index]

    # Who uses it. A connection runs one transaction at a time, for one thread.

    @property
    def is_claimed(self) -> bool:
        """Is a transaction running on it?"""
        return self._claim.locked()

    def claim(self) -> None:
        """Take it for a transaction. Raises `TransactionError` if one is running on it, in this thread or another."""
        if not self._claim.acquire(blocking=False):
            raise TransactionError(
                "a transaction is running on this connection, and DSQL has no savepoints: pass its tx on to join it, "
                "or use another connection (a Pool, for threads)"
            )

    def release(self) -> None:
        """Let the next transaction have it."""
        self._claim.release()

    # Flights.

    def fly(self, statements: Sequence[Statement], stream: Any = None) -> list[Result]:
        """Send the statements in one flight, with one Sync, and read the answers of all.

        Raises the `DatabaseError` of the statement that failed (its SQL as `statement`); none after it ran.
        """
        results = [Result(each, stream) for each in statements]
        try:
            self._send_flight(statements)
            for _ in self._answers(results):
                pass
        finally:
            self.last_tag = results[-1].command_tag
        return results

    def stream_flight(self, statements: Sequence[Statement]) -> Generator[tuple[Result, list[Any]]]:
        """As `fly`, but each row of the last statement is yielded as it arrives. Closed early, it reads the rest away."""
        results = [Result(each) for each in statements]
        self._send_flight(statements)
        answers = self._answers(results)
        try:
            for result in answers:
                if result is results[-1]:
                    yield from ((result, row) for row in result.rows or ())
                result.rows = []
        finally:
            try:
                for result in answers:
                    result.rows = []
            except DatabaseError:  # `server_error` remembers it
                pass

    def execute_unnamed(self, statement: str, vals: Any = (), oids: Any = (), stream: Any = None) -> Any:
        """pg8000's parameterised call, in one flight instead of three."""
        (result,) = self.fly([Statement(statement, statement, tuple(vals), tuple(oids))], stream)
        return result

    def _send_flight(self, statements: Sequence[Statement]) -> None:
        self.refuse_if_unread()
        messages = bytearray()
        starts = []
        for each in statements:
            starts.append(len(messages))
            messages += self._encoded(each)
        messages += core.SYNC_MSG
        self._marks = [self.link.written + start for start in starts]
        self._awaits_ready = True
        self.flights += 1
        self.link.write(messages)
        self.link.flush()

    def _encoded(self, statement: Statement) -> bytes:
        encoding = self._client_encoding
        parse = bytearray(b"\x00" + statement.text.encode(encoding) + b"\x00" + _int16(len(statement.oids)))
        for oid in statement.oids:
            parse += _int32(0 if oid in {None, -1} else oid)
        values = to_texts(statement.values, self.py_types)
        bind = bytearray(b"\x00\x00\x00\x00" + _int16(len(values)))
        for value in values:
            if value is None:
                bind += b"\xff\xff\xff\xff"
            else:
                data = value.encode(encoding)
                bind += _int32(len(data)) + data
        bind += b"\x00\x00"
        return b"".join((b"P", _int32(len(parse) + 4), parse, b"B", _int32(len(bind) + 4), bind, _DESCRIBE_PORTAL, _EXECUTE_ALL))

    def _answers(self, results: Sequence[Any]) -> Iterator[Any]:
        """Read to ReadyForQuery. Yields each result when rows have come to it; raises the first failure after the end."""
        index = 0
        failure: Exception | None = None
        code = b""
        link = self.link
        decoder = rows.Decoder(self._client_encoding)
        try:
            while code != core.READY_FOR_QUERY:
                self._fill(5)
                code, length = _header_at(link.buffer, link.position)
                self._fill(1 + length)
                result = results[index]
                if code == core.DATA_ROW:
                    # A value that can't be converted must not leave the other answers unread.
                    values, count, link.position = rows.split(link.buffer, link.position)
                    try:
                        if result.error is None:
                            result.rows += decoder.decode(values, count, result.input_funcs)
                    except Exception as unconverted:  # noqa: BLE001
                        result.error = unconverted
                    else:
                        yield result
                else:
                    start, link.position = link.position + 5, link.position + 1 + length
                    self.message_types[code](link.buffer[start : link.position], result)
                if result.error is not None and failure is None:
                    failure = result.error
                    if isinstance(failure, DatabaseError):
                        failure.statement = getattr(result, "sql", "")
                        self.server_error = self.server_error or failure
                if code in _ENDS_OF_A_STATEMENT and index + 1 < len(results):
                    index += 1
        except (OSError, InterfaceError) as lost:
            if isinstance(failure, DatabaseError):
                raise ConnectionTerminated(*failure.args) from lost
            raise
        self._landed()
        if failure is not None:
            raise failure

    def _fill(self, size: int) -> None:
        if not self.link.fill(size):
            raise InterfaceError("network error")

    def execute_simple(self, statement: str) -> Any:
        """pg8000's call without parameters: one Query message, which may hold several statements."""
        self.refuse_if_unread()
        return super().execute_simple(statement)

    def handle_messages(self, context: Any) -> None:
        """pg8000's reading of one answer, in our way."""
        self._awaits_ready = True
        self.flights += 1
        for _ in self._answers([context]):
            pass

    def refuse_if_unread(self) -> None:
        """Raise pg8000's `InterfaceError` while a flight can't be sent: it is closed, or an answer is still being read."""
        if self.is_closed:
            raise InterfaceError("connection is closed")
        if self._awaits_ready:
            raise InterfaceError("the last statement's answer is still unread: take all rows of its stream, or close it")

    def _landed(self) -> None:
        self._awaits_ready = False
        self.used_at = self.clock()

    # What pg8000's handlers leave out.

    def handle_AUTHENTICATION_REQUEST(self, data: bytes, context: Any) -> None:  # noqa: N802
        """pg8000 looks at its socket for channel binding: it gets the link's own."""
        self._usock: Any = self.link.sock
        super().handle_AUTHENTICATION_REQUEST(data, context)

    def handle_ERROR_RESPONSE(self, data: bytes, context: Any) -> None:  # noqa: N802
        """The server's error, with its fields as attributes."""
        super().handle_ERROR_RESPONSE(data, context)
        context.error = DatabaseError(*context.error.args)

    def handle_COMMAND_COMPLETE(self, data: bytes, context: Any) -> None:  # noqa: N802
        """The command tag, which says what became of a COMMIT."""
        context.command_tag = data[:-1].decode("ascii", "replace")
        super().handle_COMMAND_COMPLETE(data, context)

    # Endings.

    def close(self) -> None:
        """Say goodbye and close. A dead peer is no error; closing twice is, as in pg8000."""
        if self._usock is None:
            raise InterfaceError("connection is closed")
        try:
            super().close()
        except (OSError, InterfaceError):
            self.abandon()

    def abandon(self) -> None:
        """Close the socket without a word: the peer is gone, or the session is another process's."""
        self.link.close()
        self._sock = None
        self._usock = None

    @property
    def deadline_at(self) -> float:
        """The moment (monotonic seconds) that every wait ends at; `NEVER` for none."""
        return self.link.deadline_at

    @deadline_at.setter
    def deadline_at(self, moment: float) -> None:
        self.link.deadline_at = moment


class Wire(Flights, native.Connection):  # type: ignore[misc]
    """A `pg8000.native.Connection` whose statements travel in flights."""


@lru_cache(maxsize=1)
def dbapi_connection() -> type[Flights]:
    """pg8000's DB-API connection whose statements travel in flights: a class, made when it is first wanted."""

    class Connection(Flights, dbapi().Connection):  # type: ignore[misc]
        """A `pg8000.dbapi.Connection` to DSQL."""

    return Connection


__all__ = [
    "FAILED",
    "IDLE",
    "IN_TRANSACTION",
    "RESERVED_NAMES",
    "ConnectionTerminated",
    "DatabaseError",
    "Flights",
    "InterfaceError",
    "Result",
    "Statement",
    "Wire",
    "dbapi_connection",
    "make_statement",
]
