"""All campaigns in one run: `python -m tests.reliability` writes `docs/reliability.md`. `make reliability` calls it."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.campaigns import figures_of
from tests.hostile import GRACE_SECONDS, PATIENCE_SECONDS
from tests.promises import DOUBLED, FALSE, FOREIGN, HUNG, LEFT_OPEN, LOST, PATHS, POISONED, REPEATED, REPLACED, SWALLOWED, TOKEN

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"
KINDS = {
    DOUBLED: "doubled",
    FALSE: "false",
    LOST: "lost",
    POISONED: "poisoned",
    FOREIGN: "mixed up",
    LEFT_OPEN: "left open",
    HUNG: "hung",
    REPEATED: "repeated",
    SWALLOWED: "swallowed",
    REPLACED: "replaced",
    TOKEN: "shown",
}
MEANINGS = {
    "doubled": "a transaction was applied twice",
    "false": "a value was returned and nothing was committed, or another attempt than the value's",
    "lost": "an error that does not say that COMMIT was under way, and yet the transaction was committed",
    "poisoned": "the next transaction on the same source failed",
    "mixed up": "the next transaction got the answer of another statement",
    "left open": "a session, or a transaction, stayed open on the server",
    "hung": "a call had to be ended after ten seconds",
    "repeated": "an interruption was taken for a reason to run the function again",
    "swallowed": "the caller's exception did not reach the caller",
    "replaced": "the caller got another error than its own exception or `CommitOutcomeUnknown` from it",
    "shown": "the token was in a local variable of a frame of the traceback",
}


def main() -> None:
    """Run everything, two processes at a time, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description="Run all campaigns, write docs/reliability.md.")
    parser.add_argument("--into", type=Path, default=PAGE)
    parser.add_argument("--share", type=int, default=1, help="only one of so many runs, for a look at the page")
    arguments = parser.parse_args()
    share = arguments.share
    begun = time.monotonic()

    def both(command: str, *differences: str) -> list[dict[str, Any]]:
        print(f"[{time.monotonic() - begun:5.0f} s] {command}", file=sys.stderr, flush=True)
        return figures_of(*(f"tests.{command} {difference}" for difference in differences), says=True)

    def halves(command: str, count: int) -> list[dict[str, Any]]:
        return both(command, *(f"--count {count // 2 // share} --seed {seed}" for seed in (11, 12)))

    interruptions = both("interruptions", *(f"--every {2 * share} --first {first}" for first in (1, 2)))
    alarms = halves("alarms", 20_000)
    cuts = halves("cuts", 2_400)
    hostile = halves("hostile", 10_000)
    text = page(interruptions, alarms, cuts, hostile, (time.monotonic() - begun) / 60)
    arguments.into.write_text(text, encoding="utf-8")
    print(f"[{time.monotonic() - begun:5.0f} s] wrote {arguments.into}", file=sys.stderr)


def page(
    interruptions: list[dict[str, Any]], alarms: list[dict[str, Any]], cuts: list[dict[str, Any]], hostile: list[dict[str, Any]], minutes: float
) -> str:
    """The page's text."""
    rows = [row(f"every bytecode: {path}", _of(interruptions, path)) for path in PATHS]
    rows.append(row("**every bytecode, all paths**", interruptions))
    rows += [row(name, _of(alarms, name)) for name in ("alarms", "alarms while connecting", "another thread")]
    rows.append(row("cuts", cuts))
    positions = sum({each["path"]: each["positions"] for each in interruptions}.values())
    endings: Counter[str] = sum((Counter(each["endings"]) for each in hostile), Counter())
    conversations = sum(each["conversations"] for each in hostile)
    return f"""# Reliability

What a transaction promises, and what was done to break it. `make reliability` wrote this page on {datetime.now(UTC):%Y-%m-%d}, in
{minutes:.0f} minutes, on {os.cpu_count()} cores ({platform.machine()}) with Python {platform.python_version()}. The server is the local DSQL in a process of
its own; after each run the database is asked, past the front, what was applied.

## The promise

For every source of connections: the cached one, a `Pool`, a `Connection`.

1. A value is returned: its transaction is committed, once, by this call.
2. Any error but `CommitOutcomeUnknown`, or an interruption whose note (`__notes__`) says that COMMIT was sent: nothing was applied.
3. The next transaction on the same source works, and no answer of an earlier statement is given to a later one.
4. Nothing runs past the deadline but the reserve, whatever the server sends, and nothing is left open on the server.

## The campaigns

| campaign | command | what it does | in every run of the suite |
| --- | --- | --- | --- |
| every bytecode | `make interruptions` | raises an `Exception`, `KeyboardInterrupt` and `MemoryError` once at each of {positions:,} positions of {len(PATHS)} paths, in our code, the driver's and the standard library's under it | all of the commit path, some of the others: `tests/test_interruptions.py` |
| alarms | `make alarms` | real SIGALRMs at random moments whose handler raises; exceptions that another thread sets (`PyThreadState_SetAsyncExc`) | 3,000: `tests/test_alarms.py` |
| cuts | `make cuts` | FIN, RST, silence and SIGSTOP at random bytes of connecting, BEGIN, a statement, a stream, COMMIT and ROLLBACK, in both directions; deadlines of 0, 1, 5, 50 ms and 2 s | 400: `tests/test_cuts.py` |
| hostile server | `make hostile` | breaks the protocol, while connecting and in a transaction: lengths, types, bodies, floods, stray, doubled and missing messages | 5,000: `tests/test_hostile_server.py` |

A position is a place where CPython can raise what the running code did not: the entry of a function, before an instruction that may fail,
and after a call into C, whose effect is there while its value is lost. An import is not interrupted: each path is warm but for its connection.

## The figures

*Unknown* are `CommitOutcomeUnknown` and interruptions with the note; *of them applied* how many had been committed. What follows should
be 0: {"; ".join(f"*{name}*: {meaning}" for name, meaning in MEANINGS.items())}.

| campaign | runs | interrupted | unknown | of them applied | {" | ".join(MEANINGS)} |
| --- | {" | ".join(["---:"] * (4 + len(MEANINGS)))} |
{chr(10).join(rows)}

The latest call that was cut ended {max(each["latest_seconds"] for each in cuts) * 1000:.0f} ms after its deadline.

The hostile server: {conversations:,} conversations, {sum(len(each["faults"]) for each in hostile)} faults. A fault is an error of a foreign type, the token in a local variable of any frame of a traceback, a
value without COMMIT's tag, another statement's answer, or an end more than {GRACE_SECONDS:g} s after its limit of {PATIENCE_SECONDS:g} s. The longest ended {max(each["longest_seconds"] for each in hostile) * 1000:.0f} ms after its limit; the client's
memory grew by {max(each["more_memory_mib"] for each in hostile):.0f} MiB.

| ended as | conversations |
| --- | ---: |
{chr(10).join(f"| {name} | {number:,} |" for name, number in endings.most_common())}
"""


def _of(figures: list[dict[str, Any]], path: str) -> list[dict[str, Any]]:
    return [each for each in figures if each["path"] == path]


def row(name: str, figures: Iterable[dict[str, Any]]) -> str:
    """One campaign's line."""
    found = list(figures)
    numbers = [sum(each[key] for each in found) for key in ("runs", "interrupted", "unknown", "applied")]
    faults: Counter[str] = sum((Counter(each["faults"]) for each in found), Counter())
    return f"| {name} | {' | '.join(f'{number:,}' for number in [*numbers, *(faults[kind] for kind in KINDS)])} |"


if __name__ == "__main__":
    main()
