"""What all tests share: one local DSQL, its table of accounts made anew for each test, and what went over the wire."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import dsql_lambda
from dsql_lambda import ConnectOptions, cache, emf
from dsql_lambda.cache import CachedConnection
from dsql_lambda.credentials import Credentials
from dsql_lambda.runner import run_in_transaction
from dsql_lambda.system import NEVER, System
from dsql_lambda.telemetry import Telemetry
from dsql_local import LocalDsql

# botocore's own signer is the reference; with awscrt installed it would hand the work to another one, whose query has
# another order.
os.environ["BOTO_DISABLE_CRT"] = "true"

ACCOUNTS = """
DROP TABLE IF EXISTS accounts;
CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL CHECK (balance >= 0));
INSERT INTO accounts VALUES (1, 100), (2, 100), (3, 100);
"""


class WallClock:
    """The wall clock of everybody, set forward by a test."""

    ahead_by = 0.0

    def time(self) -> float:
        return time.time() + self.ahead_by


@pytest.fixture(scope="session", autouse=True)
def no_namespace() -> None:
    """That there is no namespace for metrics is logged once a process: it has been, so that no test's records depend on order."""
    emf.is_first_time()


@pytest.fixture(scope="session")
def wall_clock() -> WallClock:
    return WallClock()


@pytest.fixture(scope="session")
def running_dsql(wall_clock: WallClock) -> Iterator[LocalDsql]:
    with LocalDsql(clock=wall_clock.time) as dsql:
        yield dsql


@pytest.fixture
def dsql(running_dsql: LocalDsql, wall_clock: WallClock) -> Iterator[LocalDsql]:
    """The local DSQL with three accounts of 100, an empty log and no faults waiting."""
    running_dsql.execute(ACCOUNTS)
    running_dsql.clear_log()
    yield running_dsql
    running_dsql.clear_faults()
    wall_clock.ahead_by = 0.0


@pytest.fixture
def options(dsql: LocalDsql) -> Iterator[ConnectOptions]:
    """What connects to it as `admin`. What the process cached for it is closed at the end."""
    environ = dsql.environment
    credentials = Credentials(access_key=environ["AWS_ACCESS_KEY_ID"], secret_key=environ["AWS_SECRET_ACCESS_KEY"])
    yield ConnectOptions.from_env(environ, credentials=credentials)
    for cached in cache._cached.values():
        cached.close()
    cache._cached.clear()
    cache._from_environment.clear()


@pytest.fixture
def source(options: ConnectOptions) -> Iterator[CachedConnection]:
    """A cached connection of its own."""
    cached = CachedConnection(options)
    yield cached
    cached.close()


@dataclass
class RecordingLogger:
    """A logger with Powertools' methods that keeps what it was told."""

    records: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def info(self, msg: str, *, extra: dict[str, Any]) -> None:
        self.records.append(("INFO", msg, extra))

    def error(self, msg: str, *, extra: dict[str, Any]) -> None:
        self.records.append(("ERROR", msg, extra))

    @property
    def messages(self) -> list[str]:
        return [message for _, message, _ in self.records]


def here() -> None:
    """What the records of a stage name as their function."""


class Stage:
    """Transactions on a cached connection of their own, in front of a logger and a clock that a test can read."""

    def __init__(self, dsql: LocalDsql, options: ConnectOptions, wall_clock: WallClock) -> None:
        self.dsql = dsql
        self.wall_clock = wall_clock
        self.options = options
        self.logger = RecordingLogger()
        self.slept: list[float] = []
        self.late_by = 0.0
        self.source = self.new_source()

    def monotonic(self) -> float:
        return time.monotonic() + self.late_by

    def new_source(self, **changes: Any) -> CachedConnection:
        options = self.options.replace(**changes) if changes else self.options
        self.source = CachedConnection(options, system=System(clock=self.wall_clock.time, monotonic=self.monotonic))
        return self.source

    def run(self, function: Callable[..., Any], **more: Any) -> Any:
        """`run_transaction` on the stage's source; sleeps are noted and not slept."""
        more.setdefault("deadline_at", NEVER)
        telemetry = Telemetry(here, logger=self.logger)
        system = System(monotonic=self.monotonic, sleep=self.slept.append)
        return run_in_transaction(function, self.source, telemetry=telemetry, system=system, **more)

    def flights(self) -> list[tuple[str, ...]]:
        """The statements of each flight since the last call, by their first word."""
        found = [tuple(sql.split()[0] for sql in event.statements) for event in self.dsql.log if event.kind == "flight"]
        self.dsql.clear_log()
        return found

    def events(self, kind: str) -> int:
        return sum(event.kind == kind for event in self.dsql.log)

    def balances(self) -> list[int]:
        return [int(row[0] or "") for row in self.dsql.execute("SELECT balance FROM accounts ORDER BY id")]

    def backends(self) -> list[str | None]:
        """Sessions of clients that are inside a transaction: none may stay."""
        rows = self.dsql.execute("SELECT state FROM pg_stat_activity WHERE application_name LIKE '%dsql-lambda%'")
        return [row[0] for row in rows if row[0] != "idle"]


@pytest.fixture
def stage(dsql: LocalDsql, options: ConnectOptions, wall_clock: WallClock) -> Iterator[Stage]:
    stage = Stage(dsql, options, wall_clock)
    yield stage
    stage.source.close()


CAMPAIGNS = {"alarms", "bank", "contention", "cuts", "durable", "hostile_server", "interruptions"}
COMMANDS = {"commands", "deployment", "ledger_page"}  # they start Docker's containers, and interrupt `make`


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`-m "not serial" -n 2` runs the others on two processors."""
    for item in items:
        if item.path.stem.removeprefix("test_") in CAMPAIGNS | COMMANDS:
            item.add_marker("serial")


def pytest_report_header() -> str:
    """Which package is tested: the sources, or a built layer."""
    return f"dsql_lambda: {Path(dsql_lambda.__file__).parent}"


@pytest.fixture(scope="session")
def stock_pg8000(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds pg8000 as it is published, also where the suite runs on a built layer with its lean one."""
    folder = tmp_path_factory.mktemp("stock")
    for each in map(Path, sys.path):
        core = each / "pg8000" / "core.py"
        if core.exists() and "\nimport scramp\n" in core.read_text():
            for found in (each / "pg8000", *each.glob("pg8000-*.dist-info")):
                shutil.copytree(found, folder / found.name, ignore=shutil.ignore_patterns("__pycache__"))
            return folder
    raise FileNotFoundError("no published pg8000 is on sys.path")


@pytest.fixture(scope="session")
def lean_pg8000(stock_pg8000: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds pg8000 as the layer does."""
    folder = shutil.copytree(stock_pg8000, tmp_path_factory.mktemp("lean"), dirs_exist_ok=True)
    subprocess.run([sys.executable, str(Path(__file__).parents[1] / "layer" / "lean.py"), str(folder)], check=True)
    return folder
