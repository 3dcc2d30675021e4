"""Migrations: each statement once, whoever runs them, however many at once, and wherever one of them ends."""

import os
import subprocess
import sys
import threading

import pytest

from dsql_lambda import MigrationError, Pool, apply_migrations, check_migrations, pending_migrations
from dsql_lambda.dsql_forms import dsql_form
from dsql_lambda.migration_records import TABLE
from dsql_lambda.script import split
from dsql_lambda.system import System
from dsql_local import LocalDsql
from dsql_local.api.admin_session import SqlError

FIRST = """-- Notes, and who wrote them.
CREATE TABLE notes (id int PRIMARY KEY, author text, text text DEFAULT 'a;b');
INSERT INTO notes VALUES (1, 'ann', 'x'), (2, 'bob', 'y');

CREATE INDEX ASYNC notes_author ON notes (author);
"""
SECOND = """ALTER TABLE notes ADD COLUMN stars int;
UPDATE notes SET stars = 0;
ALTER TABLE notes ADD CONSTRAINT notes_stars CHECK (stars >= 0) NOT VALID;
ALTER TABLE ASYNC notes VALIDATE CONSTRAINT notes_stars;
CREATE UNIQUE INDEX ASYNC notes_text ON notes (text);
ALTER TABLE notes ADD CONSTRAINT notes_text UNIQUE USING INDEX notes_text;
UPDATE notes SET stars = stars + 1;
"""


@pytest.fixture(scope="module")
def running_dsql(wall_clock):
    """A server of this module's own, whose jobs begin soon."""
    with LocalDsql(clock=wall_clock.time, job_delay=0.02) as running:
        yield running


@pytest.fixture(scope="module")
def empty(running_dsql):
    """A snapshot of the database with nothing in it."""
    return running_dsql.snapshot()


@pytest.fixture
def dsql(running_dsql, empty):
    """A database with nothing in it."""
    running_dsql.restore(empty)
    running_dsql.clear_log()
    yield running_dsql
    running_dsql.clear_faults()


@pytest.fixture
def pool(options):
    with Pool(options) as pool:
        yield pool


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, FIRST, SECOND)
    return tmp_path


def write(folder, *scripts):
    for number, script in enumerate(scripts, 1):
        (folder / f"{number:04}_step.sql").write_text(script)


def state(dsql):
    """Everything that the migrations make, and what is recorded of them."""
    return [
        dsql.execute("SELECT * FROM notes ORDER BY id"),
        dsql.execute("SELECT indexrelid::regclass, indisvalid FROM pg_index WHERE indrelid = 'notes'::regclass ORDER BY 1"),
        dsql.execute("SELECT conname, convalidated FROM pg_constraint WHERE conrelid = 'notes'::regclass ORDER BY 1"),
        dsql.execute(f"SELECT version, name, state, done, doing, checksum, duration_ms >= 0 FROM {TABLE} ORDER BY version"),
    ]


@pytest.fixture
def wanted(folder):
    sums = [line.split()[0] for line in sha256(*sorted(folder.glob("*.sql")))]
    return [
        [["1", "ann", "x", "1"], ["2", "bob", "y", "1"]],
        [["notes_pkey", "t"], ["notes_author", "t"], ["notes_text", "t"]],
        [["notes_pkey", "t"], ["notes_stars", "t"], ["notes_text", "t"]],
        [
            ["0001", "0001_step.sql", "applied", "3", None, sums[0], "t"],
            ["0002", "0002_step.sql", "applied", "7", None, sums[1], "t"],
        ],
    ]


def sha256(*paths):
    """By another program."""
    return subprocess.run(["sha256sum", *paths], capture_output=True, text=True, check=True).stdout.splitlines()


# --- What is applied ---


def test_migrations_are_applied_in_order_once(dsql, pool, folder, wanted):
    """With their jobs done: a constraint takes over an index that was built in the statement before it."""
    said: list[str] = []
    assert apply_migrations(folder, source=pool, say=said.append) == ["0001_step.sql", "0002_step.sql"]
    assert state(dsql) == wanted
    assert apply_migrations(folder, source=pool) == []
    assert state(dsql) == wanted
    assert [line for line in said if line.startswith(f"{folder / '0001_step.sql'}:5: statement 3 of 3 applied in ")]


