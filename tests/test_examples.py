"""Each example runs, with a cluster's endpoint set and with no setting at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
LAST_LINES = {"pool.py": "all seats are free again", "single_connection.py": "visits: 3"}


def run(name, environment):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_example_is_run():
    """Each file of the folder has its last line in the table above, but the one that the others import."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*LAST_LINES, "cluster.py"}


@pytest.mark.parametrize("name", LAST_LINES)
def test_an_example_runs_on_a_cluster(dsql, name):
    """CLUSTER_ENDPOINT, which AWS's samples read, names the cluster as DSQL_HOST does."""
    environment = {**os.environ, **dsql.environment, "CLUSTER_ENDPOINT": dsql.endpoint}
    del environment["DSQL_HOST"]
    assert run(name, environment)[-1] == LAST_LINES[name]
    assert any(event.kind == "flight" for event in dsql.log)


@pytest.mark.parametrize("name", LAST_LINES)
def test_an_example_runs_with_no_setting_at_all(name):
    """An example starts a local DSQL of its own where no variable names a cluster."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DSQL_", "CLUSTER_"))}
    lines = run(name, environment)
    assert lines[0].startswith("no endpoint is set, so this uses a local DSQL")
    assert lines[-1] == LAST_LINES[name]


def test_the_function_of_another_stack_runs_with_its_own_role(dsql):
    """examples/layer_by_arn: its schema and its grants are all that it needs."""
    folder = EXAMPLES / "layer_by_arn"
    if not dsql.execute("SELECT 1 FROM pg_roles WHERE rolname = 'counter'"):
        dsql.execute(f"CREATE ROLE counter WITH LOGIN; AWS IAM GRANT counter TO '{dsql.principal}'")
    dsql.execute((folder / "schema.sql").read_text())
    code = "import app\nfor _ in range(2): print(app.lambda_handler({'name': 'a'}, None)['calls'])"
    environment = {**os.environ, **dsql.environment, "DSQL_USER": "counter"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "2"]
