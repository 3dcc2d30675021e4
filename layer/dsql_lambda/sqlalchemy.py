"""SQLAlchemy on DSQL: `create_engine`, `run_in_session`, and `session_in` for a session inside of a decorated function.

Knows SQLAlchemy's engines and sessions; what its dialect has to know is in `sqlalchemy_dialect`, and transactions are the loop's.

    engine = create_engine()                            # tokens, TLS, a pool for DSQL's connections
    run_in_session(lambda session: ..., engine)         # a session an attempt, again on conflicts, COMMIT at the end

    @with_dsql_transaction
    def lambda_handler(event, context, tx):
        with session_in(tx) as session:                 # on tx's connection; its COMMIT is tx's
            session.add(Account(...))

SQLAlchemy is imported with this module, and by no other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, TypeVar, overload

import sqlalchemy
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, PoolProxiedConnection

from . import dbapi
from .cache import source_for
from .claim import Claim, ConnectionSource, Place
from .connector import as_options
from .dbapi_view import TransactionView
from .decorator import check_call, deadline_of
from .emf import Metrics
from .errors import ConnectError, DeadlineExceeded, TransactionError
from .options import OPTION_NAMES, ConnectOptions
from .records import StructuredLogger
from .retry import OCCRetryConfig
from .runner import run_in_transaction
from .session import Session as WireSession
from .sqlalchemy_dialect import dialect_class, url_of
from .subsegments import Tracer
from .system import SYSTEM
from .telemetry import Telemetry
from .transaction import Transaction

S = TypeVar("S", bound=Session)
T = TypeVar("T")


def create_engine(target: ConnectOptions | str | None = None, **keywords: Any) -> Engine:
    """An engine for DSQL, on this package's driver: each new connection has a fresh token and verified TLS.

    `target` and keywords that are options (`user`, `region`, `connect_timeout`, ...) are those of `connect`; the others are
    `sqlalchemy.create_engine`'s. Defaults that fit DSQL: `pool_recycle` below its hour, `pool_pre_ping` without a round trip on
    connections that were used lately, `pool_use_lifo`. `isolation_level` is REPEATABLE READ, DSQL's only one, or AUTOCOMMIT. The
    dialect is AWS's (`aurora-dsql-sqlalchemy`) where it is installed, else SQLAlchemy's for PostgreSQL, whose DDL is not DSQL's.

    Raises `ConfigError` for a wrong option and `TypeError` for a keyword that neither knows; a connection that can't be opened
    is a `ConnectError` at its first use.
    """
    options = as_options(target, {name: keywords.pop(name) for name in OPTION_NAMES if name in keywords})
    arguments = {**keywords.pop("connect_args", {}), "options": options}
    return sqlalchemy.create_engine(url_of(options), connect_args=arguments, **keywords)


def run_in_session(
    function: Callable[[Any], T],
    source: Engine | ConnectionSource | None = None,
    *,
    retry: OCCRetryConfig | None = None,
    timeout: float | None = None,
    read_only: bool = False,
    logger: StructuredLogger | None = None,
    metrics: Metrics | None = None,
    tracer: Tracer | None = None,
    **session_options: Any,
) -> T:
    """Run `function(session)` in a transaction and return its value; run it again, in a new session, on conflicts.

    The function may run several times: it must have no effect outside its session. What it added or changed is flushed and
    committed when it has returned; `session.rollback()` undoes it. `source` is an engine of `create_engine`, a `Pool`, a
    `Connection`, or None for the cached connection. `session_options` are `Session`'s, or `class_` for another class of sessions.
    The other arguments are those of `run_transaction`, which says what is raised; an error of a statement is SQLAlchemy's.
    """
    connections: ConnectionSource | None = EngineSource(source) if isinstance(source, Engine) else source
    check_call(connections, retry)
    connections = source_for(None) if connections is None else connections

    def work(tx: Transaction) -> T:
        with session_in(tx, **session_options) as session:
            return function(session)

    return run_in_transaction(
        work,
        connections,
        retry=retry,
        deadline_at=deadline_of(connections, timeout),
        read_only=read_only,
        telemetry=Telemetry(function, logger=logger, metrics=metrics, tracer=tracer),
    )


@overload
def session_in(tx: Transaction, *, class_: type[S], **options: Any) -> AbstractContextManager[S]: ...


@overload
def session_in(tx: Transaction, **options: Any) -> AbstractContextManager[Session]: ...


@contextmanager
def session_in(tx: Transaction, *, class_: type[Any] = Session, **options: Any) -> Iterator[Any]:
    """A session on the connection and in the transaction of `tx`, for a `with` block.

    What is pending is flushed at the block's end. COMMIT is that of whoever began `tx`: `session.commit()` flushes and commits
    nothing, so what must happen after COMMIT is given to `tx.after_commit`, not to an event of the session's.
    `session.rollback()` undoes all of `tx`, as `tx.rollback()` does. `class_` is the class of the session (`sqlmodel.Session`),
    `options` are its constructor's.
    """
    view = TransactionView(tx)
    connection = _connected(view)
    try:
        connection.begin()  # to the session this is a transaction of somebody else's
        session = _joined(class_)(  # type: ignore[arg-type]
            bind=connection, join_transaction_mode="rollback_only", **options
        )
        session._tx = tx
        try:
            yield session
            # What came after the session's own rollback can't be done: the flush says so, where it would be lost.
            if session._is_rolled_back or not tx.has_ended:
                session.flush()
        finally:
            view.leave()
            session.close()
    finally:
        view.leave()
        connection.close()


# The session's class, and the engine that its connections belong to.


@cache
def _joined(class_: type[Session]) -> Any:
    """The class, with a `rollback` that is `tx`'s too. SQLAlchemy's own, after a failed flush, is not this method."""

    class Joined(class_):  # type: ignore[valid-type, misc]
        _tx: Transaction
        _is_rolled_back = False

        def rollback(self) -> None:
            super().rollback()
            self._is_rolled_back = True
            if not self._tx.has_ended:
                self._tx.rollback()

    Joined.__name__ = Joined.__qualname__ = class_.__name__
    return Joined


class _Handover(threading.local):
    view: TransactionView | None = None


_handover = _Handover()
_engine: Engine | None = None


def _connected(view: TransactionView) -> sqlalchemy.Connection:
    """SQLAlchemy's connection on a view. All belong to one engine, which keeps what it has compiled."""
    global _engine  # noqa: PLW0603 - one for all
    if _engine is None:
        dialect = dialect_class()(dbapi=dbapi)
        pool = NullPool(lambda: _handover.view, dialect=dialect)  # type: ignore[arg-type]
        _engine = Engine(pool, dialect, sqlalchemy.URL.create(dialect.name))
    _handover.view = view
    try:
        return _engine.connect()
    finally:
        _handover.view = None


