"""The warm path: what the decorator, the transaction object and the check of the cached connection cost beyond the driver's
own work.

Measured as a share of one round trip of the driver on this machine, and, where `strace` is there, in system calls. Knows the
layer's public names, and how a session sends a flight. `python -m benchmarks.warm_path` prints the table.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from dsql_lambda import Transaction, cached_connection, with_dsql_transaction
from dsql_lambda.flight import Flight, Statement
from dsql_lambda.sql import bind
from dsql_lambda.transaction import BEGIN, COMMIT

from .latency import interleaved
from .local import credentials_of, options_of, served
from .report import Say, Section, number, quartiles, table, yes

_ROUNDS = 15
_TIMES = 200
_MOST = 0.1
_WRITE = "UPDATE accounts SET balance = balance + :a WHERE id = :id"


class _Context:
    """What Lambda hands to a handler."""

    function_name = "benchmark"

    @staticmethod
    def get_remaining_time_in_millis() -> int:
        """Enough."""
        return 30_000


def measure(environment: Mapping[str, str], *, rounds: int = _ROUNDS) -> dict[str, list[float]]:
    """Microseconds of each call, round by round. The flight is the driver's own work of the write."""
    options = options_of(environment)

    @with_dsql_transaction(options=options)
    def empty(event: Any, context: Any, tx: Transaction) -> None:
        pass

    @with_dsql_transaction(options=options)
    def write(event: Any, context: Any, tx: Transaction) -> None:
        tx.defer(_WRITE, a=1, id=1)

    def bare(event: Any, context: Any) -> None:
        pass

    def flight() -> None:
        query, values = bind(_WRITE, {"a": 1, "id": 1})
        session.fly([BEGIN, Statement(_WRITE, query.text, values, (), query.names), COMMIT])

    def answered(flight: Flight, **_: Any) -> None:
        flight.results[-1].command_tag = "COMMIT"

    connection = cached_connection(options)
    session = connection._session
    context = _Context()
    works: dict[str, Callable[[], Any]] = {
        "bare": lambda: bare({}, context),
        "empty": lambda: empty({}, context),
        "trip": lambda: connection.run("SELECT 1"),
        "flight": flight,
        "write": lambda: write({}, context),
    }
    elapsed = interleaved(works, rounds=rounds, times=_TIMES, clock=time.perf_counter)
    # A difference of two flights needs many short rounds: the machine's other work is in both.
    flights = {name: works[name] for name in ("flight", "write")}
    cpu = interleaved(flights, rounds=4 * rounds, times=_TIMES // 5, clock=time.thread_time)
    with patch.object(session, "exchange", answered):  # the layer alone, with nothing to wait for
        alone = interleaved({"alone": works["write"]}, rounds=rounds, times=_TIMES, clock=time.perf_counter)
    found = {**elapsed, **alone, **{f"{name} CPU": times for name, times in cpu.items()}}
    connection.close()
    return {name: [seconds * 1e6 for seconds in times] for name, times in found.items()}


_TRACED = """
import os
from dsql_lambda import with_dsql_transaction
class Context:
    get_remaining_time_in_millis = staticmethod(lambda: 30000)
@with_dsql_transaction
def empty(event, context, tx):
    pass
@with_dsql_transaction
def write(event, context, tx):
    tx.defer("UPDATE accounts SET balance = balance + :a WHERE id = :id", a=1, id=1)
for name, work in (("empty", empty), ("write", write)):
    for _ in range(3):
        work({}, Context)
    os.access(f"/begin-{name}", os.F_OK)
    work({}, Context)
    os.access(f"/end-{name}", os.F_OK)
"""


def system_calls(environment: Mapping[str, str]) -> dict[str, Counter[str]]:
    """The system calls of one warm call of an empty transaction, and of one with a deferred write; empty without `strace`."""
    strace = shutil.which("strace")
    if strace is None:
        return {}
    with tempfile.TemporaryDirectory() as place:
        trace = Path(place, "trace")
        done = subprocess.run(
            [strace, "-qq", "-o", str(trace), sys.executable, "-c", _TRACED],
            env={**os.environ, **environment},
            capture_output=True,
            check=False,
        )
        if done.returncode or not trace.exists():
            return {}
        said = trace.read_text(errors="replace")
    return {
        name: Counter(re.findall(r"^(\w+)\(", said.split(f"/begin-{name}")[1].split(f"/end-{name}")[0], re.MULTILINE)[:-1])
        for name in ("empty", "write")
    }


def section(environment: Mapping[str, str], *, say: Say) -> Section:
    """The page's chapter."""
    say("warm path: the decorator on a cached connection")
    with credentials_of(environment):
        found = measure(environment)
        calls = system_calls(environment)
    trip = found["trip"]
    own = [with_ - without for with_, without in zip(found["empty"], found["bare"], strict=True)]
    more = [with_ - without for with_, without in zip(found["write CPU"], found["flight CPU"], strict=True)]
    alone = [with_ - without for with_, without in zip(found["alone"], found["bare"], strict=True)]
    shares = {
        "an empty transaction, beyond the bare function (elapsed)": own,
        "a deferred write whose flight is answered at once, beyond the bare function (elapsed)": alone,
        "a deferred write, beyond the same flight sent by the driver alone (CPU time)": more,
    }
    round_trip = statistics.median(trip)
    rows = [
        [
            name,
            f"{number(statistics.median(values))} ({quartiles(values)})",
            number(statistics.median(values) / round_trip),
            yes(held=statistics.median(values) / round_trip <= _MOST),
        ]
        for name, values in shares.items()
    ]
    rows.append(
        ["one round trip of the driver on this machine (`SELECT 1`)", f"{number(round_trip)} ({quartiles(trip)})", "1", ""]
    )
    counted = "`strace` is not here, or may not trace: system calls were not counted."
    if calls:
        counted = "System calls of one warm call:\n\n" + table(
            ["transaction", "system calls"],
            [[name, ", ".join(f"{call} {count}" for call, count in found_calls.items())] for name, found_calls in calls.items()],
        )
    text = f"""Decorator, transaction object and the check of the cached connection, beyond the driver's own work; medians of
interleaved rounds. The target is at most a tenth of one round trip of the driver.

{table(["cost of", "microseconds (half of the rounds lie in)", "of a round trip", "target holds"], rows)}

The last cost is of the same work as the one before it, but around a real wait for the answer. Why it is several times as
high was not found out; processor caches that went cold in the meantime are likely.

{counted}
"""
    return Section(title="Warm path", text=text)


def main() -> None:
    """Print the chapter."""
    with served() as environment:
        with credentials_of(environment):
            connection = cached_connection(options_of(environment))
            connection.run("CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL)")
            connection.run("INSERT INTO accounts VALUES (1, 100)")
        print(section(environment, say=lambda line: print(line, file=sys.stderr)).text)


if __name__ == "__main__":
    main()