def test_each_ddl_statement_is_alone_in_its_transaction(dsql, pool, folder):
    """And a statement on rows shares one with its record, so that both are there or neither is."""
    apply_migrations(folder, source=pool)
    transactions, current = [], []
    for event in (each for each in dsql.log if each.kind == "flight"):
        for statement in event.statements:
            current.append(statement)
            if statement == "COMMIT":
                transactions.append(current)
                current = []
    written = [
        each for each in transactions if any(s.startswith(("CREATE", "ALTER", "INSERT INTO notes", "UPDATE notes")) for s in each)
    ]
    ddl = [each for each in written if any(s.startswith(("CREATE", "ALTER")) for s in each)]
    assert [len(each) for each in ddl] == [3] * 8  # BEGIN, the statement, COMMIT: the table's own, and seven
    rows = [each for each in written if each not in ddl]
    assert len(rows) == 3
    assert all(any(s.startswith(f"UPDATE {TABLE} SET done") for s in each) for each in rows)


def test_schema_conflicts_and_lost_connections_are_retried(dsql, pool, folder, wanted):
    """OC001 at a statement and at COMMIT; a connection that is cut before COMMIT, and one whose COMMIT is not answered."""
    dsql.conflict_next(3, "OC001")
    dsql.conflict_next(2, "OC001", at="statement")
    dsql.cut("after-commit-sent", 5)
    dsql.cut("before-commit", 2)
    assert apply_migrations(folder, source=pool) == ["0001_step.sql", "0002_step.sql"]
    assert dsql.faults_waiting == []
    assert state(dsql) == wanted


def test_a_commit_that_was_lost_and_not_applied_is_sent_again(dsql, pool, folder, wanted):
    """The record or the catalog says that it was not."""
    dsql.cut("after-commit-sent", 5, applied=False)
    assert apply_migrations(folder, source=pool) == ["0001_step.sql", "0002_step.sql"]
    assert dsql.faults_waiting == []
    assert state(dsql) == wanted


# --- Two at once, and one that dies ---


@pytest.mark.parametrize("runners", [2, 4])
def test_runners_at_once_apply_each_statement_once(dsql, options, folder, wanted, runners):
    """Whoever comes second waits. Between them they complete each migration once."""
    completed, failures = [], []

    def work():
        try:
            with Pool(options) as pool:
                completed.extend(apply_migrations(folder, source=pool))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(runners)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert sorted(completed) == ["0001_step.sql", "0002_step.sql"]
    assert state(dsql) == wanted


class DiedError(BaseException):
    """The process was killed."""


class Dying:
    """A source of connections whose process is killed at its `n`th transaction, before it begins."""

    def __init__(self, inner, n):
        self.inner = inner
        self.left = n

    def _checkout(self, claim, deadline_at):
        if self.left == 0:
            raise DiedError
        self.left -= 1
        return self.inner._checkout(claim, deadline_at)

    def _checkin(self, claim, reason):
        self.inner._checkin(claim, reason)


def test_a_run_that_was_killed_anywhere_is_completed_by_the_next(dsql, options, empty, folder, wanted):
    """Between any two transactions: after a claim, after the DDL that it is for, while its job is waited for."""
    deaths = 0
    while True:
        with Pool(options) as pool:
            try:
                apply_migrations(folder, source=Dying(pool, deaths))
                break
            except DiedError:
                deaths += 1
            apply_migrations(folder, source=pool, lease_seconds=0)
        assert state(dsql) == wanted, deaths
        dsql.restore(empty)
    assert deaths > 25
    assert state(dsql) == wanted


def test_a_runner_that_was_taken_over_stops(dsql, options, pool, folder, wanted):
    """It finds that the row is not its own any more, and changes nothing."""
    others: list[list[str]] = []

    def say(text):
        if "waiting for the job" in text and not others:
            others.append(apply_migrations(folder, source=pool, lease_seconds=0))

    with Pool(options) as slow, pytest.raises(MigrationError, match=r"0001_step\.sql: another runner has taken it over"):
        apply_migrations(folder, source=slow, say=say)
    assert others == [["0001_step.sql", "0002_step.sql"]]
    assert state(dsql) == wanted


