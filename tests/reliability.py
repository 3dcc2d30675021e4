"""All campaigns in one run: `python -m tests.reliability` writes `docs/reliability.md`. `make reliability` calls it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.campaigns import figures_of
from tests.hostile import GRACE_SECONDS, PATIENCE_SECONDS
from tests.promises import (
    DOUBLED,
    FALSE,
    FOREIGN,
    HUNG,
    IGNORED,
    LEFT_OPEN,
    LOST,
    PATHS,
    POISONED,
    REPEATED,
    REPLACED,
    SWALLOWED,
    TOKEN,
)
from tests.soak_page import bank_chapter, contention_chapter, durable_chapter
from tests.tables import table

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
    IGNORED: "ignored",
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
    "ignored": "a finalizer raised an error of its own, which Python prints and ignores",
    "shown": "the token was in a local variable of a frame of the traceback",
}


CAMPAIGNS = {
    "every bytecode": (
        "`make interruptions`",
        (
            "raises an `Exception`, a `KeyboardInterrupt` and a `MemoryError` once at each position of every path, in our code, "
            "the driver's and the standard library's under it; forks at some of them"
        ),
        "all of the commit path, some of the others: `tests/test_interruptions.py`",
    ),
    "alarms": (
        "`make alarms`",
        (
            "real SIGALRMs at random moments whose handler raises; exceptions that another thread sets "
            "(`PyThreadState_SetAsyncExc`), also in the threads of a pool"
        ),
        "3,000: `tests/test_alarms.py`",
    ),
    "cuts": (
        "`make cuts`",
        (
            "FIN, RST and silence at random bytes of connecting, BEGIN, a statement, a stream, COMMIT and ROLLBACK, in both "
            "directions; SIGSTOP of the server and of the client; deadlines of 0, 1, 5, 50 ms and 2 s"
        ),
        "400: `tests/test_cuts.py`",
    ),
    "hostile server": (
        "`make hostile`",
        (
            "breaks TLS, or the protocol, while connecting and in a transaction: lengths, types, bodies, floods; stray, doubled "
            "and missing messages; an end at any byte"
        ),
        "5,000: `tests/test_hostile_server.py`",
    ),
}
"""The command, what it does, and how much of it every run of the suite does."""

HEAD = """# Reliability

What a transaction promises, and what was done to break it. `make reliability` wrote this page on {date}, in {minutes:.0f}
minutes, on {cores} cores ({machine}) with Python {python}. The server is the local DSQL in a process of its own;
after each run the database is asked, past the front, what was applied.

## The promise

For every source of connections: the cached one, a `Pool`, a `Connection`.

1. A value is returned: its transaction is committed, once, by this call.
2. Any error but `CommitOutcomeUnknown`, or an interruption whose note (`__notes__`) says that COMMIT was sent: nothing was
   applied.
3. The next transaction on the same source works, and no answer of an earlier statement is given to a later one.
4. Nothing runs past the deadline but the reserve, whatever the server sends, and nothing is left open on the server.

## The campaigns

{campaigns}

A position is a place where CPython can raise what the running code did not: the entry of a function, before an instruction that
may fail, and after a call into C, whose effect is there while its value is lost. {paths} paths have {positions:,} of them.
`first-failure` loads the modules that only a failure needs. No other import is interrupted: each path is warm, but for its
connection.

## The figures

{figures}

*Interrupted*: the exception was raised, or the link was cut, before the call was over. *Unknown*: `CommitOutcomeUnknown`, or an
interruption with the note; *applied*: of these, what had been committed. What follows should be 0.

{meanings}

The latest call that was cut ended {late:.0f} ms after its deadline.

## The hostile server

{conversations:,} conversations, {faults} faults. A fault is an error that is not the package's, the token in a local
variable of any frame of a traceback, a value without COMMIT's tag, another statement's answer, or an end more than {grace:g} s
after the limit of {limit:g} s. The longest ended {longest:.0f} ms after its limit; the client's memory grew by {memory:.0f} MiB.

{endings}

{bank}

{contention}

