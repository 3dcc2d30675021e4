"""Transfers with keys, by 16 processes, each delivered 1 to 3 times, while faults rain: `python -m tests.bank --seconds 60`.

Prints its figures as one line of JSON, and ends with 1 if a promise did not hold:

    money         is conserved
    keys          each is applied at most once, and once if anybody got an answer
    answers       each is what is stored for its key
    histories     hold no lost update (`tests.history`)

The faults: cuts at the protocol's messages and at random bytes (through a proxy), refusals (08006, 53300, 53400), expired tokens,
XX000, OC000, OC001, restarts, delays, processes that are frozen, killed or forked, and alarms whose handler raises.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import IO, Any

from tests.history import Change, faults_in

from dsql_lambda import DsqlError, Idempotency, Transaction, with_dsql_transaction
from dsql_local import LocalDsql
from dsql_local.lambda_context import LambdaContext

WORKERS = 16
START_BALANCE = 1000
MANY, FEW = 1000, 10
MOST_TRIES = 6
MOST_DELIVERIES = 3
MOST_WAITING = 2  # faults that have not struck yet


class Alarm(Exception):
    """What the signal handler raises, wherever the process is."""


def alarm(_number: int, _frame: object) -> None:
    raise Alarm


# A worker.


def transfer(event: dict[str, Any], context: LambdaContext, tx: Transaction) -> dict[str, Any]:
    """Move money between two accounts, and say what was read and written."""
    rows = tx.rows("SELECT id, version, balance FROM accounts WHERE id IN (:a, :b)", a=event["source"], b=event["target"])
    found = {row["id"]: row for row in rows}
    changes = []
    for account, amount in ((event["source"], -event["amount"]), (event["target"], event["amount"])):
        row = found[account]
        after = row["balance"] + amount
        tx.defer("UPDATE accounts SET balance = :b, version = version + 1 WHERE id = :id", b=after, id=account)
        changes.append([account, row["version"], row["balance"], after])
    return {"key": event["key"], "changes": changes}


def event_of(seed: int, number: int, accounts: int) -> dict[str, Any]:
    """The event of a number: the same for everybody who delivers it."""
    dice = random.Random(f"{seed} {accounts} {number}")
    source, target = dice.sample(range(accounts), 2)
    return {"key": f"{accounts}-{number}", "source": source, "target": target, "amount": dice.randint(1, 20)}


def deliverers(seed: int, number: int, accounts: int) -> list[int]:
    """Which workers deliver an event: one to three."""
    dice = random.Random(f"{seed} {accounts} {number} deliveries")
    return dice.choices(range(WORKERS), k=dice.randint(1, MOST_DELIVERIES))


def work(number: int, seed: int, accounts: int, path: str, first: int) -> None:
    """Deliver one's events until the time is over; a failed delivery is repeated, as Lambda does."""
    signal.signal(signal.SIGALRM, alarm)
    dice = random.Random(seed * WORKERS + number)
    by_lookup = [
        with_dsql_transaction(idempotency=Idempotency(key="key", lookup=lookup, scope="bank"))(transfer)
        for lookup in ("first", "ride")
    ]
    with Path(path).open("a", buffering=1) as file:
        until = float(sys.stdin.readline())  # all begin at once
        event_number = first
        while time.time() < until:
            event_number += 1
            if dice.random() < 0.01 and os.fork() == 0:  # the child must leave its parent's connection alone
                try:
                    ours = by_lookup[0](event_of(seed, event_number, accounts), LambdaContext(timeout=30))
                    file.write(json.dumps({"key": ours["key"], "answer": ours, "forked": True}) + "\n")
                finally:
                    os._exit(0)
            for _ in range(deliverers(seed, event_number, accounts).count(number)):
                event = event_of(seed, event_number, accounts)
                for _ in range(MOST_TRIES):
                    answer: Any = None
                    try:
                        try:
                            if dice.random() < 0.03:
                                signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.0005, 0.05))
                            answer = dice.choice(by_lookup)(event, LambdaContext(timeout=30))
                        finally:
                            signal.setitimer(signal.ITIMER_REAL, 0)
                    except (Alarm, DsqlError) as error:
                        file.write(json.dumps({"key": event["key"], "error": type(error).__name__}) + "\n")
                        if time.time() > until + 30:
                            break
                        continue
                    file.write(json.dumps({"key": event["key"], "answer": answer}) + "\n")
                    break


