"""Cold start: what a fresh process costs from the interpreter's start to the first row, less what a bare interpreter does.

In CPU time, and in instructions where they can be counted. Knows processes and their resource usage, and the texts in `peers`.
Each peer runs from a copy of the installed packages in which there is bytecode for every module, or for none, as in a layer that
was built without and is read-only; the standard library has its own in both. `python -m benchmarks.cold_start` prints the tables.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

import dsql_lambda
from dsql_lambda import connect

from . import charts, instructions
from .local import authority_of, options_of, served
from .peers import CONNECTOR, FIRST_ROW, OURS, PACKAGES, versions
from .report import Say, Section, number, ratio, table, yes

_ROUNDS = 7
_BARE = "the interpreter alone"
_PACKAGINGS = ("with bytecode", "without bytecode")
_COUNTED = """The targets are judged by instructions, which do not depend on what else the machine does; CPU time stands beside
them. valgrind counts user mode only: the kernel's part is in the CPU time alone. Each is counted once, with `PYTHONHASHSEED=0`; a
second count differs by less than 0.1 %:"""
_NOT_COUNTED = """The targets are judged by CPU time. Instructions, which do not depend on what else the machine does, are counted
only where valgrind is installed and can run this interpreter; here they were not."""
_TARGETS = {
    "a tenth or less of `aurora_dsql_psycopg`, both with bytecode": 10,
    "a twentieth or less of its usual packaging, without": 20,
}


class Start(NamedTuple):
    """A process to be: its command and its environment."""

    command: list[str]
    environment: dict[str, str]


Starts = Mapping[tuple[str, str], Start]
"""By the peer's name and the packaging."""


class Cost(NamedTuple):
    """What a process cost, in seconds."""

    cpu: float
    elapsed: float


def run_child(start: Start) -> Cost:
    """Run a process, and give its own resource usage. Raises `RuntimeError` if it fails."""
    started_at = time.perf_counter()
    process = subprocess.Popen(
        start.command,
        env=start.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    _, status, usage = os.wait4(process.pid, 0)
    elapsed = time.perf_counter() - started_at
    process.returncode = os.waitstatus_to_exitcode(status)
    with process.stderr or open(os.devnull, "rb") as said:  # noqa: PTH123
        if process.returncode:
            raise RuntimeError(said.read().decode())
    return Cost(usage.ru_utime + usage.ru_stime, elapsed)


def _needed(names: tuple[str, ...]) -> Iterator[Distribution]:
    """The distributions of these names, and what they require."""
    waiting, seen = [*names, "psycopg-pool"], set()
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in seen:
            continue
        seen.add(name)
        found = distribution(name)
        yield found
        for line in found.requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)


