"""Contention: what a retry policy makes of many handlers on few rows: simulated, and a real run against that.

Knows the scenarios, the policies and the targets; `optimistic` knows how handlers meet, `contended_row` the real run.
`python -m benchmarks.contention` prints the chapter.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product

from dsql_lambda import OCCRetryConfig, OCCType

from . import charts, contended_row
from .local import served
from .optimistic import SECONDS, Policy, Result, Scenario, simulate
from .report import Say, Section, number, table, yes

CONNECTORS = "connectors' defaults"
OURS = "for_lambda()"
POLICIES = {
    CONNECTORS: OCCRetryConfig(),
    "agent guide": OCCRetryConfig(max_attempts=5, base_delay_ms=50, max_delay_ms=5000, jitter="full"),
    OURS: OCCRetryConfig.for_lambda(),
}

WORKERS = (1, 2, 4, 8, 16, 32, 64)
ROWS = (1, 10, 1000)
ROUND_TRIPS_MS = (0, 2, 10)

HARDEST = Scenario(workers=64, rows=1, round_trip_ms=10)
"""The scenario in which a handler's share of the commits is smallest."""

Measured = Mapping[Scenario, Mapping[str, Result]]


def measure(
    scenarios: list[Scenario],
    policies: Mapping[str, Policy] = POLICIES,
    *,
    seed: int = 1,
    seconds: float = SECONDS,
    say: Say = lambda _: None,
) -> dict[Scenario, dict[str, Result]]:
    """Every scenario with every policy."""
    measured: dict[Scenario, dict[str, Result]] = {}
    for each in scenarios:
        say(f"contention: {each.workers} workers, {each.rows} rows, {each.round_trip_ms:g} ms")
        measured[each] = {name: simulate(each, retry, seed=seed, seconds=seconds) for name, retry in policies.items()}
    return measured


def scenarios(*, workers: tuple[int, ...] = WORKERS, rows: tuple[int, ...] = ROWS) -> list[Scenario]:
    """One for each of these, at each distance."""
    return [Scenario(workers=w, rows=r, round_trip_ms=trip) for r, w, trip in product(rows, workers, ROUND_TRIPS_MS)]


