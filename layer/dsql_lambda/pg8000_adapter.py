"""pg8000's connections on a `Session`: pg8000's own constructor, methods and handlers, in fewer round trips.

Knows pg8000's internals (the version that `driver` accepts) and how a startup message is answered; knows nothing of
transactions, of options or of where a token comes from.
"""

from __future__ import annotations

import codecs
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from . import parameters, sql, values
from .driver import core
from .flight import Flight, Result, Statement
from .server_errors import DatabaseError, InterfaceError, ProtocolError
from .session import FAILED, IDLE, Session
from .transport import Transport

_READY = b"Z\x00\x00\x00\x05I"
_ENDS_OF_A_FAILED_TRANSACTION = frozenset({"ROLLBACK", "ABORT"})
_CLEARTEXT = 3
_AUTHENTICATED = 0
_column_at = struct.Struct("!ihihih").unpack_from
_count_at = struct.Struct("!H").unpack_from
_code_at = struct.Struct("!i").unpack_from
_int32 = struct.Struct("!i").pack
_int16 = struct.Struct("!H").pack
_COLUMN_FIELDS = ("table_oid", "column_attrnum", "type_oid", "type_size", "type_modifier", "format")


class Secret:
    """A password that no `repr` and no traceback shows."""

    __slots__ = ("value",)

    def __init__(self, value: str) -> None:
        self.value = value


class _StartupComposer:
    """Stands for the socket while pg8000's constructor composes its startup message, and tells it that all is well."""

    def __init__(self) -> None:
        self.message = bytearray()
        self._answer = _READY

    def makefile(self, mode: str) -> _StartupComposer:
        return self

    def write(self, data: bytes) -> None:
        self.message += data

    def flush(self) -> None:
        pass

    def read(self, size: int) -> bytes:
        data, self._answer = self._answer[:size], self._answer[size:]
        return data

    def close(self) -> None:
        pass


