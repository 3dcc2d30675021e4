"""What leaves in one go, and what is known to have come of it: `Statement`, `Result`, `Flight`.

Knows where each statement's messages begin in the stream; knows nothing of how they are composed or answered.

A flight is what goes out before an answer is waited for: Parse, Bind, Describe, Execute for each statement, and one Sync
at its end. An error skips the rest of its flight, COMMIT included. Stock pg8000 takes three round trips for one statement.
https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-PIPELINING
"""

from __future__ import annotations

from typing import Any

from .errors import TransactionError
from .transport import Transport


class Statement:
    """One statement, ready to be sent."""

    __slots__ = ("names", "oids", "sql", "text", "values")

    def __init__(
        self,
        sql: str,
        text: str,
        values: tuple[Any, ...] = (),
        oids: tuple[Any, ...] = (),
        names: tuple[str, ...] = (),
    ) -> None:
        self.sql = sql
        """As it was written, with `:name` placeholders."""
        self.text = text
        """As it is sent, with `$1` placeholders."""
        self.values = values
        self.oids = oids
        self.names = names
        """The placeholders' names, for errors."""


class Result:
    """What one statement of a flight answered; pg8000's handlers fill it in, by these names."""

    def __init__(self, statement: Statement, stream: Any = None) -> None:
        self.sql = statement.sql
        self.statement = statement.text
        self.stream = stream
        self.rows: list[list[Any]] | None = None
        self.row_count = -1
        self.columns: list[dict[str, Any]] | None = None
        self.input_funcs: list[Any] = []
        self.error: Exception | None = None
        self.command_tag = ""
        """What CommandComplete said, as `UPDATE 1`; empty until it came."""

    @property
    def column_names(self) -> list[str]:
        """The names of the columns, in their order."""
        return [column["name"] for column in self.columns or ()]

    def keys(self) -> list[str]:
        """The same, for rows as dicts. Raises `TransactionError` for two of one name: one value would be lost."""
        names = self.column_names
        if len(set(names)) < len(names):
            raise TransactionError(f"two columns have one name, so a row can't be a dict: {', '.join(names)}; name them with AS")
        return names


class Flight:
    """What left in one go, and what is known to have come of it. Made for one use."""

    __slots__ = ("_base", "_transport", "answered", "due", "failure", "is_landed", "messages", "results", "starts")

    def __init__(self, messages: bytearray, starts: list[int], results: list[Any], due: int | None) -> None:
        self.messages = messages
        self.starts = starts
        """Where the messages of each statement begin."""
        self.results = results
        self.due = due
        """How many statements are to be answered; None where that is not known: a Query message may hold any number."""
        self.answered = 0
        """How many of them were answered."""
        self.failure: Exception | None = None
        """The first failure of a statement."""
        self.is_landed = False
        """Was the answer read to its end? Until then the session can't be used for anything else."""
        self._base = 0
        self._transport: Transport | None = None

    def begin(self, transport: Transport) -> None:
        """Note where it begins in the stream, before a byte of it is sent."""
        self._base = transport.queued
        self._transport = transport

    def was_handed(self, index: int) -> bool:
        """May the socket have taken any byte of statement `index`?"""
        return self._transport is not None and self._transport.may_have_sent > self._base + self.starts[index]