@contextmanager
def packagings() -> Iterator[dict[str, Path]]:
    """Two copies of all packages: one with bytecode that is never checked, one without any."""
    with tempfile.TemporaryDirectory() as place:
        plain = Path(place, "plain")
        for each in _needed(PACKAGES):
            for file in each.files or ():
                if ".." not in file.parts and "__pycache__" not in file.parts:
                    target = plain / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(str(each.locate_file(file)), target)
        source = Path(dsql_lambda.__file__).parent
        shutil.copytree(source, plain / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        compiled = Path(place, "compiled")
        shutil.copytree(plain, compiled)
        compileall.compile_dir(compiled, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        yield dict(zip(_PACKAGINGS, (compiled, plain), strict=True))


@contextmanager
def prepared(environment: dict[str, str]) -> Iterator[Starts]:
    """Each peer and the bare interpreter, in each packaging, without `site`."""
    python = getattr(sys, "_base_executable", sys.executable)
    with packagings() as places, authority_of(environment) as authority:
        base = {**environment, "BENCH_CA": authority, "HOME": tempfile.gettempdir(), "PATH": os.environ.get("PATH", "")}
        yield {
            (name, how): Start(
                [python, "-S", "-B", "-c", code + "\nimport os\nos._exit(0)"], {**base, "PYTHONPATH": str(places[how])}
            )
            for how in _PACKAGINGS
            for name, code in {_BARE: "", **FIRST_ROW}.items()
        }


def measure(starts: Starts, *, rounds: int = _ROUNDS, say: Say = lambda _: None) -> dict[tuple[str, str], list[Cost]]:
    """The cost of each peer in each packaging, round by round; every second round in the reverse order."""
    costs: dict[tuple[str, str], list[Cost]] = {each: [] for each in starts}
    for count in range(-1, rounds):  # the first round warms the disk's cache and does not count
        say(f"cold start: round {count + 1} of {rounds}")
        for each, start in reversed(list(starts.items())) if count % 2 else starts.items():
            cost = run_child(start)
            if count >= 0:
                costs[each].append(cost)
    bare = {how: costs[_BARE, how] for how in _PACKAGINGS}
    return {
        (name, how): [Cost(each.cpu - less.cpu, each.elapsed - less.elapsed) for each, less in zip(found, bare[how], strict=True)]
        for (name, how), found in costs.items()
        if name != _BARE
    }


def instructions_of(starts: Starts, *, say: Say = lambda _: None) -> dict[tuple[str, str], int]:
    """The instructions of each peer in each packaging; empty where they cannot be counted."""
    if not instructions.can_count():
        say("cold start: no valgrind to count instructions with")
        return {}
    counts = {}
    for (name, how), start in starts.items():
        say(f"cold start: counting the instructions of {name}, {how}")
        try:
            counts[name, how] = instructions.count(start.command, start.environment)
        except RuntimeError as error:  # a processor that this valgrind does not know, for one
            say(f"cold start: instructions cannot be counted: {error}")
            return {}
    return {(name, how): each - counts[_BARE, how] for (name, how), each in counts.items() if name != _BARE}


def targets(times: Sequence[Sequence[float]], counts: Sequence[float]) -> str:
    """The targets' table. `times` and `counts` are how often ours goes into the connector's, for each target: in CPU time, round
    by round, and in instructions; `counts` is empty if they were not counted.
    """
    counted = bool(counts)
    head = ["target", *(["by instructions", "holds"] if counted else []), "by CPU time", "holds"]
    rows = []
    for index, (target, least) in enumerate(_TARGETS.items()):
        by_count = [f"1 to {number(counts[index])}", yes(held=counts[index] >= least)] if counted else []
        by_time = [f"1 to {ratio(times[index])}", yes(held=statistics.median(times[index]) >= least)]
        rows.append([target, *by_count, *by_time])
    return table(head, rows)


def section(environment: dict[str, str], *, say: Say) -> Section:
    """The page's chapter, with its chart."""
    with connect(options_of(environment)) as connection:
        connection.run("DROP TABLE IF EXISTS accounts")
        connection.run("CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL)")
        connection.run("INSERT INTO accounts VALUES (1, 100)")
    with prepared(environment) as starts:
        costs = measure(starts, say=say)
        counts = instructions_of(starts, say=say)
    compiled, plain = _PACKAGINGS

    def times(name: str, how: str, ours: str) -> list[float]:
        return [theirs.cpu / own.cpu for theirs, own in zip(costs[name, how], costs[OURS, ours], strict=True)]

    def share(name: str, how: str, ours: str) -> float:
        return counts[name, how] / counts[OURS, ours]

    pairs = ((compiled, compiled), (plain, compiled), (plain, plain))
    head = ["with bytecode", "without", "of ours with bytecode, times", "without, to ours with", "without, to ours without"]
    by_time = [
        [
            name,
            *(f"{number(statistics.median(each.cpu for each in costs[name, how]) * 1000)} ms" for how in _PACKAGINGS),
            *(ratio(times(name, *pair)) for pair in pairs),
        ]
        for name in FIRST_ROW
    ]
    by_instructions, shares = _NOT_COUNTED, []
    if counts:
        by_count = [
            [
                name,
                *(number(counts[name, how] / 1e6) for how in _PACKAGINGS),
                *(number(share(name, *pair)) for pair in pairs),
            ]
            for name in FIRST_ROW
        ]
        by_instructions = f"{_COUNTED}\n\n{table(['instructions, millions', *head], by_count)}"
        shares = [share(CONNECTOR, *pair) for pair in pairs[:2]]
    goals = targets([times(CONNECTOR, *pair) for pair in pairs[:2]], shares)
    found = versions()
    text = f"""What a fresh process costs from the interpreter's start to the first row, less what a bare interpreter does.
"Without bytecode" is a layer that was built without and is read-only, so that every module is compiled at each start. Peers:
{", ".join(f"{name} {found[name]}" for name in PACKAGES)}.

{goals}

{by_instructions}

CPU time is user and system; median of {_ROUNDS} rounds, every second one in the reverse order; ratios are taken within a round:

{table(["CPU time", *head], by_time)}

![cold start](cold-start.svg)
"""
    chart = charts.bars(
        "CPU time to the first row, of a fresh process",
        {
            name: {how: statistics.median(each.cpu for each in costs[name, how]) * 1000 for how in _PACKAGINGS}
            for name in FIRST_ROW
        },
        unit="ms",
    )
    return Section(title="Cold start", text=text, charts={"cold-start.svg": chart})


def main() -> None:
    """Print the chapter."""
    with served() as environment:
        print(section(environment, say=lambda line: print(line, file=sys.stderr)).text)


if __name__ == "__main__":
    main()
