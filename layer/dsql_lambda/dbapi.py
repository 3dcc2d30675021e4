"""pg8000's DB-API, with this package's token, TLS and flights: `connect`, for code that wants PEP 249.

Knows PEP 249's errors and cursors; knows nothing of transactions with retry (wrap the unit of work in `retry_on_occ`), or of
SQLAlchemy, whose dialect stands on this (module `sqlalchemy_dialect`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .claim import published_at
from .connector import ConnectionFactory, as_options
from .driver import dbapi as pg8000_dbapi
from .flight import Statement
from .options import ConnectOptions
from .pg8000_adapter import PipelinedConnection
from .server_errors import DatabaseError

apilevel = "2.0"
threadsafety = 1
paramstyle = "format"

_STATEMENTS_A_FLIGHT = 256
_pg8000 = pg8000_dbapi()


class DataError(DatabaseError, _pg8000.DataError):  # type: ignore[misc, name-defined]
    """Class 22: a value that can't be processed."""


class IntegrityError(DatabaseError, _pg8000.IntegrityError):  # type: ignore[misc, name-defined]
    """Class 23: a constraint is violated."""


class InternalError(DatabaseError, _pg8000.InternalError):  # type: ignore[misc, name-defined]
    """Classes 24, 25, 2B, 2D and XX: the transaction is in the wrong state, or the server fails."""


class NotSupportedError(DatabaseError, _pg8000.NotSupportedError):  # type: ignore[misc, name-defined]
    """Class 0A: what DSQL does not have."""


class OperationalError(DatabaseError, _pg8000.OperationalError):  # type: ignore[misc, name-defined]
    """Conflicts (40), limits (53, 54), and what has to do with the server's operation."""


class ProgrammingError(DatabaseError, _pg8000.ProgrammingError):  # type: ignore[misc, name-defined]
    """Class 42 and others: the statement is wrong, or names what there is not."""


_CLASSES = {
    "0A": NotSupportedError,
    "22": DataError,
    "23": IntegrityError,
    **dict.fromkeys(("24", "25", "2B", "2D", "XX"), InternalError),
    **dict.fromkeys(("10", "20", "21", "26", "34", "3D", "3F", "42", "44", "P0"), ProgrammingError),
    **dict.fromkeys(("08", "27", "28", "2F", "38", "39", "3B", "40", "53", "54", "55", "57", "58", "F0", "HV"), OperationalError),
}


def specific(error: DatabaseError) -> DatabaseError:
    """The error as PEP 249's class for its SQLSTATE, which psycopg gives it too. One of those already is returned as it is."""
    kind = _CLASSES.get(error.sqlstate[:2])
    if kind is None or type(error) is not DatabaseError:
        return error
    found = kind(*error.args)
    found.statement = error.statement
    return found


class Cursor(_pg8000.Cursor):  # type: ignore[misc, name-defined]
    """A `pg8000.dbapi.Cursor` whose `executemany` waits once for many statements."""

    @property
    def connection(self) -> Any:
        """The connection: an extension of PEP 249's, which AWS's dialect uses. (pg8000 warns of it.)"""
        return self._c

    def executemany(self, operation: str, param_sets: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each set of parameters, 256 in one flight. `rowcount` is the sum."""
        if not self._c._in_transaction and not self._c.autocommit:
            self._c.execute_simple("begin transaction")
        oids = tuple(self._input_oids)
        self._input_oids: Any = ()
        waiting: list[Statement] = []
        counts: list[int] = []
        last: Any = None
        sets = [tuple(each) for each in param_sets]
        for index, parameters in enumerate(sets, 1):
            text, values = _pg8000.convert_paramstyle(paramstyle, operation, parameters)
            waiting.append(Statement(operation, text, tuple(values), oids))
            if len(waiting) == _STATEMENTS_A_FLIGHT or index == len(sets):
                results = self._c.fly(waiting)
                counts += [each.row_count for each in results]
                last = results[-1]
                waiting = []
        self._context = last or _pg8000.Context(None)
        self._context.row_count = -1 if -1 in counts else sum(counts) if counts else self._context.row_count
        self._row_iter = None


class Connection(PipelinedConnection, _pg8000.Connection):  # type: ignore[misc, name-defined]
    """A `pg8000.dbapi.Connection` to DSQL."""

    def cursor(self) -> Cursor:
        """A cursor on this connection."""
        return Cursor(self)

    def fly(self, statements: Sequence[Statement]) -> list[Any]:
        """Run statements in one flight."""
        return self._session.fly(statements)

    def handle_ERROR_RESPONSE(self, data: bytes, context: Any) -> None:  # noqa: N802
        """The server's error, of PEP 249's class."""
        super().handle_ERROR_RESPONSE(data, context)
        context.error = specific(context.error)


def __getattr__(name: str) -> Any:
    """The rest of PEP 249 (`Error`, `Date`, `Binary`, ...) is pg8000's."""
    return getattr(_pg8000, name)


def connect(target: ConnectOptions | str | None = None, **overrides: Any) -> Any:
    """Open one new `pg8000.dbapi.Connection`, with a fresh token. Arguments and errors are those of `dsql_lambda.connect`.

    Inside a transaction, as where a pool opens one for `run_in_session`, its deadline counts.
    """
    return ConnectionFactory(as_options(target, overrides), keeps_token=False).open(Connection, published_at())
