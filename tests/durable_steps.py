"""Steps of durable executions that are killed at checkpoints and cut at COMMIT: `python -m tests.durable_steps --count 1000`.

At every second checkpoint the function dies, in turn before it was recorded and just after. Every step's transaction meets a
fault: in turn each message of the flight that commits, COMMIT itself, a conflict, an unavailable server. `--every 6` means every
sixth checkpoint and step. Each step must be applied once. Prints its figures as a line of JSON, and ends with 1 if one was not.

The SDK polls for the end of an invocation ten times a second, so a kill costs a twentieth of a second of waiting: executions
run side by side, and a fault is asked for in a comment of the step's own statement, so that it strikes that step.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.durable_runner import AFTER, BEFORE, IS_THERE, run

from dsql_lambda import ConnectOptions, Pool, Transaction, durable_transaction
from dsql_lambda.credentials import Credentials
from dsql_lambda.durable import RECEIPTS
from dsql_local import LocalDsql

STEPS_AN_EXECUTION = 10
_SIDE_BY_SIDE = 8
_MESSAGES = ("at-parse", "at-bind", "at-describe", "at-execute", "at-sync")
_FAULTS = (
    *(f"cut {place}" for place in (*_MESSAGES, "mid-reply", "after-reply")),
    "cut after-commit-sent",
    "cut after-commit-sent applied=no",
    "conflict",
    "unavailable applied=yes",
    "unavailable",
)
_ADD = "UPDATE done SET runs = runs + 1 WHERE execution = :e AND step = :s"


def execution(pool: Pool, number: int, every: int) -> Counter[str]:
    """One execution, to its end: how often it was killed, and which faults its steps met."""
    from aws_durable_execution_sdk_python import durable_execution

    met: Counter[str] = Counter()

    def step(event: dict[str, Any], each: int) -> Callable[[Transaction], int]:
        def add(tx: Transaction) -> int:
            turn, rest = divmod(number * STEPS_AN_EXECUTION + each, every)
            asked = ""
            if tx.attempt == 1 and not rest:
                fault = _FAULTS[turn % len(_FAULTS)]
                met[fault] += 1
                asked = f" /* dsql: {fault} */"
            tx.defer(_ADD + asked, e=event["execution"], s=each)
            return each

        return add

    @durable_execution  # type: ignore[untyped-decorator] # the SDK is not among this project's own packages
    def handler(event: dict[str, Any], context: Any) -> str:
        for each in range(STEPS_AN_EXECUTION):
            if durable_transaction(context, step(event, each), name=f"step {each}", source=pool) != each:
                raise AssertionError("another step's result")
        return "done"

    apart = max(every, 2)  # a checkpoint that is tried again is not killed at once
    numbers = range(1 + number % apart, 4 * STEPS_AN_EXECUTION, apart)
    kills = {each: AFTER if (each // apart + number // apart) % 2 else BEFORE for each in numbers}
    status, result, checkpoints = run(handler, {"execution": number}, kills, seconds=600)
    if (status, result) != ("SUCCEEDED", "done"):
        raise AssertionError(f"the execution ended as {status}: {result}")
    met.update(f"killed {when} its checkpoint" for each, when in kills.items() if each <= checkpoints)
    return met


def campaign(dsql: LocalDsql, steps: int, every: int, first: int) -> dict[str, Any]:
    """So many steps, rounded up to whole executions: the figures."""
    last = first - 1 - -steps // STEPS_AN_EXECUTION
    dsql.execute(
        f"CREATE TABLE done (execution int, step int, runs int, PRIMARY KEY (execution, step)); {RECEIPTS.create_table()}"
    )
    for begin in range(first, last + 1, 100):  # a transaction modifies 3,000 rows at the most
        numbers = f"generate_series({begin}, {min(begin + 99, last)}) AS e, generate_series(0, {STEPS_AN_EXECUTION - 1}) AS s"
        dsql.execute(f"INSERT INTO done SELECT e, s, 0 FROM {numbers}")
    environ = dsql.environment
    credentials = Credentials(access_key=environ["AWS_ACCESS_KEY_ID"], secret_key=environ["AWS_SECRET_ACCESS_KEY"])
    options = ConnectOptions.from_env(environ, credentials=credentials)
    with Pool(options, max_size=_SIDE_BY_SIDE) as pool, ThreadPoolExecutor(_SIDE_BY_SIDE) as threads:
        met = sum(threads.map(lambda number: execution(pool, number, every), range(first, last + 1)), Counter[str]())
    ((done, lost, doubled),) = dsql.execute(
        "SELECT count(*), count(*) FILTER (WHERE runs = 0), count(*) FILTER (WHERE runs > 1) FROM done"
    )
    figures = {
        "steps": int(done or 0),
        "steps_an_execution": STEPS_AN_EXECUTION,
        "lost": int(lost or 0),
        "doubled": int(doubled or 0),
    }
    return {"campaign": "durable steps", **figures, "kinds": met}


def main() -> int:
    """Figures as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.durable_steps", description="Durable steps, killed and cut.")
    parser.add_argument("--count", type=int, default=10_000, help="how many steps (default: 10,000)")
    parser.add_argument("--every", type=int, default=1, help="only every so many steps and checkpoints meet a fault (default: 1)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first execution: which ones meet what goes by it")
    given = parser.parse_args()
    if not IS_THERE:
        parser.error("the SDK of durable functions is not there: `make test` fetches it into .venv/durable")
    logging.disable(logging.CRITICAL)  # the SDK logs each kill
    begun_at = time.monotonic()
    with LocalDsql() as dsql:
        figures = campaign(dsql, given.count, given.every, given.first)
    print(json.dumps({**figures, "seconds": round(time.monotonic() - begun_at, 1)}), flush=True)
    return 1 if figures["lost"] or figures["doubled"] else 0


if __name__ == "__main__":
    sys.exit(main())
