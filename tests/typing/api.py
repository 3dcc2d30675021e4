"""How the public names are used, for type checkers: this file is checked by mypy and pyright and never run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, assert_type

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import EphemeralMetrics
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from dsql_lambda import (
    Connection,
    ConnectOptions,
    DatabaseError,
    Idempotency,
    OCCConflict,
    OCCRetryConfig,
    OCCRetryExhausted,
    OCCType,
    Pool,
    Token,
    Transaction,
    WriteInterrupted,
    cached_connection,
    classify_occ,
    connect,
    is_occ_error,
    retry_on_occ,
    run_transaction,
    with_dsql_transaction,
    write_in_chunks,
)
from dsql_lambda.sqlalchemy import create_engine, run_in_session, session_in


class OwnSession(Session):
    """A user's class of sessions."""


@with_dsql_transaction
def bare(event: dict[str, Any], context: object, tx: Transaction) -> int:
    """Keeps its return type."""
    assert_type(tx.run("SELECT 1"), list[list[Any]])
    assert_type(tx.rows("SELECT :a", a=1), list[dict[str, Any]])
    assert_type(tx.row("SELECT 1"), dict[str, Any] | None)
    rows: Iterator[dict[str, Any]] = tx.stream("SELECT :a", types={"a": 23}, a=1)
    assert_type(next(rows), dict[str, Any])
    with tx.stream("SELECT 1") as closed_early:
        assert_type(list(closed_early), list[dict[str, Any]])
    assert_type(tx.defer("SELECT 1", expect_rows=1), None)
    assert_type(tx.attempt, int)
    return 1


@with_dsql_transaction(retry=OCCRetryConfig(max_attempts=5), read_only=True, timeout=5.0, logger=Logger())
def called(number: int, tx: Transaction) -> str:
    """Called with options."""
    return str(number)


@with_dsql_transaction(logger=Logger(), metrics=Metrics(namespace="Bank"), tracer=Tracer(service="transfers"))
def observed(event: dict[str, Any], context: object, tx: Transaction) -> bool:
    """Powertools' own are what is wanted."""
    return bool(event)


assert_type(bare({}, None), int)
assert_type(observed({}, None), bool)
assert_type(called(1), str)


class Accounts:
    """A method is decorated as a function is."""

    @with_dsql_transaction(options=ConnectOptions(host="a" * 26, region="us-east-1"))
    def add(self, amount: int, tx: Transaction) -> int:
        """Adds."""
        return int(tx.value("SELECT :amount", amount=amount))


@with_dsql_transaction
def orm(event: dict[str, Any], context: object, tx: Transaction) -> str:
    """A session in it, of SQLAlchemy's class or of another."""
    with session_in(tx) as session:
        assert_type(session, Session)
    with session_in(tx, class_=OwnSession) as own:
        assert_type(own, OwnSession)
    return "done"


def everything_else() -> None:
    """Functions and values."""
    assert_type(run_transaction(lambda tx: tx.attempt), int)
    assert_type(retry_on_occ(lambda: "done"), str)
    assert_type(retry_on_occ(lambda: "done", OCCRetryConfig(), timeout=1.5, logger=Logger()), str)
    assert_type(retry_on_occ(lambda: "done", metrics=Metrics(), tracer=Tracer()), str)
    assert_type(run_transaction(lambda tx: tx.attempt, logger=Logger(), metrics=EphemeralMetrics(), tracer=Tracer()), int)
    options = ConnectOptions.from_url("postgres://admin@host/postgres", port=5433)
    assert_type(options, ConnectOptions)
    assert_type(options.replace(port=1), ConnectOptions)
    assert_type(ConnectOptions.from_env(), ConnectOptions)
    assert_type(options.token(), Token)
    assert_type(options.token(at=0.0).expires_at, float)
    assert_type(cached_connection(), Connection)
    once = Idempotency(key="id", ttl_seconds=60, lookup="ride")
    assert_type(once.replace(caller=lambda event: event["who"]), Idempotency)
    assert_type(run_transaction(lambda tx: tx.attempt, idempotency=once, event={"id": 1}), int)
    assert_type(with_dsql_transaction(idempotency=once)(lambda event, tx: "x")({}), str)
    with connect(options) as connection:
        assert_type(connection, Connection)
        assert_type(connection.transaction_with_retry(lambda tx: tx.attempt), int)
        with connection.transaction(read_only=True) as tx:
            assert_type(tx, Transaction)
        run_transaction(lambda tx: None, source=connection)
    with Pool(options, max_size=2) as pool:
        assert_type(pool, Pool)
        assert_type(pool.transaction_with_retry(lambda tx: "value"), str)
        with pool.connection() as connection:
            assert_type(connection, Connection)
        with pool.acquire() as connection:
            assert_type(connection, Connection)
        assert_type(pool.statistics.idle, int)
        run_transaction(lambda tx: None, source=pool)
    with Pool(options, retry=OCCRetryConfig(), logger=Logger()) as pool:
        insert = "INSERT INTO t (id) VALUES (:id)"
        assert_type(write_in_chunks(insert, iter([{"id": 1}, (2,)]), source=pool, parallel=2, progress=print), int)
    engine = create_engine(options, pool_size=2)
    assert_type(engine, Engine)
    assert_type(run_in_session(lambda session: 1, engine, timeout=5, expire_on_commit=False), int)
    try:
        run_transaction(lambda tx: None)
    except WriteInterrupted as error:
        assert_type(error.committed, tuple[tuple[int, int], ...])
        assert_type(error.resume_at, int)
    except OCCRetryExhausted as error:
        assert_type(error.attempts, int)
        assert_type(error.elapsed, float)
    except DatabaseError as error:
        assert_type(error.sqlstate, str)
        assert_type(is_occ_error(error), bool)
        conflict = classify_occ(error)
        assert_type(conflict, OCCConflict | None)
        if conflict is not None:
            assert_type(conflict.type, OCCType)
