"""Storms: thousands of environments that connect at once, before a front that admits 100 new connections a second.

Knows DSQL's front (a token bucket and a most of open connections), Lambda's scaling, and the layer's own wait after a refusal
(`refusal.wait_before`) and age of a connection (`cache.max_age`); knows no sockets. Time is simulated, by seed.
`python -m benchmarks.storm` prints the tables.

An environment has a handler that wants a connection: it tries, waits and tries again for as long as it may, then it has failed,
and the environment's next handler begins a second later. A refused try takes nothing from the bucket.
"""

from __future__ import annotations

import heapq
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from dsql_lambda.cache import max_age
from dsql_lambda.refusal import Refusal, wait_before

from .report import Say, Section, table, yes

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
    random = Random(seed).random
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
        Result(handlers_failed=failed, connected_after=last - first, floor=floor - first, longest_wait=longest, tries=made),
        connected_at,
    )


def cold_starts(count: int, at_once: int, *, seed: int = 1) -> list[float]:
    """When environments want their first connection: so many more every 10 s, each 0.2 to 0.6 s after its start."""
    random = Random(seed).random
    return [index // at_once * 10.0 + 0.2 + 0.4 * random() for index in range(count)]


def recycled(opened_at: Sequence[float], age: Callable[[float], float], *, seed: int = 1) -> list[float]:
    """When environments want their next connection: at the first event after the age that `age` makes of a number from 0 to 1.

    Each environment has an event a second.
    """
    random = Random(seed).random
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


CONNECT_TIMEOUT_SECONDS = 10.0
_PATIENT_SECONDS = 60.0


def cold_start_storms() -> dict[str, tuple[Result, Result]]:
    """5,000 cold starts: what comes of them with no retry and with the layer's."""
    scaling = cold_starts(5000, 1000)
    at_once = cold_starts(5000, 5000)

    def both(wanted_at: Sequence[float], *, patience: float, tokens: float = BURST) -> tuple[Result, Result]:
        without, _ = connect_all(wanted_at, none, patience=patience, tokens=tokens)
        layer, _ = connect_all(wanted_at, ours, patience=patience, tokens=tokens)
        return without, layer

    return {
        "Lambda's scaling: 1,000 more every 10 s": both(scaling, patience=CONNECT_TIMEOUT_SECONDS),
        "the same, the bucket empty at the start": both(scaling, patience=CONNECT_TIMEOUT_SECONDS, tokens=0.0),
        "the same, `connect_timeout=60`": both(scaling, patience=_PATIENT_SECONDS, tokens=0.0),
        "all 5,000 at once (five functions)": both(at_once, patience=CONNECT_TIMEOUT_SECONDS),
        "the same, `connect_timeout=60` ": both(at_once, patience=_PATIENT_SECONDS),
    }


class Recycling(NamedTuple):
    """What came of replacing all connections, and how many were wanted in the fullest second."""

    result: Result
    most_in_a_second: int


def recycling_storms(count: int = 50_000) -> dict[str, Recycling]:
    """Environments whose connections reach 55 minutes, with and without the layer's jitter."""
    scaled = cold_starts(count, 1000)
    _, opened_at = connect_all(scaled, ours, patience=CONNECT_TIMEOUT_SECONDS, most=count)
    storms = {}
    for when, opened in (("opened as the cluster admitted them", opened_at), ("all of one age", [0.0] * count)):
        for name, age in (("no jitter", without_jitter), ("the layer's jitter", max_age)):
            wanted = recycled(opened, age)
            result, _ = connect_all(wanted, ours, patience=CONNECT_TIMEOUT_SECONDS, most=count)
            storms[f"{when}, {name}"] = Recycling(result, most_in_a_second(wanted))
    return storms


def section(*, say: Say) -> Section:
    """The page's chapter."""
    say("storm: 5,000 cold starts")
    cold = cold_start_storms()
    say("storm: 50,000 environments recycle")
    recycling = recycling_storms()
    cold_head = ["storm", "failed, no retry", "failed, the layer", "tries, no retry", "tries, the layer", "longest wait"]
    cold_head += ["all connected after", "floor", "above it"]
    cold_rows = [
        [
            name,
            f"{without.handlers_failed:,}",
            f"{layer.handlers_failed:,}",
            f"{without.tries:,}",
            f"{layer.tries:,}",
            f"{layer.longest_wait:.1f} s",
            f"{layer.connected_after:.1f} s",
            f"{layer.floor:.1f} s",
            f"+{layer.above_floor:.1%}",
        ]
        for name, (without, layer) in cold.items()
    ]
    recycling_rows = [
        [
            name,
            f"{most:,}",
            f"{result.handlers_failed:,}",
            f"{result.longest_wait:.1f} s",
            f"{result.connected_after:.0f} s",
            f"{result.floor:.0f} s",
        ]
        for name, (result, most) in recycling.items()
    ]
    reached = [layer for name, (_, layer) in cold.items() if "once" not in name]
    patient = [layer for name, (_, layer) in cold.items() if "connect_timeout" in name]
    kept = recycling["all of one age, the layer's jitter"].result
    goals = table(
        ["target", "measured", "holds"],
        [
            [
                "all connected within 10 % of the bucket's own floor",
                f"at most +{max(layer.above_floor for _, layer in cold.values()):.1%}",
                yes(held=all(layer.above_floor <= 0.1 for _, layer in cold.values())),
            ],
            [
                "no handler fails in Lambda's scaling",
                f"{reached[0].handlers_failed} failed",
                yes(held=reached[0].handlers_failed == 0),
            ],
            [
                "nor where the floor is longer than `connect_timeout` (10 s)",
                f"{sum(layer.handlers_failed for _, layer in cold.values()):,} failed",
                yes(held=all(layer.handlers_failed == 0 for _, layer in cold.values())),
            ],
            [
                "nor there with `connect_timeout=60`",
                f"{sum(layer.handlers_failed for layer in patient)} failed",
                yes(held=all(layer.handlers_failed == 0 for layer in patient)),
            ],
            [
                "no handler fails when 50,000 connections of one age are replaced",
                f"{kept.handlers_failed} failed",
                yes(held=kept.handlers_failed == 0),
            ],
        ],
    )
    text = f"""A simulation of DSQL's front (a token bucket of {BURST:,.0f}, filled by {NEW_A_SECOND:g} a second;
{MOST_CONNECTIONS:,} connections) and of environments whose handlers want a connection. With no retry a refusal is the
handler's failure and the environment's next handler comes a second later; with the layer's (`refusal.wait_before`: 0.1 s
doubling to 2 s, spread by half) it waits for up to `connect_timeout`. The floor is when all would be connected if each were
let in the moment that the bucket has a token for it.

{goals}

5,000 cold starts:

{table(cold_head, cold_rows)}

A wait that doubles to 5 s instead of 2 left up to a tenth of the admissions unused and failed six times as many handlers
where the bucket is empty. What 5,000 at once need is time: nobody can be served before the bucket has a token for it, and
whoever may wait for 10 s only, fails.

50,000 environments reach 55 minutes (on a cluster whose quota of connections was raised; each has an event a second):

{table(["connections", "wanted in the fullest second", "failed", "longest wait", "all connected after", "floor"], recycling_rows)}

Connections that were opened as the front admitted them are replaced at the same pace, with or without jitter. Where they are
of one age, the layer's 10 minutes of jitter make 83 a second of them, which the bucket can give; 5 minutes would make 167.
"""
    return Section(title="Storms of connections", text=text)


def main() -> None:
    """Print the chapter."""
    print(section(say=lambda line: print(line, file=sys.stderr)).text)


if __name__ == "__main__":
    main()