{durable}
"""


def main() -> None:
    """Run what has not been run yet, two processes at a time, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description="Run all campaigns, write the page.")
    parser.add_argument("--into", type=Path, default=PAGE)
    parser.add_argument("--share", type=int, default=1, help="only one of so many runs, for a look at the page")
    parser.add_argument("--keep", type=Path, help="a folder for figures, so that a run that was ended goes on from there")
    parser.add_argument("--soak", action="store_true", help="only the bank, contention and durable steps, and no page")
    arguments = parser.parse_args()
    share = arguments.share
    begun = time.monotonic()

    def kept(name: str, *commands: str) -> list[dict[str, Any]]:
        print(f"[{time.monotonic() - begun:5.0f} s] {name}", file=sys.stderr, flush=True)
        file = arguments.keep / f"{name}.json" if arguments.keep else None
        if file is not None and file.exists():
            known: list[dict[str, Any]] = json.loads(file.read_text())
            return known
        begun_at = time.monotonic()
        found = figures_of(*(f"tests.{command}" for command in commands), is_shown=True)
        found[0]["minutes"] = (time.monotonic() - begun_at) / 60
        if file is not None:
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(found))
        return found

    def counted(name: str, count: int) -> list[dict[str, Any]]:
        return kept(name, *(f"{name} --count {count // 2 // share} --seed {seed}" for seed in (11, 12)))

    soak = {
        "bank": [f"bank --seconds {max(120 // share, 4)} --transfers {100_000 // share} --seed 31"],
        "contention": [f"contention --handlers {max(100 // share, 5)}"],
        "durable": [f"durable_steps --count {5_000 // share} --first {first}" for first in (0, 5_000)],
    }
    found = {name: kept(name, *commands) for name, commands in soak.items()}
    if arguments.soak:
        return
    found |= {
        "alarms": counted("alarms", 20_000),
        "cuts": counted("cuts", 2_400),
        "hostile": counted("hostile", 10_000),
        "forks": kept("forks", *(f"interruptions --kind fork --every {22 * share} --first {first}" for first in (1, 12))),
    }
    found["interruptions"] = []
    for path in PATHS:
        found["interruptions"] += kept(path, *(f"interruptions {path} --every {2 * share} --first {first}" for first in (1, 2)))
    arguments.into.write_text(page(found), encoding="utf-8")
    if arguments.keep is not None:
        shutil.rmtree(arguments.keep)
    print(f"[{time.monotonic() - begun:5.0f} s] wrote {arguments.into}", file=sys.stderr)


def page(found: dict[str, list[dict[str, Any]]]) -> str:
    """The page's text."""
    interruptions, hostile = found["interruptions"], found["hostile"]
    rows = [row(f"every bytecode: {path}", of(interruptions, path)) for path in PATHS]
    rows += [row("**every bytecode, all paths**", interruptions), row("a fork", found["forks"])]
    rows += [
        row(name, of(found["alarms"], name))
        for name in ("alarms", "alarms while connecting", "another thread", "threads of a pool")
    ]
    rows.append(row("cuts", found["cuts"]))
    endings = sum((Counter(each["endings"]) for each in hostile), Counter[str]())
    return HEAD.format(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        minutes=sum(each.get("minutes", 0.0) for figures in found.values() for each in figures),
        cores=os.cpu_count(),
        machine=platform.machine(),
        python=platform.python_version(),
        campaigns=table(
            ("campaign", "command", "what it does", "in every run of the suite"),
            [(name, *more) for name, more in CAMPAIGNS.items()],
        ),
        positions=sum({each["path"]: each["positions"] for each in interruptions}.values()),
        paths=len(PATHS),
        figures=table(("campaign", "runs", "interrupted", "unknown", "applied", *MEANINGS), rows),
        meanings="\n".join(f"- *{name}*: {meaning}" for name, meaning in MEANINGS.items()),
        late=1000 * max(each["latest_seconds"] for each in found["cuts"]),
        conversations=sum(each["conversations"] for each in hostile),
        faults=sum(len(each["faults"]) for each in hostile),
        grace=GRACE_SECONDS,
        limit=PATIENCE_SECONDS,
        longest=1000 * max(each["longest_seconds"] for each in hostile),
        memory=max(each["more_memory_mib"] for each in hostile),
        endings=table(("ended as", "conversations"), [(name, f"{number:,}") for name, number in endings.most_common()]),
        bank=bank_chapter(found["bank"]),
        contention=contention_chapter(found["contention"]),
        durable=durable_chapter(found["durable"]),
    )


def of(figures: list[dict[str, Any]], path: str) -> list[dict[str, Any]]:
    """Those of one path."""
    return [each for each in figures if each["path"] == path]


def row(name: str, figures: list[dict[str, Any]]) -> tuple[str, ...]:
    """One campaign's line."""
    numbers = [sum(each[key] for each in figures) for key in ("runs", "interrupted", "unknown", "applied")]
    faults = sum((Counter(each["faults"]) for each in figures), Counter[str]())
    return name, *(f"{number:,}" for number in [*numbers, *(faults[kind] for kind in KINDS)])


if __name__ == "__main__":
    main()
