"""Contention: what a retry policy makes of many handlers on few rows, simulated.

A discrete-event simulation of optimistic transactions: the snapshot is taken when the first flight arrives, and the first COMMIT
on a row wins. The decisions and delays are the layer's own (`failure.next_step`, `OCCRetryConfig`). Time is simulated: the same
seed gives the same numbers on every machine.
"""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from dsql_lambda import OCCConflict, OCCRetryConfig, OCCType
from dsql_lambda.attempt import Ending, Outcome
from dsql_lambda.failure import next_step

from .report import Say, Section, number, table, yes

CONNECTORS = "connectors' defaults"
OURS = "for_lambda()"
POLICIES = {
    CONNECTORS: OCCRetryConfig(),
    "agent guide": OCCRetryConfig(max_attempts=5, base_delay_ms=50, max_delay_ms=5000, jitter="full"),
    OURS: OCCRetryConfig.for_lambda(),
}
SCENARIOS = [(workers, rows, trip) for rows in (1, 10) for workers in (4, 16, 64) for trip in (2, 10)]
"""Workers, rows, and the round trip in ms."""

_SECONDS = 30.0
_WARM_UP_SECONDS = 2.0
_DEADLINE = 10.0

# The server's and the handler's own share of a flight, in seconds: assumed, not measured on a cluster.
_READ = (0.0005, 0.0010)
_WORK = (0.0002, 0.0004)
_COMMIT = (0.0010, 0.0020)
_TRIP_NOISE = 0.1  # of a round trip

_CONFLICT = Outcome(Ending.CONFLICT, conflict=OCCConflict(type=OCCType.DATA, code="OC000"))


class Result(NamedTuple):
    """What a policy made of a scenario."""

    commits: int
    failed: int
    failed_share: float
    """Of the handlers that ended."""
    attempts_per_commit: float
    """Those of failed handlers too."""
    p99_ms: float


@dataclass
class _Handler:
    started_at: float
    row: int
    attempt: int = 1
    began_at: float = 0.0
    snapshot_at: float = 0.0


def simulate(
    workers: int, rows: int, trip_ms: float, retry: OCCRetryConfig, *, seed: int = 1, seconds: float = _SECONDS
) -> Result:
    """Let the workers work, each on its next handler when one has ended. A warm-up is not counted."""
    random, waits = Random(seed).random, Random(seed + 1).random
    judged: list[tuple[float, int]] = []  # when the COMMIT of which worker is judged
    handlers: dict[int, _Handler] = {}
    committed_at = [-1.0] * rows
    failed = attempts = 0
    latencies: list[float] = []

    def half_trip() -> float:
        return trip_ms / 2000 * (1 + _TRIP_NOISE * random())

    def attempt_at(moment: float, worker: int) -> None:
        handler = handlers[worker]
        handler.began_at = moment
        handler.snapshot_at = moment + half_trip()
        answered_at = handler.snapshot_at + _READ[0] + _READ[1] * random() + half_trip()
        sent_at = answered_at + _WORK[0] + _WORK[1] * random()
        heapq.heappush(judged, (sent_at + half_trip() + _COMMIT[0] + _COMMIT[1] * random(), worker))

    def begin_at(moment: float, worker: int) -> None:
        handlers[worker] = _Handler(moment, int(random() * rows))
        attempt_at(moment, worker)

    for worker in range(workers):
        begin_at(random() * 0.01, worker)
    while judged[0][0] < _WARM_UP_SECONDS + seconds:
        now, worker = heapq.heappop(judged)
        handler, counts = handlers[worker], now >= _WARM_UP_SECONDS
        attempts += counts
        heard_at = now + half_trip()
        elapsed = heard_at - handler.started_at
        if committed_at[handler.row] <= handler.snapshot_at:
            committed_at[handler.row] = now
            if counts:
                latencies.append(elapsed)
            begin_at(heard_at, worker)
            continue
        times = {"remaining": _DEADLINE - elapsed, "elapsed": elapsed, "lasted": heard_at - handler.began_at}
        step = next_step(_CONFLICT, _CONFLICT, attempt=handler.attempt, retry=retry, is_repeatable=False, random=waits, **times)
        if step.error is not None:
            failed += counts
            begin_at(heard_at, worker)
        else:
            handler.attempt += 1
            attempt_at(heard_at + step.delay, worker)
    commits = len(latencies)
    p99_ms = statistics.quantiles(latencies, n=100)[98] * 1000
    return Result(commits, failed, failed / (commits + failed), attempts / commits, p99_ms)


