"""`Pool`: connections for code that uses threads, on a server or a laptop. A source of connections for the loop.

Knows who waits for a connection, who has one, and which may be kept. What happens under the lock is bookkeeping alone:
opening and closing happen outside it. First come, first served: a connection that comes back goes to whoever waits longest.
A thread of its own signs a new token at 80 % of the old one's life and closes what idles, while the pool is open; in Lambda,
where threads freeze, tokens are signed on demand.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from .attempt import random_number, run_in_transaction
from .checks import check_number
from .connection import MAX_AGE_SECONDS, Connection, as_options, open_connection
from .errors import ConnectError, DeadlineExceeded
from .link import NEVER, Opener, open_tcp
from .options import ConnectOptions, signer_for
from .retry import OCCRetryConfig
from .telemetry import Telemetry
from .transaction import Transaction
from .wire import Wire

T = TypeVar("T")

_LONGEST_LIFETIME = 3600.0  # DSQL's own end of a connection
_JITTER = 0.1  # of a lifetime, so that connections of one age are not replaced together
_KEEPING_SECONDS = 30.0
_SOONEST_SECONDS = 0.1


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


class _Waiter:
    """A thread in the queue: woken with a connection, with the right to open one, or because the pool was closed."""

    __slots__ = ("given", "has_place", "is_served", "woken")

    def __init__(self) -> None:
        self.woken = threading.Lock()
        self.woken.acquire()
        self.is_served = False
        self.has_place = False
        """Was it given one of the pool's places: a connection, or the right to open one?"""
        self.given: Connection | None = None


