"""Cold start: what one function costs from its process's start to its first response, with each client, in Lambda's own process.

Counted in instructions, by valgrind: unlike a time, they do not depend on what else the machine does. Knows how each client is
packaged: with bytecode for every module, or with none. (Packages in Lambda are read-only, so that without bytecode every module
is compiled at each start.)
"""

from __future__ import annotations

import compileall
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

from . import charts
from .lambda_process import Function, run
from .local import accounts, libpq_of
from .peers import CONNECTOR, OURS, PACKAGES, SELECT_1, TRANSACTION, WITHOUT_DATABASE, versions
from .report import Say, Section, number, paragraph, ratio, table, yes

_LAYER = Path(__file__).parents[1] / "layer"
_ROUNDS = 7
_WARM = 200  # invocations
_BASE = "awslambdaric and Powertools"
_WITH, _WITHOUT = "with bytecode", "without"
_VALGRIND = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
_TRANSACTION, _SELECT = "transaction", "SELECT 1"


class Key(NamedTuple):
    """Which function, with which client, packaged how."""

    work: str
    client: str
    packaging: str


def needed(*names: str) -> Iterator[Distribution]:
    """The distributions of these names, and what they require."""
    waiting, seen = list(names), set()
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name not in seen:
            seen.add(name)
            found = distribution(name)
            yield found
            requirements = map(Requirement, found.requires or ())
            waiting += [each.name for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]


def install(place: Path, *names: str) -> None:
    """Copy the installed distributions, and what they require, to a folder, without bytecode."""
    for each in needed(*names):
        for file in each.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                target = place / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(each.locate_file(file)), target)


def build_layer(place: Path) -> Path:
    """The layer as it is built, with bytecode for the interpreter at hand. The folder of its packages."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = [sys.executable, "-B", str(_LAYER / "build.py"), str(_LAYER / "requirements.txt"), str(place)]
    variables = {**os.environ, "RUNTIMES": version, "BYTECODE": "optional"}
    subprocess.run(command, env=variables, check=True, capture_output=True)
    return place / "python"


def both_packagings(plain: Path) -> dict[str, Path]:
    """A folder of packages without bytecode, and a copy with bytecode that is never checked against its source."""
    for cache in list(plain.rglob("__pycache__")):
        shutil.rmtree(cache)
    compiled = plain.with_name(f"{plain.name}-compiled")
    shutil.copytree(plain, compiled)
    compileall.compile_dir(compiled, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    return {_WITH: compiled, _WITHOUT: plain}


@contextmanager
def functions(environment: Mapping[str, str], *, say: Say) -> Iterator[dict[Key, Function]]:
    """Every function, deployed. awslambdaric is Lambda's own and has bytecode in any case."""
    with tempfile.TemporaryDirectory() as name, libpq_of(environment) as libpq:
        place = Path(name)
        say("cold start: building the layer and installing the peers")
        ours = both_packagings(build_layer(place / "layer"))
        install(place / "peers", *PACKAGES, "psycopg-pool", "aws-lambda-powertools")
        theirs = both_packagings(place / "peers")
        install(place / "runtime", "awslambdaric")
        runtime = both_packagings(place / "runtime")[_WITH]
        # Under valgrind a connection takes longer than the init phase allows: it is opened in the first invocation.
        variables = {**environment, "BENCH_CA": libpq["sslrootcert"], "DSQL_CONNECT_AT_INIT": "0"}
        found: dict[Key, Function] = {}
        works = {_TRANSACTION: {_BASE: WITHOUT_DATABASE, **TRANSACTION}, _SELECT: SELECT_1}
        for number_of, (work, client, source) in enumerate((w, c, s) for w, each in works.items() for c, s in each.items()):
            code = place / f"function-{number_of}"
            code.mkdir()
            (code / "app.py").write_text(source)
            for packaging in (_WITH, _WITHOUT) if work == _TRANSACTION else (_WITH,):
                packages = (ours if client in {OURS, _BASE} else theirs)[packaging]
                event = {"id": len(found) + 1, "amount": 1}  # a row of its own: two are counted at once
                found[Key(work, client, packaging)] = Function(code, (packages, runtime), variables, event)
        yield found


def read_count(said: str) -> int:
    """The count in what valgrind wrote. Raises `RuntimeError` if there is none."""
    found = re.search(r"I\s+refs:\s+([\d,]+)", said)
    if found is None:
        raise RuntimeError(f"valgrind gave no count: {said}")
    return int(found[1].replace(",", ""))


def count(function: Function, *, events: int = 1) -> int:
    """The instructions of its process up to its last response. In user mode: what the kernel does is not in it."""
    seeded = {**function.environment, "PYTHONHASHSEED": "0"}  # how often the entries of a dict collide is chance otherwise
    return read_count(run(function._replace(environment=seeded), events=events, under=_VALGRIND).errors)


