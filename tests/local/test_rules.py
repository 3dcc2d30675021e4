"""What the rules say of statements by their text alone: shapes and names that no recording holds."""

import pytest

from dsql_local.rules.dialect import translate
from dsql_local.rules.verdict import Class, judge, refused_at_startup

UNSUPPORTED = "0A000 unsupported statement: "


def verdict(sql):
    """A refusal as SQLSTATE and text, or the class of what is accepted."""
    judged = judge(sql)
    return judged.kind if judged.refused is None else f"{judged.refused.sqlstate} {judged.refused.message}"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("truncate a, b cascade", UNSUPPORTED + "Truncate"),
        ("CREATE MATERIALIZED VIEW m AS SELECT 1", UNSUPPORTED + "CreateTableAs"),
        ("SELECT 1 AS a INTO b", UNSUPPORTED + "CreateTableAs"),
        ("CREATE DATABASE other", UNSUPPORTED + "Createdb"),
        ("ALTER SYSTEM SET work_mem = '8MB'", UNSUPPORTED + "AlterSystem"),
        ("CREATE POLICY p ON t", UNSUPPORTED + "CreatePolicy"),
        ("ALTER TYPE mood ADD VALUE 'fine'", UNSUPPORTED + "AlterEnum"),
        ("CREATE TYPE span AS RANGE (subtype = int4)", UNSUPPORTED + "CreateRange"),
        ("DO $$ BEGIN END $$", UNSUPPORTED + "Do"),
        ("LOCK TABLE t", UNSUPPORTED + "Lock"),
        ("DECLARE c CURSOR FOR SELECT 1", UNSUPPORTED + "DeclareCursor"),
        ("CREATE TEXT SEARCH DICTIONARY d (template = simple)", UNSUPPORTED + "Define"),
        ("CREATE TYPE size AS ENUM ('s', 'm')", "0A000 CREATE TYPE not supported"),
        ("CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()", "0A000 CREATE TRIGGER not supported"),
        ("VACUUM (FULL) t", "0A000 unsupported VACUUM statement"),
        ("ANALYZE t", Class.READ),
        ("ALTER TYPE size RENAME VALUE 's' TO 'small'", UNSUPPORTED + "AlterEnum"),
        ("CREATE TEMP TABLE t (id int)", "0A000 TEMPORARY or TEMP table not supported for CREATE TABLE"),
        ("CREATE TABLE t (id int) PARTITION BY HASH (id)", "0A000 PARTITION BY clause not supported for CREATE TABLE"),
        (
            "CREATE FUNCTION f() RETURNS int LANGUAGE plpython3u AS ''",
            "0A000 CREATE FUNCTION with language plpython3u not supported",
        ),
        ("CREATE FUNCTION f() RETURNS int RETURN 1", Class.DDL),
        ("CREATE VIEW v AS SELECT * FROM t", Class.DDL),
        ("GRANT SELECT ON t TO app", Class.DDL),
        ("CREATE ROLE app WITH LOGIN", Class.DDL),
    ],
)
def test_statements(sql, expected):
    """A statement of a kind that DSQL has not is refused by its kind's name, whatever its shape."""
    assert verdict(sql) == expected


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("a money DEFAULT 0", "0A000 datatype money not supported"),
        ("a numrange", "0A000 datatype numrange not supported"),
        ("a bit varying(3) NOT NULL", "0A000 datatype bit varying not supported"),
        ("a varchar(5)[]", "0A000 datatype character varying[] not supported"),
        ("a timestamptz[3]", "0A000 datatype timestamp with time zone[] not supported"),
        ("a int ARRAY", "0A000 datatype integer[] not supported"),
        ("a pg_catalog.inet", "0A000 datatype inet not supported"),
        ("a bigserial", '42704 type "bigserial" does not exist'),
        ("a mine.money", Class.DDL),
        ("a jsonb, b uuid, c numeric(18, 6), d interval, e bytea, f mood", Class.DDL),
    ],
)
def test_column_types(column, expected):
    """Types that no column may have are named as PostgreSQL's format_type names them."""
    assert verdict(f"CREATE TABLE t (k int PRIMARY KEY, {column})") == expected


