"""What the application's tests share: the application built by SAM, a local DSQL with its schema, and Docker if it is there."""

import gc
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from dsql_lambda import ConnectOptions, Pool, apply_migrations
from dsql_lambda.credentials import Credentials
from dsql_local import LocalDsql
from dsql_local.cli.database import create_roles
from dsql_local.sam.rie import RuntimeInterfaceEmulator
from dsql_local.sam.template import Function, read_function

ROOT = Path(__file__).parents[2]
WHEELS = Path(sys.prefix) / "wheels"
# Every pip that a test starts works without a network: `make` has fetched what the layer's builds install.
os.environ |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(WHEELS)}
AS_NEW = """
    DELETE FROM dsql_lambda_idempotency; DELETE FROM orders; DELETE FROM transfers; DELETE FROM accounts WHERE id > 'd';
    UPDATE accounts SET balance = 100000 WHERE id = 'alice'; UPDATE accounts SET balance = 25000 WHERE id = 'bob';
    UPDATE accounts SET balance = 0 WHERE id = 'carol'; DELETE FROM products WHERE id = 'unicorn';
    UPDATE products SET stock = 100 WHERE id = 'desk'; UPDATE products SET stock = 3 WHERE id = 'lamp';
    UPDATE products SET stock = 10 WHERE id = 'book'; UPDATE customers SET balance = 100 WHERE id = 'rich'
"""

ROLES = "SELECT rolname FROM pg_roles"


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what SAM builds and of what it is told, so that no test meets another's build."""
    copy = tmp_path_factory.mktemp("project")
    for name in ("template.yaml", "samconfig.toml"):
        shutil.copy(ROOT / name, copy)
    for name in ("layer", "src", "events", "migrations"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return copy


@pytest.fixture(scope="session")
def built(project: Path) -> Path:
    """The folder that `sam build` made of it, with bytecode for the interpreter at hand."""
    assert WHEELS.is_dir(), f"{WHEELS} is missing: run the tests by `make test`, which fetches the layer's wheels"
    environment = {**os.environ, "PYTHON": sys.executable, "BYTECODE": "optional", "SAM_CLI_TELEMETRY": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "samcli", "build"], cwd=project, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return project / ".aws-sam" / "build"


@pytest.fixture(scope="session")
def transfer(built: Path) -> Function:
    return read_function(built / "template.yaml", "TransferFunction")


@pytest.fixture(scope="session")
def running_cluster(project: Path) -> Iterator[LocalDsql]:
    """A local DSQL with the functions' roles, mapped as the deployment does it, and the migrations."""
    with LocalDsql() as dsql:
        create_roles(dsql, project / "template.yaml")
        environ = dsql.environment
        key = Credentials(access_key=environ["AWS_ACCESS_KEY_ID"], secret_key=environ["AWS_SECRET_ACCESS_KEY"])
        with Pool(ConnectOptions.from_env(dsql.environment, credentials=key)) as pool:
            apply_migrations(project / "migrations", source=pool)
        yield dsql


@pytest.fixture
def cluster(running_cluster: LocalDsql) -> Iterator[LocalDsql]:
    """The same as it was made, with an empty log and no faults waiting."""
    running_cluster.execute(AS_NEW)
    running_cluster.clear_log()
    yield running_cluster
    running_cluster.clear_faults()


@pytest.fixture(scope="module")
def running() -> Iterator[LocalDsql]:
    """A local DSQL without roles and schema, for `empty`. A module that needs other credentials has its own."""
    with LocalDsql() as running:
        yield running


@pytest.fixture
def empty(running: LocalDsql) -> Iterator[LocalDsql]:
    """A cluster on which nothing has been set up."""
    before = running.snapshot()
    roles = running.execute(ROLES)
    yield running
    running.clear_faults()
    running.restore(before)
    for [role] in running.execute(ROLES):
        if [role] not in roles:  # a snapshot holds the schema and its rows, and no roles
            running.execute(f"DROP ROLE {role}")


@pytest.fixture(scope="module")
def environments(built: Path, running_cluster: LocalDsql) -> Iterator[Callable[[str], RuntimeInterfaceEmulator]]:
    """The execution environment of a function by its logical id, kept for the tests of a module: a start costs a second."""
    if sys.platform != "linux":
        pytest.skip("the Runtime Interface Emulator runs on Linux only")
    started: dict[str, RuntimeInterfaceEmulator] = {}
    with ExitStack() as stack:

        def environment(name: str) -> RuntimeInterfaceEmulator:
            if name not in started:
                function = read_function(built / "template.yaml", name)
                started[name] = stack.enter_context(RuntimeInterfaceEmulator(function, running_cluster.environment))
            return started[name]

        yield environment


@pytest.fixture
def emulate() -> Iterator[Callable[..., RuntimeInterfaceEmulator]]:
    """Start an execution environment of a function, which ends with the test."""
    if sys.platform != "linux":
        pytest.skip("the Runtime Interface Emulator runs on Linux only")
    with ExitStack() as stack:
        yield lambda function, environment=None: stack.enter_context(RuntimeInterfaceEmulator(function, environment))


@pytest.fixture(scope="session")
def docker() -> Any:
    """A client of the Docker engine; without one the test is skipped, or fails where REQUIRE_SAM_LOCAL=1 says it must not be."""
    module = importlib.import_module("docker")
    said = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # its client leaves a socket open that it could not connect
        try:
            engine = module.from_env(timeout=5)
            engine.ping()
        except module.errors.DockerException as error:
            said = str(error)
        gc.collect()
    if said and os.environ.get("REQUIRE_SAM_LOCAL") == "1":
        pytest.fail(f"REQUIRE_SAM_LOCAL=1, and no Docker engine answers: {said}")
    if said:
        pytest.skip("no Docker engine answers")
    return engine


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Whether a process runs; one that only waits to be reaped does not."""

    def alive(pid: int) -> bool:
        with suppress(OSError):
            return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
        return False

    return alive


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A TMPDIR for a command: short enough for a unix socket below it, and open to the user whom root has PostgreSQL run as."""
    folder = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
