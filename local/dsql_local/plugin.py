"""The pytest plugin: fixtures for tests of code that uses DSQL.

    dsql_schema     override it, or set `dsql_schema` in pytest's configuration: the schema that every test starts with
    dsql            the local DSQL in that state; the environment variables point to it
    lambda_context  the context of an invocation; `@pytest.mark.lambda_context(timeout=3)` sets its fields
    invoke          invokes a built function with its layers, as Lambda runs them

pytest imports this module in every project whose interpreter has the package. So it imports nothing before a fixture is used.
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
# The credentials that moto sets while it mocks AWS, and those in its documentation: tests may have them in the environment.
_MOTO_CREDENTIALS = {"testing": "testing", "FOOBARKEY": "FOOBARSECRET"}
_CONFLICTING_VARIABLES = ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "DSQL_URL", "CLUSTER_ENDPOINT")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options of pytest's configuration."""
    parser.addini("dsql_schema", "SQL files that create the schema that every test starts with", type="paths", default=[])
    parser.addini("dsql_project", "the folder of template.yaml, for `invoke`", type="string", default=".")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, for --strict-markers."""
    config.addinivalue_line("markers", "lambda_context(**fields): fields of the fixture lambda_context, such as timeout=3")


@pytest.fixture(scope="session")
def dsql_schema(pytestconfig: pytest.Config) -> Schema:
    """SQL, the path of an SQL file, or several of them. Override it in conftest.py, or set `dsql_schema` in the configuration."""
    files: list[Path] = pytestconfig.getini("dsql_schema")
    return files


@pytest.fixture(scope="session")
def dsql_server() -> Iterator[LocalDsql]:
    """The server: one for the session, and so one for each worker of pytest-xdist."""
    from .api.local_dsql import DEFAULT_CREDENTIALS, LocalDsql  # noqa: PLC0415 - see above
    from .frontend.iam import DEFAULT_PRINCIPAL  # noqa: PLC0415 - see above

    principals = dict.fromkeys(_MOTO_CREDENTIALS, DEFAULT_PRINCIPAL)
    with LocalDsql(credentials={**DEFAULT_CREDENTIALS, **_MOTO_CREDENTIALS}, principals=principals) as server:
        yield server


@pytest.fixture(scope="session")
def dsql_template(dsql_server: LocalDsql, dsql_schema: Schema) -> None:
    """Creates the schema once. Override it to run migrations with `dsql_server.environment`, for example."""
    for part in _parts(dsql_schema):
        dsql_server.execute(part.read_text(encoding="utf-8") if isinstance(part, Path) else part)


@pytest.fixture(scope="session")
def _dsql_snapshot(dsql_server: LocalDsql, dsql_template: object) -> str:
    return dsql_server.snapshot()


@pytest.fixture
def dsql(dsql_server: LocalDsql, _dsql_snapshot: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalDsql]:
    """The local DSQL with the prepared database, an empty log and no pending faults; environment variables point to it."""
    dsql_server.restore(_dsql_snapshot)
    dsql_server.clear_log()
    for name in _CONFLICTING_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in dsql_server.environment.items():
        monkeypatch.setenv(name, value)
    yield dsql_server
    dsql_server.clear_faults()
    dsql_server.close_connections()


@pytest.fixture
def lambda_clock() -> Callable[[], float]:
    """The clock of `lambda_context`, in seconds. Override it to control time."""
    return time.monotonic


@pytest.fixture
def lambda_context(request: pytest.FixtureRequest, lambda_clock: Callable[[], float]) -> LambdaContext:
    """The context of an invocation that starts now."""
    from .lambda_context import LambdaContext  # noqa: PLC0415 - see above

    marker = request.node.get_closest_marker("lambda_context")
    return LambdaContext(clock=lambda_clock, **({} if marker is None else marker.kwargs))


@pytest.fixture
def invoke(dsql: LocalDsql, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RiePool]:
    """Call it with an event and a function's logical id; it returns the response and the log lines.

    The application in the folder `dsql_project` is built once for the session. A function's second invocation in a test is warm.
    Functions run in AWS's Runtime Interface Emulator, without Docker: `pip install 'dsql-local[sam]'`.
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