def test_a_statement_that_never_got_its_turn_is_named(dsql, pool, tmp_path):
    """Conflicts on every attempt: nothing is applied, and the next run begins with it."""
    write(tmp_path, "CREATE TABLE notes (id int PRIMARY KEY);\nINSERT INTO notes VALUES (1);")
    apply_migrations(tmp_path, source=pool)
    (tmp_path / "0002_step.sql").write_text("INSERT INTO notes /* dsql: conflict OC000 */ VALUES (2);")
    with pytest.raises(MigrationError, match=r"0002_step\.sql:1: statement 1 of 1: each of 20 attempts met a conflict"):
        apply_migrations(tmp_path, source=pool, system=System(sleep=lambda _: None))
    assert dsql.execute(f"SELECT state, done FROM {TABLE} WHERE version = '0002'") == [["failed", "0"]]
    (tmp_path / "0002_step.sql").write_text("INSERT INTO notes VALUES (2);")
    assert apply_migrations(tmp_path, source=pool) == ["0002_step.sql"]
    assert dsql.execute("SELECT id FROM notes ORDER BY id") == [["1"], ["2"]]


def test_another_runner_s_row_is_waited_for_until_its_lease_ends(dsql, pool, folder, wanted):
    """Each half second; what it was doing is then found out and gone on with."""
    with pytest.raises(DiedError):
        apply_migrations(folder, source=Dying(pool, 5))
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:  # it is silent for longer than its lease
            dsql.execute(f"UPDATE {TABLE} SET renewed_at = now() - interval '61 s'")

    said: list[str] = []
    apply_migrations(folder, source=pool, say=said.append, system=System(sleep=sleep))
    assert slept[:3] == [0.5] * 3
    assert said[0] == "0001_step.sql: another runner is at work on it; waiting"
    assert state(dsql) == wanted


def test_waiting_for_another_runner_ends_at_the_timeout(dsql, pool, folder):
    """With what to do."""
    with pytest.raises(DiedError):
        apply_migrations(folder, source=Dying(pool, 5))
    with pytest.raises(MigrationError, match=r"0001_step\.sql: another runner is still at work on it, .*: run again"):
        apply_migrations(folder, source=pool, timeout=0.2)


def test_what_was_there_before_is_not_taken_for_applied(dsql, pool, folder):
    """A table of that name from elsewhere fails the migration, also where a run was killed before it could make its own."""
    with pytest.raises(DiedError):
        apply_migrations(folder, source=Dying(pool, 4))  # the table of records is made, and the first statement is claimed
    assert dsql.execute(f"SELECT doing FROM {TABLE}") == [["1"]]
    with pytest.raises(MigrationError) as failed:
        dsql.execute("CREATE TABLE notes (id int PRIMARY KEY)")
        dsql.execute(f"UPDATE {TABLE} SET before = '{digest_now(dsql, pool)}'")
        apply_migrations(folder, source=pool, lease_seconds=0)
    assert 'relation "notes" already exists (SQLSTATE 42P07)' in str(failed.value)


def digest_now(dsql, pool):
    from dsql_lambda.catalog import digest, read_catalog

    return pool.transaction_with_retry(lambda tx: digest(read_catalog(tx, ledger=TABLE)))


# --- What fails ---


