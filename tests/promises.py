"""What every transaction promises, whatever comes between, and the ways through the package on which that is proven.

1. A value is returned: its transaction is committed, once, by this call.
2. Any error but `CommitOutcomeUnknown`, or one whose note says that COMMIT was under way: nothing was applied.
3. The next transaction on the same source works, and has the answers of its own statements.
4. Nothing is left open on the server.

A `Path` is a way through the package on a source of its own; `judged` makes one run of it and sees that all four hold, asking
the database past the front. What interrupts it is an `Interruption`: a stepper, an alarm, another thread. Knows the package's
public names.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Literal, Protocol

from tests.apart import Apart

from dsql_lambda import (
    CommitOutcomeUnknown,
    Idempotency,
    OCCRetryConfig,
    Pool,
    TokenError,
    TransactionError,
    cached_connection,
    connect,
    run_transaction,
    with_dsql_transaction,
)


class Alarm(Exception):
    """What a signal's handler raises."""


class Ended(BaseException):
    """The same, for what no `except Exception` may keep."""


class Hung(BaseException):
    """A run took so long that it would never have ended."""


class Interruption(Protocol):
    """What calls a function and raises something on the way."""

    raised: BaseException | None
    """What it raised in the last call, if it did."""
    causes: tuple[type[BaseException], ...]
    """Errors that the package makes of it. None of them: it is an exception of its own, which must reach the caller as it is."""

    def call(self, function: Callable[[int], int], run: int) -> int:
        """`function(run)`, interrupted."""


# The ways through the package.

INSERT = "INSERT INTO marks (run, attempt) VALUES (:run, :attempt)"


def write(tx: Any, run: int) -> int:
    """Deferred writes alone: one flight."""
    tx.defer(INSERT, run=run, attempt=tx.attempt)
    attempt: int = tx.attempt
    return attempt


def read_and_write(tx: Any, run: int) -> int:
    """A read, and a deferred write that leaves with COMMIT."""
    if tx.value("SELECT CAST(:run AS int)", run=run) != run:
        raise AssertionError("another statement's answer")
    return write(tx, run)


def stream_and_write(tx: Any, run: int) -> int:
    """A stream that is left after its second row."""
    for row in tx.stream("SELECT i FROM generate_series(1, 20) i"):
        if row["i"] == 2:
            break
    return write(tx, run)


class Refused(Exception):
    """What a function raises when it does not want its transaction."""


def refuse(tx: Any, run: int) -> int:
    """A write, and the function's own error."""
    tx.run(INSERT, run=run, attempt=tx.attempt)
    raise Refused


def roll_back(tx: Any, run: int) -> int:
    """A write, and the function's own ROLLBACK; what it returns is no sign of a commit."""
    tx.run(INSERT, run=run, attempt=tx.attempt)
    tx.rollback()
    return 0


_numbers = itertools.count(1)

AT_ONCE = OCCRetryConfig(base_delay_ms=0.01, max_delay_ms=0.02)
"""Three attempts, with hardly a wait between them."""


class Path:
    """One way through the package, on a source of its own.

    `go(run)` is what is interrupted; `prepare` and `tidy` stand around it. `ask(value)` is the next transaction on the source.
    """

    sessions = 1
    """How many sessions the source may keep."""
    runs = 1
    """How often the function runs when nothing comes between."""
    connects = False
    """Does each run open a connection?"""
    says = False
    """Does each run log something?"""
    imports = False
    """Does each run import modules?"""

    def __init__(
        self,
        name: str,
        dsql: Apart,
        function: Callable[..., int] = write,
        *,
        conflicts: int = 0,
        is_cold: bool = False,
        retry: OCCRetryConfig | None = AT_ONCE,
        **keywords: Any,
    ) -> None:
        self.name = name
        self.dsql = dsql
        self.options = dsql.options(application_name=f"dsql-lambda {name} {next(_numbers)}")
        self.conflicts = conflicts
        self.runs = 1 + conflicts
        self.says = conflicts > 0
        self.is_cold = self.connects = is_cold
        self.ran = 0

        @with_dsql_transaction(options=self.options, timeout=30, logger=quiet, retry=retry, **keywords)
        def handler(run: int, *, tx: Any) -> int:
            self.ran += 1
            return function(tx, run)

        @with_dsql_transaction(options=self.options, timeout=5)
        def answer(value: int, *, tx: Any) -> int:
            found: int = tx.value("SELECT CAST(:value AS int)", value=value)
            return found

        self.go: Callable[[int], int] = handler
        self.ask: Callable[[int], int] = answer

    def prepare(self) -> None:
        """Before each run."""
        self.ran = 0
        if self.is_cold:
            cached_connection(self.options).close()
        if self.conflicts:
            self.dsql.ask("clear_faults")
            self.dsql.ask("conflict_next", self.conflicts)

    def tidy(self) -> None:
        """After each run, before the next transaction."""
        if self.conflicts:
            self.dsql.ask("clear_faults")

    def close(self) -> None:
        """After all."""
        cached_connection(self.options).close()


