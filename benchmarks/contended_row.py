"""A contended row: threads that change one row of the local DSQL, by the layer itself, as a check of the simulation.

Knows threads, connections and a clock; nothing of the targets. The handlers are those of `optimistic`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from dsql_lambda import ConnectOptions, OCCRetryConfig, OCCRetryExhausted, Transaction, connect, run_transaction

from .local import options_of
from .optimistic import Scenario, simulate
from .report import Say, number, table

_SECONDS = 5.0
_WORKERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RealRun:
    """What a policy made of threads that change one row of the local DSQL."""

    commits: int
    failed: int
    attempts: int

    @property
    def failed_share(self) -> float:
        """Of the handlers that ended."""
        return self.failed / max(self.commits + self.failed, 1)

    @property
    def attempts_per_commit(self) -> float:
        """Those of failed handlers too."""
        return self.attempts / max(self.commits, 1)


def run_on(options: ConnectOptions, retry: OCCRetryConfig, *, workers: int, seconds: float) -> RealRun:
    """Let threads, with a connection each, run their handlers one after another for so many seconds."""
    counts = {"commits": 0, "failed": 0, "attempts": 0}
    lock = threading.Lock()
    go = threading.Barrier(workers + 1)
    stop = threading.Event()

    def work() -> None:
        def handler(tx: Transaction) -> None:
            with lock:
                counts["attempts"] += 1
            balance = tx.value("SELECT balance FROM contended WHERE id = 1")
            tx.defer("UPDATE contended SET balance = :balance WHERE id = 1", balance=balance + 1)

        with connect(options) as connection:
            go.wait()
            while not stop.is_set():
                try:
                    run_transaction(handler, source=connection, retry=retry, timeout=10.0)
                except OCCRetryExhausted:
                    ending = "failed"
                else:
                    ending = "commits"
                if not stop.is_set():
                    with lock:
                        counts[ending] += 1

    os.environ["POWERTOOLS_LOG_LEVEL"] = "CRITICAL"  # thousands of records would be measured with the rest
    with connect(options) as connection:
        connection.run("DROP TABLE IF EXISTS contended")
        connection.run("CREATE TABLE contended (id int PRIMARY KEY, balance int NOT NULL)")
        connection.run("INSERT INTO contended VALUES (1, 0)")
    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    go.wait()
    time.sleep(seconds)
    with lock:
        result = RealRun(**counts)
    stop.set()
    for thread in threads:
        thread.join()
    return result


def check(environment: Mapping[str, str], policies: Mapping[str, OCCRetryConfig], say: Say) -> str:
    """Each policy twice, in the order ABCCBA, beside its simulation."""
    options = options_of(environment)
    runs: dict[str, list[RealRun]] = {name: [] for name in policies}
    for name in [*policies, *reversed(list(policies))]:
        say(f"contention: {_WORKERS} threads on the local DSQL, {name}")
        runs[name].append(run_on(options, policies[name], workers=_WORKERS, seconds=_SECONDS))
    simulated = {name: simulate(Scenario(workers=_WORKERS, rows=1, round_trip_ms=2), retry) for name, retry in policies.items()}
    body = [
        [
            name,
            " and ".join(f"{each.failed_share:.0%}" for each in runs[name]),
            f"{simulated[name].failed_share:.0%}",
            " and ".join(number(each.attempts_per_commit) for each in runs[name]),
            number(simulated[name].attempts_per_commit),
            " and ".join(number(each.commits / _SECONDS) for each in runs[name]),
            " and ".join(number(each.attempts / _SECONDS) for each in runs[name]),
        ]
        for name in policies
    ]
    columns = ["policy", "failed", "simulated (2 ms)", "attempts a commit", "simulated", "commits a second", "attempts a second"]
    return f"""As a check, {_WORKERS} threads on one row of the local DSQL, {_SECONDS:g} s, twice. The order of the policies'
failures must be the simulation's. Commits a second are no measure here: server and threads keep the machine's processors busy, so
that each lost attempt takes time from a commit, and whoever needs fewest attempts for one, giving up included, has most.

{table(columns, body)}"""
