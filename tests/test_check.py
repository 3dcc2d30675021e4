"""`dsql_lambda.check`: which texts it finds, and what it has the cluster say of them."""

import os
import subprocess
import sys

import pytest

from dsql_lambda.check import SqlError, Unchecked, find_sql

HANDLER = '''
import subprocess
from dsql_lambda import Transaction, connect, run_transaction, with_dsql_transaction

COLUMNS = "id, balance"
BOTH = f"SELECT {COLUMNS} FROM accounts"
twice = "SELECT 1"
twice = "SELECT 2"


@with_dsql_transaction
def handler(event, context, tx):
    tx.rows("SELECT id FROM accounts WHERE id = :id", id=event["id"])
    tx.defer(
        "UPDATE accounts SET balance = :b "
        "WHERE id = :id",
        expect_rows=1, b=5, id=1,
    )
    tx.row(BOTH)
    tx.value(BOTH + " LIMIT 1")
    tx.run("SELECT 1" if event else "SELECT 2")
    tx.run(f"SELECT {event['column']} FROM accounts")
    tx.run(twice)
    tx.run(*event)
    subprocess.run("SELECT nothing of ours")
    return helper(tx)


def helper(work: "Transaction"):
    work.stream("""SELECT id
        FROM accounts""")


def by_name(t):
    return t.value("SELECT 3")


class Repository:
    def __init__(self, tx):
        self.tx = tx

    def all(self):
        return self.tx.rows("SELECT 4")


run_transaction(lambda each: each.run("SELECT 5"))
run_transaction(by_name)
with connect() as connection, connection.transaction() as block:
    block.run("SELECT 6")
'''


@pytest.fixture
def project(tmp_path):
    (tmp_path / "app.py").write_text(HANDLER)
    return tmp_path


def test_every_text_given_to_a_transaction_is_found(project):
    """With its line; what is made at run time has an empty text, and what is given to anything else is not found."""
    found = [(each.line, each.method, each.text) for each in find_sql(project)]
    assert found == [
        (13, "rows", "SELECT id FROM accounts WHERE id = :id"),
        (15, "defer", "UPDATE accounts SET balance = :b WHERE id = :id"),
        (19, "row", "SELECT id, balance FROM accounts"),
        (20, "value", "SELECT id, balance FROM accounts LIMIT 1"),
        (21, "run", "SELECT 1"),
        (21, "run", "SELECT 2"),
        (22, "run", ""),
        (23, "run", ""),
        (24, "run", ""),
        (30, "stream", "SELECT id\n        FROM accounts"),
        (35, "value", "SELECT 3"),
        (43, "rows", "SELECT 4"),
        (46, "run", "SELECT 5"),
        (49, "run", "SELECT 6"),
    ]
    assert str(find_sql(project / "app.py")[0]) == f"{project / 'app.py'}:13"


def text(project, call):
    """The one text of a handler that makes a call."""
    (project / "app.py").write_text(f"def handler(event, context, tx):\n    {call}\n")
    (found,) = find_sql(project)
    return found


@pytest.mark.parametrize(
    "call",
    [
        'tx.rows("SELECT id FROM accounts WHERE id = :id", id=event["id"])',
        'tx.run("UPDATE accounts SET balance = balance - :a WHERE id IN (:x, :y)", a=event["a"], x=1, y=2)',
        'tx.value("SELECT :a + :b", a=1, b=2)',
        'tx.run("INSERT INTO accounts VALUES (4, 100) ON CONFLICT (id) DO NOTHING RETURNING id")',
        "tx.value(\"SELECT jsonb '[7, 8]' -> :i\", types={'i': 23}, i=event['i'])",
    ],
)
def test_what_the_schema_takes_passes_and_is_not_run(dsql, options, project, call):
    """The types of values that are in the source are those that the layer sends."""
    text(project, call).check(options)
    assert dsql.execute("SELECT count(*) FROM accounts") == [["3"]]