def test_the_first_error_stops_the_run_and_names_its_place(dsql, pool, tmp_path):
    """File, line, statement, the server's word, DSQL's form; a corrected file goes on behind what was applied."""
    wrong = (
        "CREATE TABLE notes (id int PRIMARY KEY, author text);\n\nCREATE INDEX notes_author\n    ON notes (author);\nSELECT 1;"
    )
    write(tmp_path, wrong, "CREATE TABLE later (id int PRIMARY KEY);")
    path = tmp_path / "0001_step.sql"
    with pytest.raises(MigrationError) as failed:
        apply_migrations(tmp_path, source=pool)
    assert str(failed.value).splitlines() == [
        f"{path}:3: statement 2 of 3: refused: unsupported mode. please use CREATE INDEX ASYNC. (SQLSTATE 0A000)",
        "    CREATE INDEX notes_author",
        "        ON notes (author)",
        "DSQL's form: CREATE INDEX ASYNC notes_author",
        "    ON notes (author)",
        "1 of the 3 statements of 0001_step.sql are applied: correct statement 2, and run again",
    ]
    error = failed.value
    assert (error.file, error.line, error.number) == (str(path), 3, 2)
    assert dsql.execute(f"SELECT state, done, doing FROM {TABLE}") == [["failed", "1", None]]
    assert dsql.execute("SELECT to_regclass('later')") == [[None]]
    path.write_text(wrong.replace("INDEX notes", "INDEX ASYNC notes"))
    assert apply_migrations(tmp_path, source=pool) == ["0001_step.sql", "0002_step.sql"]
    assert check_migrations(tmp_path, source=pool) == []


def test_a_statement_that_was_refused_may_be_taken_out(dsql, pool, tmp_path):
    """What was applied stays as it was."""
    write(tmp_path, "CREATE TABLE notes (id int PRIMARY KEY);\nTRUNCATE notes;")
    with pytest.raises(MigrationError, match=r":2: statement 2 of 2: refused: .*(?s:.*)DSQL's form: DELETE in chunks"):
        apply_migrations(tmp_path, source=pool)
    write(tmp_path, "CREATE TABLE notes (id int PRIMARY KEY);")
    assert apply_migrations(tmp_path, source=pool) == ["0001_step.sql"]
    assert check_migrations(tmp_path, source=pool) == []


def test_a_statement_on_rows_that_fails_leaves_nothing(dsql, pool, tmp_path):
    """Neither its rows nor a record of them."""
    write(
        tmp_path,
        "CREATE TABLE notes (id int PRIMARY KEY);\nINSERT INTO notes VALUES (1), (2);\nINSERT INTO notes VALUES (3), (1);",
    )
    with pytest.raises(MigrationError, match=r":3: statement 3 of 3: refused: duplicate key .* \(SQLSTATE 23505\)"):
        apply_migrations(tmp_path, source=pool)
    assert dsql.execute("SELECT id FROM notes ORDER BY id") == [["1"], ["2"]]
    assert dsql.execute(f"SELECT state, done FROM {TABLE}") == [["failed", "2"]]


def test_a_job_that_fails_stops_the_run(dsql, pool, tmp_path):
    """The index that is not valid stays, as on a cluster; when it is dropped and the rows are corrected, the run goes on."""
    write(
        tmp_path,
        "CREATE TABLE notes (id int PRIMARY KEY, text text);\nINSERT INTO notes VALUES (1, 'a'), (2, 'a');\n"
        "CREATE UNIQUE INDEX ASYNC notes_text ON notes (text);",
    )
    with pytest.raises(MigrationError) as failed:
        apply_migrations(tmp_path, source=pool)
    assert str(failed.value).splitlines()[0] == (
        f"{tmp_path / '0001_step.sql'}:3: statement 3 of 3: its job failed: failed: found duplicate key(s) while validating "
        "index uniqueness; correct the rows, and DROP INDEX notes_text"
    )
    assert "index public.notes_text: is not valid" in check_migrations(tmp_path, source=pool)
    dsql.execute("DROP INDEX notes_text; DELETE FROM notes WHERE id = 2")
    assert apply_migrations(tmp_path, source=pool) == ["0001_step.sql"]
    assert check_migrations(tmp_path, source=pool) == []


