"""The pytest plugin: run by a pytest of its own, in a project of its own."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dsql_local import LocalDsql
from dsql_local.lambda_context import LambdaContext

ROOT = Path(__file__).parents[2]
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def project(tmp_path):
    """Runs pytest on files: their names (with __ for a dot) and contents; what it printed."""

    def run(*arguments, status=0, **files):
        for name, content in files.items():
            (tmp_path / name.replace("__", ".")).write_text(content)
        options = ["-p", "dsql_local.plugin", "-p", "no:cacheprovider", "-W", "error", "--strict-markers", "-q", *arguments]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DSQL_", "PYTEST_"))}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options],
            cwd=tmp_path,
            env={**environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    return run


def test_pytest_finds_it():
    """By its entry point: nothing is to be written into a conftest.py."""
    found = [entry.value for entry in importlib.metadata.entry_points(group="pytest11")]
    assert "dsql_local.plugin" in found, "install local/ again: its entry points are younger than this installation"


def test_it_costs_nothing_until_a_fixture_is_used():
    """pytest imports it everywhere; it brings no event loop, no TLS and no PostgreSQL with it."""
    script = "import pytest, sys; before = set(sys.modules); import dsql_local.plugin; print(*set(sys.modules) - before)"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert set(said.split()) == {"dsql_local", "dsql_local.plugin"}


EACH = """
import os, pytest

@pytest.mark.parametrize("turn", range(3))
def test_each_finds_the_same(dsql, turn):
    assert dsql.execute("SELECT id FROM accounts") == [["1"]]
    assert dsql.execute("SELECT current_database()") == [["postgres"]]
    assert [event for event in dsql.log if event.kind == "flight"] == []
    dsql.execute("DELETE FROM accounts; CREATE TABLE more (a int); CREATE ROLE app WITH LOGIN; GRANT SELECT ON more TO app")
    dsql.conflict_next(5)
    assert os.environ["DSQL_HOST"] == dsql.endpoint

def test_the_environment_is_set_back():
    assert "DSQL_HOST" not in os.environ
"""
MOTO = """
import os
import boto3
import psycopg
import pytest
from moto import mock_aws
from psycopg.conninfo import make_conninfo

def connects(dsql, user):
    action = "generate_db_connect_admin_auth_token" if user == "admin" else "generate_db_connect_auth_token"
    token = getattr(boto3.client("dsql", region_name="us-east-1"), action)(dsql.endpoint, "us-east-1")
    with psycopg.connect(make_conninfo(**{**dsql.libpq(user), "password": token})) as connection:
        return connection.execute("SELECT current_user").fetchone() == (user,)

@pytest.mark.parametrize("user", ["admin", "app"])
def test_inside_of_moto(dsql, user):
    dsql.execute(f"CREATE ROLE app WITH LOGIN; AWS IAM GRANT app TO '{dsql.principal}'")
    with mock_aws():
        assert connects(dsql, user)

def test_with_the_credentials_of_its_documentation(dsql, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    assert connects(dsql, "admin")
"""
SCHEMA = "CREATE TABLE accounts (id int PRIMARY KEY);\nINSERT INTO accounts VALUES (1);\n"


def test_each_test_finds_what_the_schema_made(project):
    """Rows, tables, roles and faults of the test before are gone; the environment is set for those that ask."""
    assert "4 passed" in project(test_each__py=EACH, schema__sql=SCHEMA, pytest__ini="[pytest]\ndsql_schema = schema.sql\n")


def test_the_schema_can_be_a_fixture(project):
    """In a conftest.py, as SQL and as paths."""
    conftest = (
        "import pathlib, pytest\n@pytest.fixture(scope='session')\ndef dsql_schema():\n"
        "    return ['CREATE TABLE first (a int)', pathlib.Path('schema.sql')]\n"
    )
    assert "4 passed" in project(test_each__py=EACH, schema__sql=SCHEMA, conftest__py=conftest)


def test_migrations_can_make_the_template(project):
    """By overriding the fixture that prepares the database."""
    conftest = (
        f"import pytest\n@pytest.fixture(scope='session')\ndef dsql_template(dsql_server):\n    dsql_server.execute({SCHEMA!r})\n"
    )
    assert "4 passed" in project(test_each__py=EACH, conftest__py=conftest)


def test_it_works_under_xdist(project):
    """Each worker has a server of its own."""
    pytest.importorskip("xdist")
    said = project(
        "-p", "xdist", "-n", "2", test_each__py=EACH, schema__sql=SCHEMA, pytest__ini="[pytest]\ndsql_schema = schema.sql\n"
    )
    assert "4 passed" in said


CONTEXT = """
import pytest

@pytest.fixture
def lambda_clock():
    return lambda: now[0]

now = [1000.0]

@pytest.mark.lambda_context(timeout=3, function_name="transfer")
def test_time(lambda_context):
    assert lambda_context.get_remaining_time_in_millis() == 3000
    assert lambda_context.invoked_function_arn.endswith(":function:transfer")
    now[0] += 2.5
    assert lambda_context.get_remaining_time_in_millis() == 500
    now[0] += 2.5
    assert lambda_context.get_remaining_time_in_millis() == 0
"""


def test_the_context_has_a_clock_of_the_tests_own(project):
    """Overriding one fixture stops time; a marker sets the fields."""
    assert "1 passed" in project(test_context__py=CONTEXT)


def test_the_remaining_time_runs():
    """Without a clock of its own the context's time is real."""
    context = LambdaContext(timeout=5)
    first = context.get_remaining_time_in_millis()
    assert 0 < first <= 5000
    while context.get_remaining_time_in_millis() == first:
        pass
    assert context.get_remaining_time_in_millis() < first


def test_the_pages_ten_lines_pass(project):
    """docs/testing.md: its first test, as a reader copies it."""
    first = PYTHON.findall((ROOT / "docs" / "testing.md").read_text())[0]
    assert "1 passed" in project(test_first__py=first)


def test_the_pages_invocation_passes(project, tmp_path):
    """docs/testing.md: the built function in the Runtime Interface Emulator."""
    pytest.importorskip("samcli")
    pytest.importorskip("awslambdaric")
    if sys.platform != "linux":
        pytest.skip("the Runtime Interface Emulator runs on Linux")
    (block,) = (code for code in PYTHON.findall((ROOT / "docs" / "testing.md").read_text()) if "invoke(" in code)
    for name in ("src", "events", "migrations"):
        (tmp_path / name).symlink_to(ROOT / name)
    assert "1 passed" in project(test_invoke__py=block, pytest__ini=f"[pytest]\ndsql_project = {ROOT}\n")


def test_a_snapshot_that_nobody_took_is_an_error(dsql):
    """Its name is in the error."""
    with pytest.raises(KeyError, match="of_nobody"):
        dsql.restore("of_nobody")


def test_two_snapshots_are_kept_apart():
    """Restoring one, then the other, then the first again."""
    with LocalDsql() as dsql:
        dsql.execute("CREATE TABLE t (a int)")
        empty = dsql.snapshot()
        dsql.execute("INSERT INTO t VALUES (1)")
        full = dsql.snapshot()
        for name, rows in ((empty, "0"), (full, "1"), (empty, "0"), (empty, "0"), (full, "1")):
            dsql.restore(name)
            assert dsql.execute("SELECT count(*) FROM t") == [[rows]]
            dsql.execute("INSERT INTO t VALUES (2), (3)")


def test_the_credentials_of_moto_open_it(project):
    """A function that speaks to other services is tested inside of moto, which sets keys of its own."""
    said = project("-W", "default::DeprecationWarning", test_moto__py=MOTO)
    assert "3 passed" in said