def failures_in_the_hardest(retry: Policy, *, seeds: range = range(20), seconds: float = 60.0) -> tuple[int, int]:
    """Handlers that failed, and all, over long runs of the hardest scenario."""
    runs = [simulate(HARDEST, retry, seed=seed, seconds=seconds) for seed in seeds]
    failed = sum(each.failed for each in runs)
    return failed, failed + sum(each.commits for each in runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How `for_lambda()` stands to its targets, over the measured scenarios."""

    failed: int
    handlers: int
    least_goodput: float
    """Its commits as a share of those of the policy that has most, where that is least."""
    least_goodput_in: Scenario
    scenarios_in_goal: int
    """With 85 % or more."""
    attempts: dict[int, float]
    """By rows: its attempts a commit as a share of the connectors', at most, with 64 workers."""


def bounds(measured: Measured) -> Bounds:
    """Judge the measurements."""
    goodput = {
        scenario: results[OURS].commits_a_second / max(each.commits_a_second for each in results.values())
        for scenario, results in measured.items()
    }
    least = min(goodput, key=lambda scenario: goodput[scenario])
    attempts: dict[int, float] = {}
    for scenario, results in measured.items():
        if scenario.workers == WORKERS[-1]:
            share = results[OURS].attempts_per_commit / results[CONNECTORS].attempts_per_commit
            attempts[scenario.rows] = max(share, attempts.get(scenario.rows, 0.0))
    failed = sum(results[OURS].failed for results in measured.values())
    return Bounds(
        failed=failed,
        handlers=failed + sum(results[OURS].commits for results in measured.values()),
        least_goodput=goodput[least],
        least_goodput_in=least,
        scenarios_in_goal=sum(share >= 0.85 for share in goodput.values()),
        attempts=attempts,
    )


def section(environment: dict[str, str], *, say: Say) -> Section:
    """The page's chapter, with its charts."""
    measured = measure(scenarios(), say=say)
    drawn = {
        "contention-failed.svg": _chart(
            measured, "Handlers that failed, of 100, on one row", "% failed", lambda each: each.failed_share * 100
        ),
        "contention-attempts.svg": _chart(
            measured, "Attempts for one commit, on one row", "attempts", lambda each: each.attempts_per_commit
        ),
        "contention-commits.svg": _chart(
            measured, "Commits a second, on one row", "commits/s", lambda each: each.commits_a_second
        ),
    }
    text = f"""What a policy makes of 1 to 64 workers that read a row, write it and commit, each starting its next handler
when one has ended. A discrete-event simulation of optimistic transactions with the layer's own decisions and delays;
{SECONDS:g} s of simulated time each, one seed, a deadline of 10 s for each handler. The server's own time is assumed to be
0.5 to 1.5 ms for the read and 1 to 3 ms for the COMMIT. The policies: the connectors' defaults (3 attempts, 1 to 100 ms,
additive jitter), AWS's agent guide (5 attempts, 50 ms to 5 s, full jitter), and `OCCRetryConfig.for_lambda()`: wait an eighth
of the time that the transaction has taken so far, at most five times its last attempt and a sixtieth of the time left, and up
to as much again of jitter, until the deadline.

{_goals(measured, say)}

![failed handlers](contention-failed.svg)
![attempts](contention-attempts.svg)
![commits](contention-commits.svg)

A cell: commits a second · handlers failed · attempts a commit · p50 / p99 of a successful handler in ms.

{_cells(measured)}
**Why these numbers.** On one row at most one transaction can commit in the time from its snapshot to its COMMIT. So an attempt's
own duration is the unit of a good delay: milliseconds that are right beside the cluster are far too few at a distance. How
crowded a row is shows only in what was lost to it: an eighth of the time taken is next to nothing after a lone conflict, and
grows where conflicts go on. Whoever waits long is passed by newcomers, who do not wait at all. So the delay ends at five
attempts, and shrinks with the time that is left: who has waited longest tries most often. And attempts are not counted: where
ten of them make one commit, some handlers lose a hundred. Each of these is needed, and about as much of it. With 64 workers on 1
and 10 rows, and in long runs of the hardest:

{_neighbours(measured, say)}

{_never_waiting(measured, say)}

**Elsewhere**, at 10 ms and on one row unless it says otherwise, by another seed:

{_elsewhere(say)}

No client's policy helps a transaction that takes four times as long as its rivals: the row has changed whenever it comes to
commit. And where a row has time for each handler once in four seconds (256 workers), or nearly three (50 ms of work), chance
leaves some without a commit for ten.

{contended_row.check(environment, POLICIES, say)}"""
    return Section(title="Contention", text=text, charts=drawn)


def _goals(measured: Measured, say: Say) -> str:
    found = bounds(measured)
    where = found.least_goodput_in
    say("contention: long runs of the hardest scenario")
    failed, hardest = failures_in_the_hardest(POLICIES[OURS])
    return table(
        ["target of `for_lambda()`", "measured", "holds"],
        [
            [
                "no handler fails while its deadline is 10 s away",
                (
                    f"{found.failed} of {found.handlers:,} failed in all scenarios; in long runs of the hardest (64 workers, "
                    f"one row, 10 ms) {failed} of {hardest:,}"
                ),
                yes(held=found.failed + failed == 0),
            ],
            [
                "commits: 85 % or more of whatever policy has most",
                (
                    f"in {found.scenarios_in_goal} of {len(measured)} scenarios; least {found.least_goodput:.0%} "
                    f"({where.workers} workers, {_rows(where.rows)}, {where.round_trip_ms:g} ms)"
                ),
                yes(held=found.scenarios_in_goal == len(measured)),
            ],
            [
                "attempts a commit: a third or less of the connectors' defaults, 64 workers on one row",
                (
                    f"{found.attempts[1]:.3f} of them at most (10 rows {found.attempts[10]:.2f}, 1,000 rows "
                    f"{found.attempts[1000]:.2f}: there the defaults themselves need few)"
                ),
                yes(held=found.attempts[1] <= 1 / 3),
            ],
        ],
    )


def _rows(count: int) -> str:
    return "one row" if count == 1 else f"{count:,} rows"


def _cells(measured: Measured) -> str:
    tables = []
    for rows in ROWS:
        body = [
            [f"{scenario.workers}, {scenario.round_trip_ms:g} ms", *(_cell(results[name]) for name in POLICIES)]
            for scenario, results in measured.items()
            if scenario.rows == rows and scenario.workers in {4, 16, 64}
        ]
        tables.append(f"{_rows(rows).capitalize()}:\n\n{table(['workers, round trip', *POLICIES], body)}\n")
    return "\n".join(tables)


def _cell(result: Result) -> str:
    return (
        f"{number(result.commits_a_second)}/s · {result.failed_share:.1%} · {number(result.attempts_per_commit)} · "
        f"{result.p50_ms:,.0f} / {result.p99_ms:,.0f}"
    )


def _chart(measured: Measured, title: str, label: str, value: Callable[[Result], float]) -> str:
    return charts.lines(
        title,
        {
            f"round trip {trip} ms": {
                name: [
                    (scenario.workers, value(results[name]))
                    for scenario, results in measured.items()
                    if scenario.rows == 1 and scenario.round_trip_ms == trip
                ]
                for name in POLICIES
            }
            for trip in ROUND_TRIPS_MS
        },
        x_label="workers",
        y_label=label,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Neighbour:
    """Lambda's policy with a share of its delay multiplied, or another policy."""

    elapsed: float = 1.0
    lasted: float = 1.0
    remaining: float = 1.0
    retry: OCCRetryConfig = POLICIES[OURS]

    def allows_another(self, attempt: int, remaining: float = math.inf) -> bool:
        return self.retry.allows_another(attempt, remaining)

    def delay(
        self,
        attempt: int,
        occ_type: OCCType,
        random: Callable[[], float],
        *,
        elapsed: float = 0.0,
        lasted: float = math.inf,
        remaining: float = math.inf,
    ) -> float:
        return self.retry.delay(
            attempt,
            occ_type,
            random,
            elapsed=elapsed * self.elapsed,
            lasted=lasted * self.lasted,
            remaining=remaining * self.remaining,
        )


_NEIGHBOURS = {
    OURS: _Neighbour(),
    "a sixteenth of the time taken": _Neighbour(elapsed=0.5),
    "a quarter of it": _Neighbour(elapsed=2),
    "at most two and a half attempts": _Neighbour(lasted=0.5),
    "at most ten": _Neighbour(lasted=2),
    "no bound by the time left": _Neighbour(remaining=math.inf),
    "a 120th of the time left": _Neighbour(remaining=0.5),
    "100 attempts": _Neighbour(
        retry=OCCRetryConfig(max_attempts=100, max_delay_ms=1000, jitter_factor=1, backoff="proportional")
    ),
    "full jitter": _Neighbour(retry=OCCRetryConfig(max_attempts=None, max_delay_ms=1000, jitter="full", backoff="proportional")),
    "exponential, 8 to 200 ms, full jitter, 100 attempts": _Neighbour(
        retry=OCCRetryConfig(max_attempts=100, base_delay_ms=8, max_delay_ms=200, jitter="full")
    ),
}


def _neighbours(measured: Measured, say: Say) -> str:
    crowded = [each for each in measured if each.workers == WORKERS[-1] and each.rows <= 10]
    body = []
    for name, retry in _NEIGHBOURS.items():
        say(f"contention: {name}")
        results = {each: simulate(each, retry) for each in crowded}
        failed, of = failures_in_the_hardest(retry, seeds=range(10))
        goodput = [
            result.commits_a_second / max(each.commits_a_second for each in measured[scenario].values())
            for scenario, result in results.items()
        ]
        attempts = [
            result.attempts_per_commit / measured[scenario][CONNECTORS].attempts_per_commit
            for scenario, result in results.items()
            if scenario.rows == 1
        ]
        body.append(
            [
                name,
                str(sum(each.failed for each in results.values())),
                f"{failed} of {of:,}",
                f"{min(goodput):.0%}",
                f"{max(attempts):.3f}",
                f"{max(each.p99_ms for each in results.values()):,.0f}",
            ]
        )
    columns = ["policy", "failed", "in the hardest", "least commits", "most attempts, of the connectors'", "longest p99, ms"]
    return table(columns, body)


def _never_waiting(measured: Measured, say: Say) -> str:
    """Whoever never waits has most commits of all."""
    say("contention: policies that never wait")
    hasty = {
        "no retry": OCCRetryConfig(max_attempts=1),
        "three attempts at once": OCCRetryConfig(base_delay_ms=0.001, max_delay_ms=0.001),
    }
    most = measure(scenarios(workers=(8, 16, 32, 64), rows=(1, 10)), hasty, seconds=10.0)
    share = {
        scenario: measured[scenario][OURS].commits_a_second / max(each.commits_a_second for each in results.values())
        for scenario, results in most.items()
    }
    below = {scenario: each for scenario, each in share.items() if each < 0.85}
    failed = max(each.failed_share for results in most.values() for each in results.values())
    return f"""Whoever never waits has more commits than any of these, and no use of them: with no retry, or three attempts
without a delay, up to {failed:.0%} of the handlers fail. Against these two as well, `for_lambda()` has 85 % of the most in
{len(share) - len(below)} of {len(share)} scenarios (8 to 64 workers, 1 and 10 rows), and {min(share.values()):.0%} at least.
Delays that rise more steeply (with the square of the attempts, or all at once after the first few) have the 85 % there too, but
let newcomers pass more: some handlers fail in the hardest scenario."""


_ELSEWHERE = {
    "64 workers, 100 ms of pause between handlers": replace(HARDEST, pause_ms=100),
    "64 workers, 50 ms of work in the function": replace(HARDEST, work_ms=50),
    "the same, 10 rows": replace(HARDEST, work_ms=50, rows=10),
    "64 workers, every fourth at 40 ms": replace(HARDEST, is_every_fourth_far=True),
    "64 workers, every fourth at 40 ms, 10 rows": replace(HARDEST, is_every_fourth_far=True, rows=10),
    "64 workers, a deadline of 3 s": replace(HARDEST, deadline=3),
    "64 workers, a deadline of 30 s": replace(HARDEST, deadline=30),
    "256 workers": replace(HARDEST, workers=256),
    "256 workers, a deadline of 30 s": replace(HARDEST, workers=256, deadline=30),
    "500 handlers at once, and no more": replace(HARDEST, workers=500, is_burst=True),
}


def _elsewhere(say: Say) -> str:
    say("contention: other scenarios")
    measured = measure(list(_ELSEWHERE.values()), seed=2)
    body = [[name, *(_cell(measured[scenario][policy]) for policy in POLICIES)] for name, scenario in _ELSEWHERE.items()]
    return table(["scenario", *POLICIES], body)


def main() -> None:
    """Print the chapter."""
    with served() as environment:
        print(section(environment, say=lambda line: print(line, file=sys.stderr)).text)


if __name__ == "__main__":
    main()