def test_a_job_is_that_of_its_own_table(dsql, pool, tmp_path):
    """A constraint of the same name, and one that is not valid by choice, belongs to another table."""
    write(
        tmp_path,
        "CREATE SCHEMA app;\nCREATE TABLE app.notes (id int PRIMARY KEY, n int);\n"
        "CREATE TABLE notes (id int PRIMARY KEY, n int);\n"
        "ALTER TABLE notes ADD CONSTRAINT positive CHECK (n > 0) NOT VALID;\n"
        "ALTER TABLE app.notes ADD CONSTRAINT positive CHECK (n > 0) NOT VALID;\n"
        "ALTER TABLE ASYNC app.notes VALIDATE CONSTRAINT positive;\n"
        'CREATE INDEX ASYNC IF NOT EXISTS "By n" ON app . notes (n);',
    )
    assert apply_migrations(tmp_path, source=pool) == ["0001_step.sql"]
    assert dsql.execute("SELECT conrelid::regclass, convalidated FROM pg_constraint WHERE conname = 'positive' ORDER BY 1") == [
        ["app.notes", "t"],
        ["notes", "f"],
    ]
    assert check_migrations(tmp_path, source=pool) == []


def test_an_index_that_is_there_and_not_valid_is_no_success(dsql, pool, tmp_path):
    """IF NOT EXISTS would skip it in silence."""
    dsql.execute("CREATE TABLE notes (id int PRIMARY KEY, text text); INSERT INTO notes VALUES (1, 'a'), (2, 'a')")
    ((job,),) = dsql.execute("CREATE UNIQUE INDEX ASYNC notes_text ON notes (text)")
    pool.transaction_with_retry(lambda tx: tx.run("SELECT 1"))
    while dsql.execute(f"SELECT status FROM sys.jobs WHERE job_id = '{job}'") != [["failed"]]:
        pass
    write(tmp_path, "CREATE UNIQUE INDEX ASYNC IF NOT EXISTS notes_text ON notes (text);")
    with pytest.raises(MigrationError, match="the index notes_text is not valid"):
        apply_migrations(tmp_path, source=pool)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"0001_a.sql": "BEGIN; SELECT 1; COMMIT"}, r"0001_a\.sql:1: BEGIN is not for a migration: .* take it out"),
        ({"0001_a.sql": "SELECT 1;\nSET search_path = app;"}, r"0001_a\.sql:2: SET ends with its own transaction"),
        ({"0001_a.sql": "CREATE INDEX ASYNC ON notes (id)"}, r":1: the index has no name, .*: name it"),
        ({"0001_a.sql": "ALTER TABLE notes ADD CHECK (id > 0) NOT VALID"}, "the constraint has no name"),
        ({"0001_a.sql": "\\d notes"}, "a command of psql is no SQL"),
        ({"0001_a.sql": "-- later"}, "has no statement"),
        (
            {"0001_a.sql": "SELECT 1", "0001_b.sql": "SELECT 1"},
            r"0001_b\.sql has the number of 0001_a\.sql: give it the next free one",
        ),
        ({"1_a.sql": "SELECT 1"}, r"1_a\.sql is not named as a migration: use four digits and a name, as 0007_add_notes\.sql"),
    ],
)
def test_a_file_that_can_t_be_a_migration_is_refused_before_anything_is_done(dsql, pool, tmp_path, files, reason):
    """With its line, and what to do."""
    for name, script in files.items():
        (tmp_path / name).write_text(script)
    with pytest.raises(MigrationError, match=reason):
        apply_migrations(tmp_path, source=pool)
    assert dsql.execute(f"SELECT to_regclass('{TABLE}')") == [[None]]


def test_what_was_applied_may_not_be_changed(dsql, pool, folder):
    """A changed file, a renamed one, one that is gone, and one that comes too late: each is named, and nothing is applied."""
    apply_migrations(folder, source=pool)
    first, second = folder / "0001_step.sql", folder / "0002_step.sql"
    (folder / "0004_later.sql").write_text("CREATE TABLE later (id int PRIMARY KEY)")
    apply_migrations(folder, source=pool)
    first.write_text(FIRST + "-- changed\n")
    second.unlink()
    (folder / "0003_late.sql").write_text("CREATE TABLE late (id int PRIMARY KEY)")
    for problem in (
        f"{first} was changed after it was applied: restore it, and write a new migration",
        f"{folder / '0003_late.sql'} is not applied, and 0004 is: give it a number above 0004",
        "0002_step.sql was applied and its file is gone",
    ):
        assert problem in check_migrations(folder, source=pool)
        with pytest.raises(MigrationError) as failed:
            apply_migrations(folder, source=pool)
        assert problem in str(failed.value)
    assert dsql.execute("SELECT to_regclass('late')") == [[None]]
    first.rename(folder / "0001_renamed.sql")
    assert f"{folder / '0001_renamed.sql'} was applied as 0001_step.sql: give it that name again" in check_migrations(
        folder, source=pool
    )


