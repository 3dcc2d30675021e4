"""One call of an idempotent function: `Once`. It reads and writes the row of the call's key inside the call's own transactions.

Knows the row, and what an attempt's ending means for it. Decides nothing about attempts and deadlines: the loop asks it before
the function (`begin`), after it (`end`) and after each attempt (`judge`). What an attempt may change is noted before it is sent.

    first     the key is read in BEGIN's flight; the function runs if no result is there
    ride      the function runs, and its row leaves with COMMIT. Where the row is there already, and where the function failed or
              rolled back (what an earlier delivery did may be why), the key is read in an attempt of its own
    unknown   COMMIT was sent and not answered. That no row is there proves nothing: it may still land. So a marker, a row
              without a result, is committed first. Both write one row, so one of them fails. If the marker is committed, the
              lost COMMIT never lands, and the function runs again; if the row has a result, that is returned
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from .attempt import Ending, Evidence, Outcome
from .idempotency import MOST_BYTES, Idempotency, IdempotencyKeyReused
from .json_text import to_json
from .occ import OCCConflict, OCCType
from .server_errors import DatabaseError, InterfaceError
from .transaction import Transaction

_UNIQUE_VIOLATION = "23505"
_UNDEFINED_TABLE = "42P01"


class Once:
    """The row of one key, during one call."""

    def __init__(self, idempotency: Idempotency, key: str, payload: str) -> None:
        self.value: Any = None
        """What is returned where `begin` said that the function is not to be called."""
        self.is_in_doubt = False
        """May a COMMIT that was not answered have landed, or land later? Also where it turned out that it has."""
        self.was_in_doubt = False
        """Was one lost in this call, if settled since?"""
        self.settles = False
        """Can the last attempt's unknown outcome be found out by another one?"""
        self._idempotency = idempotency
        self._key = key
        self._payload = payload
        self._owner = ""
        self._looks = idempotency.lookup == "first"
        self._has_looked = False
        self._is_there = False
        self._has_fenced = False
        self._lost: Outcome | None = None  # the attempt whose COMMIT was not answered, and who wrote its row
        self._lost_owner = ""
        self._unseen: Outcome | None = None  # an ending that counts only if the key has no result
        table = idempotency.table
        self._select = f"SELECT payload, owner, result, expires_at <= CURRENT_TIMESTAMP FROM {table} WHERE id = :id"  # noqa: S608
        expiry = "CURRENT_TIMESTAMP + :ttl * interval '1 second'"
        self._insert = (
            f"INSERT INTO {table} (id, payload, owner, result, expires_at) "  # noqa: S608
            f"VALUES (:id, :payload, :owner, :result, {expiry})"
        )
        self._update = (
            f"UPDATE {table} SET payload = :payload, owner = :owner, result = :result, expires_at = {expiry} "  # noqa: S608
            "WHERE id = :id"
        )

    def begin(self, tx: Transaction) -> bool:
        """Is the function to be called in this attempt? If not, `value` has what is returned.

        Raises `IdempotencyKeyReused`, or what the function raised in an attempt before if no result is there.
        """
        self._owner = os.urandom(8).hex()
        self._is_there = self._has_fenced = self._has_looked = False
        if not self._looks:
            return True
        if self._has_result(tx):
            tx.rollback()
            return False
        self._has_looked = True
        if self.is_in_doubt:
            self._has_fenced = True
            self._write(tx, None)
            return False
        if self._unseen is not None:
            if self._unseen.error is not None:
                raise self._unseen.error
            self.value = self._unseen.value
            tx.rollback()
            return False
        return True

    def end(self, tx: Transaction, value: Any) -> None:
        """Put the row into the transaction. Raises `ResponseError` for a value that can't be stored."""
        if not tx.has_ended:
            self._write(tx, to_json(value, most_bytes=MOST_BYTES))

    def judge(self, outcome: Outcome, evidence: Evidence) -> Outcome | None:
        """What an attempt's ending comes to. None: another attempt is due at once, and nothing has gone wrong."""
        ending, error = outcome.ending, outcome.error
        self.settles = False
        if ending is Ending.COMMITTED:
            if not self._has_fenced:
                return outcome
            self.is_in_doubt = False
            return None
        if ending is Ending.ROLLED_BACK and self._looks:
            # There is a result: this call's own, of which an interruption must still say so, or one that excludes it.
            self.is_in_doubt = is_own = self._lost is not None and self._lost.ending is Ending.COMMITTED
            return self._lost if is_own else outcome
        if ending is Ending.UNKNOWN and isinstance(error, DatabaseError | InterfaceError):
            if not self.is_in_doubt:
                self._lost, self._lost_owner = outcome, self._owner
            self._looks = self.settles = self.is_in_doubt = self.was_in_doubt = True
        elif ending is Ending.FAILED and self._collided(error):
            if self._has_looked:
                return Outcome(Ending.CONFLICT, error=error, conflict=OCCConflict(OCCType.DATA, _UNIQUE_VIOLATION))
            self._looks = True
            return None
        elif ending in {Ending.FAILED, Ending.ROLLED_BACK} and not self._looks and evidence.interruption is None:
            self._looks, self._unseen = True, outcome
            return None
        return outcome

    def within(self, tx: Transaction, call: Callable[..., Any]) -> Any:
        """Call the function inside a transaction of somebody else's, whose COMMIT decides over both."""
        self._looks = True
        if self._has_result(tx):
            return self.value
        self._owner = os.urandom(8).hex()
        value = call(tx=tx)
        self.end(tx, value)
        return value

    def _has_result(self, tx: Transaction) -> bool:
        """Read the row. Is there a result that counts? Then `value` has it."""
        try:
            rows = tx.run(self._select, id=self._key)
        except DatabaseError as error:
            if error.sqlstate == _UNDEFINED_TABLE:
                error.add_note(f"The table of idempotency keys is made by: {self._idempotency.create_table()}")
            raise
        self._is_there = bool(rows)
        if not rows:
            return False
        payload, owner, result, is_expired = rows[0]
        if self._lost is not None and owner == self._lost_owner:
            self._lost.ending = Ending.COMMITTED
            self.value = self._lost.value
            return True
        if result is None or is_expired:
            return False
        if payload != self._payload:
            raise IdempotencyKeyReused(
                "an earlier event had this idempotency key and another payload: nothing was done; a new request needs a new key"
            )
        self.value = json.loads(result)
        return True

    def _write(self, tx: Transaction, result: str | None) -> None:
        statement = self._update if self._is_there else self._insert
        ttl = self._idempotency.ttl_seconds
        tx.defer(statement, id=self._key, payload=self._payload, owner=self._owner, result=result, ttl=ttl)

    def _collided(self, error: BaseException | None) -> bool:
        """Did the row turn out to be there, when it was written?"""
        is_unique = isinstance(error, DatabaseError) and error.sqlstate == _UNIQUE_VIOLATION
        return is_unique and getattr(error, "statement", "") == self._insert