class PipelinedConnection(core.CoreConnection):  # type: ignore[misc]
    """What pg8000's native and DB-API connections get from here."""

    _options: Any = None  # what it was opened with, as whoever opened it says

    def __init__(self, user: Any, host: Any = "localhost", database: Any = None, port: Any = 5432, **kwargs: Any) -> None:
        transport = kwargs.pop("sock", None)
        clock: Callable[[], float] = kwargs.pop("clock", time.time)
        password = kwargs.pop("password", None)
        composer = _StartupComposer()
        self._password_is_token = isinstance(password, Secret)
        if not isinstance(transport, Transport):
            timeout = kwargs.get("timeout")
            transport = Transport(
                core._make_socket(
                    kwargs.pop("unix_sock", None),
                    transport,
                    host,
                    port,
                    timeout,
                    kwargs.get("source_address"),
                    kwargs.get("tcp_keepalive", True),
                    kwargs.pop("ssl_context", None),
                ),
                timeout=timeout,
            )
        try:
            super().__init__(user, host, database, port, sock=composer, ssl_context=False, **kwargs)
            self.password = password.encode() if isinstance(password, str) else password
            self.pg_types = defaultdict(lambda: values.read_text, values.READERS)
            self.py_types = parameters.Writers(parameters.WRITERS)
            self._usock: Any = transport.sock
            self._sock = transport
            self._transaction_status = IDLE
            self._session = Session(self, transport, clock=clock)
            self._session.start(bytes(composer.message))
        except BaseException:
            transport.close()
            raise
        finally:
            self.password = None  # nothing needs it once the connection is started

    # pg8000's calls, each one flight.

    def execute_simple(self, statement: str) -> Any:
        """One Query message, which may hold several statements."""
        text = statement.encode(self._client_encoding)
        if b"\0" in text:
            raise InterfaceError("the statement holds a zero character, which no SQL text can: take it out")
        message = bytearray(core.QUERY + _int32(len(text) + 5) + text + b"\0")
        return self._session.exchange(Flight(message, [0], [Result(Statement(statement, statement))], None))[0]

    def execute_unnamed(self, statement: str, vals: Any = (), oids: Any = (), stream: Any = None) -> Any:
        """A statement with parameters, in one flight instead of three."""
        return self._session.fly([Statement(statement, statement, tuple(vals), tuple(oids))], stream)[0]

    def prepare_statement(self, statement: str, oids: Any = None) -> Any:
        """Parse and describe a named statement."""
        number = 0
        while (name := f"pg8000_statement_{number}".encode("ascii") + b"\0") in self._statement_nums:
            number += 1
        self._statement_nums.add(name)
        oids = oids or ()
        body = name + statement.encode(self._client_encoding) + b"\0" + _int16(len(oids))
        body += b"".join(_int32(0 if oid in {None, -1} else oid) for oid in oids)
        result = self._exchange([(core.PARSE, body), (core.DESCRIBE, core.STATEMENT + name)], statement, due=0)
        return name, result.columns, result.input_funcs

    def execute_named(
        self, statement_name_bin: bytes, params: Sequence[str | None], columns: Any, input_funcs: Any, statement: str
    ) -> Any:
        """Run a named statement."""
        body = bytearray(b"\0" + statement_name_bin + _int16(0) + _int16(len(params)))
        for each in params:
            data = None if each is None else each.encode(self._client_encoding)
            body += b"\xff\xff\xff\xff" if data is None else _int32(len(data)) + data
        body += _int16(0)
        messages = [(core.BIND, bytes(body)), (core.EXECUTE, b"\0" + _int32(0))]
        return self._exchange(messages, statement, due=1, columns=columns, input_funcs=input_funcs)

    def close_prepared_statement(self, statement_name_bin: bytes) -> None:
        """Forget a named statement."""
        self._exchange([(core.CLOSE, core.STATEMENT + statement_name_bin)], "", due=0)
        self._statement_nums.remove(statement_name_bin)

    def _exchange(self, messages: Any, statement: str, *, due: int, columns: Any = None, input_funcs: Any = ()) -> Any:
        result = Result(Statement(statement, statement))
        if columns is not None:
            result.columns, result.input_funcs, result.rows = columns, list(input_funcs), []
        data = b"".join(code + _int32(len(body) + 4) + body for code, body in messages) + core.SYNC_MSG
        return self._session.exchange(Flight(bytearray(data), [0], [result], due))[0]

    # pg8000's handlers, where they lose something or take too much on trust.

    def handle_AUTHENTICATION_REQUEST(self, data: bytes, context: Any) -> None:  # noqa: N802
        """Send the token where a password is asked for in clear text. Every other method would hash it: they are refused."""
        (code,) = _code_at(data)
        if not self._password_is_token or code == _AUTHENTICATED:
            super().handle_AUTHENTICATION_REQUEST(data, context)
            return
        if code != _CLEARTEXT:
            raise ProtocolError(
                f"the server asks for authentication method {code}, and an IAM token is sent as a clear-text password only, "
                "inside TLS: check that the host is a DSQL cluster"
            )
        token: Any = self.password
        if token is None:
            raise ProtocolError("the server asks for the password of a connection that has been started")
        self._send_message(core.PASSWORD, token.value.encode() + b"\0")
        self._session.transport.flush()

    def handle_ERROR_RESPONSE(self, data: bytes, context: Any) -> None:  # noqa: N802
        """The server's error, with its fields as attributes."""
        super().handle_ERROR_RESPONSE(data, context)
        context.error = DatabaseError(*context.error.args)

    def handle_COMMAND_COMPLETE(self, data: bytes, context: Any) -> None:  # noqa: N802
        """The command tag, which says what became of a COMMIT, and the count of rows in it."""
        tag = data[:-1].decode("ascii")
        context.command_tag = tag
        count = tag.rpartition(" ")[2]
        if count.isdigit():
            context.row_count = int(count) if context.row_count == -1 else context.row_count + int(count)
        is_failed = self._transaction_status == FAILED and context.error is None
        if is_failed and sql.refused_word(sql.bind(context.statement, {})[0]) not in _ENDS_OF_A_FAILED_TRANSACTION:
            context.error = InterfaceError("in failed transaction block")  # pg8000's word for a COMMIT that undoes

    def handle_PARAMETER_STATUS(self, data: bytes, context: Any) -> None:  # noqa: N802
        """A setting of the session. An encoding that Python does not have is refused."""
        super().handle_PARAMETER_STATUS(data, context)
        if data.startswith(b"client_encoding"):
            codecs.lookup(self._client_encoding)

    def handle_ROW_DESCRIPTION(self, data: bytes, context: Any) -> None:  # noqa: N802
        """The columns, with the reader of each."""
        (count,) = _count_at(data)
        position = 2
        columns = []
        for _ in range(count):
            end = data.index(b"\0", position)
            field: dict[str, Any] = dict(zip(_COLUMN_FIELDS, _column_at(data, end + 1), strict=True))
            field["name"] = data[position:end].decode(self._client_encoding)
            columns.append(field)
            position = end + 19
        if position != len(data):
            raise ValueError
        context.columns = columns
        context.input_funcs = [self.pg_types[each["type_oid"]] for each in columns]
        if context.rows is None:
            context.rows = []

    # Endings.

    def close(self) -> None:
        """Send Terminate and close. A dead peer is no error; closing twice is, as in pg8000."""
        if self._usock is None:
            raise InterfaceError("connection is closed")
        self._usock = None
        session: Session | None = self.__dict__.get("_session")
        if session is not None:  # else pg8000's constructor was interrupted
            session.close()