class FirstFailurePath(Path):
    """A conflict in a process that has met none: what only a failure needs is loaded on the way."""

    imports = True
    _MODULES = tuple(f"dsql_lambda.{name}" for name in ("failure", "occ", "records", "retry"))

    def __init__(self, name: str, dsql: Apart) -> None:
        super().__init__(name, dsql, read_and_write, conflicts=1, retry=None)
        self._loaded: dict[str, Any] = {}

    def prepare(self) -> None:
        super().prepare()
        self._loaded = {each: sys.modules.pop(each) for each in self._MODULES if each in sys.modules}

    def tidy(self) -> None:
        sys.modules.update(self._loaded)
        super().tidy()


class KeyedPath(Path):
    """With an idempotency key. `lost` says whether the first COMMIT is lost, and then whether it was applied: it is settled."""

    def __init__(self, name: str, dsql: Apart, *, lookup: Literal["first", "ride"] = "first", lost: bool | None = None) -> None:
        key = Idempotency(key="@", lookup=lookup, scope=name)
        super().__init__(name, dsql, idempotency=key)
        dsql.execute(key.create_table())
        self._lost = lost
        self.runs = 1 if lost in {None, True} else 2
        self.says = lost is not None

    def prepare(self) -> None:
        super().prepare()
        if self._lost is not None:
            self.dsql.ask("clear_faults")
            self.dsql.ask("cut", "after-commit-sent", applied=self._lost)

    def tidy(self) -> None:
        if self._lost is not None:
            self.dsql.ask("clear_faults")


class ObservedPath(Path):
    """With metrics, a tracer and OpenTelemetry's SDK: what they are told is told between the steps of the transaction."""

    def __init__(self, name: str, dsql: Apart) -> None:
        from aws_lambda_powertools.metrics import EphemeralMetrics

        self._metrics = EphemeralMetrics(namespace="Tests")
        super().__init__(name, dsql, metrics=self._metrics, tracer=Blocks(), retry=OCCRetryConfig())
        self._stdout = sys.stdout
        self._nowhere = open(os.devnull, "w")  # noqa: PTH123, SIM115 - until `close`
        self._opentelemetry = _opentelemetry()
        self.says = True

    def prepare(self) -> None:
        super().prepare()
        self._metrics.clear_metrics()
        sys.stdout = self._nowhere
        sys.modules["opentelemetry.trace"] = self._opentelemetry

    def tidy(self) -> None:
        sys.modules.pop("opentelemetry.trace", None)
        sys.stdout = self._stdout

    def close(self) -> None:
        super().close()
        self._nowhere.close()


class Blocks:
    """A tracer whose provider begins and ends blocks, and keeps nothing."""

    def __init__(self) -> None:
        self.provider = self

    def in_subsegment(self, name: str) -> Any:
        """A block that is its own subsegment."""
        return self

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        """Ended."""

    def put_annotation(self, key: str, value: object) -> None:
        """Not kept."""


def _opentelemetry() -> Any:
    """OpenTelemetry's module of traces, with an SDK that keeps nothing; out of sight of the other paths."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider())
    sys.modules.pop("opentelemetry.trace", None)
    return trace


class ConnectPath(Path):
    """`connect` itself: a connection is the caller's, or there is none."""

    sessions = 0
    runs = 0

    def __init__(self, name: str, dsql: Apart) -> None:
        super().__init__(name, dsql)
        self.connects = True
        self.go = self._go
        self.ask = self._ask

    def _go(self, run: int) -> int:
        connection = connect(self.options)
        self.opened = connection
        return 0

    def tidy(self) -> None:
        """What was returned is the caller's."""
        opened, self.opened = self.opened, None
        if opened is not None:
            opened.close()

    opened: Any = None

    def _ask(self, value: int) -> int:
        with connect(self.options) as connection:
            found: int = connection.run("SELECT CAST(:value AS int)", value=value)[0][0]
        return found

    def close(self) -> None:
        """Nothing is kept."""


