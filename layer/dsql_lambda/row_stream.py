"""The rows of one statement, as they arrive: `RowStream`, what `tx.stream` gives.

Knows a flight whose answer is read step by step; what its failure means to the transaction is the transaction's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import Any, Self

from .attempt import Evidence
from .flight import Flight
from .server_errors import DatabaseError, InterfaceError
from .session import Session


class RowStream(Iterator[dict[str, Any]]):
    """The rows of one statement, as they arrive. Closing it reads the rest away without converting it.

    `note` is told of what the statement raised; `check` raises once the transaction has ended.
    """

    _rows: Generator[list[Any], None, None] | None = None
    """None where an interruption came before the statement was sent: its finalizer runs all the same."""

    def __init__(
        self,
        session: Session,
        flight: Flight,
        evidence: Evidence,
        *,
        note: Callable[[Exception], None],
        check: Callable[[], None],
    ) -> None:
        self._session = session
        self._flight = flight
        self._evidence = evidence
        self._note = note
        self._check = check
        self._keys: list[str] | None = None
        self._rows = session.stream(flight)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Any]:
        self._evidence.unfinished = "a stream"
        try:
            row = next(self._rows, None) if self._rows is not None else None
        except Exception as error:
            self._note(error)
            raise
        if self._keys is None:
            self._keys = self._flight.results[-1].keys()
        self._evidence.unfinished = ""
        if row is None:
            self._check()  # the end closes a stream: rows that were never seen would look like none
            raise StopIteration
        return dict(zip(self._keys, row, strict=True))

    def close(self) -> None:
        """Let the next statement be run. Raises `InterfaceError` if the connection is lost meanwhile."""
        if self._rows is None:
            return
        self._rows.close()
        try:
            self._session.finish(self._flight)
        except DatabaseError as error:
            self._evidence.failure = self._evidence.failure or error

    def __del__(self) -> None:
        with suppress(InterfaceError):  # nobody is there to be told; the next statement is
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