@pytest.mark.parametrize("name", ["money", "text[]", "circle"])
def test_added_columns_have_types_too(name):
    """The same in ALTER TABLE, and in a domain."""
    assert verdict(f"ALTER TABLE t ADD COLUMN a {name}") == f"0A000 datatype {name} not supported"
    assert verdict(f"CREATE DOMAIN d AS {name}") == f"0A000 datatype {name} not supported"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT '{1,2}'::int[]", Class.READ),
        ("SELECT '[1,2)'::int4range, '::1'::inet", Class.READ),
        ("SELECT '(1,2)'::point", "0A000 datatype point not supported"),
        ("SELECT box(a, b) FROM t", "0A000 datatype box not supported"),
        ("SELECT pg_try_advisory_xact_lock(1)", "0A000 function pg_try_advisory_xact_lock not supported"),
        ("SELECT set_config('a.b', 'x', true)", '0A000 setting configuration parameter "a.b" not supported'),
        ("SELECT set_config('search_path', 'x', true)", Class.READ),
        ("SELECT * FROM a JOIN b TABLESAMPLE BERNOULLI (10) ON true", "0A000 TABLESAMPLE clause not supported"),
        (
            "SELECT * FROM (SELECT 1 FROM t FOR SHARE) s",
            "0A000 locking clauses other than FOR UPDATE/FOR KEY SHARE are not supported",
        ),
        ("SELECT 1 FROM t FOR UPDATE OF t SKIP LOCKED", Class.READ),
        ("WITH d AS (DELETE FROM t RETURNING 1) SELECT * FROM d", Class.DML),
        ("COPY t FROM STDIN", Class.DML),
        ("COPY t TO STDOUT", Class.READ),
        ("EXPLAIN DELETE FROM t", Class.READ),
        ("EXPLAIN ANALYZE DELETE FROM t", Class.DML),
    ],
)
def test_queries(sql, expected):
    """What is refused is found wherever in a query it stands."""
    assert verdict(sql) == expected


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("ADD COLUMN a int", Class.DDL),
        ("ADD a int DEFAULT 1", "0A000 ALTER TABLE ADD COLUMN with constraint not supported"),
        ("ADD COLUMN a int GENERATED ALWAYS AS (1) STORED", "0A000 ALTER TABLE ADD COLUMN with constraint not supported"),
        ("ALTER a TYPE bigint", "0A000 unsupported ALTER TABLE ALTER COLUMN ... SET DATA TYPE statement"),
        ("ALTER a SET NOT NULL", "0A000 unsupported ALTER TABLE ALTER COLUMN ... SET NOT NULL statement"),
        ("ALTER a DROP NOT NULL, ALTER b SET DEFAULT 1", Class.DDL),
        ("ADD PRIMARY KEY (a)", "0A000 unsupported ALTER TABLE ADD CONSTRAINT statement"),
        ("ADD UNIQUE (a)", "0A000 unsupported ALTER TABLE ADD CONSTRAINT statement"),
        ("ADD CONSTRAINT u UNIQUE USING INDEX i", Class.DDL),
        ("ADD FOREIGN KEY (a) REFERENCES p (id)", "0A000 unsupported ALTER TABLE ADD CONSTRAINT statement"),
        ("ADD FOREIGN KEY (a) REFERENCES p (id) ON DELETE CASCADE NOT VALID", Class.DDL),
        ("VALIDATE CONSTRAINT c", "0A000 unsupported ALTER TABLE VALIDATE CONSTRAINT statement"),
        ("ENABLE ROW LEVEL SECURITY", "0A000 unsupported ALTER TABLE ENABLE ROW SECURITY statement"),
        ("RENAME COLUMN a TO b", Class.DDL),
        ("SET SCHEMA other", Class.DDL),
        ("OWNER TO app", Class.DDL),
    ],
)
def test_alter_table(action, expected):
    """Of ALTER TABLE what the documentation lists is taken, and every other action refused by its name."""
    assert verdict(f"ALTER TABLE IF EXISTS s.t {action}") == expected