class ConnectionPath(Path):
    """A `Connection` as the source. One that was given up says so, and its owner opens another."""

    def __init__(self, name: str, dsql: Apart, function: Callable[..., int] = write) -> None:
        super().__init__(name, dsql)
        self.function = function
        self.connection = connect(self.options)
        self.go = self._go
        self.ask = self._ask

    def _go(self, run: int) -> int:
        def counted(tx: Any) -> int:
            self.ran += 1
            return self.function(tx, run)

        return self.connection.transaction_with_retry(counted)

    def _ask(self, value: int) -> int:
        def answer(tx: Any) -> int:
            found: int = tx.value("SELECT CAST(:value AS int)", value=value)
            return found

        try:
            return run_transaction(answer, source=self.connection, timeout=5)
        except TransactionError as error:
            if "open a new one" not in str(error):
                raise
            with suppress(Exception):  # it says that it is closed
                self.connection.close()
            self.connection = connect(self.options)
            return run_transaction(answer, source=self.connection, timeout=5)

    def close(self) -> None:
        """The one that is open."""
        self.connection.close()


class PoolPath(Path):
    """Checkout and checkin of a `Pool` with one place: one that was lost would show at once."""

    def __init__(self, name: str, dsql: Apart, function: Callable[..., int] = write, *, is_cold: bool = False) -> None:
        super().__init__(name, dsql, is_cold=is_cold)
        self.function = function
        self.pool = Pool(self.options, max_size=1, acquire_timeout=1.0)
        self.go = self._go
        self.ask = self._ask

    def _go(self, run: int) -> int:
        def counted(tx: Any) -> int:
            self.ran += 1
            return self.function(tx, run)

        return self.pool.transaction_with_retry(counted)

    def _ask(self, value: int) -> int:
        with self.pool.connection() as connection:
            found: int = connection.run("SELECT CAST(:value AS int)", value=value)[0][0]
        return found

    def prepare(self) -> None:
        """With an open connection in its place, or with none."""
        self.ran = 0
        with self.pool.connection() as connection:
            if self.is_cold:
                connection.close()

    def close(self) -> None:
        """The pool."""
        self.pool.close(timeout=1.0)


class LeasePath(PoolPath):
    """`with pool.connection()`: checkout and checkin without a transaction."""

    runs = 0

    def _go(self, run: int) -> int:
        with self.pool.connection() as connection:
            connection.run("SELECT 1")
        return 0


PATHS: dict[str, Callable[[Apart], Path]] = {
    "write": lambda dsql: Path("write", dsql),
    "connect": lambda dsql: ConnectPath("connect", dsql),
    "cold": lambda dsql: Path("cold", dsql, is_cold=True),
    "read": lambda dsql: Path("read", dsql, read_and_write),
    "conflict": lambda dsql: Path("conflict", dsql, read_and_write, conflicts=1),
    "first-failure": lambda dsql: FirstFailurePath("first-failure", dsql),
    "error": lambda dsql: Path("error", dsql, refuse),
    "rollback": lambda dsql: Path("rollback", dsql, roll_back),
    "stream": lambda dsql: Path("stream", dsql, stream_and_write),
    "connection": lambda dsql: ConnectionPath("connection", dsql),
    "pool": lambda dsql: PoolPath("pool", dsql),
    "pool-cold": lambda dsql: PoolPath("pool-cold", dsql, is_cold=True),
    "lease": lambda dsql: LeasePath("lease", dsql),
    "keyed": lambda dsql: KeyedPath("keyed", dsql),
    "keyed-ride": lambda dsql: KeyedPath("keyed-ride", dsql, lookup="ride"),
    "settled": lambda dsql: KeyedPath("settled", dsql, lost=True),
    "settled-again": lambda dsql: KeyedPath("settled-again", dsql, lookup="ride", lost=False),
    "observed": lambda dsql: ObservedPath("observed", dsql),
}


