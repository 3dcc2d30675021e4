"""`Pool`: connections for code that uses threads, on a server or a laptop. A source of connections for the loop.

Knows who waits for a connection, who has one, and which may be kept. First come, first served: a connection that comes back
goes to whoever waits longest. A thread of its own signs a new token at 80 % of the old one's life and closes idle
connections, while the pool is open; in Lambda, where threads freeze, tokens are signed on demand.

There is no lock and no counter that an interruption could leave wrong. The truth is who holds each `Place`, changed by one
atomic operation; the queues only say where to look first. A place whose holder is gone is given up by the next who wants it.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from .claim import Claim, Lease, Place
from .connection import Connection
from .connector import MAX_AGE_SECONDS, ConnectionFactory, as_options
from .errors import ConnectError, DeadlineExceeded
from .fields import check_number
from .lambda_runtime import is_lambda
from .options import ConnectOptions
from .retry import OCCRetryConfig, check_retry
from .runner import run_in_transaction
from .session import Session
from .system import NEVER, SYSTEM, System
from .telemetry import StructuredLogger, Telemetry
from .transaction import Transaction

T = TypeVar("T")

_LONGEST_LIFETIME = 3600.0
_JITTER = 0.1  # of a lifetime, so that connections of one age are not replaced together
_KEEPING_SECONDS = 30.0
_SOONEST_SECONDS = 0.1
_LOOK_AGAIN_SECONDS = 0.25  # a waiting thread looks for what an interrupted one did not give back


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
    """A thread in the queue."""

    __slots__ = ("claim", "woken")

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.woken: SimpleQueue[None] = SimpleQueue()  # an Event has a lock, which an interruption can leave locked


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
        self._min_size, self._max_size = min_size, max_size
        self._max_lifetime = max_lifetime
        self._max_idle = max_idle
        self._acquire_timeout = acquire_timeout
        self._system = system
        self._factory = ConnectionFactory(self.options, system=system)
        self._is_closed = False
        self._opened = 0
        self._longest_wait = 0.0
        self._places = [Place() for _ in range(max_size)]
        self._free = deque(self._places)  # hints: the right end was used last; those without a connection are at the left
        self._waiters: deque[_Waiter] = deque()
        self._lent: dict[int, Lease] = {}  # by the connection's id, for `release`
        self._stopping: SimpleQueue[None] = SimpleQueue()
        self._returned: SimpleQueue[None] = SimpleQueue()
        self._keeper: threading.Thread | None = None
        if min_size:
            self._start_keeper()

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
        return run_in_transaction(function, self, retry=retry, telemetry=Telemetry(function, logger=self.logger))

    @property
    def max_size(self) -> int:
        """How many connections it has at most."""
        return self._max_size

    @property
    def statistics(self) -> PoolStatistics:
        """How it is now."""
        held = [each for each in self._places if each.holder is not None]
        idle = [each for each in self._places if each.holder is None and each.session is not None]
        return PoolStatistics(len(held) + len(idle), len(idle), len(self._waiters), self._opened, self._longest_wait)

    def close(self, timeout: float = 30.0) -> None:
        """Close the idle connections, wake the waiting threads, and wait up to `timeout` seconds for what is still lent.

        What comes back later is closed then. May be called again.
        """
        self._is_closed = True
        self._stopping.put(None)
        claim = Claim(sys._getframe())
        for place in self._places:
            if place.take(claim):
                self._end(place)
                place.release(claim)
        while self._waiters:
            self._waiters.popleft().woken.put(None)
        if self._keeper is not None and self._keeper is not threading.current_thread():
            self._keeper.join(timeout)
        end = self._system.monotonic() + timeout
        while any(self._is_held(each) for each in self._places):
            remaining = end - self._system.monotonic()
            if remaining <= 0:
                return
            _wait(self._returned, min(remaining, _LOOK_AGAIN_SECONDS))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{self.statistics}"
        return f"<Pool {self.options.user}@{self.options.host} {state}>"

    # A source of connections for the loop.

    def _checkout(self, claim: Claim, deadline_at: float) -> Session:
        """A usable connection: the one used last, a new one, or the next that comes back."""
        self._refuse_if_closed()
        place = None if self._waiters else self._take_free(claim)
        if place is None:
            place = self._wait(claim, deadline_at)
        try:
            session = place.session
            if session is not None:
                reason = session.reason_to_replace(place.expires_at)
                if not reason:
                    return session
                place.reason = reason
                self._end(place)
            session = self._open(place, deadline_at)
        except BaseException:
            self._pass_on(place, claim)
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
                self._drop_idle(self._system.clock() - session.probe_after_secs)
            is_clean = session.is_clean
            if self._is_closed or not is_clean or self._system.clock() >= place.expires_at:
                place.reason = "age" if is_clean else reason or "closed"
                self._end(place)
        self._pass_on(place, claim)

    # The bookkeeping.

    def _take_free(self, claim: Claim) -> Place | None:
        """A place that nobody has, if there is one; the one that was used last before the others."""
        for _ in range(len(self._free)):
            try:
                place = self._free.pop()
            except IndexError:
                break
            if place.take(claim):
                return place
        return self._take_abandoned(claim)

    def _take_abandoned(self, claim: Claim) -> Place | None:
        """A place whose holder is gone, or that an interruption kept out of the queue."""
        for index, place in enumerate(self._places):
            if place.holder is None and place not in self._free and place.take(claim):
                return place
            holder = place.holder
            if holder is not None and not holder.is_alive():
                place.give_up()
                self._places[index] = fresh = Place()
                if fresh.take(claim):
                    return fresh
        return None

    def _wait(self, claim: Claim, deadline_at: float) -> Place:
        """Queue until a place is given over. Raises `ConnectError` or `DeadlineExceeded` when the time is over."""
        monotonic = self._system.monotonic
        started_at = monotonic()
        has_collected = False
        limit_at = min(started_at + self._acquire_timeout, deadline_at)
        waiter = _Waiter(claim)
        claim.place = None
        self._waiters.append(waiter)
        try:
            while True:
                # It is its turn, or a place came free before it stood in the queue.
                is_next = waiter in self._waiters and self._waiters[0] is waiter
                if is_next and (place := self._take_free(claim)) is not None:
                    if self._has_left_queue(waiter):
                        return place
                    self._pass_on(place, claim)  # somebody is handing it another one
                remaining = limit_at - monotonic()
                was_woken = _wait(waiter.woken, min(max(remaining, 0.0), _LOOK_AGAIN_SECONDS))
                if not was_woken and not has_collected and any(isinstance(each.holder, Lease) for each in self._places):
                    has_collected = True
                    gc.collect()  # a connection that was dropped without being given back is part of a cycle
                self._longest_wait = max(self._longest_wait, monotonic() - started_at)
                given = claim.place
                self._refuse_if_closed()
                if given is not None and given.holder is claim:
                    return given
                if remaining <= 0:
                    break
        except BaseException:
            self._leave_queue(waiter)
            raise
        self._leave_queue(waiter)
        if limit_at < started_at + self._acquire_timeout:
            raise DeadlineExceeded("no connection was free before the deadline (connect); nothing was committed", phase="connect")
        raise ConnectError(
            f"no connection of the pool was free for {self._acquire_timeout:g} s: all {self.max_size} are in use; raise "
            "max_size, or give connections back sooner"
        )

    def _has_left_queue(self, waiter: _Waiter) -> bool:
        """Take it out of the queue. False if somebody else has, to hand a place to it."""
        try:
            self._waiters.remove(waiter)
        except ValueError:
            return False
        return True

    def _leave_queue(self, waiter: _Waiter) -> None:
        """A thread that gives up (its time is over, the pool was closed, it was interrupted) passes on what it was given."""
        self._has_left_queue(waiter)
        place = waiter.claim.place
        if place is not None and place.holder is waiter.claim:
            self._pass_on(place, waiter.claim)

    def _pass_on(self, place: Place, claim: Claim) -> None:
        """Give a place to whoever waits longest, or let anybody take it."""
        while self._waiters and not self._is_closed:
            try:
                waiter = self._waiters.popleft()
            except IndexError:  # it has left the queue
                break
            place.hand_over(waiter.claim)
            waiter.woken.put(None)
            return
        place.release(claim)
        if place in self._places:
            if place.session is None:
                self._free.appendleft(place)
            else:
                self._free.append(place)
        if self._is_closed:
            self._returned.put(None)
        for waiter in list(self._waiters)[:1]:
            waiter.woken.put(None)  # it came into the queue meanwhile

    def _open(self, place: Place, deadline_at: float) -> Session:
        self._start_keeper()
        session: Session = self._factory.open(Connection, deadline_at, place=place)._session
        place.expires_at = session.opened_at + self._max_lifetime * (1 - _JITTER * self._system.random())
        self._opened += 1
        return session

    def _end(self, place: Place) -> None:
        session = place.session
        if session is not None:
            place.session = None
            if session.transport.is_inherited:
                session.abandon()
            else:
                session.close()

    def _is_held(self, place: Place) -> bool:
        holder = place.holder
        return holder is not None and holder.is_alive()

    def _drop_idle(self, unused_since: float) -> None:
        """Close the idle connections that were last used before a moment."""
        claim = Claim(sys._getframe())
        for place in list(self._free):
            session = place.session
            if session is not None and session.used_at <= unused_since and place.take(claim):
                self._end(place)
                place.release(claim)

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise ConnectError("the pool is closed: make a new one, or close it later")

    # The keeper.

    def _start_keeper(self) -> None:
        if is_lambda() or self._is_closed or (self._keeper is not None and self._keeper.is_alive()):
            return
        self._keeper = threading.Thread(target=self._keep, name="dsql-pool", daemon=True)
        self._keeper.start()

    def _keep(self) -> None:
        """Until the pool is closed: a fresh token before the kept one grows old, no long idle ones, `min_size` open ones."""
        wait = 0.0
        while not _wait(self._stopping, wait):
            if self._keeper is not threading.current_thread():
                return  # two threads opened a connection at once, and each of them started one
            wait = _KEEPING_SECONDS
            try:
                clock = self._system.clock
                token = self._factory.signer.token()
                wait = min(wait, max(token.refresh_at - clock(), _SOONEST_SECONDS))
                self._drop_idle(clock() - self._max_idle)
                self._fill_up()
            except Exception:  # noqa: BLE001, S112 - whoever wants a connection meets it again, and is told
                continue
        self._stopping.put(None)  # two threads that were the first to want a connection have started a keeper each

    def _fill_up(self) -> None:
        claim = Claim(sys._getframe())
        while not self._is_closed and self.statistics.size < self._min_size:
            place = next((each for each in self._places if each.session is None and each.take(claim)), None)
            if place is None:
                return
            try:
                self._open(place, NEVER)
            finally:
                self._pass_on(place, claim)


def _wait(queue: SimpleQueue[None], seconds: float) -> bool:
    """Wait for something in a queue. Returns whether it came."""
    try:
        queue.get(timeout=seconds)
    except Empty:
        return False
    return True


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
