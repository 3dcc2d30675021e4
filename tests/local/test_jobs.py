"""Jobs, the schema `sys`, who is mapped to which role, and what the server says of itself."""

import re

import pytest

from dsql_local import LocalDsql

KEYS = {"defaultkey": "defaultsecret", "otherkey": "othersecret"}
USER = "arn:aws:iam::210987654321:user/other"


UNTIL_WAITED_FOR = 3600.0
STATE = "SELECT status, details, update_time IS NULL FROM sys.jobs WHERE job_id = '{}'"
FLAGS = "SELECT indisvalid, indisunique FROM pg_index WHERE indexrelid = '{}'::regclass"
DUPLICATES = "found duplicate key(s) while validating index uniqueness"


@pytest.fixture(scope="module")
def running():
    """No job begins here before somebody waits for it."""
    with LocalDsql(credentials=KEYS, principals={"otherkey": USER}, job_delay=UNTIL_WAITED_FOR) as dsql:
        yield dsql


@pytest.fixture
def dsql(running):
    running.execute("DROP TABLE IF EXISTS things; CREATE TABLE things (id int PRIMARY KEY, note text)")
    return running


# --- Jobs ---


def submit(client, sql):
    """The id of the job that a statement answers."""
    ((job,),) = client.run(sql)
    assert re.fullmatch("[a-z2-7]{26}", job)
    return job


def wait(client, job):
    """Whether the job succeeded, when it is done."""
    return client.run(f"CALL sys.wait_for_job('{job}')") == [["t"]]


def test_an_index_is_built_as_a_job(dsql, connect):
    """CREATE INDEX ASYNC answers one row `job_id` under its own tag; the index is there, and valid when the job is done."""
    client = connect()
    assert client.flight("CREATE INDEX ASYNC things_note ON things (note);") == ["CREATE INDEX"]
    job = submit(client, "CREATE INDEX ASYNC ON things (id)")
    assert client.run(STATE.format(job)) == [["submitted", None, "t"]]
    assert client.run(FLAGS.format("things_id_idx")) == [["f", "f"]]
    assert wait(client, job)
    assert client.run(STATE.format(job)) == [["completed", None, "f"]]
    assert client.run(FLAGS.format("things_id_idx")) == [["t", "f"]]
    assert client.run(FLAGS.format("things_note")) == [["t", "f"]]  # they are done in order
    assert client.run(
        f"SELECT job_type, class_id, object_id = 'things_id_idx'::regclass, object_name FROM sys.jobs WHERE job_id = '{job}'"
    ) == [["INDEX_BUILD", "1259", "t", "public.things_id_idx"]]


def test_a_job_of_a_transaction_begins_after_it(dsql, connect):
    """Nobody sees it before COMMIT, and after ROLLBACK there is none; a transaction may wait for one."""
    client, other = connect(), connect()
    client.run("BEGIN")
    job = submit(client, "CREATE INDEX ASYNC ON things (note)")
    assert other.error(f"CALL sys.wait_for_job('{job}')") == f'42704 job "{job}" does not exist'
    client.run("COMMIT")
    client.run("BEGIN")
    assert wait(client, job)
    client.run("COMMIT")
    client.run("BEGIN")
    job = submit(client, "CREATE INDEX ASYNC ON things (note)")
    client.run("ROLLBACK")
    assert client.error(f"CALL sys.wait_for_job('{job}')") == f'42704 job "{job}" does not exist'


def test_a_transaction_waits_for_what_it_can_see(dsql, connect):
    """A snapshot from before the job's end never shows the end: that is an error, not an answer."""
    client, other = connect(), connect()
    job = submit(client, "CREATE INDEX ASYNC ON things (note)")
    client.run("BEGIN")
    assert client.run(STATE.format(job)) == [["submitted", None, "t"]]
    assert wait(other, job)
    assert client.error(f"CALL sys.wait_for_job('{job}')") == f'55000 job "{job}" is not done in the snapshot of this transaction'


def test_a_job_begins_by_itself():
    """After its delay, if nobody waits for it."""
    with LocalDsql(job_delay=0.0) as dsql:
        dsql.execute("CREATE TABLE things (id int PRIMARY KEY)")
        ((job,),) = dsql.execute("CREATE INDEX ASYNC ON things (id)")
        while dsql.execute(f"SELECT status FROM sys.jobs WHERE job_id = '{job}'") != [["completed"]]:
            pass
        assert dsql.execute("SELECT bool_and(indisvalid) FROM pg_index WHERE indrelid = 'things'::regclass") == [["t"]]


