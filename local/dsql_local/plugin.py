"""The pytest plugin: fixtures for whoever tests code that speaks to DSQL.

    dsql_schema     override it, or set `dsql_schema` in pytest's configuration: what every test finds in the database
    dsql            the local DSQL with that, as if nobody had used it; the environment's variables lead to it
    lambda_context  the context of an invocation whose time runs; `@pytest.mark.lambda_context(timeout=3)` says how long
    invoke          the built function and layer, as Lambda runs them

pytest imports this module in every project whose interpreter has the package, so it imports nothing before a fixture is used. It
knows pytest and the public methods of the package's classes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .api.local_dsql import LocalDsql
    from .lambda_context import LambdaContext
    from .sam.rie_pool import RiePool

__all__ = [
    "dsql",
    "dsql_schema",
    "dsql_server",
    "dsql_template",
    "invoke",
    "lambda_clock",
    "lambda_context",
    "pytest_addoption",
    "pytest_configure",
]

Schema = str | Path | Iterable[str | Path] | None
# What moto sets while it mocks AWS, and what its documentation sets before: a function's test may have them in the environment.
_MOTO_CREDENTIALS = {"testing": "testing", "FOOBARKEY": "FOOBARSECRET"}
_OTHERS = ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "DSQL_URL", "CLUSTER_ENDPOINT")


def pytest_addoption(parser: pytest.Parser) -> None:
    """What pytest's configuration may say."""
    parser.addini("dsql_schema", "SQL files that make the database that every test finds", type="paths", default=[])
    parser.addini("dsql_project", "the folder of template.yaml, for `invoke`", type="string", default=".")


def pytest_configure(config: pytest.Config) -> None:
    """The marker, for --strict-markers."""
    config.addinivalue_line("markers", "lambda_context(**fields): the fields of the fixture of this name, such as timeout=3")


@pytest.fixture(scope="session")
def dsql_schema(pytestconfig: pytest.Config) -> Schema:
    """SQL, or the path of an SQL file, or several of either. Override it in a conftest.py, or name files in `dsql_schema`."""
    files: list[Path] = pytestconfig.getini("dsql_schema")
    return files


@pytest.fixture(scope="session")
def dsql_server() -> Iterator[LocalDsql]:
    """One local DSQL a session; each worker of pytest-xdist has a session, and so one of its own."""
    from .api.local_dsql import DEFAULT_CREDENTIALS, LocalDsql  # noqa: PLC0415 - see above
    from .frontend.iam import DEFAULT_PRINCIPAL  # noqa: PLC0415 - see above

    principals = dict.fromkeys(_MOTO_CREDENTIALS, DEFAULT_PRINCIPAL)
    with LocalDsql(credentials={**DEFAULT_CREDENTIALS, **_MOTO_CREDENTIALS}, principals=principals) as server:
        yield server


@pytest.fixture(scope="session")
def dsql_template(dsql_server: LocalDsql, dsql_schema: Schema) -> None:
    """Prepares the database once. Override it to do that otherwise, with migrations through `dsql_server.environment`, say."""
    for part in _parts(dsql_schema):
        dsql_server.execute(part.read_text(encoding="utf-8") if isinstance(part, Path) else part)


@pytest.fixture(scope="session")
def _dsql_snapshot(dsql_server: LocalDsql, dsql_template: object) -> str:
    return dsql_server.snapshot()


@pytest.fixture
def dsql(dsql_server: LocalDsql, _dsql_snapshot: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalDsql]:
    """The local DSQL as it was prepared, with an empty log and no faults waiting; the process's environment leads to it."""
    dsql_server.restore(_dsql_snapshot)
    dsql_server.clear_log()
    for name in _OTHERS:
        monkeypatch.delenv(name, raising=False)
    for name, value in dsql_server.environment.items():
        monkeypatch.setenv(name, value)
    yield dsql_server
    dsql_server.clear_faults()
    dsql_server.close_connections()


@pytest.fixture
def lambda_clock() -> Callable[[], float]:
    """What `lambda_context` reads the time from, in seconds. Override it to stop time, or to let it jump."""
    return time.monotonic


@pytest.fixture
def lambda_context(request: pytest.FixtureRequest, lambda_clock: Callable[[], float]) -> LambdaContext:
    """The context of an invocation that begins now."""
    from .lambda_context import LambdaContext  # noqa: PLC0415 - see above

    marker = request.node.get_closest_marker("lambda_context")
    return LambdaContext(clock=lambda_clock, **({} if marker is None else marker.kwargs))


@pytest.fixture
def invoke(dsql: LocalDsql, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RiePool]:
    """Call it with an event and a function's logical id: what the built function answered, and its log lines.

    The application is built once a session, in the folder that `dsql_project` names; a function's second invocation in one test
    is a warm one. It runs through AWS's Runtime Interface Emulator, without Docker: `pip install 'dsql-local[sam]'`.
    """
    from .sam.rie_pool import RiePool  # noqa: PLC0415 - see above

    project = pytestconfig.rootpath / pytestconfig.getini("dsql_project")
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with RiePool(project, dsql.environment, built=shared / "dsql-built") as emulators:
        yield emulators


def _parts(schema: Schema) -> list[str | Path]:
    if schema is None:
        return []
    return [schema] if isinstance(schema, str | Path) else list(schema)
