"""The event log: what happened on each connection, as frozen values that a test can assert on.

An event is recorded when the bytes it describes have arrived; `conflict`, `cut`, `refused` and `close` when the server acts. No
event contains a token, a signature or a secret.
"""

import threading
from collections import deque
from dataclasses import dataclass, fields
from typing import Literal, Protocol

__all__ = ["Event", "EventLog", "RecordEvent"]

EventKind = Literal[
    "connect",  # the TLS handshake is complete: sni, negotiation
    "tls_failed",  # the TLS handshake failed: reason
    "startup",  # the startup packet arrived: user, database, application_name
    "password",  # a token arrived
    "refused",  # the connection was refused: sqlstate, reason
    "flight",  # messages up to a Sync, a Query, or a Flush with nothing after it: messages, statements
    "conflict",  # a transaction lost a conflict, or `conflict_next` failed it: code, reason
    "unavailable",  # XX000 was answered: at, applied
    "delayed",  # a fault delayed a flight: reason
    "fault",  # a fault was asked for, by an SQL comment or a command, or the server restarts: reason
    "cut",  # a fault cut the connection: at, how, applied
    "cancel",  # a CancelRequest arrived (it has no effect)
    "close",  # the connection has ended: reason
]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Event:
    """Something that happened on one connection. Fields that do not apply to its kind are None or empty.

    `connection` numbers the accepted connections from 1, 0 is the server; `messages` are the protocol's names ("Parse", "Bind",
    "Query", …); `statements` are the SQL statements that the flight executes.
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
    """Events in order; of more than `max_events`, the oldest are dropped. Thread-safe."""

    def __init__(self, max_events: int) -> None:
        self._events: deque[Event] = deque(maxlen=max_events)
        self._lock = threading.Lock()

    def add(self, event: Event) -> None:
        """Record an event."""
        with self._lock:
            self._events.append(event)

    def events(self) -> list[Event]:
        """A copy of the events so far."""
        with self._lock:
            return list(self._events)

    def clear(self) -> None:
        """Drop all events."""
        with self._lock:
            self._events.clear()


class RecordEvent(Protocol):
    """Records an event of this connection."""

    def __call__(self, kind: str, /, **fields: object) -> None: ...
