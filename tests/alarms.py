"""Real interruptions at random moments: SIGALRMs, and exceptions that another thread sets. `make alarms`.

`Bell` and `OtherThread` interrupt one call; `interrupt` goes through the paths of `promises` with them, by seed.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import random
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from types import FrameType

from tests.promises import (
    DOUBLED,
    FALSE,
    FOREIGN,
    HUNG,
    LEFT_OPEN,
    LOST,
    PATHS,
    POISONED,
    Alarm,
    Ended,
    Figures,
    Hung,
    Path,
    Refused,
    campaign,
    first_run,
    judged,
    report,
    says_commit,
    write,
)

from dsql_lambda import CommitOutcomeUnknown, DsqlError, Pool

WARM = ("write", "read", "conflict", "stream", "error", "rollback", "connection", "pool", "lease")
COLD = ("connect", "cold", "pool-cold")


class Bell:
    """A SIGALRM whose handler raises, a number of seconds after the call began; nothing where the call was over before."""

    def __init__(self) -> None:
        self.after_seconds = 0.0
        self.kind: type[BaseException] = Alarm
        self.raised: BaseException | None = None
        self.causes: tuple[type[BaseException], ...] = ()
        self._has_rung = False
        self._is_over = False

    def call(self, function: Callable[[int], int], run: int) -> int:
        """`function(run)`, with the alarm."""
        self.raised = None
        self._has_rung = self._is_over = False
        before = signal.signal(signal.SIGALRM, self._ring)
        try:
            signal.setitimer(signal.ITIMER_REAL, self.after_seconds)
            return function(run)
        finally:
            self._is_over = True
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _ring(self, _number: int, frame: FrameType | None) -> None:
        if self._has_rung:
            raise Hung
        if self._is_over or frame is None or frame.f_code is Bell.call.__code__:
            return  # the call has not begun, or is over
        self._has_rung = True
        signal.setitimer(signal.ITIMER_REAL, 10)
        self.raised = self.kind("the alarm")
        raise self.raised


class OtherThread:
    """An exception that another thread sets, by `PyThreadState_SetAsyncExc`, so many seconds after the call began."""

    def __init__(self) -> None:
        self.after_seconds = 0.0
        self.kind: type[BaseException] = Alarm
        self.raised: BaseException | None = None
        self.causes: tuple[type[BaseException], ...] = ()
        self._target = ctypes.c_ulong(threading.get_ident())
        self._begun = threading.Lock()
        self._begun.acquire()
        self._is_done = False
        self._is_closed = False
        self._thread = threading.Thread(target=self._interrupt, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._is_closed = True
        self._begun.release()
        self._thread.join()

    def call(self, function: Callable[[int], int], run: int) -> int:
        """`function(run)`, interrupted; what comes too late is taken away."""
        self.raised = None
        self._is_done = False
        value: int | None = None
        error: BaseException | None = None
        try:
            self._begun.release()
            value = function(run)
        except BaseException as raised:
            error = raised
        while True:
            try:
                while not self._is_done:
                    time.sleep(0.0001)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(self._target, None)
                break
            except (Alarm, Ended):  # it came too late
                continue
        if value is not None:
            return value
        if error is None:
            raise AssertionError("no value and no error")
        for each in (error, error.__cause__):
            if isinstance(each, (Alarm, Ended)):
                self.raised = each
        raise error

    def _interrupt(self) -> None:
        while True:
            self._begun.acquire()
            if self._is_closed:
                return
            time.sleep(self.after_seconds)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(self._target, ctypes.py_object(self.kind))
            self._is_done = True


def interrupt(
    interruption: Bell | OtherThread,
    number: int,
    seed: int,
    *,
    is_cold: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Figures:
    """So many calls with an interruption each, on paths and at moments by seed. A source that is of no more use is a fault."""
    chances = random.Random(seed)
    names = COLD if is_cold else WARM
    figures = Figures("interrupted")
    with campaign() as dsql:
        paths: dict[str, Path] = {name: PATHS[name](dsql) for name in names}
        seconds = {name: _seconds(path, first_run(name)) for name, path in paths.items()}
        for path in paths.values():  # sessions are counted one source at a time
            path.close()
        done = 0
        while done < number:
            name = chances.choice(names)
            path = PATHS[name](dsql)
            runs = itertools.count(first_run(name) + 1000 + done)
            for run in itertools.islice(runs, min(100, number - done)):
                done += 1
                interruption.after_seconds = chances.uniform(0.0, 1.25) * seconds[name]
                interruption.kind = chances.choice((Alarm, Ended))
                figures.path = name
                if not judged(path, interruption, figures, run):
                    dsql.ask("close_connections")
                    path = PATHS[name](dsql)
            with suppress(Exception):
                path.close()
            say(f"{done} calls, {figures.interrupted} interrupted, {len(figures.faults)} faults")
    return figures


WORKERS, PLACES = 8, 3


def storm(number: int, seed: int, say: Callable[[str], None] = lambda line: None) -> Figures:
    """So many exceptions set in the threads that share a pool. At the end all its places are free; each run is judged."""
    chances = random.Random(seed)
    figures = Figures("threads")
    runs = itertools.count(1)
    endings: dict[int, int | bool | None] = {}
    """By run: the attempt whose value was returned; of an error, whether it says that COMMIT was under way; None if unknown."""
    is_over = threading.Event()

    def work(pool: Pool) -> None:
        while not is_over.is_set():
            with suppress(Alarm, Ended):  # one that comes between two calls
                run = next(runs)
                endings[run] = None
                try:
                    endings[run] = pool.transaction_with_retry(partial(write, run=run))
                except (Alarm, Ended, CommitOutcomeUnknown) as error:
                    endings[run] = says_commit(error)

    with campaign() as dsql:
        options = dsql.options(application_name="dsql-lambda threads")
        with Pool(options, max_size=PLACES, acquire_timeout=5.0) as pool:
            threads = [threading.Thread(target=work, args=(pool,)) for _ in range(WORKERS)]
            for thread in threads:
                thread.start()
            for done in range(1, number + 1):
                time.sleep(chances.uniform(0.0, 0.004))
                target = ctypes.c_ulong(chances.choice(threads).ident or 0)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(target, ctypes.py_object(chances.choice((Alarm, Ended))))
                if done % 1000 == 0:
                    say(f"{done} exceptions in threads")
            is_over.set()
            for thread in threads:
                thread.join(20)
                if thread.is_alive():
                    figures.fault(HUNG, "a thread did not end", None)
            try:
                with ExitStack() as stack:
                    for value in range(PLACES):
                        connection = stack.enter_context(pool.connection())
                        if connection.run("SELECT CAST(:value AS int)", value=value) != [[value]]:
                            figures.fault(FOREIGN, f"for {value}", None)
            except DsqlError as error:
                figures.fault(POISONED, repr(error), None)
            sessions, busy = dsql.sessions()
            if sessions > PLACES or busy:
                figures.fault(LEFT_OPEN, f"{sessions} sessions, {busy} of them busy", None)
        rows = dsql.execute("SELECT run, string_agg(attempt::text, ' ') FROM marks GROUP BY run")
    applied = {int(run or 0): [int(each) for each in (attempts or "").split()] for run, attempts in rows}
    for run, ending in endings.items():
        attempts = applied.get(run, [])
        figures.runs += 1
        figures.interrupted += isinstance(ending, bool)
        figures.unknown += ending is True
        figures.applied += ending is True and bool(attempts)
        if len(attempts) > 1:
            figures.fault(DOUBLED, f"applied {attempts}", None)
        elif ending is False and attempts:
            figures.fault(LOST, f"applied {attempts}", None)
        elif ending is not None and not isinstance(ending, bool) and attempts != [ending]:
            figures.fault(FALSE, f"value {ending}, applied {attempts}", None)
    return figures


def _seconds(path: Path, run: int) -> float:
    """How long a run takes."""
    took = []
    for each in range(run, run + 9):
        path.prepare()
        begun = time.perf_counter()
        with suppress(Refused):
            path.go(each)
        took.append(time.perf_counter() - begun)
        path.tidy()
    return statistics.median(took)


def main() -> int:
    """So many calls with an alarm each, and a tenth as many by another thread; figures as JSON lines on standard output."""
    parser = argparse.ArgumentParser(prog="python -m tests.alarms", description="Interrupt calls at random moments.")
    parser.add_argument("--count", type=int, default=20_000, help="how many calls (default: 20,000)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    begun = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - begun:6.0f} s] {line}", file=sys.stderr, flush=True)

    is_clean = True
    other = OtherThread()

    def tell(name: str, figures: Figures) -> bool:
        print(json.dumps({**figures.summary(), "path": name}), flush=True)
        report(figures)
        return not figures.faults

    for name, interruption, number, is_cold in (
        ("alarms", Bell(), arguments.count, False),
        ("alarms while connecting", Bell(), arguments.count // 10, True),
        ("another thread", other, arguments.count // 10, False),
    ):
        figures = interrupt(interruption, number, arguments.seed, is_cold=is_cold, say=say)
        is_clean = tell(name, figures) and is_clean
    other.close()
    is_clean = tell("threads of a pool", storm(arguments.count // 2, arguments.seed, say)) and is_clean
    return 0 if is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
