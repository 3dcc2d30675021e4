"""`Recycler`: opens, replaces and closes the connections in a pool's places, partly by a background thread.

Knows `max_lifetime`, `max_idle`, `min_size` and tokens; knows nothing of who waits for a connection or what it is lent for. It
takes a place before it touches what is in it, unless its caller has it.

The thread signs a new token at 80 % of the old one's life, closes idle connections and keeps `min_size` open, from the first
connection on until the pool is closed. In Lambda, where threads freeze, there is none: tokens are signed on demand.
"""

from __future__ import annotations

import sys
import threading
from queue import SimpleQueue

from .claim import Claim, Place
from .connection import Connection
from .connector import ConnectionFactory
from .lambda_runtime import is_lambda
from .pool_queue import PoolQueue, wait_for
from .session import Session
from .system import NEVER, System

_JITTER = 0.1  # of a lifetime, so that connections of one age are not replaced together
_LONGEST_PAUSE_SECONDS = 30.0
_SHORTEST_PAUSE_SECONDS = 0.1


class Recycler:
    """What opens and closes the connections of one pool. `max_lifetime` and `max_idle` are in seconds."""

    def __init__(
        self, queue: PoolQueue, factory: ConnectionFactory, system: System, *, min_size: int, max_lifetime: float, max_idle: float
    ) -> None:
        self.opened = 0
        """Connections opened since the start."""
        self.factory = factory
        self._queue = queue
        self._system = system
        self._min_size = min_size
        self._max_lifetime = max_lifetime
        self._max_idle = max_idle
        self._stopping: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def open(self, place: Place, deadline_at: float) -> Session:
        """A new connection in a place that the caller has. Raises what `ConnectionFactory.open` raises."""
        self.start()
        session: Session = self.factory.open(Connection, deadline_at, place=place)._session
        place.expires_at = session.opened_at + self._max_lifetime * (1 - _JITTER * self._system.random())
        self.opened += 1
        return session

    def close(self, place: Place) -> None:
        """Close what is in a place that the caller has. A connection of the parent process is left alone."""
        session = place.session
        if session is not None:
            place.session = None
            if session.transport.is_inherited:
                session.abandon()
            else:
                session.close()

    def close_idle(self, unused_since: float) -> None:
        """Close the idle connections that were last used before a moment (wall clock)."""
        claim = Claim(sys._getframe())
        for place in list(self._queue.free):
            session = place.session
            if session is not None and session.used_at <= unused_since and place.take(claim):
                self.close(place)
                place.release(claim)

    def start(self) -> None:
        """Start the thread, unless it runs, the pool is closed, or this is Lambda."""
        if is_lambda() or self._queue.is_closed or (self._thread is not None and self._thread.is_alive()):
            return
        self._thread = threading.Thread(target=self._run, name="dsql-pool", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end, which is told once."""
        self._stopping.put(None)

    def join(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for the thread's end."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _run(self) -> None:
        pause = 0.0
        while not wait_for(self._stopping, pause):
            if self._thread is not threading.current_thread():
                return  # two threads opened a connection at once, and each of them started one
            pause = _LONGEST_PAUSE_SECONDS
            try:
                clock = self._system.clock
                token = self.factory.signer.token()
                pause = min(pause, max(token.refresh_at - clock(), _SHORTEST_PAUSE_SECONDS))
                self.close_idle(clock() - self._max_idle)
                self._fill_up()
            except Exception:  # noqa: BLE001, S112 - whoever wants a connection meets it again, and is told
                continue
        self._stopping.put(None)  # two threads that were the first to want a connection have started one each

    def _fill_up(self) -> None:
        """Open connections until `min_size` are."""
        claim = Claim(sys._getframe())
        while not self._queue.is_closed and self._queue.held + self._queue.idle < self._min_size:
            place = next((each for each in self._queue.places if each.session is None and each.take(claim)), None)
            if place is None:
                return
            try:
                self.open(place, NEVER)
            finally:
                self._queue.pass_on(place, claim)
