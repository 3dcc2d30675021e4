"""`Pool`: connections for code that uses threads, on a server or a laptop. A source of connections for the loop.

Knows checkout and checkin: to whom a connection is lent, and which may be kept. Who waits and who is next is for `pool_queue` to
say; opening, closing and the background thread are `pool_recycler`'s. Knows nothing of what a transaction does.

An interruption between any two bytecodes loses no place: whoever had it has it still, or the next who wants it gives it up.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from .claim import Claim
from .connection import Connection
from .connector import MAX_AGE_SECONDS, ConnectionFactory, as_options
from .fields import check_number
from .lease import Lease
from .options import ConnectOptions
from .pool_queue import PoolQueue
from .pool_recycler import Recycler
from .records import StructuredLogger
from .retry import OCCRetryConfig, check_retry
from .runner import run_in_transaction
from .session import Session
from .system import NEVER, SYSTEM, System
from .telemetry import Telemetry
from .transaction import Transaction

T = TypeVar("T")

_LONGEST_LIFETIME = 3600.0


class PoolStatistics(NamedTuple):
    """A pool at one moment."""

    size: int
    """Connections that are open or being opened."""
    idle: int
    """Of them, those that nobody has."""
    waiting: int
    """Threads that wait for one."""
    opened: int
    """Connections opened since the start."""
    longest_wait: float
    """The longest that anybody waited for one, in seconds."""


class Pool:
    """At most `max_size` connections, shared by threads. Use it as a context manager, or `close()` it.

    `target` and keywords are those of `connect`. `min_size` connections are kept open; `max_lifetime` (seconds, less up to
    a tenth of jitter) and `max_idle` (seconds) say when one is replaced or closed; one that comes back dirty or dead is closed,
    and replaced when it is wanted. `acquire_timeout` (seconds) is how long a thread waits for a connection before
    `ConnectError`. `retry` and `logger` are what transactions on the pool get that are given none. Raises `ConfigError` for a
    size or time out of its bounds; a connection is opened when it is wanted.
    """

    def __init__(
        self,
        target: ConnectOptions | str | None = None,
        *,
        max_size: int = 10,
        min_size: int = 0,
        max_lifetime: float = MAX_AGE_SECONDS,
        max_idle: float = 600.0,
        acquire_timeout: float = 30.0,
        retry: OCCRetryConfig | None = None,
        logger: StructuredLogger | None = None,
        system: System = SYSTEM,
        **overrides: Any,
    ) -> None:
        check_number("max_size", max_size, 1, 10_000, whole=True)
        check_number("min_size", min_size, 0, max_size, whole=True)
        check_number("max_lifetime", max_lifetime, 0, _LONGEST_LIFETIME, above=True)
        check_number("max_idle", max_idle, 0, _LONGEST_LIFETIME, above=True)
        check_number("acquire_timeout", acquire_timeout, 0, 86_400, above=True)
        check_retry(retry)
        self.options = as_options(target, overrides)
        self.retry = retry
        self.logger = logger
        self._max_size = max_size
        self._system = system
        self._queue = PoolQueue(max_size, timeout=acquire_timeout, monotonic=system.monotonic)
        factory = ConnectionFactory(self.options, system=system)
        self._recycler = Recycler(self._queue, factory, system, min_size=min_size, max_lifetime=max_lifetime, max_idle=max_idle)
        self._lent: dict[int, Lease] = {}  # by the connection's id, for `release`
        if min_size:
            self._recycler.start()

    def connection(self) -> _LentBlock:
        """A connection for a `with` block. It goes back at the block's end: closed if it is in a transaction, or dead.

        Raises `ConnectError` when none was free for `acquire_timeout` seconds, or none could be opened.
        """
        return _LentBlock(self)

    def acquire(self, deadline_at: float = NEVER) -> Connection:
        """A connection, to be given back by `release` or at the end of a `with` block. Raises as `connection` does."""
        claim = Claim(sys._getframe())
        lease: Lease | None = None
        session: Session | None = None
        try:
            session = self._checkout(claim, deadline_at)
            connection: Connection = session.connection
            lease = Lease(connection)
            place = claim.place
            if place is not None:
                self._lent[id(connection)] = lease
                connection._give_back = self.release
                place.session = None  # who dropped the connection without giving it back has no claim any more
                place.hand_over(lease)
        except BaseException:
            if session is not None:
                session.abandon()
            if lease is not None:
                lease.abandon()
            claim.abandon()
            raise
        return connection

    def release(self, connection: Connection) -> None:
        """Give a connection back. One that is not lent by this pool is left alone."""
        lease = self._lent.get(id(connection))
        if lease is None or lease.place is None or lease.place.holder is not lease:
            return
        try:
            lease.place.session = connection._session
            lease.has_ended = True  # from here on the next who wants the place can have it
            self._lent.pop(id(connection), None)
            connection._give_back = None
            self._checkin(lease, "")
        except BaseException:
            connection._session.abandon()
            lease.abandon()
            raise

    def transaction_with_retry(self, function: Callable[[Transaction], T], retry: OCCRetryConfig | None = None) -> T:
        """Run `function(tx)` in a transaction, each attempt on a connection of the pool, again when DSQL reports a conflict.

        The function may run several times: it must have no effect outside `tx`. `retry` is None for the pool's own. Raises what
        `run_transaction` raises.
        """
        return run_in_transaction(function, self, retry=retry, telemetry=Telemetry(function))

    @property
    def max_size(self) -> int:
        """How many connections it has at most."""
        return self._max_size

    @property
    def statistics(self) -> PoolStatistics:
        """How it is now."""
        queue = self._queue
        held, idle = queue.held, queue.idle
        return PoolStatistics(held + idle, idle, queue.waiting, self._recycler.opened, queue.longest_wait)

    def close(self, timeout: float = 30.0) -> None:
        """Close the idle connections, wake the waiting threads, and wait up to `timeout` seconds for what is still lent.

        What comes back later is closed then. May be called again.
        """
        self._queue.close()
        self._recycler.stop()
        claim = Claim(sys._getframe())
        for place in self._queue.places:
            if place.take(claim):
                self._recycler.close(place)
                place.release(claim)
        self._recycler.join(timeout)
        self._queue.wait_until_returned(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._queue.is_closed else f"{self.statistics}"
        return f"<Pool {self.options.user}@{self.options.host} {state}>"

    # A source of connections for the loop.

    def _checkout(self, claim: Claim, deadline_at: float) -> Session:
        """A usable connection: the one used last, a new one, or the next that comes back."""
        place = self._queue.take(claim, deadline_at)
        try:
            session = place.session
            if session is not None:
                reason = session.reason_to_replace(place.expires_at)
                if not reason:
                    return session
                place.reason = reason
                self._recycler.close(place)
            session = self._recycler.open(place, deadline_at)
        except BaseException:
            self._queue.pass_on(place, claim)
            raise
        claim.opened_for, place.reason = place.reason, "first"
        return session

    def _checkin(self, claim: Claim, reason: str) -> None:
        """Take it back. A link that died while it idled tells of others that idled as long: they are closed too."""
        place = claim.place
        if place is None or place.holder is not claim:
            return
        session = place.session
        if session is not None:
            if reason == "stale":
                self._recycler.close_idle(self._system.clock() - session.probe_after_secs)
            is_clean = session.is_clean
            if self._queue.is_closed or not is_clean or self._system.clock() >= place.expires_at:
                place.reason = "age" if is_clean else reason or "closed"
                self._recycler.close(place)
        self._queue.pass_on(place, claim)


class _LentBlock:
    """A connection for the length of a `with` block."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._connection: Connection | None = None

    def __enter__(self) -> Connection:
        self._connection = connection = self._pool.acquire()
        return connection

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._connection is not None:
            self._pool.release(self._connection)
