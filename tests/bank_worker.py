"""Delivers events as Lambda does, and meets what Lambda does to a process: `Worker`. `tests.bank` starts sixteen of them.

    forked       the child of a warm process delivers too, and so does its parent
    thaw         the process was frozen and the wall clock jumped two hours: the connection and the token must be new ones
    provisioned  connected at init, and first invoked two hours later
    restored     a warm process after SnapStart's hooks, several times from one snapshot: none may use the snapshot's connection
    overrun      the function goes on after its deadline, and must not commit
    frozen       the process is frozen at any moment of the call until its deadline is over; the next call finds it clean
    alarm        a signal handler raises at any moment of the call

What was met and what came of it is written to a file, a line of JSON each.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from awslambdaric.lambda_runtime_hooks_runner import run_after_restore, run_before_snapshot
from tests.bank_crew import PROVISIONED, SNAP_START, WORKERS
from tests.bank_rain import THAW_SECONDS
from tests.shared_clock import SharedClock

from dsql_lambda import DatabaseError, DsqlError, Idempotency, Transaction, cache, cached_connection, with_dsql_transaction
from dsql_lambda.connector import _open as open_connections
from dsql_lambda.system import SYSTEM
from dsql_local.lambda_context import LambdaContext

MOST_TRIES = 6
MOST_DELIVERIES = 3

_TROUBLES = {"alarm": 0.03, "overrun": 0.02, "frozen": 0.02}
"""With which chance a call meets what."""
_FORKS = 0.01
"""After which share of its deliveries a worker forks."""
_DEADLINE_SECONDS = 30.0
_SHORT_DEADLINE_SECONDS = 0.2
_EVENTS_AN_ENVIRONMENT = 200
_TOO_OLD = "54000"  # a transaction in which two hours passed


class Alarm(Exception):
    """What the signal handler raises, wherever the process is."""


def event_of(seed: int, number: int, accounts: int) -> dict[str, Any]:
    """The event of a number: the same for everybody who delivers it."""
    dice = random.Random(f"{seed} {accounts} {number}")
    source, target = dice.sample(range(accounts), 2)
    return {"key": f"{accounts}-{number}", "source": source, "target": target, "amount": dice.randint(1, 20)}


def deliverers(seed: int, number: int, accounts: int) -> list[int]:
    """Which workers deliver an event: one to three."""
    dice = random.Random(f"{seed} {accounts} {number} deliveries")
    return dice.choices(range(WORKERS), k=dice.randint(1, MOST_DELIVERIES))


class Worker:
    """One of the sixteen: the process that Lambda starts, or the one that it restores and forks others from."""

    def __init__(self, number: int, seed: int, accounts: int, clock: SharedClock, file: IO[str]) -> None:
        self._number, self._seed, self._accounts = number, seed, accounts
        self._clock, self._file = clock, file
        self._dice = random.Random(seed * WORKERS + number)
        self._until = 0.0
        self._children: list[int] = []
        self._seen_jump = clock.jumped_at
        self._pending: list[str] = []  # met, and not yet followed by an answer
        self._trouble = ""
        self._has_struck = False
        SYSTEM.clock = clock.time  # the wall clock of this process, before it has opened anything
        signal.signal(signal.SIGALRM, self._on_alarm)
        self._by_lookup = [
            with_dsql_transaction(idempotency=Idempotency(key="key", lookup=lookup, scope="bank"))(self._transfer)
            for lookup in ("first", "ride")
        ]

    # The function.

    def _transfer(self, event: dict[str, Any], context: LambdaContext, tx: Transaction) -> dict[str, Any]:
        """Move money between two accounts, and say what was read and written."""
        rows = tx.rows("SELECT id, version, balance FROM accounts WHERE id IN (:a, :b)", a=event["source"], b=event["target"])
        found = {row["id"]: row for row in rows}
        if self._trouble == "overrun":
            self._has_struck = True
            time.sleep(context.get_remaining_time_in_millis() / 1000 + 0.01)
        changes = []
        for account, amount in ((event["source"], -event["amount"]), (event["target"], event["amount"])):
            row = found[account]
            after = row["balance"] + amount
            tx.defer("UPDATE accounts SET balance = :b, version = version + 1 WHERE id = :id", b=after, id=account)
            changes.append([account, row["version"], row["balance"], after])
        return {"key": event["key"], "changes": changes}

    # The environments.

    def work(self, kind: str, first: int, until: float) -> None:
        """Deliver one's events until the time is over, and one more that shows that the last fault was survived."""
        self._until = until
        campaign = os.getppid()
        if kind == SNAP_START:
            self._prepare_snapshot(first + 1)
        number = first
        while time.time() < until and os.getppid() == campaign:  # whose end is everybody's
            begin, number = number + 1, number + _EVENTS_AN_ENVIRONMENT
            if kind == SNAP_START:
                pair = [self._fork("restored", range(begin + each, number, 2)) for each in (0, 1)]
                for child in pair:
                    os.waitpid(child, 0)
            elif kind == PROVISIONED:
                os.waitpid(self._fork("provisioned", range(begin, number)), 0)
            else:
                number = begin
                if self._deliver_mine(number) and self._dice.random() < _FORKS:
                    self._write(injected=["forked"])
                    self._children.append(self._fork("forked", [number + 1]))
        for child in self._children:
            os.waitpid(child, 0)
        if kind == "on-demand":
            self._deliver(number + 1, tries=100)

    def _prepare_snapshot(self, number: int) -> None:
        """Be warm, and then let Lambda's own runtime run what the layer has registered, as before it takes a snapshot."""
        self._deliver(number, tries=100)
        run_before_snapshot()
        if any(not each._session.is_closed for each in open_connections):
            self._write(fault="a connection is open in the snapshot")

    def _fork(self, kind: str, numbers: Iterable[int]) -> int:
        """An environment in a process of its own; its id."""
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            self._dice = random.Random(os.urandom(8))
            self._pending = []
            self._environment(kind, list(numbers))
            code = 0
        except BaseException as error:
            self._write(fault=f"{kind}: {error!r}")
        finally:
            os._exit(code)

    def _environment(self, kind: str, numbers: list[int]) -> None:
        if kind == "provisioned":
            while True:
                try:
                    cached_connection()
                    break
                except DsqlError:  # Lambda repeats an init that failed
                    if time.time() > self._until:
                        return
            now = self._clock.jumped_at
            while self._clock.jumped_at == now:
                if time.time() > self._until:
                    return
                time.sleep(0.01)
            self._seen_jump = self._clock.jumped_at
        elif kind == "restored":
            run_after_restore()
        if kind != "forked":
            self._write(injected=[kind])
        self._pending.append(kind)
        self._deliver(numbers[0], tries=100)
        for number in numbers[1:]:
            if time.time() > self._until:
                break
            self._deliver_mine(number)
        if self._pending:
            self._deliver(numbers[0], tries=100)

    # A delivery.

    def _deliver_mine(self, number: int) -> bool:
        """Deliver an event as often as one is to. Was that at all?"""
        times = deliverers(self._seed, number, self._accounts).count(self._number)
        for _ in range(times):
            self._deliver(number)
        return times > 0

    def _deliver(self, number: int, *, tries: int = MOST_TRIES) -> None:
        """A failed delivery is repeated, as Lambda does."""
        event = event_of(self._seed, number, self._accounts)
        for _ in range(tries):
            if self._invoke(event) or time.time() > self._until + 30:
                return

    def _invoke(self, event: dict[str, Any]) -> bool:
        """Call the handler once. Was there an answer?"""
        jumped_at = self._clock.jumped_at
        if jumped_at != self._seen_jump:
            self._seen_jump = jumped_at
            self._meet("thaw")
        self._trouble = self._dice.choices(["", *_TROUBLES], [1 - sum(_TROUBLES.values()), *_TROUBLES.values()])[0]
        self._has_struck = False
        is_short = self._trouble in {"overrun", "frozen"}
        context = LambdaContext(timeout=_SHORT_DEADLINE_SECONDS if is_short else _DEADLINE_SECONDS)
        old = cache.source_for(None)._place.session
        flights = old.flights if old is not None and old.opened_at < jumped_at else -1
        answer: Any = None
        error = ""
        try:
            try:
                if self._trouble in {"alarm", "frozen"}:
                    signal.setitimer(signal.ITIMER_REAL, self._dice.uniform(0.0005, 0.05))
                answer = self._dice.choice(self._by_lookup)(event, context)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except (Alarm, DsqlError) as raised:
            error = type(raised).__name__
        except DatabaseError as raised:
            if raised.sqlstate != _TOO_OLD:
                raise
            error = _TOO_OLD
        met = self._trouble if self._has_struck else ""
        self._trouble = ""
        if met:
            self._meet(met)
        if old is not None and flights not in {-1, old.flights}:
            self._write(fault="a connection of before the thaw was used after it")
        self._check(met, is_answered=not error, jumped_at=jumped_at)
        if error:
            self._write(key=event["key"], error=error)
            return False
        survived, self._pending = self._pending, []
        self._write(key=event["key"], answer=answer, survived=survived)
        return True

    def _check(self, met: str, *, is_answered: bool, jumped_at: float) -> None:
        """What must hold after a call, of the connection that is kept."""
        source = cache.source_for(None)
        session, kept = source._place.session, source._factory.signer._kept
        if met == "overrun" and is_answered:
            self._write(fault="what went on after its deadline was committed")
        if session is None or session.is_closed:
            return
        if met in {"overrun", "frozen"} and not session.is_clean:
            self._write(fault=f"an invocation that was {met} left its connection in the state {session.transaction_status!r}")
        if is_answered and kept is not None and kept[0].signed_at < jumped_at - THAW_SECONDS / 2:
            self._write(fault="a token of before the thaw was used after it")

    def _meet(self, kind: str) -> None:
        self._pending.append(kind)
        self._write(injected=[kind])

    def _write(self, **line: Any) -> None:
        self._file.write(json.dumps({**line, "group": os.getpgrp()}) + "\n")

    # What comes in the middle of a call.

    def _on_alarm(self, _number: int, _frame: object) -> None:
        self._has_struck = True
        if self._trouble == "alarm":
            raise Alarm
        freeze(_SHORT_DEADLINE_SECONDS)


def freeze(seconds: float) -> None:
    """Stop this process for so long. A helper wakes it; whoever froze them all may wake it before."""
    me = os.getpid()
    helper = os.fork()
    if helper == 0:
        try:
            while Path(f"/proc/{me}/stat").read_text().rpartition(")")[2].split()[0] != "T":
                time.sleep(0.001)
            time.sleep(seconds)
            os.kill(me, signal.SIGCONT)
        finally:
            os._exit(0)
    os.kill(me, signal.SIGSTOP)
    os.kill(helper, signal.SIGKILL)
    os.waitpid(helper, 0)


def main() -> None:
    """Work from the moment on that the crew says on standard input."""
    parser = argparse.ArgumentParser(prog="python -m tests.bank_worker", description="One worker of the bank.")
    for name, kind in (("number", int), ("seed", int), ("accounts", int), ("first", int), ("path", Path), ("clock", Path)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    given = parser.parse_args()
    with given.path.open("a", buffering=1) as file:
        worker = Worker(given.number, given.seed, given.accounts, SharedClock(given.clock), file)
        until = float(sys.stdin.readline())  # all begin at once
        worker.work(os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"], given.first, until)


if __name__ == "__main__":
    main()
