"""This project's own migrations: AWS's linter, a cluster that has their tables already, and what the functions send to them."""

import subprocess
import sys
from pathlib import Path

import pytest

from dsql_lambda import ConnectOptions, Pool, apply_migrations, check_migrations
from dsql_lambda.check import SqlText, find_sql
from dsql_lambda.credentials import Credentials
from dsql_local import LocalDsql
from dsql_local.cli.database import create_roles

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "migrations").glob("*.sql"))


def options(dsql: LocalDsql) -> ConnectOptions:
    """What connects to it as admin."""
    environ = dsql.environment
    key = Credentials(access_key=environ["AWS_ACCESS_KEY_ID"], secret_key=environ["AWS_SECRET_ACCESS_KEY"])
    return ConnectOptions.from_env(environ, credentials=key)


def test_aws_s_linter_finds_nothing_in_them() -> None:
    """dsql-lint, which `make lint` runs too."""
    linter = Path(sys.executable).parent / "dsql-lint"
    done = subprocess.run([linter, *FILES], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "All statements compatible with DSQL.\n"), done.stdout


def test_they_apply_to_a_cluster_that_has_their_tables() -> None:
    """One that was set up before there were migrations; its money stays."""
    with LocalDsql() as dsql, Pool(options(dsql)) as pool:
        create_roles(dsql, ROOT / "template.yaml")
        assert apply_migrations(ROOT / "migrations", source=pool) == [path.name for path in FILES]
        dsql.execute("DROP TABLE dsql_lambda_migrations; UPDATE accounts SET balance = 7 WHERE id = 'bob'")
        assert apply_migrations(ROOT / "migrations", source=pool) == [path.name for path in FILES]
        assert check_migrations(ROOT / "migrations", source=pool) == []
        assert dsql.execute("SELECT balance FROM accounts WHERE id = 'bob'") == [["7"]]


@pytest.mark.parametrize("sql", find_sql(ROOT / "src"), ids=lambda sql: f"{sql.file.relative_to(ROOT)}:{sql.line}")
def test_what_the_functions_send_is_what_they_make(running_cluster: LocalDsql, sql: SqlText) -> None:
    """Every SQL text of the functions that people copy, prepared."""
    assert sql.is_literal
    sql.check(options(running_cluster))
