"""`make setup-database`: the role, its mapping and the schema, once; and what it says when it cannot."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy.setup_database import roles_of

from dsql_lambda import ConnectOptions, RoleMapping, connect
from dsql_lambda.credentials import Credentials
from dsql_local import LocalDsql

ROOT = Path(__file__).parents[2]
FUNCTION, OPERATOR = "arn:aws:iam::123456789012:role/function", "arn:aws:iam::123456789012:role/operator"
PRINCIPALS = {"functionkey": FUNCTION, "operatorkey": OPERATOR}
OTHERS = ("durable_order", "ledger", "orders")
"""The database roles of the other functions, to which migrations grant too."""


@pytest.fixture(scope="module")
def running() -> Iterator[LocalDsql]:
    """The environment's credentials are the operator's."""
    with LocalDsql(credentials={"operatorkey": "secret", "functionkey": "secret"}, principals=PRINCIPALS) as running:
        yield running


def set_up(cluster: LocalDsql, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "deploy" / "setup_database.py"), *arguments]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "DSQL_"))}
    environment = {
        **kept,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        **cluster.environment,
        **more,
    }
    environment["AWS_EC2_METADATA_DISABLED"] = "true"
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True)


def named(cluster: LocalDsql) -> list[str]:
    roles = [f"transfer={FUNCTION}", *(f"{role}={FUNCTION}-{role}" for role in OTHERS)]
    return ["--endpoint", cluster.endpoint, *(part for role in roles for part in ("--role", role))]


def holds(cluster: LocalDsql) -> list[object]:
    return [
        cluster.execute("SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname = 'transfer'"),
        cluster.execute("SELECT pg_role_name, arn FROM sys.iam_pg_role_mappings WHERE pg_role_name = 'transfer'"),
        cluster.execute("SELECT id, balance FROM accounts ORDER BY id"),
        *(
            cluster.execute(
                "SELECT privilege_type FROM information_schema.role_table_grants "
                f"WHERE grantee = 'transfer' AND table_name = '{table}' ORDER BY 1"
            )
            for table in ("accounts", "dsql_lambda_idempotency")
        ),
    ]


def test_the_function_s_role_can_do_its_work_and_no_more(empty: LocalDsql) -> None:
    """The role in the database, the mapping of the IAM role, and the schema with its grants."""
    done = set_up(empty, *named(empty))
    assert done.returncode == 0, done.stderr
    accounts = [["alice", "100000"], ["bob", "25000"], ["carol", "0"]]
    keys, money = [["INSERT"], ["SELECT"], ["UPDATE"]], [["SELECT"], ["UPDATE"]]
    assert holds(empty) == [[["transfer", "t"]], [["transfer", FUNCTION]], accounts, money, keys]
    key = Credentials(access_key="functionkey", secret_key="secret")
    with connect(ConnectOptions.from_env(empty.environment, user="transfer", credentials=key)) as connection:
        assert connection.run("SELECT balance FROM accounts WHERE id = 'alice'") == [[100_000]]


def test_each_step_is_shown(empty: LocalDsql) -> None:
    """On standard error, as it is done; the second time it says what was there."""
    for state in ("created", "exists"):
        done = set_up(empty, *named(empty))
        first, *others, last = done.stderr.splitlines()
        assert first.startswith("==> connecting to")
        assert {f"==> database role transfer: {state}", f"==> mapping of {FUNCTION} to transfer: {state}"} <= set(others)
        assert any("0001_accounts.sql" in line for line in others) == (state == "created")
        assert last.startswith("==> done: ")


def test_running_it_again_changes_nothing(empty: LocalDsql) -> None:
    """Money that has moved in the meantime stays where it is."""
    set_up(empty, *named(empty))
    empty.execute("UPDATE accounts SET balance = 7 WHERE id = 'bob'")
    before = holds(empty)
    done = set_up(empty, *named(empty))
    assert (done.returncode, holds(empty)) == (0, before)


def test_a_run_that_was_cut_off_is_completed_by_the_next(empty: LocalDsql) -> None:
    """Whatever has been made by then is found."""
    empty.execute("CREATE ROLE transfer WITH LOGIN")
    assert set_up(empty, *named(empty)).returncode == 0
    assert holds(empty)[1] == [["transfer", FUNCTION]]


def test_a_schema_conflict_is_retried(empty: LocalDsql) -> None:
    """Another session's DDL is no reason to give up."""
    empty.conflict_next(2, "OC001", at="statement")
    done = set_up(empty, *named(empty))
    assert done.returncode == 0, done.stderr
    assert empty.faults_waiting == []