# What is checked.


@dataclass
class Figures:
    """What became of the runs of one path."""

    path: str
    runs: int = 0
    interrupted: int = 0
    unknown: int = 0
    """Of these: `CommitOutcomeUnknown`, or a note that says that COMMIT was under way."""
    applied: int = 0
    """Of the unknown ones: committed."""
    endings: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def fault(self, kind: str, said: str, raised: BaseException | None) -> None:
        """A promise that did not hold."""
        self.faults.append(f"{self.path}: {kind}: {said}; {raised!r}")

    def count(self, kind: str) -> int:
        """How many faults of a kind."""
        return sum(fault.startswith(f"{self.path}: {kind}:") for fault in self.faults)

    def summary(self) -> dict[str, Any]:
        """The figures, for JSON."""
        found = {
            "path": self.path,
            "runs": self.runs,
            "interrupted": self.interrupted,
            "unknown": self.unknown,
            "applied": self.applied,
        }
        return {**found, "endings": dict(self.endings), "faults": dict(Counter(fault.split(": ")[1] for fault in self.faults))}


DOUBLED, FALSE, LOST = "applied twice", "a value, and not applied", "an error, and applied"
POISONED, FOREIGN = "the next transaction failed", "the answer of another statement"
LEFT_OPEN, HUNG, REPEATED = "left open", "hung", "ran again"
SWALLOWED, REPLACED, IGNORED = "swallowed", "another error than the caller's", "raised by a finalizer"
TOKEN = "the token in a frame"


def shows_token(error: BaseException) -> bool:
    """Is the token in a local variable of any frame of the traceback, or of those of its causes and contexts?"""
    return "X-Amz-Signature" in "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def says_commit(error: BaseException) -> bool:
    """Does an error say that COMMIT was under way?"""
    return isinstance(error, CommitOutcomeUnknown) or any("COMMIT" in note for note in getattr(error, "__notes__", ()))


STATE = """
SELECT (SELECT string_agg(attempt::text, ' ') FROM marks WHERE run = {run}), count(*), count(*) FILTER (WHERE state <> 'idle')
FROM pg_stat_activity WHERE application_name LIKE '%dsql-lambda%'
"""


def state_of(dsql: Apart, run: int) -> tuple[list[int], int, int]:
    """The attempts of a run that were committed; the layer's sessions, and those of them that are busy."""
    ((attempts, number, busy),) = dsql.execute(STATE.format(run=run))
    return [int(each) for each in (attempts or "").split()], int(number or 0), int(busy or 0)


def judged(path: Path, interruption: Interruption, figures: Figures, run: int) -> bool:
    """One run of a path, and what it left. False if its source is of no use any more."""
    path.prepare()
    figures.runs += 1
    value: int | None = None
    said = "nothing"
    is_unknown = False
    with limited():
        try:
            value = interruption.call(path.go, run)
        except Refused:
            said = "Refused"
        except BaseException as error:
            said = type(error).__name__
            is_unknown = says_commit(error)
            if path.connects and shows_token(error):
                figures.fault(TOKEN, said, interruption.raised)
            # What a provider of credentials raised, whatever it is, is the cause of a TokenError.
            of: BaseException | None = error
            while isinstance(of, (CommitOutcomeUnknown, TokenError)) and of.__cause__ is not None:
                of = of.__cause__
            # What comes while `enum` makes a class, it raises anew: of the same type, with the same text.
            is_anew = path.imports and str(of) == str(interruption.raised) and type(of) is type(interruption.raised)
            if of is not interruption.raised and not is_anew and not isinstance(error, interruption.causes):
                figures.fault(HUNG if isinstance(error, Hung) else REPLACED, repr(error), interruption.raised)
        else:
            said = f"value {value}"
    raised = interruption.raised
    interruption.raised = None
    is_swallowed = raised is not None and not interruption.causes and (value is not None or said == "Refused")
    if raised is not None:
        figures.interrupted += 1
        figures.endings[said.split()[0] + (" with COMMIT" if is_unknown else "") + (" swallowed" if is_swallowed else "")] += 1
    # A record that can't be made must not fail a transaction, so an `Exception` that comes while one is made is lost with it.
    is_excused = path.says and isinstance(raised, Exception)
    if is_swallowed and not _unraisable.pop(raised) and not is_excused:
        figures.fault(SWALLOWED, said, raised)
    for other in _unraisable.others:
        figures.fault(IGNORED, other, raised)
    _unraisable.others.clear()
    if path.ran > path.runs and not interruption.causes:
        figures.fault(REPEATED, f"{path.ran} times, {said}", raised)
    with suppress(Exception):
        path.tidy()
    raised = raised.with_traceback(None) if raised is not None else None  # its frames would keep alive what they hold
    try:
        with limited():
            found = path.ask(run)
    except BaseException as error:
        figures.fault(POISONED, repr(error), raised)
        return False
    if found != run:
        figures.fault(FOREIGN, f"{found} for {run}", raised)
    until = time.monotonic() + 1.0
    while True:
        attempts, number, busy = state_of(path.dsql, run)
        if (number <= path.sessions and not busy) or time.monotonic() > until:
            break
        time.sleep(0.002)
    if len(attempts) > 1:
        figures.fault(DOUBLED, f"{said}, applied {attempts}", raised)
    elif value and attempts != [value]:
        figures.fault(FALSE, f"{said}, applied {attempts}", raised)
    elif attempts and not value and not is_unknown:
        figures.fault(LOST, f"{said}, applied {attempts}", raised)
    figures.unknown += is_unknown
    figures.applied += is_unknown and bool(attempts)
    if number > path.sessions or busy:
        figures.fault(LEFT_OPEN, f"{number} sessions, {busy} of them busy, {said}", raised)
        return False
    return True


