"""A started connection to the server: what is sent on it, what was answered, and whether it can be used again: `Session`.

Knows PostgreSQL's messages, pg8000's handlers for them, and the transaction status that each ReadyForQuery reports. Knows
nothing of what a transaction is for, of tokens, or of retries.
https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from . import parameters, rows, values
from .attempt import Evidence
from .driver import core
from .flight import Flight, Result, Statement
from .server_errors import (
    ConnectionLost,
    ConnectionTerminated,
    DatabaseError,
    InterfaceError,
    ProtocolError,
)
from .transport import Transport

IDLE: bytes = core.IDLE
IN_TRANSACTION: bytes = core.IN_TRANSACTION
FAILED: bytes = core.IN_FAILED_TRANSACTION

_int32 = struct.Struct("!i").pack
_int16 = struct.Struct("!H").pack
_header_at = struct.Struct("!ci").unpack_from
_EXECUTE_ALL = b"E\x00\x00\x00\x09\x00\x00\x00\x00\x00"
_NONE = b"\x00\x00"
_DESCRIBE_PORTAL = b"D\x00\x00\x00\x06P\x00"

# As in libpq: no message is longer than a gibibyte, and only these may be longer than a few kilobytes.
_LONGEST = 0x3FFFFFFF
_LONGEST_OTHERS = 30_000
_LONG_MESSAGES = frozenset(b"TDdVENA")
_LONGEST_NOTICE = 65_536
_MOST_PARAMETERS = 256

_ENDS_OF_A_STATEMENT = frozenset((core.COMMAND_COMPLETE, core.EMPTY_QUERY_RESPONSE, core.PORTAL_SUSPENDED))
_AT_ANY_TIME = frozenset((core.NOTICE_RESPONSE, core.PARAMETER_STATUS, core.NOTIFICATION_RESPONSE, core.ERROR_RESPONSE))
_COPY = frozenset((core.COPY_IN_RESPONSE, core.COPY_OUT_RESPONSE, core.COPY_DATA))
_WITHOUT_CONTENT = frozenset((core.PARSE_COMPLETE, core.BIND_COMPLETE, core.NO_DATA))
_MALFORMED = (struct.error, IndexError, KeyError, ValueError, TypeError, LookupError, OverflowError)
_RESET_ALL = "RESET ALL"
_ROWS_A_BATCH = 256  # the deadline is looked at between batches


class Session:
    """A started connection to the server: what is sent on it and what is known of it.

    `connection` is pg8000's object, which has the adapters and the handlers of messages. `clock` is wall time in seconds:
    ages are judged by it, for a monotonic clock may stand still in a frozen environment.
    """

    # What a transaction asks of its session; whoever opens one sets them from the options.
    pipeline = True
    probe_after_secs = 60.0
    configure: Callable[[Any], None] | None = None

    def __init__(self, connection: Any, transport: Transport, *, clock: Callable[[], float] = time.time) -> None:
        self.connection = connection
        self.transport = transport
        self.clock = clock
        self.evidence = Evidence()
        """Where the failures of statements are noted; whoever begins a transaction puts its own here."""
        self.flights = 0
        """How many were sent: round trips."""
        self.has_settings = False
        """Was something SET that RESET ALL takes back?"""
        self.opened_at = self.used_at = clock()
        self._flight: Flight | None = None

    # What is known of it.

    @property
    def is_closed(self) -> bool:
        """Is it of no more use: closed, lost, given up, or another process's?"""
        return self.transport.failure is not None or self.transport.is_inherited

    @property
    def is_clean(self) -> bool:
        """Can it be used again: open, outside any transaction, and with no answer owed?"""
        return not self.is_closed and not self.is_busy and self.transaction_status == IDLE

    @property
    def is_busy(self) -> bool:
        """Is an answer still owed, or something unsent? Then the next answer would be somebody else's."""
        return (self._flight is not None and not self._flight.is_landed) or self.transport.has_unsent

    @property
    def transaction_status(self) -> bytes:
        """What the last ReadyForQuery said: `IDLE`, `IN_TRANSACTION` or `FAILED`."""
        status: bytes = self.connection._transaction_status
        return status

    def reason_to_replace(self, expires_at: float) -> str:
        """Why it can't be used again, by what is known without asking the server; empty if it can. Ages by wall clock.

        One poll detects a closed peer. https://docs.aws.amazon.com/aurora-dsql/latest/userguide/CHAP_quotas.html
        """
        if self.transport.is_inherited:
            return "fork"
        if self.transport.failure is not None or self.is_busy:
            return "closed"
        now = self.clock()
        if now >= expires_at or now < self.opened_at:
            return "age"
        if self.transaction_status != IDLE:
            return "in-transaction"
        return "closed" if self.transport.is_readable() else ""

    # Starting and ending.

    def start(self, message: bytes) -> None:
        """Send the startup message and authenticate. Raises `DatabaseError` for a refusal, or what ended the connection."""
        self.exchange(Flight(bytearray(message), [0], [Result(Statement("", ""))], None))

    def close(self) -> None:
        """Send Terminate and close; a dead peer is no error."""
        try:
            if not self.is_closed and not self.is_busy:
                self.transport.write(core.TERMINATE_MSG)
                self.transport.flush()
        except InterfaceError:
            pass
        finally:
            self.transport.close()

    def abandon(self) -> None:
        """Close the socket without a word: the peer is gone, owes an answer, or is another process's."""
        self.transport.close()

    def restore_settings(self) -> None:
        """Take back what was SET, and let `configure` set its own again."""
        self.fly((Statement("RESET ALL", _RESET_ALL),))
        if self.configure is not None:
            self.configure(self.connection)
        self.has_settings = False

    # Flights.

    def compose(self, statements: Sequence[Statement], stream: Any = None) -> Flight:
        """Put statements into one flight, with one Sync at its end. Nothing is sent."""
        messages = bytearray()
        starts = []
        for each in statements:
            starts.append(len(messages))
            self._encode(each, messages)
        messages += core.SYNC_MSG
        return Flight(messages, starts, [Result(each, stream) for each in statements], len(statements))

    def fly(self, statements: Sequence[Statement], stream: Any = None) -> list[Any]:
        """Send the statements in one flight and read the answers of all.

        Raises the `DatabaseError` of the statement that failed (its SQL as `statement`); none after it ran.
        """
        return self.exchange(self.compose(statements, stream))

    def exchange(self, flight: Flight, *, decodes: bool = True) -> list[Any]:
        """Send a flight and read its answers."""
        self.refuse_if_busy()
        try:
            self._queue(flight)
            self.transport.flush()
            for _ in self._answers(flight, decodes=decodes):
                pass
        except BaseException as error:
            self._give_up(flight, error)
            raise
        return flight.results

    def stream(self, flight: Flight) -> Generator[list[Any], None, None]:
        """Send a flight now; what is returned yields the rows of its last statement as they arrive."""
        self.refuse_if_busy()
        try:
            self._queue(flight)
            self.transport.flush()
        except BaseException as error:
            self._give_up(flight, error)
            raise
        return self._streamed(flight)

    def _streamed(self, flight: Flight) -> Generator[list[Any], None, None]:
        last = flight.results[-1]
        try:
            for result in self._answers(flight):
                if result is last:
                    yield from result.rows or ()
                result.rows = []
        except GeneratorExit:
            raise
        except BaseException as error:
            self._give_up(flight, error)
            raise

    def finish(self, flight: Flight) -> None:
        """Read the rest of a flight away, without converting a value."""
        if flight.is_landed or flight is not self._flight:
            return
        try:
            for _ in self._answers(flight, decodes=False):
                pass
        except BaseException as error:
            self._give_up(flight, error)
            raise

    def refuse_if_busy(self) -> None:
        """Raise pg8000's `InterfaceError` where nothing can be sent: it is closed, or an answer is still being read."""
        self.transport._refuse_if_unusable()
        if self.is_busy:
            raise InterfaceError("the last statement's answer is still unread: take all rows of its stream, or close it")

    def _give_up(self, flight: Flight, error: BaseException) -> None:
        """Close the connection if an answer is still owed on it, so that nobody gets that answer for another one."""
        if flight.is_landed:
            return
        if not isinstance(error, InterfaceError | DatabaseError):
            self.evidence.interruption = error
        self.abandon()

    def _queue(self, flight: Flight) -> None:
        self._flight = flight
        flight.begin(self.transport)
        self.flights += 1
        self.transport.write(flight.messages)

    def _encode(self, statement: Statement, messages: bytearray) -> None:
        encoding = self.connection._client_encoding
        text = statement.text
        if "\0" in text:
            raise InterfaceError("the statement holds a zero character, which no SQL text can: take it out")
        if "set_config" in text:
            self.has_settings = True
        parse = bytearray(b"\x00" + text.encode(encoding) + b"\x00")
        bind = bytearray(b"\x00\x00\x00\x00")
        if statement.values:
            self._encode_values(statement, encoding, parse, bind)
        else:
            parse += _NONE
            bind += _NONE
        bind += b"\x00\x00"
        if max(len(parse), len(bind)) > _LONGEST - 4:
            raise InterfaceError("the statement or its parameters are longer than a message can be, 1 GiB: send less at once")
        messages += b"".join((b"P", _int32(len(parse) + 4), parse, b"B", _int32(len(bind) + 4), bind))
        messages += _DESCRIBE_PORTAL
        messages += _EXECUTE_ALL

    def _encode_values(self, statement: Statement, encoding: str, parse: bytearray, bind: bytearray) -> None:
        """The parameters' types, and their texts."""
        writers = self.connection.py_types
        given = [*statement.oids, *[None] * (len(statement.values) - len(statement.oids))]
        oids = [
            parameters.oid_of(value, writers) if oid is None else oid for oid, value in zip(given, statement.values, strict=False)
        ]
        parse += _int16(len(oids))
        for oid in oids:
            parse += _int32(0 if oid == -1 else oid)
        texts = parameters.to_texts(statement.values, writers, statement.names)
        bind += _int16(len(texts))
        for each in texts:
            if each is None:
                bind += b"\xff\xff\xff\xff"
            else:
                data = each.encode(encoding)
                bind += _int32(len(data)) + data

    # Answers.

    def _answers(  # noqa: PLR0912 - one loop, on the way of every message
        self, flight: Flight, *, decodes: bool = True
    ) -> Iterator[Any]:
        """Read to ReadyForQuery. Yields each result when rows have come to it; raises the first failure after the end."""
        transport = self.transport
        decoder = rows.Decoder(self.connection._client_encoding)
        results = flight.results
        result = results[min(flight.answered, len(results) - 1)]
        code = b""
        try:
            while code != core.READY_FOR_QUERY:
                unread = len(transport.buffer) - transport.position
                if unread < 5:
                    transport.fill(5)
                code, length = _header_at(transport.buffer, transport.position)
                if not 4 <= length <= _LONGEST_OTHERS:
                    _refuse_if_too_long(code, length)
                if unread <= length:
                    transport.fill(1 + length)
                if code == core.DATA_ROW:
                    if self._take_rows(flight, result, decoder, decodes=decodes):
                        yield result
                    continue
                _refuse_if_unexpected(flight, code)
                start, transport.position = transport.position + 5, transport.position + 1 + length
                if code in _WITHOUT_CONTENT:
                    continue
                self._handle(code, transport.buffer[start : transport.position], result)
                if result.error is not None and flight.failure is None:
                    self._note_failure(flight, result)
                    if isinstance(result.error, DatabaseError) and result.error.is_fatal:
                        transport.failure = ConnectionLost(f"network error: {result.error.message}")
                        raise transport.failure
                if code in _ENDS_OF_A_STATEMENT:
                    flight.answered += 1
                    result = results[min(flight.answered, len(results) - 1)]
        except ConnectionLost as lost:
            if isinstance(flight.failure, DatabaseError):
                terminated = ConnectionTerminated(*flight.failure.args)
                terminated.statement = flight.failure.statement
                raise terminated from lost
            raise
        self.used_at = self.clock()
        flight.is_landed = True
        if flight.failure is not None:
            raise flight.failure

    def _take_rows(self, flight: Flight, result: Any, decoder: rows.Decoder, *, decodes: bool) -> bool:
        """Cut a batch of rows out of the buffer and convert them. Returns whether `result` has new rows."""
        transport = self.transport
        if result.columns is None or (flight.failure is not None and isinstance(flight.failure, DatabaseError)):
            raise ProtocolError("the server sent a row that no statement asked for")
        try:
            found, count, transport.position = rows.split(
                transport.buffer, transport.position, len(result.input_funcs), _ROWS_A_BATCH
            )
        except _MALFORMED as error:
            raise ProtocolError("the server sent a row whose values do not fit its columns") from error
        transport.refuse_if_past_deadline()
        if not decodes or result.error is not None:
            return False
        try:
            result.rows += decoder.decode(found, count, result.input_funcs)
        except Exception as error:  # noqa: BLE001 - a value that can't be converted must not leave the answers unread
            result.error = _unreadable(error, result)
            self._note_failure(flight, result)
            return False
        return True

    def _note_failure(self, flight: Flight, result: Any) -> None:
        failure = result.error
        if isinstance(failure, DatabaseError):
            failure.statement = getattr(result, "sql", "")
        flight.failure = flight.failure or failure
        self.evidence.failure = self.evidence.failure or failure

    def _handle(self, code: bytes, data: bytes, result: Any) -> None:
        """Let pg8000's handler of the message read it."""
        connection = self.connection
        handler = connection.message_types.get(code)
        if handler is None:
            raise ProtocolError(f"the server sent a message of an unknown type, {code!r}")
        if code in _COPY:
            if result.stream is None or (code == core.COPY_DATA and not hasattr(result, "stream_write")):
                raise ProtocolError("the server began a COPY, and no stream was given: pass stream= to the connection's run()")
            handler(data, result)  # it calls the user's stream, whose errors are the user's
            return
        if code == core.NOTICE_RESPONSE and len(data) > _LONGEST_NOTICE:
            return
        try:
            handler(data, result)
        except _MALFORMED as error:
            raise ProtocolError(f"the server sent a malformed message {code!r}") from error
        if code == core.COMMAND_COMPLETE and result.command_tag in {"SET", "RESET"}:
            self.has_settings = result.statement != _RESET_ALL
        if code == core.READY_FOR_QUERY and data not in (IDLE, IN_TRANSACTION, FAILED):
            raise ProtocolError(f"the server reported a transaction status {data!r} that there is not")
        if code == core.PARAMETER_STATUS and len(connection.parameter_statuses) > _MOST_PARAMETERS:
            raise ProtocolError(f"the server reported more than {_MOST_PARAMETERS} parameters")


