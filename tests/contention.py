"""Many processes and few rows, on the local DSQL: `python -m tests.contention --handlers 100`.

    tpc-b     an account's balance is read; account, teller and branch are updated, and a row of history inserted: 4 branches, 40
              tellers, 2,000 accounts
    hot row   one row is read and written by everybody

Each with no key, with one that is read first, and with one that rides with COMMIT. A handler has ten seconds, as one behind
an API may; none may fail, and what the database holds must be what was answered. Prints the figures of each as a line of JSON,
and ends with 1 if a promise did not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from dsql_lambda import DatabaseError, DsqlError, Idempotency, Transaction, with_dsql_transaction
from dsql_local import LocalDsql
from dsql_local.lambda_context import LambdaContext

DEADLINE_SECONDS = 10.0
BRANCHES, TELLERS, ACCOUNTS = 4, 40, 2_000
MODES = ("no key", "first", "ride")

_SCHEMA = f"""
    CREATE TABLE branches (id int PRIMARY KEY, balance bigint NOT NULL);
    CREATE TABLE tellers (id int PRIMARY KEY, balance bigint NOT NULL);
    CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL);
    CREATE TABLE history (key text, id uuid DEFAULT gen_random_uuid(), teller int, branch int, account int, delta int,
        PRIMARY KEY (key, id));
    CREATE TABLE counters (mode text PRIMARY KEY, value int NOT NULL);
    INSERT INTO branches SELECT n, 0 FROM generate_series(0, {BRANCHES - 1}) AS n;
    INSERT INTO tellers SELECT n, 0 FROM generate_series(0, {TELLERS - 1}) AS n;
    INSERT INTO accounts SELECT n, 0 FROM generate_series(0, {ACCOUNTS - 1}) AS n;
    INSERT INTO counters VALUES {", ".join(f"('{mode}', 0)" for mode in MODES)};
    {Idempotency(key="key").create_table()}"""
_SUMS = """
    SELECT (SELECT sum(balance) FROM branches), (SELECT sum(balance) FROM tellers), (SELECT sum(balance) FROM accounts),
        (SELECT coalesce(sum(delta), 0) FROM history)"""


# A worker.


def tpc_b(event: dict[str, Any], context: LambdaContext, tx: Transaction) -> dict[str, Any]:
    """What TPC-B's transaction does, with its writes in one flight."""
    delta, account, teller, branch = event["delta"], event["account"], event["teller"], event["branch"]
    before = tx.value("SELECT balance FROM accounts WHERE id = :id", id=account)
    for table, which in (("accounts", account), ("tellers", teller), ("branches", branch)):
        tx.defer(f"UPDATE {table} SET balance = balance + :delta WHERE id = :id", expect_rows=1, delta=delta, id=which)
    tx.defer(
        "INSERT INTO history (key, teller, branch, account, delta) VALUES (:key, :teller, :branch, :account, :delta)",
        **event,
    )
    return {"balance": before + delta, "attempt": tx.attempt}


def hot_row(event: dict[str, Any], context: LambdaContext, tx: Transaction) -> dict[str, Any]:
    """Read what everybody writes."""
    value = tx.value("SELECT value FROM counters WHERE mode = :mode", mode=event["mode"])
    tx.defer("UPDATE counters SET value = :value WHERE mode = :mode", expect_rows=1, value=value + 1, mode=event["mode"])
    return {"value": value + 1, "attempt": tx.attempt}


WORKLOADS: dict[str, Callable[..., dict[str, Any]]] = {"tpc-b": tpc_b, "hot row": hot_row}


def event_of(workload: str, mode: str, key: str, dice: random.Random) -> dict[str, Any]:
    """What one handler is to do."""
    if workload == "hot row":
        return {"key": key, "mode": mode}
    teller = dice.randrange(TELLERS)
    branch = teller * BRANCHES // TELLERS
    return {
        "key": key,
        "teller": teller,
        "branch": branch,
        "account": dice.randrange(ACCOUNTS),
        "delta": dice.randint(-5_000, 5_000),
    }


