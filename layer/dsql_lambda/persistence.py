"""Powertools' idempotency records in DSQL: `DsqlPersistenceLayer`. Imports Powertools, and is imported only when it is named.

For `@idempotent` above a transaction. It has one hole that no store can close from there: a process that ends between COMMIT and
the record. `Idempotency` writes both in one transaction. What is known here is kept: where the function's outcome is unknown
the record stays, and where its transaction is committed the result is stored, though the function raised.

    an operation      one transaction of its own. Each may run twice with one effect: a record carries the token of who wrote it
    in progress       taken over when it has expired, as Powertools' DynamoDB store does
    outcome unknown   the record stays in progress, without an expiry of its own, until the key's: a human decides
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyItemAlreadyExistsError,
    IdempotencyItemNotFoundError,
)
from aws_lambda_powertools.utilities.idempotency.persistence.base import BasePersistenceLayer
from aws_lambda_powertools.utilities.idempotency.persistence.datarecord import STATUS_CONSTANTS, DataRecord

from .after_commit import AfterCommitError
from .claim import ConnectionSource
from .decorator import run_transaction
from .errors import CommitOutcomeUnknown
from .fields import check_table
from .transaction import Transaction

T = TypeVar("T")

_TRIES = 3  # of an operation whose COMMIT was not answered
_IN_PROGRESS = STATUS_CONSTANTS["INPROGRESS"]


class DsqlPersistenceLayer(BasePersistenceLayer):
    """A persistence store for Powertools' `@idempotent` and `@idempotent_function`, in DSQL.

    `source` is a `Connection` or a `Pool`, None is the cached connection. `create_table()` is the statement that makes the table.
    """

    def __init__(
        self,
        *,
        source: ConnectionSource | None = None,
        table: str = "dsql_lambda_powertools",
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        check_table("table", table)
        self.table = table
        self._source = source
        self._clock = clock
        columns = "status, expires_at, in_progress_expires_at, result, payload"
        self._select = f"SELECT {columns}, owner FROM {table} WHERE id = :id"  # noqa: S608 - the name was checked
        self._insert = (
            f"INSERT INTO {table} (id, {columns}, owner) "  # noqa: S608
            "VALUES (:id, :status, :expires_at, :in_progress_expires_at, :result, :payload, :owner)"
        )
        self._update = (
            f"UPDATE {table} SET status = :status, expires_at = :expires_at, in_progress_expires_at = :in_progress_expires_at, "  # noqa: S608
            "result = :result, payload = :payload, owner = :owner WHERE id = :id"
        )

    def create_table(self) -> str:
        """The statement that makes the table: one, as DSQL wants it, to be run once by who owns the schema."""
        return (
            f"CREATE TABLE IF NOT EXISTS {self.table} (id text PRIMARY KEY, status text NOT NULL, owner text NOT NULL, "
            "expires_at bigint, in_progress_expires_at bigint, result text NOT NULL, payload text NOT NULL)"
        )

    def delete_expired(self) -> str:
        """The statement that removes a thousand expired records. Repeat it until none is left."""
        expired = f"SELECT id FROM {self.table} WHERE expires_at < extract(epoch FROM now()) LIMIT 1000"  # noqa: S608
        return f"DELETE FROM {self.table} WHERE id IN ({expired})"  # noqa: S608

    def delete_record(self, data: dict[str, Any], exception: Exception) -> None:
        """Forget an event whose function raised: but not one that is committed, or may be."""
        if isinstance(exception, AfterCommitError):
            value: Any = exception.value
            self.save_success(data=data, result=value)
            return
        if not _is_unknown(exception):
            super().delete_record(data=data, exception=exception)
            return
        key = self._get_hashed_idempotency_key(data=data)
        statement = f"UPDATE {self.table} SET in_progress_expires_at = NULL WHERE id = :id"  # noqa: S608
        if key is not None:
            self._run(lambda tx: tx.defer(statement, id=key))

    def _get_record(self, idempotency_key: str) -> DataRecord:
        row = self._run(lambda tx: tx.row(self._select, id=idempotency_key))
        if row is None:
            raise IdempotencyItemNotFoundError(f"no record has the key {idempotency_key}")
        return _record(idempotency_key, row)

    def _put_record(self, data_record: DataRecord) -> None:
        owner = os.urandom(8).hex()

        def put(tx: Transaction) -> DataRecord | None:
            row = tx.row(self._select, id=data_record.idempotency_key)
            if row is not None and row["owner"] != owner and self._is_live(row):
                return _record(data_record.idempotency_key, row)
            self._write(tx, self._insert if row is None else self._update, data_record, owner)
            return None

        found = self._run(put)
        if found is not None:
            self._save_to_cache(data_record=found)
            self._validate_payload(data_payload=data_record, stored_data_record=found)
            raise IdempotencyItemAlreadyExistsError(old_data_record=found)

    def _update_record(self, data_record: DataRecord) -> None:
        self._run(lambda tx: self._write(tx, self._update, data_record, os.urandom(8).hex()))

    def _delete_record(self, data_record: DataRecord) -> None:
        statement = f"DELETE FROM {self.table} WHERE id = :id"  # noqa: S608
        self._run(lambda tx: tx.defer(statement, id=data_record.idempotency_key))

    def _run(self, function: Callable[[Transaction], T]) -> T:
        """Run one operation. Each may be repeated: what it writes is the same."""
        for _ in range(_TRIES - 1):
            try:
                return run_transaction(function, source=self._source)
            except CommitOutcomeUnknown:
                pass
        return run_transaction(function, source=self._source)

    def _is_live(self, row: dict[str, Any]) -> bool:
        """Does the record count: not expired, and not in progress for longer than its function can have run?"""
        now = self._clock()
        if row["expires_at"] is not None and row["expires_at"] < now:
            return False
        ends_at_ms = row["in_progress_expires_at"]
        return row["status"] != _IN_PROGRESS or ends_at_ms is None or ends_at_ms >= now * 1000

    def _write(self, tx: Transaction, statement: str, record: DataRecord, owner: str) -> None:
        tx.defer(
            statement,
            id=record.idempotency_key,
            status=record.status,
            expires_at=record.expiry_timestamp,
            in_progress_expires_at=record.in_progress_expiry_timestamp,
            result=record.response_data,
            payload=record.payload_hash,
            owner=owner,
        )


def _record(key: str, row: dict[str, Any]) -> DataRecord:
    return DataRecord(
        idempotency_key=key,
        status=row["status"],
        expiry_timestamp=row["expires_at"],
        in_progress_expiry_timestamp=row["in_progress_expires_at"],
        response_data=row["result"],
        payload_hash=row["payload"],
    )


def _is_unknown(error: BaseException | None) -> bool:
    """Did the function raise, or end after, a COMMIT whose outcome is unknown?"""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, CommitOutcomeUnknown):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