def cpu_ratios(deployed: Mapping[Key, Function], *, say: Say) -> list[float]:
    """The CPU time of the connector's process over ours, both with bytecode, round by round."""
    keys = [Key(_TRANSACTION, each, _WITH) for each in (CONNECTOR, OURS)]
    say(f"cold start: CPU time, {_ROUNDS} rounds")
    rounds = [[run(deployed[key]).cpu for key in keys] for _ in range(_ROUNDS + 1)]
    return [theirs / ours for theirs, ours in rounds[1:]]  # the first round warms the disk's cache and does not count


def goals(counts: Mapping[Key, int]) -> str:
    """The table of the targets."""
    ours = counts[Key(_TRANSACTION, OURS, _WITH)]
    beyond = ours - counts[Key(_TRANSACTION, _BASE, _WITH)]
    shares = {each: ours / counts[Key(_TRANSACTION, CONNECTOR, each)] for each in (_WITH, _WITHOUT)}
    targets = {
        "a quarter or less of the connector on psycopg 3, both with bytecode": (f"{shares[_WITH]:.3f}", shares[_WITH] <= 0.25),
        "a tenth or less of it, as `sam build` packages it: without": (f"{shares[_WITHOUT]:.3f}", shares[_WITHOUT] <= 0.1),
        "beyond awslambdaric and Powertools, 95 million or less": (f"{beyond / 1e6:.1f} million", beyond <= 95e6),
    }
    rows = [[target, measured, yes(held=is_held)] for target, (measured, is_held) in targets.items()]
    return table(["target, by instructions", "measured", "holds"], rows)


def costs(found: Mapping[Key, float]) -> str:
    """The table of the first function: both packagings, in the unit of `found`, and their ratio to ours with bytecode."""
    ours = found[Key(_TRANSACTION, OURS, _WITH)]
    rows = []
    for client in (_BASE, *TRANSACTION):
        both = [found[Key(_TRANSACTION, client, each)] for each in (_WITH, _WITHOUT)]
        rows.append([client, *map(number, both), *(number(each / ours) for each in both)])
    return table(["client", _WITH, _WITHOUT, "of ours with bytecode, times", "without, to ours with"], rows)


def instructions(deployed: Mapping[Key, Function], *, say: Say) -> tuple[dict[Key, int], int]:
    """Of each process, and what a warm invocation has beyond one without a transaction. A processor counts one at a time."""
    say(f"cold start: counting the instructions of {len(deployed)} processes")
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        counts = dict(zip(deployed, executor.map(count, deployed.values()), strict=True))
        say("cold start: counting the instructions of warm invocations")
        both = [Key(_TRANSACTION, each, _WITH) for each in (OURS, _BASE)]
        ours, base = executor.map(lambda key: count(deployed[key], events=1 + _WARM) - counts[key], both)
    return counts, (ours - base) // _WARM


def section(environment: Mapping[str, str], *, say: Say) -> Section:
    """The page's chapter, with its chart. Raises `RuntimeError` without valgrind."""
    if shutil.which(_VALGRIND[0]) is None:
        raise RuntimeError("valgrind, which counts instructions, is not installed: apt-get install valgrind")
    accounts(environment)
    with functions(environment, say=say) as deployed:
        by_time = cpu_ratios(deployed, say=say)
        counts, warm = instructions(deployed, say=say)
    millions = {key: each / 1e6 for key, each in counts.items()}
    selects = [number(millions[Key(_SELECT, each, _WITH)]) for each in SELECT_1]
    text = f"""A function in Lambda's own process, from the process's start to the first response: AWS's runtime interface client
(awslambdaric), fed by a stand-in for the Runtime API. The function has a Powertools Logger with the Lambda context and one
transaction of a read and a write. It is written as each client's documentation shows, and packaged with bytecode for every module
or with none. Ours is the layer as it is built.
{paragraph(f"Peers: {', '.join(f'{name} {each}' for name, each in versions().items())}.")}

{goals(counts)}

Millions of instructions, in user mode, each counted once with `PYTHONHASHSEED=0`; a second count differs by less than 0.1 %:

{costs(millions)}

![cold start](cold-start.svg)

The same for `SELECT 1`, which the official samples do, without Powertools and with bytecode:

{table(list(SELECT_1), [selects])}

In CPU time (user and system), the connector on psycopg 3 takes {ratio(by_time)} times as much as ours, both with bytecode, in
{_ROUNDS} rounds. A warm invocation has {warm / 1e6:.2f} million instructions more than one without a transaction.
"""
    clients = (_BASE, *TRANSACTION)
    bars = {client: {each: millions[Key(_TRANSACTION, client, each)] for each in (_WITH, _WITHOUT)} for client in clients}
    chart = charts.bars("From a process's start to the first response, in millions of instructions", bars, unit="M")
    return Section(title="Cold start", text=text, charts={"cold-start.svg": chart})
