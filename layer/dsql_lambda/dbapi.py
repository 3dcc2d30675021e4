"""pg8000's DB-API, with this package's token, TLS and flights: `connect`, for SQLAlchemy and other code that wants PEP 249.

Knows nothing of transactions with retry: wrap the unit of work in `retry_on_occ`.

    engine = sqlalchemy.create_engine("postgresql+pg8000://", creator=dsql_lambda.dbapi.connect)
"""

from __future__ import annotations

from typing import Any

from .connection import as_options, open_connection
from .driver import dbapi as pg8000_dbapi
from .options import ConnectOptions, signer_for
from .wire import dbapi_connection

apilevel = "2.0"
threadsafety = 1
paramstyle = "format"


def __getattr__(name: str) -> Any:
    """The rest of PEP 249 (`Error`, `Date`, `Binary`, ...) is pg8000's."""
    return getattr(pg8000_dbapi(), name)


def connect(target: ConnectOptions | str | None = None, **overrides: Any) -> Any:
    """Open one new `pg8000.dbapi.Connection`, with a fresh token. Arguments and errors are those of `dsql_lambda.connect`."""
    options = as_options(target, overrides)
    return open_connection(dbapi_connection(), options, signer_for(options))