def test_analyze_lists_a_job_for_each_table(dsql, connect):
    """It answers its own tag and no row; what it has done is listed as completed, also inside a transaction."""
    client = connect()
    listed = "SELECT object_name, status, class_id, object_id = 'things'::regclass FROM sys.jobs WHERE job_type = 'ANALYZE'"
    before = client.run(listed)
    assert client.flight("ANALYZE things, public.things (note)") == ["ANALYZE"]
    assert client.run(listed)[len(before) :] == [["public.things", "completed", "1259", "t"]] * 2
    client.run("BEGIN READ ONLY")
    client.run("ANALYZE things")
    client.run("COMMIT")
    assert client.error("ANALYZE nowhere") == '42P01 relation "nowhere" does not exist'
    assert len(client.run(listed)) == len(before) + 2


def test_each_job_has_an_id_of_its_own(dsql, connect):
    """The same text twice is two jobs."""
    client = connect()
    jobs = [submit(client, "CREATE INDEX ASYNC ON things (note)") for _ in range(2)]
    assert jobs[0] != jobs[1]
    assert client.run("SELECT count(*) FROM sys.jobs WHERE job_id IN ('{}', '{}')".format(*jobs)) == [["2"]]


def test_a_unique_index_over_duplicates_fails_as_a_job(dsql, connect):
    """The statement succeeds, the job does not; the index stays, not valid, but no new duplicate comes in until it is dropped."""
    client = connect()
    client.run("INSERT INTO things VALUES (1, 'a'), (2, 'a')")
    job = submit(client, "CREATE UNIQUE INDEX ASYNC things_note ON things (note)")
    client.run("INSERT INTO things VALUES (3, 'b'), (4, 'c')")
    assert not wait(client, job)
    assert client.run(STATE.format(job)) == [["failed", DUPLICATES, "f"]]
    assert client.run(FLAGS.format("things_note")) == [["f", "t"]]
    duplicate = '23505 duplicate key value violates unique constraint "things_note"'
    assert [client.error(f"INSERT INTO things VALUES (5, '{note}')") for note in "abc"] == [duplicate] * 3
    client.run("DROP INDEX things_note")
    client.run("INSERT INTO things VALUES (5, 'a')")


def test_a_unique_index_is_not_unique_before_it_is_built(dsql, connect):
    """A duplicate that comes in between the statement and the job makes the job fail; one that comes after it fails itself."""
    client = connect()
    client.run("INSERT INTO things VALUES (1, 'a')")
    job = submit(client, "CREATE UNIQUE INDEX ASYNC things_note ON things (note) NULLS NOT DISTINCT")
    client.run("INSERT INTO things VALUES (2, 'a')")
    assert not wait(client, job)
    client.run("DROP INDEX things_note")
    client.run("DELETE FROM things WHERE id = 2")
    assert wait(client, submit(client, "CREATE UNIQUE INDEX ASYNC things_note ON things (note) NULLS NOT DISTINCT"))
    client.run("INSERT INTO things VALUES (3, NULL)")
    assert client.error("INSERT INTO things VALUES (4, NULL)").startswith("23505")


@pytest.mark.parametrize("built", [False, True], ids=["not built yet", "failed"])
def test_a_lost_transaction_goes_on_where_a_unique_index_is_not_valid(dsql, connect, built):
    """The rows may be duplicates, so what it goes on with has no such index; those that are valid still count."""
    dsql.execute("INSERT INTO things VALUES (1, 'same'), (2, 'same'), (3, 'another')")
    first, second = connect(), connect()
    job = submit(first, "CREATE UNIQUE INDEX ASYNC things_note ON things (note)")
    assert not built or not wait(first, job)
    for client in (first, second):
        client.run("BEGIN")
        client.run("SELECT 1 FROM things")
    second.run("UPDATE things SET note = 'new' WHERE id = 3")
    second.run("COMMIT")
    first.run("UPDATE things SET note = 'newer' WHERE id = 3")
    assert first.run("SELECT * FROM things ORDER BY id") == [["1", "same"], ["2", "same"], ["3", "newer"]]
    assert first.error("COMMIT").startswith("40001")
    first.run("BEGIN")
    first.run("SELECT 1 FROM things")
    second.run("UPDATE things SET note = 'newest' WHERE id = 3")
    first.run("UPDATE things SET note = 'last' WHERE id = 3")
    assert first.error("INSERT INTO things VALUES (1, 'one')").startswith("23505")


def test_a_constraint_can_use_an_index_that_is_built(dsql, connect):
    """As recorded (`alter_unique_using_index`): not before its job is done."""
    client = connect()
    job = submit(client, "CREATE UNIQUE INDEX ASYNC things_note ON things (note)")
    promotion = "ALTER TABLE things ADD CONSTRAINT things_note UNIQUE USING INDEX things_note"
    assert client.error(promotion) == '55000 index "things_note" is not valid'
    assert wait(client, job)
    client.run(promotion)
    assert client.run("SELECT contype FROM pg_constraint WHERE conname = 'things_note'") == [["u"]]


