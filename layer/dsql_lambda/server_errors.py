"""The errors of a connection, as PEP 249 and pg8000 name them, with the server's fields as attributes.

Knows pg8000's error classes and the fields of an ErrorResponse; knows nothing of sockets, statements or transactions.

    pg8000.exceptions.DatabaseError
    └── DatabaseError             what the server said against a statement
        └── ConnectionTerminated  the same, and then it closed the connection (also an InterfaceError)
    pg8000.exceptions.InterfaceError
    └── InterfaceError
        ├── ConnectionLost        the network or the peer ended the connection
        │   └── DeadlineReached   the deadline came first
        └── ProtocolError         the server sent what the protocol does not allow
"""

from __future__ import annotations

from collections.abc import Mapping

from .driver import exceptions


class DatabaseError(exceptions.DatabaseError):  # type: ignore[misc]
    """What the server said against a statement: pg8000's error, with the fields that matter as attributes.

    `args[0]` is pg8000's dict of the fields by their one-letter codes.
    https://www.postgresql.org/docs/current/protocol-error-fields.html
    """

    statement = ""
    """The SQL, with its placeholders and never their values, where the statement is known."""

    def _field(self, code: str) -> str:
        fields = self.args[0] if self.args else None
        return str(fields.get(code, "")) if isinstance(fields, Mapping) else ""

    @property
    def is_fatal(self) -> bool:
        """Does the server close the connection after it?"""
        return (self._field("V") or self._field("S")) in {"FATAL", "PANIC"}

    @property
    def sqlstate(self) -> str:
        """The five characters of the SQLSTATE, as `23505`."""
        return self._field("C")

    @property
    def message(self) -> str:
        """The primary message."""
        return self._field("M")

    @property
    def detail(self) -> str:
        """More about the failure; may hold values of the row."""
        return self._field("D")

    @property
    def hint(self) -> str:
        """What to do about it, in the server's words."""
        return self._field("H")

    @property
    def constraint_name(self) -> str:
        """The constraint that was violated, if one was."""
        return self._field("n")

    def __str__(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.message} (SQLSTATE {self.sqlstate}){hint}" if self.sqlstate else super().__str__()


class InterfaceError(exceptions.InterfaceError):  # type: ignore[misc]
    """A connection that can't be used, or was used wrongly: pg8000's class."""


class ConnectionTerminated(DatabaseError, InterfaceError):
    """The server's last words before it closed the connection. pg8000 loses them; SQLAlchemy looks for "network error"."""

    def __str__(self) -> str:
        return f"{super().__str__()}: network error"


class ConnectionLost(InterfaceError):
    """The connection ended under a statement: the operating system's or TLS's error is the `__cause__`, if there is one."""


class DeadlineReached(ConnectionLost):
    """The deadline came while the connection waited. The connection is closed: an answer is still owed on it."""


class ProtocolError(InterfaceError):
    """The server sent what the protocol does not allow: a wrong length, an unknown or an unexpected message."""


__all__ = [
    "ConnectionLost",
    "ConnectionTerminated",
    "DatabaseError",
    "DeadlineReached",
    "InterfaceError",
    "ProtocolError",
]