@pytest.mark.parametrize(
    ("call", "line", "said"),
    [
        ('tx.rows("SELECT balanc FROM accounts")', 2, 'column "balanc" does not exist (SQLSTATE 42703)'),
        ('tx.rows("SELECT id FROM account")', 2, 'relation "account" does not exist (SQLSTATE 42P01)'),
        (
            "tx.rows(\"SELECT id FROM accounts WHERE id = 'one'\")",
            2,
            'invalid input syntax for type integer: "one" (SQLSTATE 22P02)',
        ),
        (
            'tx.rows("SELECT id FROM accounts WHERE id::text = :id", id=1)',
            2,
            "operator does not exist: text = integer (SQLSTATE 42883)",
        ),
        (
            'tx.run("""UPDATE accounts\n    SET balance = 0\n    WHERE nothing = 1""")',
            4,
            'column "nothing" does not exist (SQLSTATE 42703)',
        ),
        ('tx.run("SELEC 1")', 2, 'syntax error at or near "SELEC" (SQLSTATE 42601)'),
        ('tx.run("SELECT 1; SELECT 2")', 2, "cannot insert multiple commands into a prepared statement (SQLSTATE 42601)"),
        ('tx.run("TRUNCATE accounts")', 2, "unsupported statement: Truncate (SQLSTATE 0A000)"),
        (
            'tx.run("CREATE INDEX i ON accounts (balance)")',
            2,
            "unsupported mode. please use CREATE INDEX ASYNC. (SQLSTATE 0A000)",
        ),
        ('tx.run("SELECT pg_advisory_lock(1)")', 2, "function pg_advisory_lock not supported (SQLSTATE 0A000)"),
        ('tx.run("COMMIT")', 2, "COMMIT is not for tx, which begins and ends the transaction itself"),
        ('tx.run("SELECT :a, $1")', 2, "the statement has $1 beside :a: name all of its placeholders, or number all of them"),
    ],
)
def test_what_is_refused_fails_with_file_and_line(dsql, options, project, call, line, said):
    """Unknown columns and tables, wrong types, what DSQL does not support, what the layer does not send."""
    with pytest.raises(SqlError) as failed:
        text(project, call).check(options)
    assert str(failed.value).splitlines()[0] == f"{project / 'app.py'}:{line}: {said}"


def test_the_place_in_the_statement_is_shown(dsql, options, project):
    """As psql shows it, in the text as it is sent."""
    with pytest.raises(SqlError) as failed:
        text(project, 'tx.rows("SELECT id FROM accounts WHERE id = :id AND balanc > 0", id=event)').check(options)
    assert str(failed.value).splitlines()[1:3] == [
        "    SELECT id FROM accounts WHERE id = $1 AND balanc > 0",
        "                                              ^",
    ]


def test_what_can_t_be_checked_is_skipped_by_name(dsql, options, project):
    """A text that is made at run time, and one whose meaning depends on the values."""
    with pytest.raises(Unchecked, match=r"app\.py:2: the SQL given to run\(\) is made at run time, so it is not checked"):
        text(project, "tx.run(event['sql'])").check(options)
    with pytest.raises(Unchecked, match=r"app\.py:2: .* write a cast to have it checked"):
        text(project, 'tx.run("SELECT :a + :b", a=event, b=event)').check(options)


def test_a_path_that_is_not_there_is_no_empty_success(tmp_path):
    """A slip in the folder's name would check nothing."""
    with pytest.raises(FileNotFoundError, match="name the folders that hold the handlers"):
        find_sql(tmp_path / "sources")


def test_in_a_pytest_run(project):
    """Each text is a test: passed, failed with file and line, or listed as skipped."""
    (project / "app.py").write_text(
        'def handler(event, context, tx):\n    tx.rows("SELECT id FROM accounts")\n    tx.rows("SELECT no FROM accounts")\n'
        '    tx.run(event["sql"])\n'
    )
    (project / "test_sql.py").write_text(
        "import pytest\nfrom dsql_lambda.check import find_sql\n\n"
        "@pytest.fixture(scope='session')\ndef dsql_schema():\n    return 'CREATE TABLE accounts (id int PRIMARY KEY)'\n\n"
        "@pytest.mark.parametrize('sql', find_sql('app.py'), ids=str)\ndef test_sql(dsql, sql):\n    sql.check()\n"
    )
    command = [sys.executable, "-m", "pytest", "-ra", "-p", "dsql_local.plugin", "-p", "no:cacheprovider"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DSQL_USER", "PYTEST_"))}
    environment = {**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, env=environment)
    assert "1 failed, 1 passed, 1 skipped" in done.stdout, done.stdout + done.stderr
    assert 'app.py:3: column "no" does not exist (SQLSTATE 42703)' in done.stdout
    assert "app.py:4: the SQL given to run() is made at run time, so it is not checked" in done.stdout
