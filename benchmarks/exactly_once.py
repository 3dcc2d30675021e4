"""Exactly-once: what a key costs a transaction at a distance, and on crowded rows.

Knows `Idempotency` and the works that it is put on; the distance is `distance`'s. `python -m benchmarks.exactly_once` prints the
chapter.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from dsql_lambda import ConnectOptions, Idempotency, OCCRetryConfig, Transaction, TransactionError, connect, with_dsql_transaction

from .distance import away
from .latency import interleaved
from .local import options_of, served
from .report import Say, Section, number, ratio, table, yes

_ROUND_TRIP_MS = 2
_ROUNDS = 9
_TIMES = 40
_WORKERS = 16
_SECONDS = 5.0
_DEADLINE = 10.0
_LOOKUPS = ("without", "first", "ride")

_SCHEMA = (
    "DROP TABLE IF EXISTS branches, tellers, history, payers",
    "CREATE TABLE branches (id int PRIMARY KEY, balance int NOT NULL)",
    "CREATE TABLE tellers (id int PRIMARY KEY, balance int NOT NULL)",
    "CREATE TABLE payers (id int PRIMARY KEY, balance int NOT NULL)",
    "CREATE TABLE history (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), payer int, teller int, branch int, delta int)",
)


def writes_only(event: dict[str, Any], tx: Transaction) -> None:
    """Two deferred writes: one flight without a key."""
    for number_of in (1, 2):
        tx.defer("UPDATE payers SET balance = balance + :a WHERE id = :id", a=1, id=number_of)


def read_and_writes(event: dict[str, Any], tx: Transaction) -> None:
    """A read and two writes: two flights without a key."""
    tx.value("SELECT balance FROM payers WHERE id = 1")
    writes_only(event, tx)


def tpc_b(event: dict[str, Any], tx: Transaction) -> int:
    """Like TPC-B: an account, a teller, a branch, and a line of history."""
    payer, teller, branch = event["n"] % 1000, event["n"] % 100, event["n"] % 10
    balance: int = tx.value("UPDATE payers SET balance = balance + 1 WHERE id = :id RETURNING balance", id=payer)
    tx.defer("UPDATE tellers SET balance = balance + 1 WHERE id = :id", id=teller)
    tx.defer("UPDATE branches SET balance = balance + 1 WHERE id = :id", id=branch)
    tx.defer("INSERT INTO history (payer, teller, branch, delta) VALUES (:p, :t, :b, 1)", p=payer, t=teller, b=branch)
    return balance


def hot_row(event: dict[str, Any], tx: Transaction) -> int:
    """Everybody changes one row."""
    balance: int = tx.value("SELECT balance FROM branches WHERE id = 0")
    tx.defer("UPDATE branches SET balance = :b WHERE id = 0", b=balance + 1)
    return balance


WORKS = {"deferred writes": writes_only, "a read and writes": read_and_writes}
CROWDS = {"like TPC-B": tpc_b, "one hot row": hot_row}


def keyed(function: Callable[..., Any], lookup: str, **more: Any) -> Callable[..., Any]:
    """The function in its transaction, with that lookup or without a key."""
    key = Idempotency(key="n", lookup=lookup, scope=function.__name__) if lookup != "without" else None  # type: ignore[arg-type]
    decorated: Callable[..., Any] = with_dsql_transaction(idempotency=key, **more)(function)
    return decorated


def prepare(options: ConnectOptions) -> None:
    """The tables, filled."""
    with connect(options) as connection:
        for statement in (*_SCHEMA, Idempotency(key="n").create_table()):
            connection.run(statement)
        for name, count in (("branches", 10), ("tellers", 100), ("payers", 1000)):
            connection.run(f"INSERT INTO {name} SELECT n, 0 FROM generate_series(0, {count - 1}) AS n")


def costs(options: ConnectOptions, *, rounds: int = _ROUNDS, times: int = _TIMES) -> dict[str, dict[str, list[float]]]:
    """Seconds of each work with each lookup, round by round."""
    found = {}
    events = itertools.count()
    with away(options.port, _ROUND_TRIP_MS) as port, connect(options.replace(port=port)) as connection:
        for name, work in WORKS.items():
            handlers = {lookup: keyed(work, lookup, source=connection) for lookup in _LOOKUPS}
            calls = {lookup: (lambda handler=handler: handler({"n": next(events)})) for lookup, handler in handlers.items()}
            found[name] = interleaved(calls, rounds=rounds, times=times, clock=time.perf_counter)
    return found


def crowd(options: ConnectOptions, work: Callable[..., Any], lookup: str, *, seconds: float = _SECONDS) -> tuple[int, int]:
    """Threads with a connection each: handlers that ended well, and those that failed within their deadline."""
    counts = {"done": 0, "failed": 0}
    events = itertools.count(time.time_ns() // 1000)
    lock = threading.Lock()
    go = threading.Barrier(_WORKERS + 1)
    stop = threading.Event()

    def handle() -> None:
        with connect(options) as connection:
            handler = keyed(work, lookup, source=connection, retry=OCCRetryConfig.for_lambda(), timeout=_DEADLINE)
            go.wait()
            while not stop.is_set():
                try:
                    handler({"n": next(events)})
                except TransactionError:
                    ending = "failed"
                else:
                    ending = "done"
                with lock:
                    counts[ending] += 1

    threads = [threading.Thread(target=handle) for _ in range(_WORKERS)]
    for thread in threads:
        thread.start()
    go.wait()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return counts["done"], counts["failed"]


def section(environment: Mapping[str, str], *, say: Say) -> Section:
    """The chapter, measured."""
    options = options_of(environment)
    os.environ["POWERTOOLS_LOG_LEVEL"] = "CRITICAL"  # thousands of records would be measured with the rest
    logging.getLogger("dsql_lambda").setLevel(logging.CRITICAL)
    prepare(options)
    say(f"exactly-once: transactions at {_ROUND_TRIP_MS} ms")
    found = costs(options)
    body = []
    for name, seconds in found.items():
        without = seconds["without"]
        for lookup in _LOOKUPS[1:]:
            ratios = [each / base for each, base in zip(seconds[lookup], without, strict=True)]
            body.append([f"{name}, `{lookup}`", ratio(ratios)])
    crowds = []
    failed_at_all = 0
    for name, work in CROWDS.items():
        done = {}
        for lookup in _LOOKUPS:
            say(f"exactly-once: {_WORKERS} threads, {name}, {lookup}")
            done[lookup], failed = crowd(options, work, lookup)
            failed_at_all += failed
            share = number(done[lookup] / max(done["without"], 1))
            crowds.append([f"{name}, {'without a key' if lookup == 'without' else f'`{lookup}`'}", f"{failed}", share])
    text = f"""What a key costs, as a ratio to the same transaction without one, at a round trip of {_ROUND_TRIP_MS} ms. `first`
reads the key in a flight of its own, with BEGIN; `ride` adds a row to the flight of COMMIT.

{table(["transaction", "with a key / without"], body)}

{_WORKERS} threads on the local DSQL, {_SECONDS:g} s each, with a deadline of {_DEADLINE:g} s a handler.

{table(["work", "failed handlers", "done / done without a key"], crowds)}

| target | held |
| --- | ---: |
| no handler fails before its deadline, with a key or without | {yes(held=failed_at_all == 0)} |
"""
    return Section(title="Exactly-once", text=text)


if __name__ == "__main__":
    with served() as served_environment:
        print(section(served_environment, say=lambda line: print(line, file=sys.stderr)).text)
