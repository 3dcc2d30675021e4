"""Transfers with keys, by 16 processes, each delivered 1 to 3 times, while faults rain: `python -m tests.bank --seconds 60`.

Prints the figures of each bank as a line of JSON, and ends with 1 if a promise did not hold:

    money         is conserved
    keys          each is applied at most once, and once if anybody got an answer
    answers       each is what is stored for its key
    histories     hold no lost update (`tests.history`)
    environments  each that was frozen, restored, forked or out of time gave an answer afterwards (`tests.bank_worker`)

The faults: cuts at the protocol's messages and at random bytes (through a proxy), refusals (53300, 53400, waking up), expired
tokens (08006), XX000, OC000, OC001, restarts, delays, processes that are frozen or killed, and what `tests.bank_worker` meets.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.bank_crew import Crew
from tests.bank_proxy import Proxy
from tests.bank_rain import Rain
from tests.history import Change, faults_in
from tests.shared_clock import SharedClock

from dsql_lambda import Idempotency
from dsql_local import LocalDsql

START_BALANCE = 1000
MANY, FEW = 1000, 10
SHARES = {MANY: 0.75, FEW: 0.25}
"""Of the time: where all are after the same accounts, few get on."""


def run(dsql: LocalDsql, clock: SharedClock, accounts: int, seconds: float, seed: int) -> tuple[dict[str, Any], list[str]]:
    """One bank: its figures, and what did not hold."""
    dsql.execute("DROP TABLE IF EXISTS accounts, dsql_lambda_idempotency")
    dsql.execute("CREATE TABLE accounts (id int PRIMARY KEY, version int NOT NULL, balance int NOT NULL)")
    dsql.execute(f"INSERT INTO accounts SELECT n, 0, {START_BALANCE} FROM generate_series(0, {accounts - 1}) AS n")
    dsql.execute(Idempotency(key="key").create_table())
    proxy = Proxy(dsql.host, dsql.port, seed)
    environment = {**os.environ, **dsql.environment, "DSQL_PORT": str(proxy.port), "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:1"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = ["--seed", str(seed), "--accounts", str(accounts), "--clock", str(clock.path)]
        with (folder / "log").open("wb") as log:
            crew = Crew(arguments, environment, folder, log)
            rain = Rain(dsql, crew, clock, seed)
            begun_at = time.monotonic()
            try:
                rain.fall(crew.begin(seconds))
                waiting = len(dsql.faults_waiting)
                dsql.clear_faults()
                codes = crew.end()
            finally:
                crew.kill_all()
            lasted = time.monotonic() - begun_at
        proxy.close()
        lines = crew.lines()
        said = (folder / "log").read_text(errors="replace")
    rain.injected["cut at a byte"] = proxy.cuts
    figures, faults = judge(dsql, accounts, [line for line in lines if "answer" in line])
    kinds, broken = survival(lines, crew.killed)
    faults += broken + [line["fault"] for line in lines if "fault" in line]
    if any(codes):
        faults.append(f"workers ended with {codes}: {said[-3000:]}")
    figures["kinds"] = {**{kind: [count, count if not any(codes) else 0] for kind, count in rain.injected.items()}, **kinds}
    figures["faults"] = sum(injected for injected, _ in figures["kinds"].values())
    figures["waiting"] = waiting
    figures["errors"] = dict(Counter(line["error"] for line in lines if "error" in line))
    figures["seconds"] = round(lasted, 1)
    figures["broken"] = len(faults)
    return figures, faults


def survival(lines: list[dict[str, Any]], killed: set[int]) -> tuple[dict[str, list[int]], list[str]]:
    """What the workers met and survived, by kind; and who gave no answer afterwards, though nobody had killed it."""
    met, survived = Counter[tuple[int, str]](), Counter[tuple[int, str]]()
    for line in lines:
        met.update((line["group"], kind) for kind in line.get("injected", ()))
        survived.update((line["group"], kind) for kind in line.get("survived", ()))
    kinds: dict[str, list[int]] = {}
    faults = []
    for (group, kind), count in met.items():
        figures = kinds.setdefault(kind, [0, 0])
        figures[0] += count
        figures[1] += survived[group, kind]
        if survived[group, kind] < count and group not in killed:
            faults.append(f"{kind}: {count - survived[group, kind]} of {count} gave no answer afterwards")
    return kinds, faults


def judge(dsql: LocalDsql, accounts: int, answers: list[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """What the database and the answers say."""
    rows = dsql.execute("SELECT result FROM dsql_lambda_idempotency WHERE result IS NOT NULL")
    stored = [json.loads(row[0] or "") for row in rows]
    by_key = {each["key"]: each for each in stored}
    lost = [each["key"] for each in answers if each["key"] not in by_key]
    differing = [each["key"] for each in answers if by_key.get(each["key"], each["answer"]) != each["answer"]]
    changes = [Change(each["key"], *change) for each in stored for change in each["changes"]]
    end = {
        int(row[0] or 0): (int(row[1] or 0), int(row[2] or 0))
        for row in dsql.execute("SELECT id, version, balance FROM accounts")
    }
    faults = faults_in(changes, dict.fromkeys(range(accounts), START_BALANCE), end)
    doubled = max(0, sum(version for version, _ in end.values()) // 2 - len(stored)) + len(stored) - len(by_key)
    if sum(balance for _, balance in end.values()) != accounts * START_BALANCE:
        faults.append("money was not conserved")
    faults += [f"{key} was answered and is not there" for key in lost]
    faults += [f"{key} got another answer than is stored" for key in differing]
    figures = {
        "campaign": "bank",
        "accounts": accounts,
        "transfers": len(by_key),
        "answers": len(answers),
        "lost": len(lost),
        "doubled": doubled,
        "answers_that_differ": len(differing),
    }
    return figures, faults


def main() -> int:
    """Both banks, and both again until there are enough transfers."""
    parser = argparse.ArgumentParser(prog="python -m tests.bank", description="A bank in the rain.")
    parser.add_argument("--seconds", type=float, default=60, help="for both banks (default: 60)")
    parser.add_argument("--transfers", type=int, default=0, help="go on until there were so many")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    has_failed = False
    transfers, seed = 0, given.seed
    with tempfile.TemporaryDirectory() as folder:
        clock = SharedClock(Path(folder) / "clock")
        with LocalDsql(clock=clock.time) as dsql:
            while seed == given.seed or transfers < given.transfers:
                for accounts, share in SHARES.items():
                    figures, faults = run(dsql, clock, accounts, given.seconds * share, seed)
                    print(json.dumps({"seed": seed, **figures}), flush=True)
                    for fault in faults[:20]:
                        print(f"tests.bank: {fault}", file=sys.stderr, flush=True)
                    has_failed = has_failed or bool(faults)
                    transfers += figures["transfers"]
                seed += 1
    return has_failed


if __name__ == "__main__":
    sys.exit(main())