CACHE = "is not supported without an explicit cache size. please define CACHE greater than or equal to 65536 or equal to 1"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("CREATE SEQUENCE s", f"0A000 CREATE SEQUENCE {CACHE}"),
        ("CREATE SEQUENCE s CACHE 100", "22023 CACHE (100) must be greater than or equal to 65536 or equal to 1"),
        ("CREATE SEQUENCE s START 5 CACHE 70000", Class.DDL),
        ("ALTER SEQUENCE s CACHE 5", "22023 CACHE (5) must be greater than or equal to 65536 or equal to 1"),
        ("ALTER SEQUENCE s RESTART", Class.DDL),
        ("ALTER TABLE t ALTER a ADD GENERATED ALWAYS AS IDENTITY", f"0A000 identity column {CACHE}"),
        ("ALTER TABLE t ALTER a ADD GENERATED ALWAYS AS IDENTITY (CACHE 1)", Class.DDL),
        ("CREATE TABLE t (a bigint GENERATED BY DEFAULT AS IDENTITY (START 3))", f"0A000 identity column {CACHE}"),
        (
            "CREATE TABLE t (b text, a int GENERATED ALWAYS AS IDENTITY (CACHE 1))",
            "0A000 datatype integer not supported, identity column type must be bigint",
        ),
        ("CREATE TABLE t (a bigint GENERATED ALWAYS AS IDENTITY (CACHE 1 START 7) PRIMARY KEY)", Class.DDL),
    ],
)
def test_sequences(sql, expected):
    """A sequence needs a cache of 1 or of 65,536 and more, an identity column a bigint besides."""
    assert verdict(sql) == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("CREATE INDEX i ON t (a)", "0A000 unsupported mode. please use CREATE INDEX ASYNC."),
        ("CREATE UNIQUE INDEX ON s.t (a)", "0A000 unsupported mode. please use CREATE INDEX ASYNC."),
        ("CREATE INDEX CONCURRENTLY i ON t (a)", "0A000 CONCURRENTLY not supported for CREATE INDEX"),
        ("CREATE INDEX ASYNC i ON t USING btree (a)", "0A000 USING not supported for CREATE INDEX"),
        ("CREATE INDEX ASYNC i ON t USING gin (a)", "0A000 USING not supported for CREATE INDEX"),
        ("CREATE INDEX ASYNC i ON t (a DESC)", "0A000 specifying sort order not supported for index keys"),
        ("create /* now */ index\nasync i ON t (a NULLS FIRST) INCLUDE (b) WHERE c > 1", Class.DDL),
        ("CREATE INDEX ASYNC s.i ON t (a)", '42601 syntax error at or near "."'),
    ],
)
def test_indexes(sql, expected):
    """An index is made with ASYNC or not at all."""
    assert verdict(sql) == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", "0A000 Unsupported isolation level: SERIALIZABLE"),
        ("START TRANSACTION ISOLATION LEVEL READ COMMITTED", "0A000 Unsupported isolation level: READ COMMITTED"),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", Class.CONTROL),
        ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", '0A000 setting configuration parameter "TRANSACTION" not supported'),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ", Class.SESSION),
        ("SAVEPOINT a", "0A000 unsupported transaction statement: SAVEPOINT"),
        ("RELEASE SAVEPOINT a", "0A000 unsupported transaction statement: RELEASE"),
        ("PREPARE TRANSACTION 'x'", "0A000 unsupported transaction statement: PREPARE TRANSACTION"),
        ("SET statement_timeout = 5", '0A000 setting configuration parameter "statement_timeout" not supported'),
        ("SET SESSION work_mem TO '1MB'", '0A000 setting configuration parameter "work_mem" not supported'),
        ("SET search_path = a, b", Class.SESSION),
        ("SET TIME ZONE 'Europe/Berlin'", Class.SESSION),
        ("SET ROLE app", '0A000 setting configuration parameter "role" not supported'),
        ("SET LOCAL ROLE app", Class.SESSION),
        ("RESET ALL", Class.SESSION),
        ("SHOW work_mem", Class.SESSION),
    ],
)
def test_transactions_and_settings(sql, expected):
    """One isolation level, no savepoints, and the parameters that the documentation lists."""
    assert verdict(sql) == expected


def test_startup_parameters():
    """What cannot be set by SET cannot be set by the startup packet either; what a startup needs can."""
    assert refused_at_startup("default_transaction_read_only") is not None
    assert [refused_at_startup(name) for name in ("user", "database", "application_name", "TimeZone")] == [None] * 4


def test_own_syntax():
    """DSQL's own statements become calls of ours; what is malformed becomes nothing."""
    grant = translate("""aws iam grant "My Role" to 'arn:aws:iam::123456789012:role/o''x' ;""")
    assert grant is not None
    assert (grant.execution, grant.tag) == (
        r"CALL sys._iam_grant(E'My Role', E'arn:aws:iam::123456789012:role/o\'x')",
        "AWS IAM GRANT",
    )
    assert verdict("AWS IAM GRANT app") == '42601 syntax error at or near "AWS"'
    assert translate("SELECT 'CREATE INDEX ASYNC'") is None


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("INSERT INTO t VALUES (1), (2)", 2),
        ("INSERT INTO t DEFAULT VALUES", 1),
        ("INSERT INTO t SELECT 1", None),
        ("UPDATE t SET a = 1", None),
        ("SELECT 1", 0),
    ],
)
def test_how_many_rows_a_text_promises(sql, rows):
    """Only VALUES say how many rows they modify; what does not say it is counted."""
    assert judge(sql).rows == rows


def test_a_text_of_data_is_not_parsed():
    """A statement of megabytes is taken for what its first word says; one that is no data is read however long it is."""
    assert judge("INSERT INTO t VALUES ('" + "x" * 300_000 + "')").rows is None
    assert verdict("TRUNCATE t /*" + "x" * 300_000 + "*/") == UNSUPPORTED + "Truncate"


def test_nonsense_is_left_to_postgresql():
    """What the parser does not take is no refusal of ours: PostgreSQL finds it in its own words."""
    assert verdict("SELEC 1") is Class.UNKNOWN
