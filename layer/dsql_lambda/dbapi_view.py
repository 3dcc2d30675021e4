"""A transaction's `tx` as a PEP 249 connection: `TransactionView`, for libraries that want one.

Knows which of PEP 249's calls leave the transaction to whoever began it. Knows nothing of SQLAlchemy.

    cursor, execute   statements of `tx`, noted as its own are; BEGIN and what is deferred leave with the first
    commit, close     do nothing: COMMIT comes when the decorated function has returned
    rollback          undoes all of `tx` where something was done here; after a failed statement the loop does it, which knows
                      whether another attempt follows
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import sql as sql_text
from .dbapi import Cursor, NotSupportedError, specific
from .errors import TransactionError
from .flight import Statement
from .server_errors import DatabaseError
from .transaction import Transaction


class TransactionView:
    """A PEP 249 connection whose transaction is `tx`. Raises `TransactionError` for statements that would end it."""

    autocommit = False
    _in_transaction = True  # so a cursor begins none

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._has_run = False
        self._is_left = False

    def cursor(self) -> Cursor:
        """A cursor on the transaction."""
        return Cursor(self)

    def commit(self) -> None:
        """Nothing: COMMIT is sent by whoever began the transaction."""

    def rollback(self) -> None:
        """Undo the transaction, unless nothing was done here, or a statement failed: then it is undone in any case."""
        if self._has_run and not self._is_left and not self._tx.has_failed and not self._tx.has_ended:
            self._tx.rollback()

    def leave(self) -> None:
        """From here on nothing done to this view has an effect on the transaction."""
        self._is_left = True

    def close(self) -> None:
        """Nothing: the connection is somebody else's."""

    # What a cursor of pg8000's calls.

    def execute_simple(self, statement: str) -> Any:
        """A statement without parameters."""
        return self.fly([Statement(statement, statement)])[0]

    def execute_unnamed(self, statement: str, vals: Any = (), oids: Any = (), stream: Any = None) -> Any:
        """A statement with parameters."""
        if stream is not None:
            raise NotSupportedError("COPY is run on tx.connection")
        return self.fly([Statement(statement, statement, tuple(vals), tuple(oids))])[0]

    def fly(self, statements: Sequence[Statement]) -> list[Any]:
        """Statements in one flight."""
        for each in statements:
            word = sql_text.refused_word(sql_text.bind(each.text, {})[0])
            if word:
                raise TransactionError(f"{word} is not for this connection: its transaction is tx's, whose COMMIT comes later")
        if self._is_left:
            raise TransactionError("the block that this connection was made for has ended")
        self._has_run = True
        try:
            return self._tx.fly(statements)
        except DatabaseError as error:
            raise specific(error) from error
