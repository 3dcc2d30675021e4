"""Optimistic transactions on few rows: a discrete-event simulation of many handlers under one retry policy.

Knows snapshots (taken when the first flight arrives), conflicts (the first COMMIT on a row wins) and the loop's own decision and
delays, which are the layer's code (`outcome.next_step`, `OCCRetryConfig`); knows no sockets and no clock. Time is simulated:
the same seed gives the same numbers on every machine.

A handler reads a row picked at random, then writes it and commits: two flights, as the layer sends them. Its snapshot is taken
when the first arrives, its COMMIT is judged after the second arrived. A worker starts its next handler when one has ended.
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol, cast

from dsql_lambda import OCCConflict, OCCRetryConfig, OCCType
from dsql_lambda.outcome import Ending, Outcome, next_step

SECONDS = 30.0
_WARM_UP_SECONDS = 2.0

# The server's and the handler's own share of a flight, in seconds: assumed, not measured on a cluster.
_READ = (0.0005, 0.0010)
_WORK = (0.0002, 0.0004)
_COMMIT = (0.0010, 0.0020)
_TRIP_NOISE = 0.1  # of a round trip
_FAR = 4  # times the round trip

_CONFLICT = Outcome(Ending.CONFLICT, conflict=OCCConflict(type=OCCType.DATA, code="OC000"))


class Policy(Protocol):
    """What the loop asks of an `OCCRetryConfig`."""

    def allows_another(self, attempt: int, remaining: float = ...) -> bool:
        """Whether one more attempt may follow."""

    def delay(
        self,
        attempt: int,
        occ_type: OCCType,
        random: Callable[[], float],
        *,
        elapsed: float = ...,
        lasted: float = ...,
        remaining: float = ...,
    ) -> float:
        """Seconds to wait before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Who wants what, how far away."""

    workers: int
    rows: int
    round_trip_ms: float
    deadline: float = 10.0
    """Seconds, of each handler."""
    work_ms: float = 0.0
    """What the function does between its read and its write, on average: half to one and a half of it."""
    pause_ms: float = 0.0
    """What a worker waits before its next handler, on average."""
    is_every_fourth_far: bool = False
    """Every fourth worker has a round trip of four times as much."""
    is_burst: bool = False
    """Each worker has one handler only, and all begin in the same 10 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a policy made of a scenario."""

    commits_a_second: float
    commits: int
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
    began_at: float
    snapshot_at: float


def simulate(scenario: Scenario, retry: Policy, *, seed: int = 1, seconds: float = SECONDS) -> Result:
    """Let the workers work for so many simulated seconds, after a warm-up that is not counted; a burst, until all have ended."""
    random, waits = Random(seed).random, Random(seed + 1).random
    trip = scenario.round_trip_ms / 1000
    trips = [trip * (_FAR if scenario.is_every_fourth_far and worker % 4 == 0 else 1) for worker in range(scenario.workers)]
    config = cast("OCCRetryConfig", retry)
    work, pause = scenario.work_ms / 1000, scenario.pause_ms / 1000
    judged: list[tuple[float, int]] = []  # when the COMMIT of which worker is judged
    handlers: dict[int, _Handler] = {}
    committed_at = [-1.0] * scenario.rows
    counted_from, end = (0.0, math.inf) if scenario.is_burst else (_WARM_UP_SECONDS, _WARM_UP_SECONDS + seconds)
    failed, attempts, heard_at = 0, 0, 0.0
    latencies: list[float] = []

    def half_trip(worker: int) -> float:
        return trips[worker] / 2 * (1 + _TRIP_NOISE * random())

    def attempt_at(moment: float, worker: int) -> None:
        handler = handlers[worker]
        handler.began_at = moment
        handler.snapshot_at = moment + half_trip(worker)
        answered_at = handler.snapshot_at + _READ[0] + _READ[1] * random() + half_trip(worker)
        sent_at = answered_at + _WORK[0] + _WORK[1] * random() + (work * (0.5 + random()) if work else 0.0)
        heapq.heappush(judged, (sent_at + half_trip(worker) + _COMMIT[0] + _COMMIT[1] * random(), worker))

    def begin_at(moment: float, worker: int) -> None:
        handlers[worker] = _Handler(moment, 1, int(random() * scenario.rows), moment, moment)
        attempt_at(moment, worker)

    def end_at(moment: float, worker: int) -> None:
        if not scenario.is_burst:
            begin_at(moment + (-math.log(1 - random()) * pause if pause else 0.0), worker)

    for worker in range(scenario.workers):
        begin_at(random() * 0.01, worker)
    while judged:
        now, worker = heapq.heappop(judged)
        if now >= end:
            break
        handler, counts = handlers[worker], now >= counted_from
        attempts += counts
        heard_at = now + half_trip(worker)
        elapsed = heard_at - handler.started_at
        if committed_at[handler.row] <= handler.snapshot_at:
            committed_at[handler.row] = now
            if counts:
                latencies.append(elapsed)
            end_at(heard_at, worker)
            continue
        step = next_step(
            _CONFLICT,
            _CONFLICT,
            attempt=handler.attempt,
            retry=config,
            remaining=scenario.deadline - elapsed,
            elapsed=elapsed,
            lasted=heard_at - handler.began_at,
            is_repeatable=False,
            random=waits,
        )
        if step.error is not None:
            failed += counts
            end_at(heard_at, worker)
        else:
            handler.attempt += 1
            attempt_at(heard_at + step.delay, worker)
    latencies.sort()
    commits = len(latencies)
    return Result(
        commits_a_second=commits / (heard_at if scenario.is_burst else seconds),
        commits=commits,
        failed=failed,
        failed_share=failed / max(failed + commits, 1),
        attempts_per_commit=attempts / max(commits, 1),
        p50_ms=statistics.median(latencies) * 1000,
        p99_ms=latencies[int(commits * 0.99)] * 1000,
        longest_ms=latencies[-1] * 1000,
    )