def test_a_constraint_is_validated_as_a_job(dsql, connect):
    """ALTER TABLE ASYNC … VALIDATE CONSTRAINT answers a job; the constraint is valid afterwards, unless a row violates it."""
    client = connect()
    client.run("INSERT INTO things VALUES (1, 'a')")
    violated = 'check constraint "c" of relation "things" is violated by some row'
    for condition, valid, complaint in (("id > 0", "t", None), ("id > 1", "f", violated)):
        client.run(f"ALTER TABLE things ADD CONSTRAINT c CHECK ({condition}) NOT VALID")
        job = submit(client, 'alter table async if exists public."things" * validate constraint C')
        assert client.run("SELECT convalidated FROM pg_constraint WHERE conname = 'c'") == [["f"]]
        assert wait(client, job) is (valid == "t")
        assert client.run("SELECT convalidated FROM pg_constraint WHERE conname = 'c'") == [[valid]]
        assert client.run(f"SELECT job_type, details FROM sys.jobs WHERE job_id = '{job}'") == [
            ["VALIDATE_CONSTRAINT", complaint]
        ]
        assert client.flight("ALTER TABLE ASYNC public . things VALIDATE CONSTRAINT c; ") == ["ALTER TABLE"]
        client.run("ALTER TABLE things DROP CONSTRAINT c")


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("ALTER TABLE ASYNC nowhere VALIDATE CONSTRAINT c", '42P01 relation "nowhere" does not exist'),
        ("ALTER TABLE ASYNC things VALIDATE CONSTRAINT c", '42704 constraint "c" of relation "things" does not exist'),
        (
            "ALTER TABLE ASYNC things VALIDATE CONSTRAINT things_pkey",
            '42809 constraint "things_pkey" of relation "things" is not a foreign key or check constraint',
        ),
        ("ALTER TABLE ASYNC things ADD COLUMN c int", "0A000 unsupported ALTER TABLE ASYNC statement"),
    ],
)
def test_what_cannot_be_validated(dsql, connect, sql, expected):
    """What is not there or is no such constraint is an error of the statement, and no job."""
    assert connect().error(sql) == expected


def test_what_is_dropped_is_listed(dsql, connect):
    """A DROP of a table or an index is a job that is done; DROP INDEX cancels the index's own."""
    client = connect()
    job = submit(client, "CREATE INDEX ASYNC things_note ON things (note)")
    ((index, table),) = client.run("SELECT 'things_note'::regclass::oid, 'things'::regclass::oid")
    client.run("CREATE TABLE more (id int)")
    client.run("DROP INDEX things_note")
    client.run("DROP TABLE things, more")
    assert not wait(client, job)
    assert client.run(STATE.format(job)) == [["cancelled", None, "f"]]
    assert client.run(
        "SELECT status, class_id, object_id, object_name FROM sys.jobs"
        f" WHERE job_type = 'DROP' AND object_id IN ({index}, {table}) ORDER BY object_id DESC"
    ) == [["completed", "1259", index, None], ["completed", "1259", table, None]]


def test_a_job_waits_for_no_idle_transaction(dsql, connect):
    """A transaction that has written to the table and is between two statements is not in its way."""
    writer, client = connect(), connect()
    job = submit(client, "CREATE INDEX ASYNC ON things (note)")
    writer.run("BEGIN")
    writer.run("INSERT INTO things VALUES (1, 'a')")
    assert wait(client, job)
    writer.run("COMMIT")
    assert client.run("SELECT note FROM things") == [["a"]]


def test_errors_of_an_asynchronous_statement_are_its_own(connect, dsql):
    """A table that is not there, a job that is not there, and a key that cannot be one."""
    client = connect()
    assert client.error("CREATE INDEX ASYNC ON nowhere (a)").startswith('42P01 relation "nowhere" does not exist')
    assert client.error(f"CALL sys.wait_for_job('{'a' * 26}')").startswith("42704")
    client.run("CREATE TABLE IF NOT EXISTS documents (id int PRIMARY KEY, body jsonb)")
    assert client.error("CREATE INDEX ASYNC ON documents (body)") == "0A000 datatype jsonb is not supported in a key"


# --- Rules that ask the catalog ---


def test_a_primary_key_stays(dsql, connect):
    """Neither its column nor its constraint can be dropped, in whatever schema and spelling; others can."""
    client = connect()
    client.run('CREATE TABLE public."Odd One" (a int, "B" int, c int CONSTRAINT u UNIQUE, CONSTRAINT k PRIMARY KEY (a, "B"))')
    assert client.error('ALTER TABLE "Odd One" DROP COLUMN c, DROP COLUMN "B"') == "0A000 cannot drop primary key column B"
    assert client.error('ALTER TABLE public."Odd One" DROP CONSTRAINT k') == (
        "0A000 unsupported ALTER TABLE DROP CONSTRAINT statement"
    )
    client.run('ALTER TABLE "Odd One" DROP CONSTRAINT u')
    client.run('ALTER TABLE "Odd One" DROP c')
    client.run('DROP TABLE "Odd One"')


