"""SQLAlchemy's dialects on this package's driver: `auroradsql+dsql_lambda`, and `postgresql+dsql_lambda` where AWS's is missing.

Knows what SQLAlchemy asks of a dialect and of its pool. AWS's dialect, `aurora-dsql-sqlalchemy`, knows DSQL's DDL (identity keys,
ASYNC indexes); SQLAlchemy's own for pg8000 knows how values are bound and read.
https://docs.sqlalchemy.org/en/20/core/internals.html#sqlalchemy.engine.default.DefaultDialect
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import null
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.pg8000 import PGDialect_pg8000
from sqlalchemy.engine import URL
from sqlalchemy.pool import QueuePool

from . import dbapi
from .cache import max_age
from .claim import published_at
from .connector import ConnectionFactory, as_options
from .options import ConnectOptions
from .session import Session
from .system import NEVER, SYSTEM

try:
    from aurora_dsql_sqlalchemy.base import AuroraDSQLDialect
except ImportError:
    AuroraDSQLDialect = None

DRIVER = "dsql_lambda"

_ISOLATION = "REPEATABLE READ"  # the only one that DSQL has
_AUTOCOMMIT = "AUTOCOMMIT"
_PROBE_SECONDS = 3.0


class DsqlPool(QueuePool):
    """SQLAlchemy's pool, with defaults for connections that DSQL cuts after an hour and Lambda freezes.

    `pool_recycle` is 55 minutes, less up to 10 of jitter, by wall clock. A connection is looked at before it is used again, which
    costs no round trip unless it was idle for long. The one that was used last is used first. A transaction with a deadline waits
    for none beyond it.
    """

    def __init__(
        self,
        creator: Callable[..., Any],
        *,
        recycle: float | None = None,
        pre_ping: bool = True,
        use_lifo: bool = True,
        **more: Any,
    ) -> None:
        recycle = max_age(SYSTEM.random()) if recycle is None else recycle
        super().__init__(creator, recycle=recycle, pre_ping=pre_ping, use_lifo=use_lifo, **more)

    @property
    def _timeout(self) -> float:
        """SQLAlchemy's own attribute, from which its pool takes how long to wait."""
        return max(min(self._longest_wait, published_at() - SYSTEM.monotonic()), 0.0)

    @_timeout.setter
    def _timeout(self, seconds: float) -> None:
        self._longest_wait = seconds


class _OnThisDriver:
    """What both dialects have of this package."""

    driver = DRIVER
    poolclass = DsqlPool
    supports_server_side_cursors = False  # DSQL has none: rows are fetched at once

    # What SQLAlchemy asks a server of PostgreSQL's at the first connection, in five round trips, is known of DSQL.
    server_version_info = (16,)
    default_schema_name = "public"
    default_isolation_level = _ISOLATION
    _backslash_escapes = False

    def initialize(self, connection: Any) -> None:
        """Nothing is asked."""

    @classmethod
    def import_dbapi(cls) -> Any:
        """The driver."""
        return dbapi

    def create_connect_args(self, url: URL) -> tuple[Sequence[Any], dict[str, Any]]:
        """The URL is one of `ConnectOptions.from_url`: what it does not say is the environment's."""
        return [url.set(drivername="postgresql").render_as_string(hide_password=False)], {}

    def connect(self, url: str, *, options: ConnectOptions | None = None, **overrides: Any) -> Any:
        """Open a connection, with a fresh token. `overrides` are what `connect_args` says; `options` take the URL's place."""
        options = as_options(url if options is None else options, overrides)
        if not options.orm_prefix:
            options = options.replace(orm_prefix="sqlalchemy")
        return ConnectionFactory(options, keeps_token=False).open(dbapi.Connection, published_at())

    # The state of a connection is known, so nothing is asked of the server that is known too.

    def is_disconnect(self, e: Exception, connection: Any, cursor: Any) -> bool:
        """Is the connection of no more use?"""
        session: Session | None = getattr(connection, "_session", None)
        return session is not None and session.is_closed

    def do_ping(self, dbapi_connection: Any) -> bool:
        """Can it be used again? A closed peer shows without a round trip; after `probe_after_secs` of idleness one is made."""
        session: Session = dbapi_connection._session
        if session.reason_to_replace(NEVER):
            return False
        if session.clock() - session.used_at >= session.probe_after_secs:
            session.transport.deadline_at = min(SYSTEM.monotonic() + _PROBE_SECONDS, published_at())
            dbapi_connection.execute_simple("SELECT 1")
            session.transport.deadline_at = NEVER
        return True

    def get_isolation_level_values(self, dbapi_conn: Any) -> tuple[str, ...]:
        """What `isolation_level=` may be."""
        return _ISOLATION, _AUTOCOMMIT

    def set_isolation_level(self, dbapi_connection: Any, level: str) -> None:
        """Sends nothing: there is one isolation level, and no transaction begins in autocommit."""
        dbapi_connection.autocommit = level == _AUTOCOMMIT

    def get_isolation_level(self, dbapi_connection: Any) -> str:
        """What the next statement runs in."""
        return _AUTOCOMMIT if dbapi_connection.autocommit else _ISOLATION


class StockDialect(_OnThisDriver, PGDialect_pg8000):  # type: ignore[misc]
    """SQLAlchemy's own dialect for PostgreSQL: for tables that exist. Its DDL is PostgreSQL's, with SERIAL and plain indexes."""

    supports_statement_cache = True


if AuroraDSQLDialect is not None:

    class AuroraDialect(_OnThisDriver, PGDialect_pg8000, AuroraDSQLDialect):  # type: ignore[misc]
        """AWS's dialect for DSQL."""

        supports_statement_cache = True

        def _columns_query(self, *args: Any) -> Any:  # type: ignore[override]
            """AWS's query knows no collations, which newer versions of SQLAlchemy read. DSQL has one alone."""
            query = super()._columns_query(*args)
            return query if "collation" in query.selected_columns else query.add_columns(null().label("collation"))


def dialect_class() -> type[Any]:
    """AWS's dialect, or SQLAlchemy's own where AWS's is not installed."""
    return StockDialect if AuroraDSQLDialect is None else AuroraDialect


def url_of(options: ConnectOptions) -> URL:
    """What an engine shows as its URL."""
    return URL.create(
        f"{dialect_class().name}+{DRIVER}",
        username=options.user,
        host=options.host,
        port=options.port,
        database=options.database,
    )


def __getattr__(name: str) -> Any:
    if name == "AuroraDialect":
        raise ImportError("auroradsql+dsql_lambda needs AWS's dialect: pip install aurora-dsql-sqlalchemy")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


registry.register(f"postgresql.{DRIVER}", __name__, "StockDialect")
registry.register(f"auroradsql.{DRIVER}", __name__, "AuroraDialect")