def test_a_second_function_has_a_role_and_migrations_of_its_own(empty: LocalDsql, tmp_path: Path) -> None:
    """Nothing in the program is the transfer's alone."""
    (tmp_path / "0001_notes.sql").write_text(
        "CREATE TABLE IF NOT EXISTS notes (id int PRIMARY KEY, text text DEFAULT 'a;\nb'); GRANT SELECT ON notes TO app;"
    )
    done = set_up(empty, "--endpoint", empty.endpoint, "--role", f"app={FUNCTION}", "--migrations", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert empty.execute("SELECT pg_role_name FROM sys.iam_pg_role_mappings") == [["app"]]


def test_the_stack_s_outputs_name_the_roles() -> None:
    """One for each function, by the name of its output."""
    outputs = {"ClusterEndpoint": "x", "TransferRoleArn": "a", "LedgerApiRoleArn": "b", "TransferUrl": "c"}
    assert roles_of(outputs) == [RoleMapping("ledger_api", "b"), RoleMapping("transfer", "a")]


@pytest.mark.parametrize(
    ("arguments", "more", "status", "reason"),
    [
        ((), {"AWS_SECRET_ACCESS_KEY": "wrong"}, 1, "dsql:DbConnectAdmin"),
        ((), {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, 1, "no AWS credentials"),
        (("--migrations", "nowhere"), {}, 1, "nowhere is no folder"),
        (("--role", f"admin={FUNCTION}"), {}, 2, "another name than admin"),
        (("--role", f'a"b={FUNCTION}'), {}, 2, "use lower-case letters"),
        (("--role", "app=arn:aws:sts::123456789012:assumed-role/function/x"), {}, 2, "use an IAM role's or user's"),
    ],
)
def test_a_failure_is_one_sentence_and_changes_nothing(
    empty: LocalDsql, arguments: tuple[str, ...], more: dict[str, str], status: int, reason: str
) -> None:
    """The last line says what was wrong and what to do."""
    done = set_up(empty, *named(empty), *arguments, **more)
    assert done.returncode == status, done.stderr
    assert reason in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert empty.execute("SELECT 1 FROM pg_roles WHERE rolname = 'transfer'") == []


def test_a_statement_that_fails_names_its_place(empty: LocalDsql, tmp_path: Path) -> None:
    """What was done before it stays, and a corrected file completes it."""
    wrong = tmp_path / "0001_notes.sql"
    wrong.write_text("CREATE TABLE notes (id int PRIMARY KEY);\nGRANT SELECT ON nothing TO transfer;")
    done = set_up(empty, *named(empty), "--migrations", str(tmp_path))
    assert done.returncode == 1
    [reason] = [line for line in done.stderr.splitlines() if line.startswith("setup-database:")]
    assert reason == (f'setup-database: {wrong}:2: statement 2 of 2: refused: relation "nothing" does not exist (SQLSTATE 42P01)')
    wrong.write_text("CREATE TABLE notes (id int PRIMARY KEY);\nGRANT SELECT ON notes TO transfer;")
    assert set_up(empty, *named(empty), "--migrations", str(tmp_path)).returncode == 0


def test_without_a_region_the_stack_cannot_be_read(empty: LocalDsql) -> None:
    """The sentence says how to name the cluster without a stack."""
    done = set_up(empty, AWS_REGION="")
    assert done.returncode == 1
    assert "the stack dsql-lambda could not be read" in done.stderr.splitlines()[-1]
    assert "--endpoint and --role" in done.stderr.splitlines()[-1]