def _unreadable(error: Exception, result: Any) -> Exception:
    """What to raise for a value that can't be converted. What an adapter of the user's raises is the user's."""
    is_ours = all(getattr(each, "__module__", "") == values.__name__ for each in result.input_funcs)
    if not is_ours or not isinstance(error, _MALFORMED):
        return error
    unreadable = ProtocolError(f"the server sent a value that can't be read as its column's type: {error}")
    unreadable.__cause__ = error
    return unreadable


def _refuse_if_too_long(code: bytes, length: int) -> None:
    """Raise `ProtocolError` for a message of a length that its kind can't have."""
    if not 4 <= length <= (_LONGEST if code[0] in _LONG_MESSAGES else _LONGEST_OTHERS):
        raise ProtocolError(f"the server sent a message {code!r} of {length} bytes, which the protocol does not allow")


def _refuse_if_unexpected(flight: Flight, code: bytes) -> None:
    """Raise `ProtocolError` for an answer that this flight can't have."""
    if code in _AT_ANY_TIME:
        return
    if isinstance(flight.failure, DatabaseError):
        if code != core.READY_FOR_QUERY:
            raise ProtocolError(f"the server went on with a message {code!r} after an error")
    elif flight.due is None:
        return
    elif code == core.READY_FOR_QUERY:
        if flight.answered != flight.due:
            raise ProtocolError("the server was ready before it had answered every statement")
    elif code in _ENDS_OF_A_STATEMENT and flight.answered >= flight.due:
        raise ProtocolError("the server answered a statement that was not sent")