class Crew:
    """The workers, each a process; one that was killed is started again where it was."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path, log: IO[bytes]) -> None:
        self._command, self._environment, self._log = command, environment, log
        self.paths = [folder / str(number) for number in range(WORKERS)]
        self._until = 0.0
        self.processes = [self._start(number) for number in range(WORKERS)]

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        path = self.paths[number]
        keys = [json.loads(line)["key"] for line in path.read_text().splitlines()] if path.exists() else []
        first = int(keys[-1].partition("-")[2]) - 1 if keys else 0
        arguments = ["--worker", str(number), "--path", str(path), "--first", str(first)]
        return subprocess.Popen(
            [*self._command, *arguments], env=self._environment, stdin=subprocess.PIPE, stdout=self._log, stderr=self._log
        )

    def begin(self, seconds: float) -> float:
        """Let all of them begin, once all are there, and return the moment until which they work."""
        while not all(path.exists() for path in self.paths) and all(process.poll() is None for process in self.processes):
            time.sleep(0.05)
        self._until = time.time() + seconds
        for process in self.processes:
            self._tell(process)
        return self._until

    def _tell(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        with process.stdin as pipe:
            pipe.write(f"{self._until}\n".encode())

    def kill(self, number: int) -> None:
        """End one wherever it is, and start another in its place."""
        self.processes[number].kill()
        self.processes[number].wait()
        self.processes[number] = self._start(number)
        self._tell(self.processes[number])

    def freeze(self, number: int, seconds: float) -> None:
        """Stop one, and let it go on."""
        self.processes[number].send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.processes[number].send_signal(signal.SIGCONT)

    def end(self) -> list[int]:
        """Wait for all, and return their exit codes."""
        return [process.wait(timeout=180) for process in self.processes]

    def kill_all(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


# The rain.


class Proxy:
    """Hands bytes through, and cuts every so often at a random one."""

    def __init__(self, host: str, port: int, seed: int) -> None:
        self.cuts = 0
        self.port = 0
        self._target = host, port
        self._dice = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        try:
            to, back = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        budget = [self._dice.randint(1, 400_000)]
        await asyncio.gather(
            self._pump(reader, back, budget, writer), self._pump(to, writer, budget, back), return_exceptions=True
        )
        for each in (writer, back):
            each.close()
        if task is not None:
            self._tasks.discard(task)

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, budget: list[int], other: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await source.read(16_384):
                if budget[0] <= len(data):
                    target.write(data[: max(0, budget[0])])
                    self.cuts += 1
                    break
                budget[0] -= len(data)
                target.write(data)
                await target.drain()
            else:
                target.close()  # the end of the stream, handed on
                other.close()
                return
        except OSError:
            pass
        for each in (target, other):  # a reset, handed on
            each.transport.abort()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        for task in self._tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


def rain(dsql: LocalDsql, crew: Crew, until: float, seed: int, injected: Counter[str]) -> None:
    """One fault after the other."""
    dice = random.Random(seed)
    cut_points: list[Any] = [
        "at-parse",
        "at-bind",
        "at-describe",
        "at-execute",
        "at-sync",
        "before-commit",
        "mid-reply",
        "after-reply",
    ]
    often = ["cut"] * 5 + ["lost commit"] * 5 + ["conflict"] * 4 + ["unavailable"] * 3 + ["refuse", "schema"]
    rarely = ["expire", "delay", "close", "restart", "freeze", "kill", "kill"]  # each concerns every connection, or takes long
    while time.time() < until:
        time.sleep(0.02)
        if len(dsql.faults_waiting) >= MOST_WAITING:
            continue  # no one is met by more faults than by answers
        kind = dice.choice(often if dice.random() < 0.97 else rarely)
        injected[kind] += 1
        if kind == "cut":
            dsql.cut(dice.choice(cut_points), how=dice.choice(["rst", "fin"]))
        elif kind == "lost commit":
            dsql.cut("after-commit-sent", applied=dice.random() < 0.5, how=dice.choice(["rst", "fin"]))
        elif kind == "conflict":
            dsql.conflict_next(dice.randint(1, 3))
        elif kind == "schema":
            dsql.conflict_next(1, "OC001", at=dice.choice(["commit", "statement"]))
        elif kind == "unavailable":
            dsql.unavailable(applied=dice.random() < 0.5)
        elif kind == "refuse":
            dsql.refuse_connections(1, dice.choice(["rate", "connections", "waking"]))
        elif kind == "expire":
            dsql.expire_tokens()
        elif kind == "delay":
            dsql.delay(30, 5)
        elif kind == "close":
            dsql.close_connections(dice.choice(["fin", "rst"]))
        elif kind == "restart":
            dsql.restart(0.05)
        elif kind == "kill":
            crew.kill(dice.randrange(WORKERS))
        else:
            crew.freeze(dice.randrange(WORKERS), 0.3)


# The campaign.


def run(dsql: LocalDsql, accounts: int, seconds: float, seed: int) -> tuple[dict[str, Any], list[str]]:
    """One bank: its figures, and what did not hold."""
    dsql.execute("DROP TABLE IF EXISTS accounts, dsql_lambda_idempotency")
    dsql.execute("CREATE TABLE accounts (id int PRIMARY KEY, version int NOT NULL, balance int NOT NULL)")
    dsql.execute(f"INSERT INTO accounts SELECT n, 0, {START_BALANCE} FROM generate_series(0, {accounts - 1}) AS n")
    dsql.execute(Idempotency(key="key").create_table())
    proxy = Proxy(dsql.host, dsql.port, seed)
    environment = {**os.environ, **dsql.environment, "DSQL_PORT": str(proxy.port), "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:1"}
    injected: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.bank", "--seed", str(seed), "--accounts", str(accounts)]
        with (Path(folder) / "log").open("wb") as log:
            crew = Crew(command, environment, Path(folder), log)
            try:
                rain(dsql, crew, crew.begin(seconds), seed, injected)
                dsql.clear_faults()
                codes = crew.end()
            finally:
                crew.kill_all()
        proxy.close()
        lines = [json.loads(line) for path in crew.paths for line in path.read_text().splitlines()]
        said = (Path(folder) / "log").read_text(errors="replace")
    injected["byte"] = proxy.cuts
    injected["fork"] = sum("forked" in line for line in lines)
    errors = Counter(line["error"] for line in lines if "error" in line)
    figures, faults = judge(dsql, accounts, [line for line in lines if "answer" in line])
    if any(codes):
        faults.append(f"workers ended with {codes}: {said[-3000:]}")
    alarms = errors.pop("Alarm", 0)
    figures |= {"alarms": alarms, "faults": sum(injected.values()) + alarms, "by_kind": dict(injected), "errors": dict(errors)}
    return figures, faults


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
    parser = argparse.ArgumentParser(description="A bank in the rain.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    for name, kind in (("accounts", int), ("worker", int), ("path", str), ("first", int)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker is not None:
        work(given.worker, given.seed, given.accounts, given.path, given.first)
        return 0
    has_failed = False
    with LocalDsql() as dsql:
        for accounts in (MANY, FEW):
            figures, faults = run(dsql, accounts, given.seconds / 2, given.seed)
            print(json.dumps({"seed": given.seed, **figures}), flush=True)
            for fault in faults[:20]:
                print(f"tests.bank: {fault}", file=sys.stderr)
            has_failed = has_failed or bool(faults)
    return has_failed


if __name__ == "__main__":
    sys.exit(main())
