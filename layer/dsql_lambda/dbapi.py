"""pg8000's DB-API, with this package's token, TLS and flights: `connect`, for SQLAlchemy and other code that wants PEP 249.

Knows nothing of transactions with retry: wrap the unit of work in `retry_on_occ`.

    engine = sqlalchemy.create_engine("postgresql+pg8000://", creator=dsql_lambda.dbapi.connect)
"""

from __future__ import annotations

from typing import Any

from .connector import ConnectionFactory, as_options
from .driver import dbapi as pg8000_dbapi
from .options import ConnectOptions
from .pg8000_adapter import PipelinedConnection

apilevel = "2.0"
threadsafety = 1
paramstyle = "format"


class Connection(PipelinedConnection, pg8000_dbapi().Connection):  # type: ignore[misc]
    """A `pg8000.dbapi.Connection` to DSQL."""


def __getattr__(name: str) -> Any:
    """The rest of PEP 249 (`Error`, `Date`, `Binary`, ...) is pg8000's."""
    return getattr(pg8000_dbapi(), name)


def connect(target: ConnectOptions | str | None = None, **overrides: Any) -> Any:
    """Open one new `pg8000.dbapi.Connection`, with a fresh token. Arguments and errors are those of `dsql_lambda.connect`."""
    return ConnectionFactory(as_options(target, overrides), keeps_token=False).open(Connection)
