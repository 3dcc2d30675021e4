"""Raises an exception once at each bytecode that a call executes, and sees that every promise of a transaction holds after it.

`Stepper` counts the positions of a call and raises at one of them, on `sys.monitoring`; a `Path` is a way through the package;
`interrupt` goes through one of them and checks each run against the database. `python -m tests.interruptions` (`make
interruptions`) goes through all of them. Knows the package's public names and the files it runs, and none of its modules.

A position is a place where CPython can raise what the running code did not: the entry of a function or the resumption of a
generator, before an instruction that may fail, and after a call into C, whose effect is there while its value is lost (as when a
signal comes while `send` returns). Instructions that only move references, such as RETURN_VALUE, look for no signal and
allocate nothing, so nothing can be raised there.

https://docs.python.org/3/library/sys.monitoring.html
"""

from __future__ import annotations

import argparse
import dis
import itertools
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import get_ident
from types import CodeType
from typing import Self

import pg8000
from tests.promises import PATHS, Alarm, Ended, Figures, Path, Refused, campaign, first_run, judged, report

import dsql_lambda

monitoring = sys.monitoring
EVENTS = monitoring.events
TOOL = 4

CANNOT_RAISE = frozenset(
    """
    CACHE COPY COPY_FREE_VARS END_FOR END_SEND EXTENDED_ARG IS_OP JUMP_BACKWARD_NO_INTERRUPT JUMP_FORWARD KW_NAMES
    LOAD_CLOSURE LOAD_CONST LOAD_CONST_IMMORTAL LOAD_DEREF LOAD_FAST LOAD_FAST_AND_CLEAR LOAD_FAST_BORROW
    LOAD_FAST_BORROW_LOAD_FAST_BORROW LOAD_FAST_CHECK LOAD_FAST_LOAD_FAST LOAD_SMALL_INT MAKE_CELL NOP NOT_TAKEN
    POP_EXCEPT POP_ITER POP_JUMP_IF_FALSE POP_JUMP_IF_NONE POP_JUMP_IF_NOT_NONE POP_JUMP_IF_TRUE POP_TOP PUSH_EXC_INFO
    PUSH_NULL RERAISE RESUME RETURN_CONST RETURN_GENERATOR RETURN_VALUE STORE_DEREF STORE_FAST STORE_FAST_LOAD_FAST
    STORE_FAST_STORE_FAST SWAP YIELD_VALUE
    """.split()  # noqa: SIM905 - it reads better so
)
"""RESUME is a position of its own: the entry."""

_SCOPE = tuple(os.path.dirname(each.__file__ or "") + os.sep for each in (dsql_lambda, pg8000, os))  # noqa: PTH120


def is_ours(code: CodeType) -> bool:
    """Is it the package's, its driver's, or the standard library's? (What the interpreter is frozen with has no file.)"""
    return code.co_filename.startswith(_SCOPE) and (
        "site-packages" not in code.co_filename or code.co_filename.startswith(_SCOPE[:2])
    )


class Fork(Ended):
    """Not raised but done: the process forks. The child unwinds with this and ends; the parent goes on as if nothing had been."""


KINDS: dict[str, type[BaseException]] = {"Exception": Alarm, "KeyboardInterrupt": KeyboardInterrupt, "MemoryError": MemoryError}


