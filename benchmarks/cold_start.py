"""Cold start: the CPU time of a fresh process, from the interpreter's start to the first row, less that of a bare interpreter.

Knows processes and their resource usage, and the texts in `peers`. Each peer runs from a copy of the installed packages in
which there is bytecode for every module, or for none, as in a layer that was built without and is read-only; the standard
library has its own in both. `python -m benchmarks.cold_start` prints the table.
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
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

import dsql_lambda
from dsql_lambda import connect

from . import charts
from .local import authority_of, options_of, served
from .peers import CONNECTOR, FIRST_ROW, OURS, PACKAGES, versions
from .report import Say, Section, number, ratio, table, yes

_ROUNDS = 7
_BARE = "the interpreter alone"
_PACKAGINGS = ("with bytecode", "without bytecode")


class Cost(NamedTuple):
    """What a process cost, in seconds."""

    cpu: float
    elapsed: float


def run_child(python: str, code: str, environment: dict[str, str]) -> Cost:
    """Run a text in a fresh interpreter without `site`, and give its own resource usage. Raises `RuntimeError` if it fails."""
    started_at = time.perf_counter()
    process = subprocess.Popen(
        [python, "-S", "-B", "-c", code + "\nimport os\nos._exit(0)"],
        env=environment,
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


def measure(
    environment: dict[str, str], *, rounds: int = _ROUNDS, say: Say = lambda _: None
) -> dict[tuple[str, str], list[Cost]]:
    """The cost of each peer in each packaging, round by round; every second round in the reverse order."""
    python = getattr(sys, "_base_executable", sys.executable)
    with packagings() as places, authority_of(environment) as authority:
        base = {**environment, "BENCH_CA": authority, "HOME": tempfile.gettempdir(), "PATH": os.environ.get("PATH", "")}
        codes = {(name, how): code for how in _PACKAGINGS for name, code in {_BARE: "", **FIRST_ROW}.items()}
        costs: dict[tuple[str, str], list[Cost]] = {each: [] for each in codes}
        for count in range(-1, rounds):  # the first round warms the disk's cache and does not count
            say(f"cold start: round {count + 1} of {rounds}")
            for (name, how), code in reversed(codes.items()) if count % 2 else codes.items():
                cost = run_child(python, code, {**base, "PYTHONPATH": str(places[how])})
                if count >= 0:
                    costs[name, how].append(cost)
    bare = {how: costs[_BARE, how] for how in _PACKAGINGS}
    return {
        (name, how): [Cost(each.cpu - less.cpu, each.elapsed - less.elapsed) for each, less in zip(found, bare[how], strict=True)]
        for (name, how), found in costs.items()
        if name != _BARE
    }


def section(environment: dict[str, str], *, say: Say) -> Section:
    """The page's chapter, with its chart."""
    with connect(options_of(environment)) as connection:
        connection.run("DROP TABLE IF EXISTS accounts")
        connection.run("CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL)")
        connection.run("INSERT INTO accounts VALUES (1, 100)")
    costs = measure(environment, say=say)
    ours = costs[OURS, _PACKAGINGS[0]]

    def times(name: str, how: str, base: list[Cost] = ours) -> list[float]:
        return [theirs.cpu / own.cpu for theirs, own in zip(costs[name, how], base, strict=True)]

    body = [
        [
            name,
            *(f"{number(statistics.median(each.cpu for each in costs[name, how]) * 1000)} ms" for how in _PACKAGINGS),
            *(ratio(times(name, how)) for how in _PACKAGINGS),
            ratio(times(name, _PACKAGINGS[1], costs[OURS, _PACKAGINGS[1]])),
        ]
        for name in FIRST_ROW
    ]
    same = times(CONNECTOR, _PACKAGINGS[0])
    usual = times(CONNECTOR, _PACKAGINGS[1])
    goals = table(
        ["target", "measured", "holds"],
        [
            [
                "a tenth or less of `aurora_dsql_psycopg`, both with bytecode",
                f"1 to {ratio(same)}",
                yes(held=statistics.median(same) >= 10),
            ],
            [
                "a twentieth or less of its usual packaging, without",
                f"1 to {ratio(usual)}",
                yes(held=statistics.median(usual) >= 20),
            ],
        ],
    )
    found = versions()
    text = f"""CPU time (user and system) of a fresh process from the interpreter's start to the first row, less a bare
interpreter's own; median of {_ROUNDS} rounds, every second one in the reverse order; ratios are taken within a round.
"Without bytecode" is a layer that was built without and is read-only, so that every module is compiled at each start. Peers:
{", ".join(f"{name} {found[name]}" for name in PACKAGES)}.

{goals}

| | CPU time with bytecode | without | of ours with bytecode, times | without, to ours with | without, to ours without |
| --- | ---: | ---: | ---: | ---: | ---: |
{chr(10).join("| " + " | ".join(row) + " |" for row in body)}

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
