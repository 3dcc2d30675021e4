"""Storms: thousands of environments that connect at once, before a front that admits 100 new connections a second.

Knows DSQL's front (a token bucket and a most of open connections), Lambda's scaling, and the layer's own wait after a refusal
(`connection.wait_before`) and age of a connection (`connection.max_age`); knows no sockets. Time is simulated, by seed.
`python -m benchmarks.storm` prints the tables.

An environment has a handler that wants a connection: it tries, waits and tries again for as long as it may, then it has failed,
and the environment's next handler begins a second later. A refused try takes nothing from the bucket.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from dsql_lambda.connection import Refusal, max_age, wait_before

NEW_A_SECOND = 100.0
BURST = 1000.0
MOST_CONNECTIONS = 10_000
_VERDICT_SECONDS = 0.015  # dialling, TLS and the answer to the token
_NEXT_HANDLER_SECONDS = 1.0
_ROUNDING = 1e-9

Wait = Callable[[int, Callable[[], float]], float | None]
"""Seconds to wait after the refusal of a try (from 1), given a source of numbers from 0 to 1; None: give up."""


def ours(tries: int, random: Callable[[], float]) -> float:
    """The layer's wait."""
    return wait_before(Refusal.BUSY, tries, random)


def none(_tries: int, _random: Callable[[], float]) -> None:
    """A refusal is the handler's failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a storm."""

    handlers_failed: int
    connected_after: float
    """Seconds from the first want to the last connection."""
    floor: float
    """The same if every environment were let in the moment that the bucket has a token for it."""
    longest_wait: float
    """The longest that a handler waited for a connection it got."""
    tries: int
    """In all, refused ones included."""

    @property
    def above_floor(self) -> float:
        """How much longer it took than the floor: 0.1 is a tenth."""
        return self.connected_after / self.floor - 1


class _Bucket:
    """A token bucket: `burst` at the most, filled by `a_second`."""

    def __init__(self, tokens: float) -> None:
        self._tokens = tokens
        self._at = 0.0

    def _fill(self, now: float) -> None:
        self._tokens = min(BURST, self._tokens + (now - self._at) * NEW_A_SECOND)
        self._at = now

    def take(self, now: float) -> bool:
        self._fill(now)
        if self._tokens < 1 - _ROUNDING:
            return False
        self._tokens -= 1
        return True

    def take_as_soon_as_possible(self, now: float) -> float:
        """When a token is there for whoever waits in line."""
        now = max(now, self._at)
        self._fill(now)
        if self._tokens < 1:
            now += (1 - self._tokens) / NEW_A_SECOND
            self._fill(now)
        self._tokens -= 1
        return now


def connect_all(
    wanted_at: Sequence[float],
    wait: Wait,
    *,
    patience: float,
    tokens: float = BURST,
    most: int = MOST_CONNECTIONS,
    seed: int = 1,
) -> tuple[Result, list[float]]:
    """Let environments want a connection at these moments, handlers waiting for so many seconds. Also gives when each got it."""
    random = Random(seed).random  # noqa: S311 - a simulation
    line = _Bucket(tokens)
    first = min(wanted_at)
    floor = max(line.take_as_soon_as_possible(moment) for moment in sorted(each + _VERDICT_SECONDS for each in wanted_at))
    bucket = _Bucket(tokens)
    tries = [0] * len(wanted_at)
    since = list(wanted_at)
    connected_at = [math.nan] * len(wanted_at)
    judged = [(moment + _VERDICT_SECONDS, index) for index, moment in enumerate(wanted_at)]
    heapq.heapify(judged)
    failed = made = connected = 0
    longest = last = 0.0
    while judged:
        now, index = heapq.heappop(judged)
        made += 1
        if connected < most and bucket.take(now):
            connected += 1
            connected_at[index] = last = now
            longest = max(longest, now - since[index])
            continue
        tries[index] += 1
        pause = wait(tries[index], random)
        if pause is None or now + pause >= since[index] + patience:
            failed += 1
            pause = _NEXT_HANDLER_SECONDS
            tries[index] = 0
            since[index] = now + pause
        heapq.heappush(judged, (now + pause + _VERDICT_SECONDS, index))
    return (
        Result(
            handlers_failed=failed, connected_after=last - first, floor=floor - first, longest_wait=longest, tries=made
        ),
        connected_at,
    )


def cold_starts(count: int, at_once: int, *, seed: int = 1) -> list[float]:
    """When environments want their first connection: so many more every 10 s, each 0.2 to 0.6 s after its start."""
    random = Random(seed).random  # noqa: S311
    return [index // at_once * 10.0 + 0.2 + 0.4 * random() for index in range(count)]


def recycled(opened_at: Sequence[float], age: Callable[[float], float], *, seed: int = 1) -> list[float]:
    """When environments want their next connection: at the first event after the age that `age` makes of a number from 0 to 1.

    Each environment has an event a second.
    """
    random = Random(seed).random  # noqa: S311
    return [moment + age(random()) + random() for moment in opened_at]


def without_jitter(_: float) -> float:
    """55 minutes for all."""
    return max_age(0.0)


def most_in_a_second(moments: Sequence[float]) -> int:
    """The most of these moments in any one second of the clock."""
    counts: dict[int, int] = {}
    for moment in moments:
        counts[int(moment)] = counts.get(int(moment), 0) + 1
    return max(counts.values())
