"""What happened at the front, as frozen values in order: what a test asserts on instead of guessing.

An event is recorded when the bytes that it is about have arrived (or, for `conflict`, `cut`, `refused` and `close`, when the
front acts). No event holds a token, a signature or a secret.
"""

import threading
from collections import deque
from dataclasses import dataclass, fields
from typing import Literal, Protocol

__all__ = ["Event", "EventLog", "RecordEvent"]

EventKind = Literal[
    "connect",  # the TLS handshake is done: sni, negotiation
    "tls_failed",  # it was not: reason
    "startup",  # the startup packet came through TLS: user, database, application_name
    "password",  # a token arrived
    "refused",  # the connection was refused: sqlstate, reason
    "flight",  # messages up to a Sync, a simple Query, or a Flush with nothing behind it: messages, statements
    "conflict",  # a transaction was found to have lost, or `conflict_next` said so: code, reason
    "unavailable",  # XX000 was answered: at, applied
    "delayed",  # a fault lets a flight wait: reason
    "fault",  # a fault was asked for, by an SQL comment or from outside, or the server restarts: reason
    "cut",  # a fault cut the link: at, how, applied
    "cancel",  # a CancelRequest came (it has no effect)
    "close",  # the connection has ended: reason
]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Event:
    """One thing that happened on one connection. Fields that do not belong to its kind are None or empty.

    `connection` counts the accepted connections from 1; `messages` are the protocol's names ("Parse", "Bind", "Query", …);
    `statements` are the SQL texts that the flight executes, one each.
    """

    kind: EventKind
    connection: int
    sni: str | None = None
    negotiation: Literal["direct", "ssl_request"] | None = None
    user: str | None = None
    database: str | None = None
    application_name: str | None = None
    messages: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    sqlstate: str | None = None
    code: str | None = None
    reason: str | None = None
    at: str | None = None
    how: str | None = None
    applied: bool | None = None

    def __repr__(self) -> str:
        values = ((f.name, getattr(self, f.name)) for f in fields(self) if f.name != "kind")
        return f"<{self.kind} {' '.join(f'{name}={value!r}' for name, value in values if value not in (None, ()))}>"


class EventLog:
    """Events in order, written by the front's thread and read by any other; of more than `longest` the oldest are forgotten."""

    def __init__(self, longest: int) -> None:
        self._events: deque[Event] = deque(maxlen=longest)
        self._lock = threading.Lock()

    def add(self, event: Event) -> None:
        """Record one more event."""
        with self._lock:
            self._events.append(event)

    def events(self) -> list[Event]:
        """A copy of what was recorded so far."""
        with self._lock:
            return list(self._events)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._events.clear()


class RecordEvent(Protocol):
    """Records an event of this connection."""

    def __call__(self, kind: str, /, **fields: object) -> None: ...