# An engine as a source of connections.


class _PooledPlace(Place):
    """Where a connection of an engine's pool is while a transaction has it."""

    __slots__ = ("pooled",)

    def __init__(self, pooled: PoolProxiedConnection) -> None:
        super().__init__()
        self.pooled = pooled


class EngineSource:
    """The pool of an engine, as a source of connections for the loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _checkout(self, claim: Claim, deadline_at: float) -> WireSession:
        """A connection of the pool; one that is opened for it has the transaction's deadline."""
        try:
            pooled = self._engine.raw_connection()
        except sqlalchemy.exc.TimeoutError as error:
            if SYSTEM.monotonic() >= deadline_at:
                raise DeadlineExceeded("no connection was free before the deadline (connect)", phase="connect") from error
            raise ConnectError("no connection of the engine's pool was free: raise pool_size, or max_overflow") from error
        session = getattr(pooled.dbapi_connection, "_session", None)
        if not isinstance(session, WireSession):
            pooled.close()
            raise TransactionError(
                f"run_in_session() takes an engine of dsql_lambda.sqlalchemy.create_engine(), and this one's driver is "
                f"{self._engine.dialect.driver}: use retry_on_occ() with it"
            )
        place = _PooledPlace(pooled)
        place.session = session
        place.take(claim)
        return session

    def _checkin(self, claim: Claim, reason: str) -> None:
        """Back into the pool, which closes what can't be used again."""
        place = claim.place
        if not isinstance(place, _PooledPlace) or place.holder is not claim:
            return
        session = place.session
        if session is not None and session.is_clean:
            place.pooled.close()
        else:
            place.pooled.invalidate()
        place.release(claim)


__all__ = ["create_engine", "run_in_session", "session_in"]