def work(number: int, handlers: int) -> None:
    """Handle so many events of each round that the campaign asks for."""
    decorated = {
        (workload, mode): with_dsql_transaction(
            idempotency=None if mode == "no key" else Idempotency(key="key", lookup=mode, scope=workload)  # type: ignore[arg-type]
        )(function)
        for workload, function in WORKLOADS.items()
        for mode in MODES
    }
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - the logger writes to standard output
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    print(file=told, flush=True)  # ready
    for line in sys.stdin:
        workload, mode = json.loads(line)
        dice = random.Random(f"{workload} {mode} {number}")
        attempts, seconds, errors = [], [], Counter[str]()
        for each in range(handlers):
            event = event_of(workload, mode, f"{workload} {mode} {number} {each}", dice)
            begun_at = time.monotonic()
            try:
                attempts.append(decorated[workload, mode](event, LambdaContext(timeout=DEADLINE_SECONDS))["attempt"])
            except (DsqlError, DatabaseError) as error:
                errors[type(error).__name__] += 1
            seconds.append(time.monotonic() - begun_at)
        print(json.dumps({"attempts": attempts, "seconds": seconds, "errors": errors}), file=told, flush=True)


# The campaign.


def rounds(dsql: LocalDsql, workers: int, handlers: int) -> list[tuple[dict[str, Any], list[str]]]:
    """Each workload in each mode, by the same processes: figures, and what did not hold."""
    dsql.execute(_SCHEMA)
    lambda_environment = {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:1", "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.contention", "--worker", str(number), "--handlers", str(handlers)],
            env={**os.environ, **dsql.environment, **lambda_environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(workers)
    ]

    def hear() -> list[str]:
        return [process.stdout.readline() for process in processes if process.stdout is not None]

    try:
        hear()
        found = []
        for workload in WORKLOADS:
            for mode in MODES:
                begun_at = time.monotonic()
                for process in processes:
                    assert process.stdin is not None
                    process.stdin.write(json.dumps([workload, mode]) + "\n")
                    process.stdin.flush()
                said = [json.loads(line) for line in hear()]
                found.append(figures_of(dsql, workload, mode, said, time.monotonic() - begun_at))
        return found
    finally:
        for process in processes:
            process.communicate()


def figures_of(
    dsql: LocalDsql, workload: str, mode: str, said: list[dict[str, Any]], lasted: float
) -> tuple[dict[str, Any], list[str]]:
    """One round, held against what the database has."""
    attempts = [each for one in said for each in one["attempts"]]
    seconds = sorted(each for one in said for each in one["seconds"])
    errors = sum((Counter(one["errors"]) for one in said), Counter[str]())
    if workload == "hot row":
        applied = int(dsql.execute(f"SELECT value FROM counters WHERE mode = '{mode}'")[0][0] or 0)
        sums = [applied]
    else:
        ((number, keys),) = dsql.execute(
            f"SELECT count(*), count(DISTINCT key) FROM history WHERE starts_with(key, '{workload} {mode} ')"
        )
        applied = int(number or 0)
        sums = [int(each or 0) for each in dsql.execute(_SUMS)[0]]
        if number != keys:
            errors["doubled"] += 1
    faults = [f"{workload}, {mode}: {count} times {name}" for name, count in errors.items()]
    if len(set(sums)) != 1:
        faults.append(f"{workload}, {mode}: the sums of branches, tellers, accounts and history are {sums}")
    figures = {
        "campaign": "contention",
        "workload": workload,
        "mode": mode,
        "workers": len(said),
        "handlers": len(seconds),
        "failed": sum(errors.values()),
        "lost": max(0, len(attempts) - applied),
        "doubled": max(0, applied - len(attempts)),
        "attempts_per_commit": round(sum(attempts) / max(1, len(attempts)), 2),
        "most_attempts": max(attempts, default=0),
        "p50_ms": round(statistics.median(seconds) * 1000),
        "p99_ms": round(seconds[int(len(seconds) * 0.99)] * 1000),
        "longest_ms": round(seconds[-1] * 1000),
        "commits_per_second": round(len(attempts) / lasted, 1),
    }
    if figures["lost"] or figures["doubled"]:
        faults.append(f"{workload}, {mode}: {len(attempts)} were answered, {applied} applied")
    return figures, faults


def main() -> int:
    """The figures of each round as a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.contention", description="Many handlers, few rows.")
    parser.add_argument("--handlers", type=int, default=100, help="of each worker in each round (default: 100)")
    parser.add_argument("--workers", type=int, default=16, help="processes (default: 16)")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker is not None:
        work(given.worker, given.handlers)
        return 0
    has_failed = False
    with LocalDsql() as dsql:
        for figures, faults in rounds(dsql, given.workers, given.handlers):
            print(json.dumps(figures), flush=True)
            for fault in faults:
                print(f"tests.contention: {fault}", file=sys.stderr)
            has_failed = has_failed or bool(faults)
    return has_failed


if __name__ == "__main__":
    sys.exit(main())