def test_line_endings_are_no_change(dsql, pool, folder):
    """A checkout on another system has others."""
    apply_migrations(folder, source=pool)
    (folder / "0001_step.sql").write_bytes(FIRST.replace("\n", "\r\n").encode())
    assert check_migrations(folder, source=pool) == []


def test_records_of_a_later_release_are_no_error(dsql, pool, folder):
    """A rollback of the code leaves the database ahead of it."""
    apply_migrations(folder, source=pool)
    (folder / "0002_step.sql").unlink()
    assert apply_migrations(folder, source=pool) == []


# --- What is only looked at ---


def test_pending_migrations_are_read_without_a_trace(dsql, pool, folder):
    """Also where nothing was ever applied."""
    assert [(each.version, first) for each, first in pending_migrations(folder, source=pool)] == [("0001", 1), ("0002", 1)]
    assert dsql.execute(f"SELECT to_regclass('{TABLE}')") == [[None]]
    with pytest.raises(DiedError):
        apply_migrations(folder, source=Dying(pool, 7))
    assert [(each.version, first) for each, first in pending_migrations(folder, source=pool)] == [("0001", 3), ("0002", 1)]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("CREATE TABLE extra (id int PRIMARY KEY)", "table public.extra: is in no migration"),
        ("ALTER TABLE notes ADD COLUMN extra text", "table public.notes: has another definition"),
        ("ALTER TABLE notes ALTER COLUMN author SET DEFAULT 'x'", "table public.notes: has another definition"),
        ("GRANT SELECT ON notes TO PUBLIC", "table public.notes: has another definition"),
        ("DROP INDEX notes_author", "index public.notes_author: is gone"),
        ("ALTER TABLE notes DROP CONSTRAINT notes_stars", "constraint notes_stars of public.notes: is gone"),
        ("CREATE VIEW v AS SELECT 1 AS a", "view public.v: is in no migration"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "function public.f(): is in no migration"),
        ("CREATE SCHEMA app", "schema app: is in no migration"),
        ("CREATE DOMAIN d AS int CHECK (VALUE > 0)", "domain public.d: is in no migration"),
    ],
)
def test_drift_of_the_catalog_is_named(dsql, pool, folder, change, found):
    """What somebody has changed past the migrations, since the last one."""
    apply_migrations(folder, source=pool)
    assert check_migrations(folder, source=pool) == []
    dsql.execute(change)
    assert f"{found} since 0002_step.sql" in check_migrations(folder, source=pool)


def test_rows_are_no_drift(dsql, pool, folder):
    """Nor is what statistics say."""
    apply_migrations(folder, source=pool)
    dsql.execute("INSERT INTO notes VALUES (3, 'c', 'z', 5); ANALYZE notes")
    assert check_migrations(folder, source=pool) == []


# --- DSQL's forms ---