def goals(found: Mapping[tuple[int, int, int], Mapping[str, Result]]) -> str:
    """The table of the targets."""
    failed = sum(each[OURS].failed for each in found.values())
    handlers = failed + sum(each[OURS].commits for each in found.values())
    least = min(each[OURS].commits / max(other.commits for other in each.values()) for each in found.values())
    crowded = [each for (workers, rows, _), each in found.items() if (workers, rows) == (64, 1)]
    most = max(each[OURS].attempts_per_commit / each[CONNECTORS].attempts_per_commit for each in crowded)
    third = "attempts a commit: a third or less of the connectors' defaults, 64 workers on one row"
    return table(
        ["target of `for_lambda()`", "measured", "holds"],
        [
            ["no handler fails while its deadline is 10 s away", f"{failed} of {handlers:,} failed", yes(held=failed == 0)],
            ["commits: 85 % or more of whatever policy has most", f"{least:.0%} at least", yes(held=least >= 0.85)],
            [third, f"{most:.3f} at most", yes(held=most <= 1 / 3)],
        ],
    )


def _cell(result: Result) -> str:
    attempts = number(result.attempts_per_commit)
    return f"{number(result.commits / _SECONDS)}/s · {result.failed_share:.1%} · {attempts} · {result.p99_ms:,.0f}"


def section(_: Mapping[str, str], *, say: Say) -> Section:
    """The page's chapter."""
    say("contention: simulating")
    found = {each: {name: simulate(*each, retry) for name, retry in POLICIES.items()} for each in SCENARIOS}
    body = [
        [f"{workers} workers, {'one row' if rows == 1 else f'{rows} rows'}, {trip} ms", *map(_cell, results.values())]
        for (workers, rows, trip), results in found.items()
    ]
    text = f"""What a retry policy makes of workers that read a row, write it and commit, each starting its next handler when
one has ended. Simulated with the layer's own decisions and delays: {_SECONDS:g} s each, one seed, a deadline of {_DEADLINE:g} s
for each handler. The server's own time is assumed to be 0.5 to 1.5 ms for the read and 1 to 3 ms for the COMMIT. The policies are
the connectors' defaults (3 attempts, 1 to 100 ms, additive jitter), AWS's agent guide (5 attempts, 50 ms to 5 s, full jitter) and
`OCCRetryConfig.for_lambda()`: wait an eighth of the time that the transaction has taken so far, at most five times its last
attempt and a sixtieth of the time left, and up to as much again of jitter, until the deadline.

{goals(found)}

A cell: commits a second · handlers failed · attempts a commit · p99 of a successful handler in ms.

{table(["scenario", *POLICIES], body)}

**Why these numbers.** On one row at most one transaction can commit in the time from its snapshot to its COMMIT. So an attempt's
own duration is the unit of a good delay: milliseconds that are right beside the cluster are far too few at a distance. How
crowded a row is shows only in what was lost to it: an eighth of the time taken is next to nothing after a lone conflict, and
grows where conflicts go on. A handler that waits long is overtaken by newcomers, which do not wait at all. So the delay ends at
five attempts, and shrinks with the time that is left: the handler that has waited longest tries most often. Attempts are not
counted, for where ten of them make one commit, some handlers lose a hundred. No client's policy helps a transaction that takes
several times as long as those that it competes with: the row has changed whenever it comes to commit.
"""
    return Section(title="Contention", text=text)
