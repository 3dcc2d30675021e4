"""Jobs, the schema `sys`, who is mapped to which role, and what the server says of itself."""

import re

import pytest

from dsql_local import LocalDsql

KEYS = {"defaultkey": "defaultsecret", "otherkey": "othersecret"}
USER = "arn:aws:iam::210987654321:user/other"


@pytest.fixture(scope="module")
def running():
    with LocalDsql(credentials=KEYS, principals={"otherkey": USER}) as dsql:
        yield dsql


@pytest.fixture
def dsql(running):
    running.execute("DROP TABLE IF EXISTS things; CREATE TABLE things (id int PRIMARY KEY, note text)")
    return running


# --- Jobs ---


@pytest.mark.parametrize("begin", [False, True], ids=["outside", "inside"])
def test_an_index_is_built_as_a_job(dsql, connect, begin):
    """CREATE INDEX ASYNC answers one row `job_id` under its own tag; the index is there, and the job completed."""
    client = connect()
    if begin:
        client.run("BEGIN")
    assert client.flight("CREATE INDEX ASYNC things_note ON things (note)") == ["CREATE INDEX"]
    ((job,),) = client.run("CREATE INDEX ASYNC ON things (id)") if not begin else [[""]]
    if begin:
        client.run("COMMIT")
    else:
        assert re.fullmatch("[a-z2-7]{26}", job)
        assert client.run(f"CALL sys.wait_for_job('{job}')") == [["t"]]
        assert client.run(f"SELECT status, job_type, object_name FROM sys.jobs WHERE job_id = '{job}'") == [
            ["completed", "INDEX_BUILD", "public.things_id_idx"]
        ]
    assert client.run("SELECT indisvalid FROM pg_index WHERE indexrelid = 'things_note'::regclass") == [["t"]]


def test_each_job_has_an_id_of_its_own(dsql, connect):
    """The same text twice is two jobs."""
    client = connect()
    jobs = [client.run("CREATE INDEX ASYNC ON things (note)") for _ in range(2)]
    assert jobs[0] != jobs[1]
    assert client.run("SELECT count(*) FROM sys.jobs WHERE job_id IN ('{}', '{}')".format(*(job for ((job,),) in jobs))) == [
        ["2"]
    ]


def test_a_unique_index_over_duplicates_fails_as_a_job(dsql, connect):
    """The statement answers a job, which has failed, and says why."""
    client = connect()
    client.run("INSERT INTO things VALUES (1, 'a'), (2, 'a')")
    ((job,),) = client.run("CREATE UNIQUE INDEX ASYNC ON things (note)")
    assert client.run(f"CALL sys.wait_for_job('{job}')") == [["f"]]
    assert client.run(f"SELECT details FROM sys.jobs WHERE job_id = '{job}'") == [
        ["found duplicate key(s) while validating index uniqueness"]
    ]


def test_a_constraint_is_validated_as_a_job(dsql, connect):
    """ALTER TABLE ASYNC … VALIDATE CONSTRAINT answers a job; the constraint is valid afterwards, unless a row violates it."""
    client = connect()
    client.run("INSERT INTO things VALUES (1, 'a')")
    for condition, valid in (("id > 0", "t"), ("id > 1", "f")):
        client.run(f"ALTER TABLE things ADD CONSTRAINT c CHECK ({condition}) NOT VALID")
        ((job,),) = client.run("ALTER TABLE ASYNC things VALIDATE CONSTRAINT c")
        assert client.run(f"CALL sys.wait_for_job('{job}')") == [[valid]]
        assert client.run("SELECT convalidated FROM pg_constraint WHERE conname = 'c'") == [[valid]]
        client.run("ALTER TABLE things DROP CONSTRAINT c")


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
