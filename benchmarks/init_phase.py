"""Init phase: what connecting while the function's module is imported takes off the first invocation, in a real environment.

Knows a function of its own, the layer that `sam build` makes, and AWS's Runtime Interface Emulator. The emulator starts the
runtime when the first event comes, and writes one duration for both; so the function measures itself.
`python -m benchmarks.init_phase` prints the table.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from dsql_lambda import connect
from dsql_local.sam import sam_cli
from dsql_local.sam.rie import RuntimeInterfaceEmulator
from dsql_local.sam.template import Function

from . import charts
from .distance import away
from .local import options_of, served
from .report import Say, Section, number, ratio, table

DISTANCES_MS = (0, 10)
_ROUNDS = 15
_PROJECT = Path(__file__).parents[1]
_FULL_PROCESSOR = (
    "https://serverlessland.com/content/service/lambda/guides/effectively-running-java-on-serverless/init-heavy-lifting"
)
_WAYS = {True: "connected at init", False: "`DSQL_CONNECT_AT_INIT=0`"}
_SOURCE = """
import time
started_at = time.perf_counter()
from dsql_lambda import with_dsql_transaction

@with_dsql_transaction
def read(event, context, tx):
    return tx.value("SELECT balance FROM accounts WHERE id = :id", id=1)

init = time.perf_counter() - started_at

def lambda_handler(event, context):
    called_at = time.perf_counter()
    read(event, context)
    return {"init": init, "handler": time.perf_counter() - called_at}
"""


class Durations(NamedTuple):
    """One environment's, in seconds: its module's import, its first two invocations, and from the first event to its answer."""

    init: float
    first: float
    second: float
    answered: float


def start(function: Function, environment: Mapping[str, str]) -> Durations:
    """One fresh environment. Raises `RuntimeError` if an invocation fails, or if a line is written: not connected at init."""
    with RuntimeInterfaceEmulator(function, environment) as emulator:
        sent_at = time.perf_counter()
        first = emulator.invoke({})
        answered = time.perf_counter() - sent_at
        second = emulator.invoke({})
    for each in (first, second):
        if each.failed or each.log_lines:
            raise RuntimeError(f"The function answered {each.response}, and wrote {each.log_lines}")
    return Durations(first.response["init"], first.response["handler"], second.response["handler"], answered)


def measure(
    environment: Mapping[str, str], *, rounds: int = _ROUNDS, say: Say = lambda _: None
) -> dict[tuple[int, bool], list[Durations]]:
    """By round trip (ms), and whether it connects at init; round by round, every second one in the reverse order."""
    say("init phase: sam build")
    layer = sam_cli.build(_PROJECT).parent / "DsqlLayer"
    found: dict[tuple[int, bool], list[Durations]] = {(each, at_init): [] for each in DISTANCES_MS for at_init in _WAYS}
    with ExitStack() as stack:
        code = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (code / "app.py").write_text(_SOURCE)
        function = Function(
            name="FirstInvocation",
            code=code,
            handler="app.lambda_handler",
            layers=(layer,),
            environment={},
            timeout=15,
            memory=512,
        )
        ports = {each: str(stack.enter_context(away(int(environment["DSQL_PORT"]), each))) for each in DISTANCES_MS}
        for turn in range(-1, rounds):  # the first round warms the disk's cache and does not count
            say(f"init phase: round {turn + 1} of {rounds}")
            for distance, at_init in reversed(found) if turn % 2 else found:
                switch = {} if at_init else {"DSQL_CONNECT_AT_INIT": "0"}
                durations = start(function, {**environment, **switch, "DSQL_PORT": ports[distance]})
                if turn >= 0:
                    found[distance, at_init].append(durations)
    return found


def section(environment: Mapping[str, str], *, say: Say) -> Section:
    """The page's chapter, with its chart; a sentence where there is no emulator."""
    if sys.platform != "linux":
        return Section(title="Init phase", text="Not measured here: the Runtime Interface Emulator runs on Linux only.")
    with connect(options_of(environment)) as connection:
        connection.run("DROP TABLE IF EXISTS accounts")
        connection.run("CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL)")
        connection.run("INSERT INTO accounts VALUES (1, 100)")
    found = measure(environment, say=say)
    return Section(title="Init phase", text=text_of(found), charts={"init-phase.svg": _chart(found)})


def text_of(found: Mapping[tuple[int, bool], list[Durations]]) -> str:
    """The chapter's text."""
    rows = []
    for (distance, at_init), durations in found.items():
        without = found[distance, False]
        of_first = [other.first / own.first for other, own in zip(without, durations, strict=True)]
        of_both = [other.answered / own.answered for other, own in zip(without, durations, strict=True)]
        rows.append(
            [
                f"{distance} ms, {_WAYS[at_init]}",
                *(f"{number(statistics.median(values) * 1000)} ms" for values in zip(*durations, strict=True)),
                *((ratio(of_first), ratio(of_both)) if at_init else ("", "")),
            ]
        )
    head = ["round trip", "module's import", "first invocation", "second", "runtime's start and first invocation"]
    rounds = len(next(iter(found.values())))
    return f"""The decorator connects while the function's module is imported, in Lambda's init phase, unless
`DSQL_CONNECT_AT_INIT=0`. Measured in AWS's Runtime Interface Emulator, with the layer that `sam build` makes and a handler that
reads one row, each time in a fresh environment; median of {rounds} rounds, every second one in the reverse order; ratios are
taken within a round.

The emulator starts the runtime only when the first event comes, and writes one duration for both. So the function measures
itself: its module's import, connecting included, and each invocation from the handler's call to its return. The last duration is
the caller's, from the first event to its answer: Python's start, the runtime interface client, the import and the invocation.

{table([*head, "first without, times with", "all of it without, times with"], rows)}

![init phase](init-phase.svg)

All of it together takes about as long, for connecting is moved and not saved. What the emulator cannot show is what that gains in
Lambda: the init phase [has a whole processor]({_FULL_PROCESSOR}), of which an invocation gets a share
by the function's memory, and an environment that Lambda starts in advance is connected before its first event comes.
"""


def _chart(found: Mapping[tuple[int, bool], list[Durations]]) -> str:
    return charts.bars(
        "The first invocation in a fresh environment",
        {
            f"{distance} ms of round trip": {
                _WAYS[at_init].strip("`"): statistics.median(each.first for each in found[distance, at_init]) * 1000
                for at_init in _WAYS
            }
            for distance in DISTANCES_MS
        },
        unit="ms",
    )


def main() -> None:
    """Print the chapter."""
    with served() as environment:
        print(section(environment, say=lambda line: print(line, file=sys.stderr)).text)


if __name__ == "__main__":
    main()
