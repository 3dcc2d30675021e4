"""Contention: what a retry policy makes of many handlers on few rows. A discrete-event simulation, and one real run against it.

Knows optimistic transactions (snapshot at BEGIN, the first COMMIT on a row wins) and the loop's own decision and delays, which
are the layer's code (`attempt._next_step`, `OCCRetryConfig.delay`); knows no sockets. Time is simulated: the same seed gives the
same numbers on every machine. `python -m benchmarks.contention` prints the table.

A handler reads a row picked at random, then writes it and commits: two flights, as the layer sends them. Its snapshot is taken
when the first arrives, its COMMIT is judged after the second arrived. A worker starts its next handler when one has ended.
"""

from __future__ import annotations

import heapq
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from random import Random

from dsql_lambda import OCCConflict, OCCRetryConfig, OCCType
from dsql_lambda.attempt import Ending, Outcome, _next_step

POLICIES = {
    "connectors' defaults": OCCRetryConfig(),
    "agent guide": OCCRetryConfig(max_attempts=5, base_delay_ms=50, max_delay_ms=5000, jitter="full"),
    "for_lambda()": OCCRetryConfig.for_lambda(),
}
OURS = "for_lambda()"
CONNECTORS = "connectors' defaults"

WORKERS = (1, 2, 4, 8, 16, 32, 64)
ROWS = (1, 10, 1000)
ROUND_TRIPS_MS = (0, 2, 10)

DEADLINE_SECONDS = 10.0
_SECONDS = 30.0
_WARM_UP_SECONDS = 2.0

# The server's and the handler's own share of a flight, in seconds from 0 to 1 random numbers up: about what the recordings show.
_READ = (0.0005, 0.0010)
_WORK = (0.0002, 0.0004)
_COMMIT = (0.0010, 0.0020)
_TRIP_NOISE = 0.1  # of a round trip

_CONFLICT = Outcome(ending=Ending.CONFLICT, conflict=OCCConflict(type=OCCType.DATA, code="OC000"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Who wants what, how far away."""

    workers: int
    rows: int
    round_trip_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a policy made of a scenario."""

    commits_a_second: float
    failed: int
    failed_share: float
    attempts_per_commit: float
    p50_ms: float
    p99_ms: float
    longest_ms: float


@dataclass(slots=True)
class _Handler:
    """One handler of one worker, from its first attempt to its end."""

    started_at: float
    attempt: int
    row: int
    snapshot_at: float


def simulate(scenario: Scenario, retry: OCCRetryConfig, *, seed: int = 1, seconds: float = _SECONDS) -> Result:
    """Let the workers work for so many simulated seconds, after a warm-up that is not counted."""
    random = Random(seed).random  # noqa: S311 - a simulation
    waits = Random(seed + 1).random  # noqa: S311
    trip = scenario.round_trip_ms / 1000
    judged: list[tuple[float, int]] = []  # when the COMMIT of which worker is judged
    handlers: dict[int, _Handler] = {}
    committed_at = [-1.0] * scenario.rows
    end = _WARM_UP_SECONDS + seconds
    commits = failed = attempts = 0
    latencies: list[float] = []

    def half_trip() -> float:
        return trip / 2 * (1 + _TRIP_NOISE * random())

    def attempt_at(moment: float, worker: int) -> None:
        handler = handlers[worker]
        handler.snapshot_at = moment + half_trip()
        answered_at = handler.snapshot_at + _READ[0] + _READ[1] * random() + half_trip()
        sent_at = answered_at + _WORK[0] + _WORK[1] * random()
        heapq.heappush(judged, (sent_at + half_trip() + _COMMIT[0] + _COMMIT[1] * random(), worker))

    def begin_at(moment: float, worker: int) -> None:
        handlers[worker] = _Handler(moment, 1, int(random() * scenario.rows), moment)
        attempt_at(moment, worker)

    for worker in range(scenario.workers):
        begin_at(random() * 0.01, worker)
    while True:
        now, worker = heapq.heappop(judged)
        if now >= end:
            break
        handler = handlers[worker]
        counts = now >= _WARM_UP_SECONDS
        attempts += counts
        heard_at = now + half_trip()
        if committed_at[handler.row] <= handler.snapshot_at:
            committed_at[handler.row] = now
            commits += counts
            if counts:
                latencies.append(heard_at - handler.started_at)
            begin_at(heard_at, worker)
            continue
        elapsed = heard_at - handler.started_at
        step = _next_step(
            _CONFLICT,
            _CONFLICT,
            attempt=handler.attempt,
            retry=retry,
            remaining=DEADLINE_SECONDS - elapsed,
            elapsed=elapsed,
            read_only=False,
            random=waits,
        )
        if step.error is not None:
            failed += counts
            begin_at(heard_at, worker)
        else:
            handler.attempt += 1
            attempt_at(heard_at + step.delay, worker)
    latencies.sort()
    return Result(
        commits_a_second=commits / seconds,
        failed=failed,
        failed_share=failed / max(failed + commits, 1),
        attempts_per_commit=attempts / max(commits, 1),
        p50_ms=statistics.median(latencies) * 1000,
        p99_ms=latencies[int(len(latencies) * 0.99)] * 1000,
        longest_ms=latencies[-1] * 1000,
    )
