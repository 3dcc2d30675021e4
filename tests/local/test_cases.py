"""The tables of `cases`: every statement, in both protocols, has the answer that its source says."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from tests.local.cases import (
    SCRIPT_SETUP,
    SETUP,
    Case,
    Script,
    conflicts,
    datatypes,
    indexes,
    queries,
    settings,
    statements,
    tables,
    transactions,
)

from dsql_local import LocalDsql
from dsql_local.protocol.messages import SYNC, Message, bind, data_row, error_fields, execute, parse, query

DESCRIBE_PORTAL = Message(b"D", b"P\0")
IN_A_TRANSACTION = [case for module in (statements, tables, datatypes, indexes, settings, queries) for case in module.CASES]
SCRIPTS = [*transactions.SCRIPTS, *conflicts.SCRIPTS]
# What PostgreSQL 15, where that is the machine's, has no grammar for, and the word at which it stops.
NEWER_THAN_15 = {
    "CREATE TABLE t (a text STORAGE MAIN, b time(3) with time zone, c interval day to second, d short)": "STORAGE",
    "ALTER TABLE thing ADD COLUMN e text STORAGE MAIN": "STORAGE",
    "ALTER TABLE thing ALTER a SET STORAGE DEFAULT": "DEFAULT",
}


@pytest.fixture(scope="module")
def dsql():
    """A cluster with the objects that the statements name."""
    with LocalDsql() as dsql:
        dsql.execute(SETUP)
        yield dsql


@pytest.fixture
def client(connect):
    return connect()


def simple(sql):
    """A statement as one Query message."""
    return (query(sql),)


def extended(sql):
    """A statement as Parse, Bind, Describe, Execute and Sync."""
    return (parse("", sql), bind("", ""), DESCRIBE_PORTAL, execute(""), SYNC)


def answer_to(client, messages):
    """Everything that came back: the answers (command tags, and the error that ended them), the columns and the rows."""
    client.send(*messages)
    answers, columns, rows = [], None, []
    for message in client.replies():
        if message.kind == b"E":
            answers.append("{C} {M}".format(**error_fields(message)))
        elif message.kind == b"C":
            answers += message.texts(1)
        elif message.kind == b"T":
            columns = columns_of(message)
        elif message.kind == b"D":
            rows.append([None if value is None else value.decode() for value in data_row(message)])
    return answers, columns, rows


def columns_of(message):
    """The names in a RowDescription."""
    found, at = [], 2
    for _ in range(struct.unpack_from("!h", message.body)[0]):
        end = message.body.index(b"\0", at)
        found.append(message.body[at:end].decode())
        at = end + 19
    return found


def expected_of(case: Case, dsql: LocalDsql) -> str:
    """The case's answer; on PostgreSQL 15, what PostgreSQL 15 makes of it."""
    if str(dsql.status()["postgres"]).startswith("postgresql-15.") and case.sql in NEWER_THAN_15:
        return f'42601 syntax error at or near "{NEWER_THAN_15[case.sql]}"'
    return case.answer


def check(dsql, client, protocol, case):
    answers, columns, rows = answer_to(client, protocol(case.sql))
    assert answers == [expected_of(case, dsql)], case.source
    if case.columns is not None:
        assert columns == list(case.columns), case.source
    if case.rows is not None:
        assert rows == [list(row) for row in case.rows], case.source


def shown(case: Case | Script) -> str:
    return case.name if isinstance(case, Script) else case.sql[:60]


@pytest.mark.parametrize("protocol", [simple, extended])
@pytest.mark.parametrize("case", IN_A_TRANSACTION, ids=shown)
def test_a_statement_is_answered_as_its_source_says(dsql, client, protocol, case):
    """Alone in a transaction, which is rolled back."""
    client.run("BEGIN")
    check(dsql, client, protocol, case)
    client.run("ROLLBACK")


@pytest.mark.parametrize("protocol", [simple, extended])
@pytest.mark.parametrize("case", transactions.CASES, ids=shown)
def test_a_statement_outside_of_a_transaction(dsql, client, protocol, case):
    """What begins or divides a transaction."""
    check(dsql, client, protocol, case)


@pytest.mark.parametrize("script", SCRIPTS, ids=shown)
def test_a_script(dsql, connect, script):
    """Each session's steps, in the order of the table."""
    dsql.execute(SCRIPT_SETUP)
    clients = {session: connect() for session in sorted({step.session for step in script.steps})}
    for session, sql, answers in script.steps:
        assert answer_to(clients[session], simple(sql))[0] == list(answers), (sql, script.source)
    for client in clients.values():
        client.close()


LINTER = shutil.which("dsql-lint", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))


@pytest.mark.skipif(LINTER is None, reason="pip install dsql-lint")
def test_the_linter_of_aws_refuses_nothing_more(tmp_path):
    """The statements that AWS's linter finds wrong have an error for their answer; many more have."""
    answers = {case.sql: case.answer for case in IN_A_TRANSACTION}
    files = {str(tmp_path / f"{number}.sql"): sql for number, sql in enumerate(answers)}
    for file, sql in files.items():
        Path(file).write_text(sql + ";\n")
    done = subprocess.run([str(LINTER), "--format", "json", *files], capture_output=True, text=True, check=False)
    found = {files[each["file"]]: {one["rule"] for one in each["diagnostics"]} for each in json.loads(done.stdout)["files"]}
    wrong = [sql for sql, rules in found.items() if rules - {"parse_error"}]
    assert len(wrong) > 50
    # The linter refuses every ALTER INDEX and every USING; a cluster takes these two.
    known = ["ALTER INDEX thing_pkey RENAME TO thing_key", "CREATE INDEX ASYNC i ON thing USING btree_index (a)"]
    assert [sql for sql in wrong if not re.match(r"\d\w{4} ", answers[sql])] == known


def test_numeric_has_a_default(client):
    """A column declared numeric holds 18 digits, 6 of them after the point; other columns hold what they say (user guide)."""
    client.run('CREATE TABLE rates (a NUMERIC, "é" pg_catalog.numeric NOT NULL DEFAULT 0.1234567, c dec(9, 8), d decimal)')
    client.run("INSERT INTO rates (a, c, d) VALUES (1.23456789, 1.23456789, 0.0000006)")
    client.run("ALTER TABLE rates ADD COLUMN e numeric")
    client.run("UPDATE rates SET e = 9.87654321")
    assert client.run("SELECT a, é, c, d, e FROM rates") == [["1.234568", "0.123457", "1.23456789", "0.000001", "9.876543"]]
    assert client.error("INSERT INTO rates (a) VALUES (1234567890123)").startswith("22003 numeric field overflow")


def test_there_are_no_more_than(client):
    """Ten schemas beside public, and 24 indexes on a table, the primary key's among them (User Guide, CHAP_quotas)."""
    for number in range(9):
        client.run(f"CREATE SCHEMA s{number}")
    assert client.error("CREATE SCHEMA IF NOT EXISTS s1") == "54000 more than 10 schemas not allowed"
    for number in range(23):
        client.run(f"CREATE INDEX ASYNC holder_{number} ON holder (parent_id)")
    assert client.error("CREATE INDEX ASYNC ON holder (parent_id)") == "54000 more than 24 indexes per table are not allowed"