TABLES = "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY, a int, b varchar(20));"


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX t_a ON t (a)",
        "CREATE UNIQUE INDEX t_a ON t (a)",
        "CREATE INDEX CONCURRENTLY t_a ON public.t USING btree (a DESC)",
        "CREATE INDEX IF NOT EXISTS t_a ON t USING hash (a)",
        "ALTER TABLE t ADD CONSTRAINT t_a CHECK (a > 0)",
        "ALTER TABLE public.t ADD CONSTRAINT t_parent FOREIGN KEY (a) REFERENCES parent (id)",
        'ALTER TABLE t ADD CONSTRAINT "T a" UNIQUE (a)',
        "ALTER TABLE t ALTER COLUMN a SET NOT NULL",
        "ALTER TABLE t ALTER a SET NOT NULL",
    ],
)
def test_dsql_takes_the_form_that_is_suggested(dsql, statement):
    """It refuses the statement, and takes each of those that the suggestion has, one after the other."""
    dsql.execute(TABLES)
    with pytest.raises(SqlError) as refused:
        dsql.execute(statement)
    suggested = dsql_form(statement, str(refused.value))
    for number, each in enumerate(suggested.split("; and in the next statement ")):
        if number:
            while dsql.execute("SELECT 1 FROM sys.jobs WHERE status IN ('submitted', 'processing')"):
                pass
        dsql.execute(each)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("ALTER TABLE t ADD COLUMN c int DEFAULT 0", "SET DEFAULT"),
        ("ALTER TABLE t ADD COLUMN c int NOT NULL", "NOT VALID"),
        ("ALTER TABLE t ALTER COLUMN b TYPE text", "a column of the new type"),
        ("ALTER TABLE t ADD CONSTRAINT t_pk PRIMARY KEY (a)", "part of CREATE TABLE"),
        ("CREATE TABLE u (id serial PRIMARY KEY)", "IDENTITY (CACHE"),
        ("CREATE TABLE u (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)", "CACHE 65536"),
        ("CREATE TABLE u (id int PRIMARY KEY, tags text[])", "a table of its own"),
        ("CREATE TYPE mood AS ENUM ('glad')", "CHECK constraint"),
        ("TRUNCATE t", "DELETE in chunks"),
        ("CREATE TEMP TABLE u (a int)", "a table of its own"),
        ("CREATE TABLE u AS SELECT * FROM t", "INSERT … SELECT"),
        ("CREATE EXTENSION hstore", "leave it out"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'", "LANGUAGE sql"),
        ("MERGE INTO t USING parent p ON p.id = t.id WHEN MATCHED THEN DELETE", "ON CONFLICT"),
    ],
)
def test_what_has_no_form_of_its_own_is_advised_on(dsql, statement, words):
    """By the server's own words against it."""
    dsql.execute(TABLES)
    with pytest.raises(SqlError) as refused:
        dsql.execute(statement)
    assert words in dsql_form(statement, str(refused.value))


def test_what_is_not_known_is_not_advised_on():
    """Nothing is better than a guess."""
    assert dsql_form("SELECT nothing", 'column "nothing" does not exist') == ""


# --- The command ---


def command(dsql, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "dsql_lambda.migrate", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **dsql.environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_applies_shows_and_checks(dsql, folder):
    """0 if the database is what the files say, else 1; what it prints as a dry run is a script for psql."""
    dry = command(dsql, folder, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert [each.text for each in split(dry.stdout)] == [each.text for script in (FIRST, SECOND) for each in split(script)]
    assert command(dsql, folder, "--check").returncode == 1
    done = command(dsql, folder, "--role", "notes_app=arn:aws:iam::123456789012:role/app")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "==> applied: 0001_step.sql, 0002_step.sql")
    assert dsql.execute("SELECT pg_role_name FROM sys.iam_pg_role_mappings") == [["notes_app"]]
    dsql.execute("AWS IAM REVOKE notes_app FROM 'arn:aws:iam::123456789012:role/app'; DROP ROLE notes_app")
    again = command(dsql, folder)
    assert (again.returncode, again.stderr) == (0, "==> nothing to apply\n")
    check = command(dsql, folder, "--check")
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")
    dsql.execute("DROP INDEX notes_author")
    assert command(dsql, folder, "--check").stdout == "index public.notes_author: is gone since 0002_step.sql\n"


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (("nowhere",), 1, "dsql_lambda.migrate: nowhere is no folder"),
        ((".", "--role", "admin=arn:aws:iam::123456789012:role/app"), 2, "another name than admin"),
        ((".", "--role", "app=function"), 2, "use an IAM role's or user's"),
        ((".", "--dry-run", "--role", "app=arn:aws:iam::123456789012:role/app"), 2, "--role changes the cluster"),
        ((".", "--url", "mysql://x"), 1, "dsql_lambda.migrate: "),
    ],
)
def test_a_failure_of_the_command_is_one_line(dsql, arguments, status, reason):
    """On standard error, and never a traceback."""
    done = command(dsql, *arguments)
    assert done.returncode == status
    assert reason in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