@contextmanager
def limited(seconds: float = 10.0) -> Iterator[None]:
    """Ends in `Hung` what takes ten seconds instead of milliseconds. An interruption that is an alarm itself sets its own."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class _Unraisable:
    """What was raised where nobody can take it (a finalizer, a callback of the collector)."""

    def __init__(self) -> None:
        self._seen: list[BaseException] = []
        self.others: list[str] = []
        """What a finalizer raised of itself."""

    def __call__(self, found: Any) -> None:
        if isinstance(found.exc_value, (Alarm, Ended, KeyboardInterrupt, MemoryError)):
            self._seen.append(found.exc_value)
        else:
            self.others.append(f"{found.exc_value!r} in {found.object!r}")

    def pop(self, raised: BaseException | None) -> bool:
        """Was it that one?"""
        was = any(each is raised for each in self._seen)
        self._seen.clear()
        return was


_unraisable = _Unraisable()
quiet = logging.getLogger("tests.promises")
quiet.propagate = False


@contextmanager
def ended_when_hung() -> Iterator[None]:
    """What `limited` needs: a SIGALRM raises `Hung`."""

    def hung(_number: int, _frame: FrameType | None) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, hung)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)


def silence_logs() -> None:
    """Records of the default logger, whichever that is, for the rest of this process."""
    os.environ["POWERTOOLS_LOG_LEVEL"] = "CRITICAL"
    logging.getLogger("dsql_lambda").setLevel(logging.CRITICAL + 1)


@contextmanager
def campaign() -> Iterator[Apart]:
    """A server of its own, and its table. A run that hangs is ended by a real alarm; records go nowhere."""

    hook, sys.unraisablehook = sys.unraisablehook, _unraisable
    silence_logs()
    try:
        with ended_when_hung(), open(os.devnull, "w") as nowhere, Apart() as dsql:  # noqa: PTH123
            quiet.addHandler(records := logging.StreamHandler(nowhere))
            dsql.execute("CREATE TABLE marks (run int, attempt int, id uuid DEFAULT gen_random_uuid(), PRIMARY KEY (run, id))")
            yield dsql
            quiet.removeHandler(records)
    finally:
        sys.unraisablehook = hook


def first_run(name: str) -> int:
    """Runs of different paths have different numbers."""
    return (1 + list(PATHS).index(name)) * 1_000_000


def report(figures: Figures) -> None:
    """The faults, on standard error: how many of each kind and place."""
    kinds = Counter(re.sub(r"'raised (\w+) .* at (\S+) in (\S+)'", r"\1 \2 \3", fault) for fault in figures.faults)
    for fault, number in kinds.most_common(60):
        print(f"  {number} times {fault}", file=sys.stderr)