# --- Roles ---


def test_roles_are_mapped(dsql, connect, sign):
    """A role without a mapping is refused, with one it comes in, and after REVOKE it is refused again; admin needs none."""
    dsql.execute("CREATE ROLE app WITH LOGIN")
    admin = connect()
    for statement, comes_in in (
        ("SELECT 1", False),
        (f"AWS IAM GRANT app TO '{dsql.principal}'", True),
        (f"AWS IAM REVOKE app FROM '{dsql.principal}'", False),
    ):
        admin.run(statement)
        if comes_in:
            assert connect("app").run("SELECT current_user") == [["app"]]
            continue
        with pytest.raises(Exception, match="^[0-9A-Z]{5} ") as failed:
            connect("app")
        assert vars(failed.value)["fields"]["C"] == "08006"
        assert vars(failed.value)["fields"]["H"].startswith(
            f"User: {dsql.principal} is not authorized to perform: dsql:DbConnect on "
        )
    dsql.execute("DROP ROLE app")


def test_each_key_has_its_own_principal(dsql, connect, sign):
    """A mapping is of one ARN: another access key's token does not come in by it."""
    dsql.execute(f"CREATE ROLE app WITH LOGIN; AWS IAM GRANT app TO '{USER}'")
    with pytest.raises(Exception, match="access denied"):
        connect("app")
    other = connect("app", token=sign(dsql.endpoint, "DbConnect", key="otherkey", secret="othersecret"))
    assert other.run("SELECT arn, pg_role_name, grantor_pg_role_name FROM sys.iam_pg_role_mappings") == [[USER, "app", "admin"]]
    assert other.error(f"AWS IAM GRANT app TO '{dsql.principal}'").startswith("42501")
    assert connect().error("DROP ROLE app") == '2BP01 role "app" cannot be dropped because some objects depend on it'
    dsql.execute(f"AWS IAM REVOKE app FROM '{USER}'; DROP ROLE app")


def test_a_mapping_needs_a_role_and_an_arn(dsql, connect):
    """What is mapped must be there, and must look like what IAM has; the tag is the statement's own."""
    client = connect()
    assert client.error(f"AWS IAM GRANT nobody TO '{dsql.principal}'") == '42704 role "nobody" does not exist'
    assert client.error("AWS IAM GRANT admin TO 'me'") == "22023 IAM role must look like an IAM ARN"
    assert client.flight(f"AWS IAM GRANT admin TO '{dsql.principal}'") == ["AWS IAM GRANT"]
    assert client.flight(f"AWS IAM REVOKE admin FROM '{dsql.principal}'") == ["AWS IAM REVOKE"]


# --- What the server says of itself ---


def test_versions(connect, dsql):
    """The version is a cluster's, by function, by SHOW, and in the startup, whichever PostgreSQL of the machine serves."""
    client = connect()
    assert client.parameters["server_version"] == "16.15"
    assert client.run("SELECT version(), current_setting('server_version')") == [["PostgreSQL 16", "16.15"]]
    assert client.run("SELECT current_setting('SERVER_version_num', true), current_setting('a.b', true)") == [["160015", None]]
    for begin in ("", "BEGIN"):
        assert client.run(begin) == []
        assert client.run("SHOW server_version_num") == [["160015"]]
        assert client.flight("SHOW Server_Version") == ["SHOW"]
    assert client.run("SHOW standard_conforming_strings") == [["on"]]


def test_a_setting_that_cannot_be_set_keeps_the_door_shut(connect, dsql):
    """A startup parameter that SET would refuse is refused, as a parameter and as an option."""
    for wrong in ({"default_transaction_read_only": "on"}, {"options": "-c statement_timeout=5"}):
        with pytest.raises(Exception, match="0A000 setting configuration parameter"):
            connect(**wrong)
    assert connect(TimeZone="Europe/Berlin").run("SHOW timezone") == [["Europe/Berlin"]]


def test_a_session_has_an_id(connect):
    """`sys.current_session_id()`: the same in one session, another one in each."""
    first, second = connect(), connect()
    ask = "SELECT sys.current_session_id()"
    assert first.run(ask) == first.run(ask)
    assert first.run(ask) != second.run(ask)


def test_a_parameter_of_dsql_has_a_value(connect):
    """`SHOW dsql.enable_batched_nestloop` says on, until it is set."""
    client = connect()
    assert client.run("SHOW dsql.enable_batched_nestloop") == [["on"]]
    client.run("SET dsql.enable_batched_nestloop = off")
    assert client.run("SHOW dsql.enable_batched_nestloop") == [["off"]]
