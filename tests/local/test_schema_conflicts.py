"""OC001: what of another session's DDL a statement meets, and what it does not."""

import pytest

from dsql_local import LocalDsql
from dsql_local.engine.schema_conflicts import MAX_NAMES, CatalogHistory, Change
from dsql_local.protocol.messages import query
from dsql_local.rules.objects import ObjectName
from dsql_local.rules.verdict import judge

OC001 = "40001 schema has been updated by another transaction (OC001)"
SCHEMA = """
DROP TABLE IF EXISTS children, things, others CASCADE; DROP SEQUENCE IF EXISTS numbers; DROP FUNCTION IF EXISTS twice;
DROP SCHEMA IF EXISTS elsewhere CASCADE;
CREATE TABLE things (id int PRIMARY KEY, note text CONSTRAINT short CHECK (length(note) < 9));
CREATE TABLE others (id int PRIMARY KEY);
CREATE INDEX ASYNC things_note ON things (note); CREATE VIEW seen AS SELECT * FROM things; CREATE SEQUENCE numbers CACHE 1;
CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 2 * n'; CREATE SCHEMA elsewhere;
CREATE TABLE elsewhere.things (id int PRIMARY KEY)
"""


@pytest.fixture(scope="module")
def running():
    with LocalDsql() as dsql:
        yield dsql


@pytest.fixture
def dsql(running):
    running.execute(SCHEMA)
    return running


# --- What is met ---


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE things ADD COLUMN more int",
        "ALTER TABLE public.things ALTER COLUMN note SET DEFAULT ''",
        "ALTER TABLE things DROP CONSTRAINT short",
        "ALTER TABLE things RENAME COLUMN note TO said",
        "ALTER TABLE things OWNER TO admin",
        "CREATE INDEX ASYNC ON things (note)",
        "DROP INDEX things_note",
        "GRANT SELECT ON things TO PUBLIC",
        "GRANT UPDATE (note) ON things TO PUBLIC",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC",
        "CREATE TABLE children (thing int REFERENCES things (id))",
        "COMMENT ON TABLE things IS 'all of them'",
    ],
)
@pytest.mark.parametrize(
    "statement", ["SELECT count(*) FROM things", "INSERT INTO public.things VALUES (1)", "SELECT count(*) FROM seen"]
)
def test_a_change_of_a_table(dsql, connect, change, statement):
    """Its columns, indexes, constraints and grants; at a read, at a write, and through a view. The next try goes through."""
    warm, other = connect(), connect()
    warm.run("SELECT 1 FROM things, seen")
    other.run(change)
    assert warm.error(statement) == OC001
    warm.run(statement)
    other.run("SELECT 1 FROM things")  # one's own change is no news


@pytest.mark.parametrize(
    ("look", "change"),
    [
        ("SELECT * FROM seen", "CREATE OR REPLACE VIEW seen AS SELECT id, note, 1 AS one FROM things"),
        ("SELECT nextval('numbers')", "ALTER SEQUENCE numbers CACHE 65536"),
        ("SELECT twice(1)", "CREATE OR REPLACE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT n + n'"),
        ("SELECT twice(1)", "GRANT EXECUTE ON FUNCTION twice TO PUBLIC"),
        ("SELECT twice(1)", "DROP FUNCTION twice"),
        ("SELECT * FROM seen", "DROP TABLE things CASCADE"),
        ("SELECT id FROM elsewhere.things", "DROP SCHEMA elsewhere CASCADE"),
        ("SELECT id FROM others", "ALTER TABLE others RENAME TO rest"),
        ("SELECT id FROM others", "DROP TABLE others"),
        ("SELECT id FROM rest", "ALTER TABLE others RENAME TO rest"),
    ],
)
def test_a_change_of_something_else(dsql, connect, look, change):
    """Views, sequences, functions; also what has another name now, or is not there any more."""
    warm, other = connect(), connect()
    warm.send(query(look))
    warm.replies()
    other.run(change)
    assert warm.error(look) == OC001
    warm.send(query(look))
    assert not any(b"OC001" in message.body for message in warm.replies())
    dsql.execute("DROP TABLE IF EXISTS rest")


@pytest.mark.parametrize("statement", ["SELECT * FROM things", "COMMIT"])
def test_a_change_during_a_transaction(dsql, connect, statement):
    """It is met at the next statement about it, or at COMMIT; the transaction has failed."""
    client = connect()
    client.run("BEGIN")
    client.run("SELECT * FROM things")
    dsql.execute("GRANT SELECT ON things TO PUBLIC")
    assert client.run("SELECT 1") == [["1"]]
    assert client.error(statement) == OC001
    assert client.status == (b"I" if statement == "COMMIT" else b"E")
    client.run("ROLLBACK")
    client.run("BEGIN")
    client.run("SELECT * FROM things")
    client.run("COMMIT")


# --- What is not ---


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE things ADD COLUMN more int",
        "DROP TABLE things CASCADE",
        "GRANT SELECT ON elsewhere.things TO PUBLIC",
        "CREATE ROLE nobody",
    ],
)
@pytest.mark.parametrize("statement", ["SELECT 1", "SELECT count(*) FROM others", "SELECT relname FROM pg_class LIMIT 1"])
def test_other_objects_are_spared(dsql, connect, change, statement):
    """A statement that names no object, another one, or the catalog."""
    warm, other = connect(), connect()
    warm.run("SELECT 1 FROM others, things, elsewhere.things")
    other.run(change)
    warm.run(statement)
    dsql.execute("DROP ROLE IF EXISTS nobody")


