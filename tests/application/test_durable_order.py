"""The durable order end to end: as SAM builds it, run by AWS's local runner of durable executions, in the emulator and by SAM."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dsql_local import LocalDsql
from dsql_local.sam.durable import DurableError, DurableRunner
from dsql_local.sam.rie import RuntimeInterfaceEmulator
from dsql_local.sam.template import read_function

EVENTS = Path(__file__).parents[2] / "events"
REPLAYED: dict[str, tuple[Any, list[Any], str, str]] = {
    "durable-order": ({"order": "o-1", "state": "settled", "paid": 60}, [["o-1", "settled"]], "8", "40"),
    "durable-order-unpaid": ({"order": "o-2", "state": "cancelled"}, [["o-2", "cancelled"]], "10", "100"),
    "durable-order-too-many": ({"order": "o-3", "state": "refused"}, [], "10", "100"),
}


def event(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text())


def holds(cluster: LocalDsql) -> tuple[list[Any], str, str]:
    orders = cluster.execute("SELECT id, state FROM orders ORDER BY id")
    [[stock]], [[balance]] = (
        cluster.execute("SELECT stock FROM products WHERE id = 'book'"),
        cluster.execute("SELECT balance FROM customers WHERE id = 'rich'"),
    )
    return orders, str(stock), str(balance)


@pytest.fixture(scope="module")
def runner() -> Iterator[DurableRunner]:
    try:
        runner = DurableRunner(invocation_seconds=15)
    except DurableError as error:
        pytest.skip(str(error))
    with runner:
        yield runner


@pytest.fixture(scope="module")
def function(built: Path, running_cluster: LocalDsql, runner: DurableRunner) -> Iterator[RuntimeInterfaceEmulator]:
    environment = {**running_cluster.environment, "AWS_ENDPOINT_URL_LAMBDA": runner.url}
    with RuntimeInterfaceEmulator(read_function(built / "template.yaml", "DurableOrderFunction"), environment) as emulator:
        yield emulator


Execute = Callable[[Any], tuple[bool, Any]]


@pytest.fixture
def execute(runner: DurableRunner, function: RuntimeInterfaceEmulator, cluster: LocalDsql) -> Execute:
    """Run an execution to its end."""
    return lambda event: runner.execute(event, function.url, seconds=60)


def test_every_event_is_replayed() -> None:
    """An event that no test replays would be documentation that nobody checks."""
    assert {path.stem for path in EVENTS.glob("durable-order*.json")} == set(REPLAYED)


@pytest.mark.parametrize("name", REPLAYED)
def test_an_execution_ends_as_it_says(execute: Execute, cluster: LocalDsql, name: str) -> None:
    """Its result, and what is in the database afterwards; the day's wait takes no time."""
    result, *state = REPLAYED[name]
    assert execute(event(name)) == (True, result)
    assert holds(cluster) == tuple(state)


def test_conflicts_and_lost_answers_are_settled_in_its_steps(execute: Execute, cluster: LocalDsql) -> None:
    """Each step is applied once, by its receipt."""
    cluster.conflict_next(1)
    cluster.cut("after-commit-sent")
    assert execute(event("durable-order"))[0]
    assert holds(cluster) == ([["o-1", "settled"]], "8", "40")


def test_an_execution_that_fails_says_so(execute: Execute) -> None:
    """An event without a product is the caller's mistake: the execution has failed, and with what."""
    succeeded, error = execute({"order": "o-9"})
    assert not succeeded
    assert "product" in json.dumps(error)


def test_the_sdk_is_in_the_function_and_boto3_is_not(built: Path) -> None:
    """AWS recommends to bring the SDK; boto3 is in the runtime."""
    names = {path.name for path in (built / "DurableOrderFunction").iterdir()}
    assert {"app.py", "aws_durable_execution_sdk_python"} <= names
    assert not {"boto3", "botocore"} & names


def command(project: Path, via: str) -> list[str]:
    arguments = ["--function", "DurableOrderFunction", "--event", str(EVENTS / "durable-order.json")]
    return [sys.executable, "-m", "dsql_local", "invoke", *arguments, "--via", via, "--project", str(project)]


def test_it_is_invoked_in_the_emulator(project: Path, runner: DurableRunner, temporary: Path) -> None:
    """`make invoke FUNCTION=DurableOrderFunction`: the result on standard output, and nothing is left."""
    done = subprocess.run(
        command(project, "rie"), env={**os.environ, "TMPDIR": str(temporary)}, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == REPLAYED["durable-order"][0]
    assert list(temporary.iterdir()) == []


def test_sam_local_invokes_it(project: Path, runner: DurableRunner, docker: Any, temporary: Path) -> None:
    """`sam local invoke` with its own support for durable functions, and the same runner in place of its image."""
    done = subprocess.run(
        command(project, "sam"), env={**os.environ, "TMPDIR": str(temporary)}, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == REPLAYED["durable-order"][0]
    assert list(temporary.iterdir()) == []