class Stepper:
    """Counts the positions that this thread passes in our code, and raises at the one that it is told."""

    def __init__(self) -> None:
        self._thread = get_ident()
        self._process = os.getpid()
        self._left = 0
        self.passed = 0
        self._callbacks: dict[int, Callable[..., object]] = {
            EVENTS.PY_START: self._start,
            EVENTS.PY_RESUME: self._resume,
            EVENTS.INSTRUCTION: self._instruction,
            EVENTS.C_RETURN: self._after,
        }
        self._kind: type[BaseException] = Alarm
        self._offsets: dict[CodeType, frozenset[int]] = {}
        self._names: dict[CodeType, dict[int, tuple[str, int | None]]] = {}
        self.raised: BaseException | None = None
        self.causes: tuple[type[BaseException], ...] = ()

    def __enter__(self) -> Self:
        monitoring.use_tool_id(TOOL, "interruptions")
        monitoring.set_events(TOOL, EVENTS.PY_START)
        monitoring.restart_events()
        return self

    def __exit__(self, *_: object) -> None:
        monitoring.set_events(TOOL, 0)
        for code in self._offsets:
            monitoring.set_local_events(TOOL, code, 0)
        monitoring.free_tool_id(TOOL)

    def _listen(self, *, listens: bool) -> None:
        """Be called at each position, or at none: what is not counted runs at its usual speed."""
        for event, callback in self._callbacks.items():
            monitoring.register_callback(TOOL, event, callback if listens else None)

    def at(self, position: int, kind: type[BaseException]) -> None:
        """Raise at this position of the next call, from 1; 0 raises nothing and counts."""
        self._left, self._kind = position, kind

    def call(self, function: Callable[[int], int], run: int) -> int:
        """`function(run)`. Afterwards `raised` is what was raised, if the position was reached, and `passed` how many were."""
        self.raised, self.passed = None, 0
        self._listen(listens=True)
        try:
            return function(run)
        finally:
            self._listen(listens=False)
            if os.getpid() != self._process:
                os._exit(0)

    def _start(self, code: CodeType, offset: int) -> object:
        if not is_ours(code):
            return monitoring.DISABLE
        if code not in self._offsets:
            found = {
                each.offset: (each.opname, each.positions.lineno if each.positions else 0) for each in dis.get_instructions(code)
            }
            self._names[code] = found
            self._offsets[code] = frozenset(offset for offset, (name, _) in found.items() if name not in CANNOT_RAISE)
            monitoring.set_local_events(TOOL, code, EVENTS.INSTRUCTION | EVENTS.PY_RESUME | EVENTS.CALL)
        self._pass("entering", code, offset)
        return None

    def _resume(self, code: CodeType, offset: int) -> None:
        self._pass("resuming", code, offset)

    def _instruction(self, code: CodeType, offset: int) -> object:
        if offset not in self._offsets[code]:
            return monitoring.DISABLE
        self._pass("before", code, offset)
        return None

    def _after(self, code: CodeType, offset: int, _callable: object, _argument: object) -> None:
        self._pass("after", code, offset)

    def _pass(self, when: str, code: CodeType, offset: int) -> None:
        if get_ident() != self._thread:
            return
        self.passed += 1
        if self.passed == self._left:
            name, line = self._names[code].get(offset, ("", 0))
            place = f"{when} {name} at {os.path.basename(code.co_filename)}:{line} in {code.co_qualname}"  # noqa: PTH119
            if self._kind is Fork and (child := os.fork()):
                os.waitpid(child, 0)
                return
            self._listen(listens=False)
            self.raised = self._kind(f"raised {place}")
            raise self.raised


def interrupt(
    make_path: Callable[[], Path],
    stepper: Stepper,
    kinds: Iterable[str] = tuple(KINDS),
    *,
    every: int = 1,
    first: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[int, Figures]:
    """Interrupt a path at each position (from `first` on, one of `every` so many) with each kind of exception; check each run.

    A source that is of no use any more is a fault; then the next runs have a new one.
    """
    path = make_path()
    figures = Figures(path.name)
    runs = itertools.count(first_run(path.name))
    counts = [_positions(path, stepper, next(runs)) for _ in range(_DRY_RUNS)]
    positions = max(counts[-3:])  # at first there are imports, caches to fill and code to instrument
    for position in range(first, positions + 1, every):
        for kind in kinds:
            stepper.at(position, KINDS.get(kind, Fork))
            if not judged(path, stepper, figures, next(runs)):
                path.dsql.ask("close_connections")
                path = make_path()
                _positions(path, stepper, next(runs))
        if position % 100 < every:
            say(f"{path.name}: position {position} of {positions}, {figures.runs} runs, {len(figures.faults)} faults")
    path.close()
    return positions, figures


_DRY_RUNS = 6


def _positions(path: Path, stepper: Stepper, run: int) -> int:
    path.prepare()
    stepper.at(0, Alarm)
    with suppress(Refused):
        stepper.call(path.go, run)
    number = stepper.passed
    path.tidy()
    if path.ask(run) != run:
        raise AssertionError(f"{path.name} does not work when nothing comes between")
    return number


def main() -> int:
    """All positions of all paths; one line of JSON a path on standard output, and progress on standard error."""
    parser = argparse.ArgumentParser(prog="python -m tests.interruptions", description="Interrupt every path at every bytecode.")
    parser.add_argument("paths", nargs="*", help=f"of {', '.join(PATHS)}; all, if none is named")
    parser.add_argument("--kind", action="append", choices=[*KINDS, "fork"], help="of exception; all, if none is named")
    parser.add_argument("--every", type=int, default=1, help="only every so many positions")
    parser.add_argument("--first", type=int, default=1, help="from this position on")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)  # a pool has a thread, and one of the kinds forks
    begun = time.monotonic()
    is_clean = True
    for name in arguments.paths or PATHS:
        with campaign() as dsql, Stepper() as stepper:
            positions, figures = interrupt(
                lambda make=PATHS[name], dsql=dsql: make(dsql),  # type: ignore[misc]
                stepper,
                arguments.kind or KINDS,
                every=arguments.every,
                first=arguments.first,
                say=lambda line: print(f"[{time.monotonic() - begun:6.0f} s] {line}", file=sys.stderr, flush=True),
            )
        print(json.dumps({"positions": positions, **figures.summary()}), flush=True)
        report(figures)
        is_clean = is_clean and not figures.faults
    return 0 if is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