def test_a_table_of_the_same_name_in_another_schema_is_spared(dsql, connect):
    """The search path says which of them an unqualified name means."""
    warm, other = connect(), connect()
    warm.run("SELECT 1 FROM things")
    other.run("GRANT SELECT ON elsewhere.things TO PUBLIC")
    warm.run("SELECT 1 FROM things")
    warm.run("SET search_path = elsewhere, public")
    other.run("REVOKE SELECT ON elsewhere.things FROM PUBLIC")
    assert warm.error("SELECT 1 FROM things") == OC001


def test_a_session_that_had_not_looked_is_spared(dsql, connect):
    """It has no older version of the object in mind: neither a new session, nor one that has named other objects alone."""
    warm, other = connect(), connect()
    warm.run("SELECT 1 FROM others")
    other.run("ALTER TABLE things ADD COLUMN more int")
    warm.run("SELECT more FROM things")
    connect().run("SELECT more FROM things")


@pytest.mark.parametrize("drop", ["DROP TABLE things CASCADE", "ALTER TABLE things RENAME TO former"])
def test_a_new_table_is_spared_whatever_had_its_name(dsql, connect, drop):
    """Nobody has looked at it: AWS's own suites make and drop tables of one name in several sessions."""
    warm, other = connect(), connect()
    warm.run("SELECT 1 FROM things")
    other.run(drop)
    other.run("CREATE TABLE things (id uuid PRIMARY KEY)")
    if drop.startswith("DROP"):
        warm.run("SELECT 1 FROM things")
    other.run("GRANT SELECT ON things TO PUBLIC")
    assert warm.error("SELECT 1 FROM things") == OC001
    dsql.execute("DROP TABLE IF EXISTS former CASCADE")


def test_what_is_rolled_back_is_no_news(dsql, connect):
    """Only what is committed changes the catalog."""
    client, other = connect(), connect()
    client.run("SELECT 1 FROM things")
    other.run("BEGIN")
    other.run("GRANT SELECT ON things TO PUBLIC")
    other.run("ROLLBACK")
    client.run("SELECT 1 FROM things")


def test_execute_meets_none(dsql, connect):
    """What runs past the front makes news, and hears none."""
    dsql.execute("SELECT 1 FROM things")
    connect().run("GRANT SELECT ON things TO PUBLIC")
    dsql.execute("SELECT 1 FROM things")


# --- Strictly ---


@pytest.fixture(scope="module")
def strict():
    with LocalDsql(schema_conflicts="any") as dsql:
        dsql.execute(SCHEMA)
        yield dsql


@pytest.fixture
def warm_and_other(strict, connect):
    return [connect(to=strict, trust=strict.ca_pem) for _ in range(2)]


@pytest.mark.parametrize("change", ["CREATE TABLE parts (id int)", "GRANT SELECT ON things TO PUBLIC", "CREATE ROLE nobody"])
@pytest.mark.parametrize("statement", ["SELECT 1", "INSERT INTO others VALUES (1)", "DROP TABLE IF EXISTS parts"])
def test_any_change_is_met_by_any_statement(strict, warm_and_other, change, statement):
    """With `schema_conflicts="any"`, as a function under test must bear it; the next try goes through."""
    warm, other = warm_and_other
    other.run(change)
    assert warm.error(statement) == OC001
    warm.run(statement)
    strict.execute("DROP TABLE IF EXISTS parts; DROP ROLE IF EXISTS nobody; DELETE FROM others")


@pytest.mark.parametrize("statement", ["SELECT 1", "COMMIT"])
def test_any_change_during_a_transaction(strict, warm_and_other, statement):
    """At the next statement or at COMMIT; BEGIN, SET and ROLLBACK do not meet it."""
    client, other = warm_and_other
    other.run("CREATE ROLE nobody")
    client.run("BEGIN")
    client.run("SET LOCAL search_path = public")
    client.run("ROLLBACK")
    assert client.error("SELECT 1") == OC001
    client.run("BEGIN")
    client.run("SELECT 1")
    strict.execute("DROP ROLE nobody")
    assert client.error(statement) == OC001
    assert client.status == (b"I" if statement == "COMMIT" else b"E")


def test_a_mode_that_there_is_not():
    """A ValueError that names those that there are."""
    with pytest.raises(ValueError, match="schema_conflicts must be one of touched, any, not 'all'"):
        LocalDsql(schema_conflicts="all")  # type: ignore[arg-type]


# --- In detail ---


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT * FROM a JOIN s.b USING (id)", {"a", "s.b"}),
        ("WITH x AS (UPDATE a SET n = 1 RETURNING n) SELECT f(n) FROM x", {"a", "x", "f"}),
        ("SELECT nextval('s.\"Q\"'), currval('q'::regclass)", {"s.Q", "q", "nextval", "currval"}),
        ("DROP TABLE a, s.b", {"a", "s.b"}),
        ("DROP FUNCTION s.f(int)", {"s.f"}),
        ("CREATE INDEX ASYNC ON a (id)", {"a"}),
        ("ALTER TABLE a ADD COLUMN b int", {"a"}),
        ("GRANT SELECT ON a TO r", {"a"}),
        ("INSERT INTO a VALUES (" + ", ".join(["1"] * 100_000) + ")", {"insert", "into", "a", "values"}),
    ],
)
def test_the_objects_that_a_statement_names(sql, names):
    """As it names them; of a text that is too long to be parsed, every word of its beginning."""
    assert {name.name if name.schema is None else f"{name.schema}.{name.name}" for name in judge(sql).objects} == names


def test_the_history_is_bounded():
    """It forgets the names whose last change is the oldest."""
    history = CatalogHistory()
    for number in range(MAX_NAMES + 10):
        history.record([Change(ObjectName(f"t{number}", "public"))])
    assert history.changed_since("t0", 0) == frozenset()
    assert history.changed_since(f"t{MAX_NAMES + 9}", 0) == {"public"}