class Pool:
    """At most `max_size` connections, shared by threads. Use it as a context manager, or `close()` it.

    `target` and keywords are those of `connect`. `min_size` connections are kept open; `max_lifetime` (seconds, less up to
    a tenth of jitter) and `max_idle` (seconds) say when one is replaced or closed; one that comes back dirty or dead is closed,
    and replaced when it is wanted. `acquire_timeout` (seconds) is how long a thread waits for a connection before
    `ConnectError`; `configure(connection)` is called for each new one before it is used. Raises `ConfigError` for a size or
    time that is none; a connection is opened when it is wanted.
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
        configure: Callable[[Connection], None] | None = None,
        opener: Opener = open_tcp,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = random_number,
        **overrides: Any,
    ) -> None:
        check_number("max_size", max_size, 1, 10_000, whole=True)
        check_number("min_size", min_size, 0, max_size, whole=True)
        check_number("max_lifetime", max_lifetime, 0, _LONGEST_LIFETIME, above=True)
        check_number("max_idle", max_idle, 0, _LONGEST_LIFETIME, above=True)
        check_number("acquire_timeout", acquire_timeout, 0, 86_400, above=True)
        self.options = as_options(target, overrides)
        self._signer = signer_for(self.options, clock=clock)
        self._min_size, self._max_size = min_size, max_size
        self._max_lifetime = max_lifetime
        self._max_idle = max_idle
        self._acquire_timeout = acquire_timeout
        self._configure = configure
        self._open_one = partial(
            open_connection,
            Connection,
            self.options,
            self._signer,
            keep_token=True,
            opener=opener,
            clock=clock,
            monotonic=monotonic,
            sleep=sleep,
            random=random,
        )
        self._clock = clock
        self._monotonic = monotonic
        self._random = random
        self._is_closed = False
        self._begin_anew()
        if min_size:
            self._start_keeper()

    def _begin_anew(self) -> None:
        """No connections: at the start, and in a forked child, where those of before are the parent's."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._emptied = threading.Condition(self._lock)
        self._stopping = threading.Event()
        self._keeper: threading.Thread | None = None
        self._idle: deque[Connection] = deque()
        self._expires_at: dict[Connection, float] = {}
        self._waiters: deque[_Waiter] = deque()
        self._size = 0
        self._opened = 0
        self._longest_wait = 0.0

    def connection(self) -> _Lease:
        """A connection for a `with` block. It goes back at the block's end: closed if it is in a transaction, or dead.

        Raises `ConnectError` when none was free for `acquire_timeout` seconds, or none could be opened.
        """
        return _Lease(self)

    def transaction_with_retry(self, function: Callable[[Transaction], T], retry: OCCRetryConfig | None = None) -> T:
        """Run `function(tx)` in a transaction, each attempt on a connection of the pool, again when DSQL reports a conflict.

        The function may run several times: it must have no effect outside `tx`. Raises what `run_transaction` raises.
        """
        telemetry = Telemetry(function_name=getattr(function, "__qualname__", ""))
        return run_in_transaction(function, self, retry=retry, telemetry=telemetry)

    @property
    def statistics(self) -> PoolStatistics:
        """How it is now."""
        with self._lock:
            return PoolStatistics(self._size, len(self._idle), len(self._waiters), self._opened, self._longest_wait)

    def close(self, timeout: float = 30.0) -> None:
        """Close the idle connections, wake the waiting threads, and wait up to `timeout` seconds for what is still out.

        What comes back later is closed then. May be called again.
        """
        self._leave_to_the_parent()
        with self._lock:
            self._is_closed = True
            self._stopping.set()
            idle = list(self._idle)
            self._idle.clear()
            self._size -= len(idle)
            for waiter in self._waiters:
                waiter.is_served = True
                waiter.woken.release()
            self._waiters.clear()
        for connection in idle:
            self._end(connection)
        if self._keeper is not None and self._keeper is not threading.current_thread():
            self._keeper.join(timeout)
        with self._emptied:
            self._emptied.wait_for(lambda: self._size == 0, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{self.statistics}"
        return f"<Pool {self.options.user}@{self.options.host} {state}>"

    # A source of connections for the loop.

    def checkout(self, deadline_at: float) -> Connection:
        """A connection, claimed for one transaction."""
        connection = self.acquire(deadline_at)
        connection.claim()
        return connection

    def checkin(self, connection: Wire, reason: str) -> None:
        """Take it back. A link that died while it idled tells of others that idled as long: they are closed too."""
        connection.release()
        if isinstance(connection, Connection):
            if reason == "stale":
                self._drop_idle(self._clock() - connection.probe_after_secs)
            self.release(connection)

    # The bookkeeping.

    def acquire(self, deadline_at: float = NEVER) -> Connection:
        """A connection that is `release`d afterwards. Raises as `connection` does, and `DeadlineExceeded`."""
        self._leave_to_the_parent()
        with self._lock:
            self._refuse_if_closed()
            connection = self._idle.pop() if self._idle else None
            waiter = None
            if connection is None:
                if self._size < self._max_size:
                    self._size += 1
                else:
                    waiter = _Waiter()
                    self._waiters.append(waiter)
        if waiter is not None:
            connection = self._await(waiter, deadline_at)
        if connection is not None:
            if not self._is_of_no_use(connection):
                return connection
            self._end(connection)
        return self._open(deadline_at)

    def _leave_to_the_parent(self) -> None:
        """In a forked child: the connections are the parent's, so not a byte goes out on them, and the pool begins anew."""
        if self._pid != os.getpid():
            for each in self._expires_at:
                each.abandon()
            self._begin_anew()

    def release(self, connection: Connection) -> None:
        """Give a connection back: to whoever waits longest, or to the idle ones; or close it."""
        self._leave_to_the_parent()
        if connection.is_closed and connection not in self._expires_at:
            return  # the parent's, or one that `close` has ended
        keeps = connection.is_clean and self._clock() < self._expires_at.get(connection, 0.0)
        with self._lock:
            keeps = keeps and not self._is_closed
            if keeps and not self._waiters:
                self._idle.append(connection)
            else:
                self._pass_on(connection if keeps else None)
        if not keeps:
            self._end(connection)

    def _pass_on(self, connection: Connection | None) -> None:
        """Under the lock: hand a connection, or the right to open one, to the first who waits."""
        if self._waiters:
            waiter = self._waiters.popleft()
            waiter.given = connection
            waiter.is_served = waiter.has_place = True
            waiter.woken.release()
        else:
            self._size -= 1
            self._emptied.notify_all()

    def _await(self, waiter: _Waiter, deadline_at: float) -> Connection | None:
        started_at = self._monotonic()
        limit = min(self._acquire_timeout, deadline_at - started_at)
        try:
            waiter.woken.acquire(timeout=max(limit, 0.0))
            with self._lock:
                self._longest_wait = max(self._longest_wait, self._monotonic() - started_at)
                if waiter.is_served:
                    self._refuse_if_closed()
                    return waiter.given
            if limit < self._acquire_timeout:
                raise DeadlineExceeded(
                    "no connection was free before the deadline (connect); nothing was committed", phase="connect"
                )
            raise ConnectError(
                f"no connection of the pool was free for {self._acquire_timeout:g} s: all {self._max_size} are in use; raise "
                "max_size, or give connections back sooner"
            )
        except BaseException:
            self._leave_queue(waiter)
            raise

    def _leave_queue(self, waiter: _Waiter) -> None:
        """A thread that gives up (its time is over, the pool was closed, it was interrupted) passes on what it was given."""
        with self._lock:
            if not waiter.is_served:
                self._waiters.remove(waiter)
            elif waiter.has_place:
                self._pass_on(None)
        if waiter.given is not None:
            self._end(waiter.given)

    def _open(self, deadline_at: float) -> Connection:
        try:
            self._start_keeper()
            connection = self._open_one(deadline_at)
            self._configured(connection)
        except BaseException:
            with self._lock:
                self._pass_on(None)
            raise
        with self._lock:
            self._opened += 1
            self._expires_at[connection] = connection.opened_at + self._max_lifetime * (1 - _JITTER * self._random())
        return connection

    def _configured(self, connection: Connection) -> None:
        if self._configure is None:
            return
        try:
            self._configure(connection)
        except BaseException:
            connection.close()
            raise

    def _is_of_no_use(self, connection: Connection) -> bool:
        """Judged without a round trip, just before it is given out."""
        return (
            not connection.is_clean
            or self._clock() >= self._expires_at.get(connection, 0.0)
            or connection.clock() < connection.opened_at
            or connection.link.is_readable()
        )

    def _end(self, connection: Connection) -> None:
        """Close it, outside the lock; its place is somebody else's already."""
        with self._lock:
            self._expires_at.pop(connection, None)
        if not connection.is_closed:
            connection.close()

    def _drop_idle(self, unused_since: float) -> None:
        """Close the idle connections that were last used before a moment."""
        with self._lock:
            dropped = [each for each in self._idle if each.used_at <= unused_since]
            for each in dropped:
                self._idle.remove(each)
                self._pass_on(None)
        for each in dropped:
            self._end(each)

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise ConnectError("the pool is closed: make a new one, or close it later")

    # The keeper.

    def _start_keeper(self) -> None:
        if os.environ.get("AWS_LAMBDA_RUNTIME_API"):
            return
        with self._lock:
            if self._keeper is None and not self._is_closed:
                self._keeper = threading.Thread(target=self._keep, name="dsql-pool", daemon=True)
                self._keeper.start()

    def _keep(self) -> None:
        """Until the pool is closed: a fresh token before the kept one grows old, no long idle ones, `min_size` open ones."""
        wait = 0.0
        while not self._stopping.wait(wait):
            wait = _KEEPING_SECONDS
            try:
                token = self._signer.token()
                wait = min(wait, max(token.refresh_at - self._clock(), _SOONEST_SECONDS))
                self._drop_idle(self._clock() - self._max_idle)
                self._fill_up()
            except Exception:  # noqa: BLE001, S112 - whoever wants a connection meets it again, and is told
                continue

    def _fill_up(self) -> None:
        while True:
            with self._lock:
                if self._is_closed or self._size >= self._min_size:
                    return
                self._size += 1
            self.release(self._open(NEVER))


class _Lease:
    """A connection for the length of a `with` block."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def __enter__(self) -> Connection:
        self._connection = connection = self._pool.acquire()
        return connection

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.release(self._connection)
