"""`PoolQueue`: who has which place of a pool, who waits for one, and who gets the next. First come, first served.

Knows claims, places and waiters; knows nothing of how a connection is opened, of tokens, of transactions or of ages. It never
opens or closes a connection: only one whose holder is gone is given up.

There is no lock and no counter that an interruption could leave wrong. The truth is who holds each `Place`, changed by one
atomic operation; `free` and the waiters only say where to look first. A place whose holder is gone is given up by the next who
wants it.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import NoReturn

from .claim import Claim, Place
from .errors import ConnectError, DeadlineExceeded
from .lease import Lease

_LOOK_AGAIN_SECONDS = 0.25  # a waiter looks for what an interrupted thread did not give back


class _Waiter:
    """A thread in the queue."""

    __slots__ = ("claim", "woken")

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.woken: SimpleQueue[None] = SimpleQueue()  # an Event has a lock, which an interruption can leave locked


class PoolQueue:
    """The places of a pool, `size` of them, and the threads that wait for one, `timeout` seconds at most."""

    def __init__(self, size: int, *, timeout: float, monotonic: Callable[[], float]) -> None:
        self.is_closed = False
        self.longest_wait = 0.0
        """The longest that anybody waited, in seconds."""
        self.places = [Place() for _ in range(size)]
        self.free = deque(self.places)
        """Hints: the right end was used last; those without a connection are at the left."""
        self._timeout = timeout
        self._monotonic = monotonic
        self._waiters: deque[_Waiter] = deque()
        self._returned: SimpleQueue[None] = SimpleQueue()

    @property
    def held(self) -> int:
        """Places that somebody has."""
        return sum(each.holder is not None for each in self.places)

    @property
    def idle(self) -> int:
        """Places with a connection that nobody has."""
        return sum(each.holder is None and each.session is not None for each in self.places)

    @property
    def waiting(self) -> int:
        """Threads in the queue."""
        return len(self._waiters)

    def take(self, claim: Claim, deadline_at: float) -> Place:
        """A free place, the one used last before the others, or the next that is passed on; `claim` holds it.

        Raises `ConnectError` when the queue is closed or the time is over, `DeadlineExceeded` at the deadline.
        """
        if self.is_closed:
            _refuse_closed()
        place = None if self._waiters else self._take_free(claim)
        return self._wait(claim, deadline_at) if place is None else place

    def pass_on(self, place: Place, claim: Claim) -> None:
        """Give a place to whoever waits longest, or let anybody take it."""
        while self._waiters and not self.is_closed:
            try:
                waiter = self._waiters.popleft()
            except IndexError:  # it has left the queue
                break
            place.hand_over(waiter.claim)
            waiter.woken.put(None)
            return
        place.release(claim)
        if place in self.places:
            if place.session is None:
                self.free.appendleft(place)
            else:
                self.free.append(place)
        if self.is_closed:
            self._returned.put(None)
        if self._waiters:  # it came into the queue meanwhile
            for waiter in list(self._waiters)[:1]:
                waiter.woken.put(None)

    def close(self) -> None:
        """From now on nobody gets a place; the waiting threads are told. May be called again."""
        self.is_closed = True
        for waiter in list(self._waiters):
            waiter.woken.put(None)

    def wait_until_returned(self, timeout: float) -> None:
        """After `close`: wait up to `timeout` seconds for the places that somebody has."""
        end = self._monotonic() + timeout
        while any(_is_held(each) for each in self.places):
            remaining = end - self._monotonic()
            if remaining <= 0:
                return
            wait_for(self._returned, min(remaining, _LOOK_AGAIN_SECONDS))

    def _take_free(self, claim: Claim) -> Place | None:
        """A place that nobody has, if there is one."""
        for _ in range(len(self.free)):
            try:
                place = self.free.pop()
            except IndexError:
                break
            if place.take(claim):
                return place
        return self._take_abandoned(claim)

    def _take_abandoned(self, claim: Claim) -> Place | None:
        """A place whose holder is gone, or that an interruption kept out of `free`."""
        for index, place in enumerate(self.places):
            if place.holder is None and place not in self.free and place.take(claim):
                return place
            holder = place.holder
            if holder is not None and not holder.is_alive():
                place.give_up()
                self.places[index] = fresh = Place()
                if fresh.take(claim):
                    return fresh
        return None

    def _wait(self, claim: Claim, deadline_at: float) -> Place:
        """Queue until a place is handed over. Raises `ConnectError` or `DeadlineExceeded` when the time is over."""
        started_at = self._monotonic()
        limit_at = min(started_at + self._timeout, deadline_at)
        has_collected = False
        waiter = _Waiter(claim)
        claim.place = None
        try:
            self._waiters.append(waiter)
            while True:
                # It is its turn, or a place came free before it stood in the queue.
                is_next = waiter in self._waiters and self._waiters[0] is waiter
                if is_next and (place := self._take_free(claim)) is not None:
                    if self._has_left(waiter):
                        return place
                    self.pass_on(place, claim)  # somebody is handing it another one
                remaining = limit_at - self._monotonic()
                was_woken = wait_for(waiter.woken, min(max(remaining, 0.0), _LOOK_AGAIN_SECONDS))
                if not was_woken and not has_collected and any(isinstance(each.holder, Lease) for each in self.places):
                    has_collected = True
                    gc.collect()  # a connection that was dropped without being given back is part of a cycle
                self.longest_wait = max(self.longest_wait, self._monotonic() - started_at)
                given = claim.place
                if self.is_closed:
                    _refuse_closed()
                if given is not None and given.holder is claim:
                    return given
                if remaining <= 0:
                    self._refuse_late(is_deadline=limit_at < started_at + self._timeout)
        except BaseException:
            self._leave(waiter)
            raise

    def _refuse_late(self, *, is_deadline: bool) -> NoReturn:
        if is_deadline:
            raise DeadlineExceeded("no connection was free before the deadline (connect); nothing was committed", phase="connect")
        raise ConnectError(
            f"no connection of the pool was free for {self._timeout:g} s: all {len(self.places)} are in use; raise "
            "max_size, or give connections back sooner"
        )

    def _has_left(self, waiter: _Waiter) -> bool:
        """Take it out of the queue. False if somebody else has, to hand a place to it."""
        try:
            self._waiters.remove(waiter)
        except ValueError:
            return False
        return True

    def _leave(self, waiter: _Waiter) -> None:
        """A thread that gives up (its time is over, the pool was closed, it was interrupted) passes on what it was given."""
        self._has_left(waiter)
        place = waiter.claim.place
        if place is not None and place.holder is waiter.claim:
            self.pass_on(place, waiter.claim)


def wait_for(signal: SimpleQueue[None], seconds: float) -> bool:
    """Wait for something in a queue. Returns whether it came."""
    try:
        signal.get(timeout=seconds)
    except Empty:
        return False
    return True


def _is_held(place: Place) -> bool:
    holder = place.holder
    return holder is not None and holder.is_alive()


def _refuse_closed() -> NoReturn:
    raise ConnectError("the pool is closed: make a new one, or close it later")
