"""Statements of the recorded kinds that no recording holds: other spellings, clauses, types and objects, each with its source.

A source is where the expectation was read: a sibling in `golden/`, AWS's user guide, its linter (whose cases are run on a
cluster) and its troubleshooting page, published protocols of other people's clusters, or PostgreSQL itself where a cluster is not
known to differ. `WORDED_AFTER` means that the refusal is known or likely and its text is not.
"""

import pytest

from dsql_local import LocalDsql
from dsql_local.protocol.messages import error_fields, query

RECORDED = "a recorded sibling"
GUIDE = "docs.aws.amazon.com/aurora-dsql/latest/userguide, 2026-09"
LINTER = "awslabs/aurora-dsql-tools, dsql-lint/tests and grammar/dsql_grammar.json, 2026-08"
TROUBLESHOOTING = "awslabs, databases-on-aws, dsql: limits and error codes observed on 2026-10-01"
MIGRATION_TOOLKIT = "awslabs/dsql-migration-toolkit, verified on clusters, 2026-08"
DSQLBASE = "slsdotdev/dsqlbase, docs/internals/dsql-capabilities.md, verified on 2026-10-03"
POSTGREST = "measured for PostgREST's test fixtures, 2026-08-19 and 2026-08-28"
SPIKE = "protocol of a spike, 2026-09-23"
ISSUES = "GitHub issues: transact-rs/sqlx#4162, pgadmin-org/pgadmin4#9433, flyway/flyway#4088"
POSTGRESQL = "PostgreSQL, from which nothing is known to differ"
WORDED_AFTER = "refused; worded after a recorded sibling"

SETUP = """
CREATE TABLE parent (id uuid PRIMARY KEY, name text NOT NULL);
CREATE TABLE thing (id int PRIMARY KEY, a text, b int, big bigint NOT NULL, doc jsonb, raw bytea, span interval);
CREATE TABLE holder (id int PRIMARY KEY, parent_id uuid);
CREATE VIEW seen AS SELECT 1 AS x;
CREATE SEQUENCE counter CACHE 1;
CREATE DOMAIN short AS text CHECK (length(VALUE) < 9);
CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE SCHEMA other;
CREATE TABLE "Wide One" (id int, "a b" varchar(1500), c char(501));
CREATE ROLE reader WITH LOGIN;
CREATE STATISTICS counted ON a, b FROM thing
"""

UNSUPPORTED = "0A000 unsupported statement: "
NO_CACHE = "is not supported without an explicit cache size. please define CACHE greater than or equal to 65536 or equal to 1"
BAD_CACHE = "22023 CACHE ({}) must be greater than or equal to 65536 or equal to 1"
ALTER = "0A000 unsupported ALTER TABLE {} statement"
ADD_CONSTRAINT = ALTER.format("ADD CONSTRAINT")
WITH_CONSTRAINT = "0A000 ALTER TABLE ADD COLUMN with constraint not supported"
IN_A_KEY = "0A000 datatype {} is not supported in a key"
PARAMETER = '0A000 setting configuration parameter "{}" not supported'
LOCKING = "0A000 locking clauses other than FOR UPDATE/FOR KEY SHARE are not supported"


def each(source, expected, *statements):
    """Statements that have one source and one answer."""
    return [(sql, expected, source) for sql in statements]


STATEMENTS = [
    # Statements of kinds that DSQL has not are named by their kind
    *each(
        RECORDED, UNSUPPORTED + "Truncate", "truncate only parent restart identity cascade", 'TRUNCATE "no such", public.parent'
    ),
    *each(RECORDED, UNSUPPORTED + "CreateExtension", 'CREATE EXTENSION "uuid-ossp" SCHEMA public', "CREATE LANGUAGE plperl"),
    *each(
        RECORDED,
        UNSUPPORTED + "CreateTableAs",
        "CREATE TEMP TABLE t AS SELECT 1",
        "CREATE UNLOGGED TABLE t AS SELECT 1",
        "CREATE TABLE IF NOT EXISTS public.t AS TABLE thing WITH NO DATA",
        "CREATE MATERIALIZED VIEW IF NOT EXISTS m AS SELECT 1",
        "SELECT 1 AS a INTO t",
    ),
    *each(RECORDED, UNSUPPORTED + "Listen", 'LISTEN "Channel"'),
    *each(RECORDED, UNSUPPORTED + "Notify", "NOTIFY channel, 'payload'"),
    *each(RECORDED, UNSUPPORTED + "Unlisten", "UNLISTEN *"),
    *each(RECORDED, "0A000 unsupported VACUUM statement", "VACUUM", "VACUUM FULL thing", "VACUUM (ANALYZE, VERBOSE) thing"),
    *each(TROUBLESHOOTING, UNSUPPORTED + "Createdb", "CREATE DATABASE other TEMPLATE template0"),
    *each(ISSUES, UNSUPPORTED + "Execute", "EXECUTE p(1)", "EXPLAIN EXECUTE p"),
    *each(POSTGREST, UNSUPPORTED + "CreatePolicy", "CREATE POLICY p ON thing USING (true)"),
    *each(
        POSTGREST,
        UNSUPPORTED + "Define",
        "CREATE TEXT SEARCH CONFIGURATION c (parser = default)",
        "CREATE TYPE t",
        "CREATE AGGREGATE g(int) (sfunc = int4pl, stype = int)",
    ),
    *each(POSTGREST, UNSUPPORTED + "AlterTSConfiguration", "ALTER TEXT SEARCH CONFIGURATION c ADD MAPPING FOR word WITH simple"),
    *[
        (sql, UNSUPPORTED + kind, LINTER)
        for sql, kind in (
            ("LOCK TABLE thing IN SHARE MODE", "Lock"),
            ("LOAD 'auto_explain'", "Load"),
            ("PREPARE p AS SELECT 1", "Prepare"),
            ("DEALLOCATE p", "Deallocate"),
            ("DISCARD ALL", "Discard"),
            ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "DeclareCursor"),
            ("CREATE SERVER s FOREIGN DATA WRAPPER w", "CreateForeignServer"),
            ("ALTER POLICY p ON thing USING (true)", "AlterPolicy"),
        )
    ],
    *[
        (sql, UNSUPPORTED + kind, RECORDED)
        for sql, kind in (
            ("DO LANGUAGE sql 'SELECT 1'", "Do"),
            ("FETCH NEXT FROM c", "Fetch"),
            ("CLOSE ALL", "ClosePortal"),
            ("CLUSTER thing USING thing_pkey", "Cluster"),
            ("REINDEX TABLE thing", "Reindex"),
            ("CHECKPOINT", "CheckPoint"),
            ("REFRESH MATERIALIZED VIEW m", "RefreshMatView"),
            ("CREATE RULE r AS ON INSERT TO thing DO INSTEAD NOTHING", "Rule"),
            ("CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION one()", "CreateEventTrig"),
            ("CREATE FOREIGN DATA WRAPPER w", "CreateFdw"),
            ("CREATE USER MAPPING FOR reader SERVER s", "CreateUserMapping"),
            ("IMPORT FOREIGN SCHEMA f FROM SERVER s INTO other", "ImportForeignSchema"),
            ("CREATE PUBLICATION p FOR ALL TABLES", "CreatePublication"),
            ("CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p", "CreateSubscription"),
            ("CREATE TABLESPACE t LOCATION '/tmp'", "CreateTableSpace"),
            ("DROP DATABASE IF EXISTS other", "Dropdb"),
            ("ALTER SYSTEM RESET ALL", "AlterSystem"),
            ("ALTER DATABASE postgres SET search_path = other", "AlterDatabaseSet"),
            ("SECURITY LABEL ON TABLE thing IS 'x'", "SecLabel"),
            ("CREATE CAST (int AS text) WITH INOUT", "CreateCast"),
            ("CREATE OPERATOR CLASS o FOR TYPE int USING btree AS STORAGE int", "CreateOpClass"),
            ("CREATE ACCESS METHOD m TYPE INDEX HANDLER h", "CreateAm"),
            ("EXPLAIN CREATE TABLE t AS SELECT 1", "CreateTableAs"),
        )
    ],
    *each(
        RECORDED,
        "0A000 unsupported statement type: MERGE",
        "EXPLAIN MERGE INTO thing t USING holder h ON t.id = h.id WHEN MATCHED THEN DELETE",
    ),
    # CREATE TABLE
    *each(
        RECORDED,
        "0A000 TEMPORARY or TEMP table not supported for CREATE TABLE",
        "CREATE LOCAL TEMP TABLE IF NOT EXISTS t (id int)",
        "CREATE GLOBAL TEMPORARY TABLE t (id int) ON COMMIT DROP",
    ),
    *each(
        POSTGREST, "0A000 PARTITION BY clause not supported for CREATE TABLE", "CREATE TABLE t (id int) PARTITION BY LIST (id)"
    ),
    *each(WORDED_AFTER, "0A000 PARTITION OF clause not supported for CREATE TABLE", "CREATE TABLE t PARTITION OF thing DEFAULT"),
    *each(WORDED_AFTER, "0A000 INHERITS clause not supported for CREATE TABLE", "CREATE TABLE t (c int) INHERITS (thing)"),
    *each(WORDED_AFTER, "0A000 WITH clause not supported for CREATE TABLE", "CREATE TABLE t (c int) WITH (fillfactor = 70)"),
    *each(WORDED_AFTER, "0A000 TABLESPACE clause not supported for CREATE TABLE", "CREATE TABLE t (c int) TABLESPACE pg_default"),
    *each(WORDED_AFTER, "0A000 USING clause not supported for CREATE TABLE", "CREATE TABLE t (c int) USING heap"),
    *each(WORDED_AFTER, "0A000 ON COMMIT clause not supported for CREATE TABLE", "CREATE TABLE t (c int) ON COMMIT DROP"),
    *each(WORDED_AFTER, "0A000 OF clause not supported for CREATE TABLE", "CREATE TABLE t OF kind"),
    *each(
        WORDED_AFTER,
        "0A000 column collation not supported",
        'CREATE TABLE t (c text COLLATE "C")',
        'ALTER TABLE thing ADD c text COLLATE "C"',
    ),
    *each(WORDED_AFTER, "0A000 EXCLUDE constraint not supported", "CREATE TABLE t (c int, EXCLUDE USING btree (c WITH =))"),
    *each(
        RECORDED,
        '42704 type "smallserial" does not exist',
        "CREATE TABLE t (c smallserial)",
        "ALTER TABLE thing ADD c SMALLSERIAL",
        "CREATE DOMAIN d AS smallserial",
    ),
    *each(POSTGRESQL, '42704 type "citext" does not exist', "CREATE TABLE t (c citext)", "SELECT 'x'::citext"),
    *each(
        GUIDE,
        "CREATE TABLE",
        "CREATE TABLE t (LIKE thing INCLUDING ALL)",
        "CREATE TABLE t (a int PRIMARY KEY, b int, c int GENERATED ALWAYS AS (a + b) STORED, UNIQUE NULLS NOT DISTINCT (b))",
        "CREATE TABLE t (a int, b numeric(1000, -1000), PRIMARY KEY (a) INCLUDE (b))",
        "CREATE TABLE t (a text STORAGE MAIN, b time(3) with time zone, c interval day to second, d short)",
        "CREATE TABLE t (id int PRIMARY KEY, p uuid REFERENCES parent MATCH FULL ON DELETE SET NULL DEFERRABLE)",
        "CREATE TABLE other.t (id bigint GENERATED BY DEFAULT AS IDENTITY (START 7 INCREMENT 3 CACHE 65536))",
        "CREATE TABLE IF NOT EXISTS thing (id int)",
    ),
    *each(POSTGRESQL, '42P01 relation "nowhere" does not exist', "CREATE TABLE t (p int REFERENCES nowhere)"),
    *each(POSTGRESQL, '42P07 relation "thing" already exists', "CREATE TABLE public.thing (id int)"),
    *each(
        POSTGRESQL,
        '42P16 multiple primary keys for table "t" are not allowed',
        "CREATE TABLE t (a int PRIMARY KEY, b int PRIMARY KEY)",
    ),
    *each(
        TROUBLESHOOTING,
        "54000 Datatype limit greater than 65535 bytes not supported for varchar",
        "CREATE TABLE t (c varchar(65536))",
        "ALTER TABLE thing ADD c character varying (70000)",
    ),
    *each(
        TROUBLESHOOTING, "54000 Datatype limit greater than 4096 bytes not supported for char", "CREATE TABLE t (c char(4097))"
    ),
    *each(TROUBLESHOOTING, "22023 NUMERIC precision 1001 must be between 1 and 1000", "CREATE TABLE t (c decimal(1001, 2))"),
    *each(
        TROUBLESHOOTING,
        "54011 more than 8 column keys in an index are not supported",
        "CREATE TABLE t (a int, b int, c int, d int, e int, f int, g int, h int, i int, UNIQUE (a, b, c, d, e, f, g, h, i))",
        "CREATE INDEX ASYNC ON thing (id, a, b, big, id, a, b, big, id)",
    ),
    *each(
        TROUBLESHOOTING,
        "54000 key size greater than 2000 bytes not supported",
        "CREATE TABLE t (a varchar(2001) PRIMARY KEY)",
        "CREATE TABLE t (a varchar(1500), b char(501), UNIQUE (a, b))",
        'CREATE INDEX ASYNC ON "Wide One" ("a b", c)',
    ),
    *each(TROUBLESHOOTING, "CREATE TABLE", "CREATE TABLE t (a varchar(2000) PRIMARY KEY, b varchar(2000) UNIQUE)"),
    *each(TROUBLESHOOTING, "CREATE INDEX", 'CREATE INDEX ASYNC ON "Wide One" ("a b", id) INCLUDE (c)'),
    *each(
        TROUBLESHOOTING,
        "54011 tables can have at most 255 columns",
        f"CREATE TABLE t ({', '.join(f'c{n} int' for n in range(257))})",
    ),
    *each(
        TROUBLESHOOTING,
        "54011 cannot use more than 256 columns in an index",
        f"CREATE TABLE t (id int PRIMARY KEY, {', '.join(f'c{n} int' for n in range(256))})",
    ),
    *each(
        TROUBLESHOOTING,
        "42P17 generation expression is not immutable",
        "CREATE TABLE t (a text, b timestamptz GENERATED ALWAYS AS (CAST(a AS timestamptz)) STORED)",
    ),
    # Types: of columns, of keys, of what functions give back
    *[
        (statement.format(name), f"0A000 datatype {shown} not supported", RECORDED)
        for name, shown in (
            ("macaddr8", "macaddr8"),
            ("int8multirange", "int8multirange"),
            ("daterange", "daterange"),
            ("pg_catalog.bit(3)", "bit"),
            ("jsonpath", "jsonpath"),
            ("varchar(9)[]", "character varying[]"),
            ("uuid[3]", "uuid[]"),
            ("timestamp ARRAY", "timestamp without time zone[]"),
        )
        for statement in (
            "CREATE TABLE IF NOT EXISTS t (k int, c {})",
            "ALTER TABLE IF EXISTS ONLY thing ADD COLUMN IF NOT EXISTS c {}",
        )
    ],
    *each(RECORDED, "0A000 datatype money not supported", "CREATE DOMAIN d AS money"),
    *[
        (statement.format(name), IN_A_KEY.format(name), SPIKE if name == "jsonb" else MIGRATION_TOOLKIT)
        for name in ("jsonb", "bytea")
        for statement in ("CREATE TABLE t (c {} PRIMARY KEY)", "CREATE TABLE t (k int, c {}, UNIQUE (k, c))")
    ],
    *each(MIGRATION_TOOLKIT, IN_A_KEY.format("bytea"), "CREATE INDEX ASYNC ON public.thing (id, raw)"),
    *each(GUIDE, IN_A_KEY.format("interval"), "CREATE INDEX ASYNC ON thing (span)"),
    *each(SPIKE, IN_A_KEY.format("jsonb"), "CREATE UNIQUE INDEX ASYNC ON thing (doc)"),
    *each(
        RECORDED,
        "0A000 datatype point not supported",
        "SELECT point(1, 2)",
        "SELECT '(1,2)'::point",
        "SELECT CAST('(1,2)' AS point)",
    ),
    *each(
        POSTGREST,
        "SELECT 1",
        "SELECT int4range(1, 5) @> 3",
        "SELECT ARRAY[1, 2] @> ARRAY[1]",
        "SELECT * FROM json_to_recordset('[{\"a\": [1]}]') AS x(a int[])",
    ),
    *each(
        POSTGREST,
        "0A000 datatype int4range not supported",
        "CREATE FUNCTION f() RETURNS int4range LANGUAGE sql AS 'SELECT int4range(1, 2)'",
    ),
    *each(
        POSTGREST,
        "0A000 datatype money not supported",
        "CREATE FUNCTION f() RETURNS TABLE (a int, b money) LANGUAGE sql AS 'SELECT 1, 2::money'",
    ),
    *each(
        POSTGREST,
        "CREATE FUNCTION",
        "CREATE FUNCTION f(a int4range) RETURNS int[] LANGUAGE sql AS 'SELECT ARRAY[1]'",
        "CREATE FUNCTION f() RETURNS tsvector LANGUAGE sql AS $$ SELECT 'a'::tsvector $$",
    ),
    # ALTER TABLE: what is not accepted is named as PostgreSQL names its actions
    *[
        (f"ALTER TABLE thing {action}", ALTER.format(name), source)
        for action, name, source in (
            ("ALTER COLUMN b SET STATISTICS 100", "ALTER COLUMN ... SET STATISTICS", TROUBLESHOOTING),
            ("ALTER a SET DATA TYPE text USING a::text", "ALTER COLUMN ... SET DATA TYPE", RECORDED),
            ("ALTER a SET NOT NULL", "ALTER COLUMN ... SET NOT NULL", DSQLBASE),
            ("VALIDATE CONSTRAINT c", "VALIDATE CONSTRAINT", TROUBLESHOOTING),
            ("ENABLE ROW LEVEL SECURITY", "ENABLE ROW SECURITY", POSTGREST),
            ("NO FORCE ROW LEVEL SECURITY", "NO FORCE ROW SECURITY", RECORDED),
            ("ENABLE ALWAYS TRIGGER g", "ENABLE ALWAYS TRIGGER", RECORDED),
            ("DISABLE RULE r", "DISABLE RULE", LINTER),
            ("REPLICA IDENTITY FULL", "REPLICA IDENTITY", LINTER),
            ("ALTER a SET COMPRESSION pglz", "ALTER COLUMN ... SET COMPRESSION", LINTER),
            ("ALTER a RESET (n_distinct)", "ALTER COLUMN ... RESET", RECORDED),
            ("SET (fillfactor = 70), ADD COLUMN c int", "SET", RECORDED),
            ("SET TABLESPACE pg_default", "SET TABLESPACE", RECORDED),
            ("SET UNLOGGED", "SET UNLOGGED", RECORDED),
            ("SET WITHOUT CLUSTER", "SET WITHOUT CLUSTER", RECORDED),
            ("SET WITHOUT OIDS", "SET WITHOUT OIDS", RECORDED),
            ("SET ACCESS METHOD heap", "SET ACCESS METHOD", RECORDED),
            ("INHERIT parent", "INHERIT", RECORDED),
            ("NOT OF", "NOT OF", RECORDED),
            ("ATTACH PARTITION parent DEFAULT", "ATTACH PARTITION", RECORDED),
            ("DETACH PARTITION parent CONCURRENTLY", "DETACH PARTITION", RECORDED),
        )
    ],
    *each(
        DSQLBASE,
        "ALTER TABLE",
        "ALTER TABLE thing ADD c1 int, ADD COLUMN c2 text, DROP COLUMN b",
        "ALTER TABLE thing ALTER a SET DEFAULT 'x', ALTER b DROP NOT NULL",
        "ALTER TABLE thing ALTER big ADD GENERATED BY DEFAULT AS IDENTITY (CACHE 1)",
        "ALTER TABLE thing ALTER b DROP IDENTITY IF EXISTS",
        "ALTER TABLE thing RENAME COLUMN a TO c",
        "ALTER TABLE thing RENAME CONSTRAINT thing_pkey TO thing_key",
        "ALTER TABLE thing SET SCHEMA other",
        "ALTER TABLE thing ADD CONSTRAINT c CHECK (b > 0) NOT VALID, ADD CHECK (b < 9) NOT VALID",
        "ALTER TABLE ONLY holder ADD CONSTRAINT c FOREIGN KEY (parent_id) REFERENCES parent ON DELETE CASCADE NOT VALID",
    ),
    *each(
        LINTER,
        "ALTER TABLE",
        "ALTER TABLE thing ENABLE TRIGGER ALL",
        "ALTER TABLE thing DISABLE TRIGGER USER",
        "ALTER TABLE thing ALTER a SET STORAGE DEFAULT",
    ),
    *each(DSQLBASE, "ALTER INDEX", "ALTER INDEX thing_pkey RENAME TO thing_key"),
    *each(
        RECORDED,
        WITH_CONSTRAINT,
        "ALTER TABLE thing ADD c int NULL",
        "ALTER TABLE thing ADD c uuid REFERENCES parent",
        "ALTER TABLE thing ADD c int GENERATED ALWAYS AS (b) STORED",
        "ALTER TABLE thing ADD d int, ADD c int PRIMARY KEY",
    ),
    *each(
        RECORDED,
        ADD_CONSTRAINT,
        "ALTER TABLE thing ADD PRIMARY KEY (b)",
        "ALTER TABLE holder ADD FOREIGN KEY (parent_id) REFERENCES parent",
        "ALTER TABLE thing ADD CHECK (b > 0)",
        "ALTER TABLE thing ADD CONSTRAINT k PRIMARY KEY USING INDEX i",
    ),
    *each(
        RECORDED,
        "0A000 cannot drop primary key column id",
        'ALTER TABLE public."thing" DROP COLUMN a, DROP IF EXISTS "id" CASCADE',
    ),
    *each(
        POSTGREST,
        "0A000 unsupported ALTER TABLE DROP CONSTRAINT statement",
        "ALTER TABLE thing DROP CONSTRAINT IF EXISTS thing_pkey",
    ),
    *each(POSTGRESQL, '42703 column "none" of relation "thing" does not exist', "ALTER TABLE thing DROP COLUMN none"),
    *each(POSTGRESQL, '42P01 relation "nowhere" does not exist', "ALTER TABLE nowhere ADD c int"),
    *each(
        WORDED_AFTER,
        "0A000 unsupported object in ALTER TABLE statement",
        "ALTER TYPE kind ADD ATTRIBUTE b int",
        "ALTER FOREIGN TABLE f ADD c int",
    ),
    # Sequences and identity columns
    *each(SPIKE, f"0A000 CREATE SEQUENCE {NO_CACHE}", "CREATE SEQUENCE IF NOT EXISTS other.s START 5 CYCLE"),
    *each(
        RECORDED,
        f"0A000 identity column {NO_CACHE}",
        "CREATE TABLE t (id bigint GENERATED BY DEFAULT AS IDENTITY (START 5))",
        "ALTER TABLE thing ALTER big ADD GENERATED ALWAYS AS IDENTITY",
    ),
    *each(
        MIGRATION_TOOLKIT,
        BAD_CACHE.format(100),
        "CREATE SEQUENCE s CACHE 100",
        "ALTER SEQUENCE counter CACHE 100",
        "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY (CACHE 100))",
        "ALTER TABLE thing ALTER big SET CACHE 100",
    ),
    *each(MIGRATION_TOOLKIT, BAD_CACHE.format(65535), "CREATE SEQUENCE s MINVALUE 1 CACHE 65535"),
    *each(
        RECORDED,
        "CREATE SEQUENCE",
        "CREATE SEQUENCE s AS bigint INCREMENT BY -1 CACHE 100000 NO CYCLE",
        "create sequence other.s cache 1 owned by none",
    ),
    *each(WORDED_AFTER, "0A000 datatype integer not supported, sequence type must be bigint", "CREATE SEQUENCE s AS int CACHE 1"),
    *each(
        RECORDED,
        "0A000 datatype text not supported, identity column type must be bigint",
        "CREATE TABLE t (id text GENERATED ALWAYS AS IDENTITY (CACHE 1))",
    ),
    *each(
        DSQLBASE,
        "ALTER SEQUENCE",
        "ALTER SEQUENCE counter RESTART WITH 9",
        "ALTER SEQUENCE IF EXISTS counter OWNED BY NONE",
        "ALTER SEQUENCE counter RENAME TO count",
    ),
    # Indexes, in the order in which a cluster looks: CONCURRENTLY, USING, the mode, the keys, their number
    *each(
        RECORDED,
        "0A000 unsupported mode. please use CREATE INDEX ASYNC.",
        "CREATE UNIQUE INDEX IF NOT EXISTS i ON public.thing (a DESC)",
        'create index "I" on only thing (lower(a)) where b > 0',
    ),
    *each(
        TROUBLESHOOTING, "0A000 CONCURRENTLY not supported for CREATE INDEX", "CREATE INDEX CONCURRENTLY i ON thing USING gin (a)"
    ),
    *each(
        POSTGREST,
        "0A000 USING not supported for CREATE INDEX",
        "CREATE INDEX i ON thing USING btree (a)",
        'CREATE INDEX ASYNC i ON public.thing USING "gin" (doc)',
        "CREATE UNIQUE INDEX ASYNC ON thing/**/USING hash (a)",
    ),
    *each(
        TROUBLESHOOTING,
        "0A000 specifying sort order not supported for index keys",
        "CREATE INDEX ASYNC ON thing (id, a ASC NULLS FIRST)",
        "CREATE INDEX ASYNC ON thing (lower(a) DESC)",
    ),
    *each(TROUBLESHOOTING, "0A000 opclass not supported for index keys", "CREATE INDEX ASYNC ON thing (a text_pattern_ops)"),
    *each(WORDED_AFTER, "0A000 WITH not supported for CREATE INDEX", "CREATE INDEX ASYNC ON thing (a) WITH (fillfactor = 70)"),
    *each(
        TROUBLESHOOTING,
        "42P17 functions in index expression must be marked IMMUTABLE",
        "CREATE INDEX ASYNC ON thing ((random() + b))",
    ),
    *each(RECORDED, '42601 syntax error at or near "ON"', "CREATE INDEX ASYNC IF NOT EXISTS ON thing (a)"),
    *each(POSTGRESQL, '42703 column "none" does not exist', "CREATE INDEX ASYNC ON thing (none)"),
    *each(POSTGRESQL, '42P07 relation "thing_pkey" already exists', "CREATE INDEX ASYNC thing_pkey ON thing (a)"),
    *each(
        GUIDE,
        "CREATE INDEX",
        "CREATE INDEX ASYNC ON thing (a NULLS FIRST, b NULLS LAST) INCLUDE (big)",
        "create unique index async if not exists i on public.thing (a) nulls not distinct",
        "CREATE INDEX ASYNC i ON thing ((doc ->> 'a'), lower(a)) WHERE a LIKE 'USING x (%'",
        "CREATE INDEX ASYNC i ON thing USING btree_index (a)",
    ),
    *each(POSTGRESQL, "DROP INDEX", "DROP INDEX IF EXISTS nowhere, other.nowhere CASCADE"),
    # Views, functions, triggers, types, domains
    *each(
        DSQLBASE,
        "CREATE VIEW",
        "CREATE OR REPLACE VIEW seen AS SELECT 2 AS x",
        "CREATE RECURSIVE VIEW v (n) AS SELECT 1",
        "CREATE VIEW v WITH (security_barrier) AS SELECT id FROM thing WITH CHECK OPTION",
    ),
    *each(WORDED_AFTER, "0A000 TEMPORARY or TEMP view not supported for CREATE VIEW", "CREATE TEMP VIEW v AS SELECT 1"),
    *each(
        POSTGREST,
        "CREATE FUNCTION",
        "CREATE OR REPLACE FUNCTION one() RETURNS int LANGUAGE SQL IMMUTABLE RETURN 1",
        "CREATE FUNCTION f() RETURNS SETOF thing LANGUAGE sql AS 'SELECT * FROM thing'",
        "CREATE FUNCTION f() RETURNS TABLE (n int) LANGUAGE sql BEGIN ATOMIC SELECT 1; END",
    ),
    *[
        (
            f"CREATE FUNCTION f() RETURNS int LANGUAGE {name} AS 'x'",
            f"0A000 CREATE FUNCTION with language {name.strip(chr(34)).lower()} not supported",
            RECORDED,
        )
        for name in ("PLpgSQL", '"plpgsql"', "c", "internal", "plpython3u")
    ],
    *each(
        POSTGREST,
        PARAMETER.format("response.headers"),
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$ SET LOCAL \"response.headers\" = '[]' $$",
    ),
    *each(RECORDED, UNSUPPORTED + "Truncate", "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'TRUNCATE thing'"),
    *each(TROUBLESHOOTING, "0A000 PROCEDURE is not supported", "CREATE OR REPLACE PROCEDURE p() LANGUAGE sql AS 'SELECT 1'"),
    *each(
        SPIKE,
        "0A000 CREATE TRIGGER not supported",
        "CREATE OR REPLACE TRIGGER g AFTER UPDATE OF a ON thing EXECUTE FUNCTION one()",
        "CREATE CONSTRAINT TRIGGER g AFTER INSERT ON thing FOR EACH ROW EXECUTE FUNCTION one()",
    ),
    *each(RECORDED, "0A000 CREATE TYPE not supported", "CREATE TYPE other.mood AS ENUM ()"),
    *each(RECORDED, UNSUPPORTED + "CompositeType", 'CREATE TYPE pair AS (a int, b text COLLATE "C")'),
    *each(
        RECORDED,
        "0A000 unsupported object in RENAME statement",
        "ALTER TYPE pair RENAME ATTRIBUTE a TO c",
        "ALTER MATERIALIZED VIEW m RENAME TO n",
        "ALTER DATABASE postgres RENAME TO other",
    ),
    *each(
        POSTGREST,
        "0A000 unsupported object in DROP statement",
        "DROP TYPE IF EXISTS mood CASCADE",
        "DROP EXTENSION IF EXISTS pgcrypto",
        "DROP MATERIALIZED VIEW m",
        "DROP POLICY p ON thing",
        "DROP RULE r ON thing",
        "DROP AGGREGATE g(int)",
        "DROP PROCEDURE IF EXISTS p",
        "DROP SERVER s",
        "DROP CAST (int AS text)",
    ),
    *each(LINTER, "DROP TRIGGER", "DROP TRIGGER IF EXISTS g ON thing", "DROP TRIGGER IF EXISTS g ON thing CASCADE"),
    *each(DSQLBASE, "CREATE DOMAIN", "CREATE DOMAIN other.d AS varchar(9) DEFAULT 'x' NOT NULL CONSTRAINT c CHECK (VALUE <> '')"),
    *each(
        DSQLBASE,
        "ALTER DOMAIN",
        "ALTER DOMAIN short SET DEFAULT 'x'",
        "ALTER DOMAIN short DROP NOT NULL",
        "ALTER DOMAIN short RENAME TO brief",
    ),
    *each(DSQLBASE, "0A000 DROP DOMAIN with CASCADE unsupported", "DROP DOMAIN IF EXISTS short CASCADE"),
    *each(
        WORDED_AFTER,
        "0A000 unsupported ALTER DOMAIN statement",
        "ALTER DOMAIN short SET NOT NULL",
        "ALTER DOMAIN short ADD CHECK (VALUE <> 'x') NOT VALID",
    ),
    *each(LINTER, "ALTER FUNCTION", "ALTER FUNCTION one() RENAME TO uno", "ALTER FUNCTION one SET SCHEMA other"),
    # Roles, privileges, schemas
    *each(
        SPIKE,
        "0A000 feature not supported on system entity",
        "GRANT USAGE ON SCHEMA public TO reader",
        "REVOKE ALL ON SCHEMA other, public FROM PUBLIC",
    ),
    *each(
        POSTGREST,
        "GRANT",
        "GRANT USAGE, CREATE ON SCHEMA other TO reader",
        "GRANT SELECT (a), UPDATE ON thing TO reader",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO reader",
        "GRANT USAGE ON SEQUENCE counter TO reader",
    ),
    *each(
        "published errors of GRANT, 2025-11",
        "0A000 unsupported object type in GRANT",
        "GRANT CONNECT ON DATABASE postgres TO reader",
    ),
    *each(POSTGREST, "42501 must be owner of schema public", "DROP SCHEMA IF EXISTS public CASCADE"),
    *each(POSTGREST, '42P06 schema "public" already exists', "CREATE SCHEMA public"),
    *each(SPIKE, '42710 role "reader" already exists', "CREATE ROLE reader"),
    *each(LINTER, "ALTER ROLE", "ALTER ROLE reader RENAME TO writer", "ALTER ROLE reader RESET ALL"),
    *each(LINTER, PARAMETER.format("work_mem"), "ALTER ROLE reader SET work_mem = '64MB'"),
    *each(
        TROUBLESHOOTING,
        "22023 statistics target 101 exceeds maximum allowed value of 100",
        "ALTER STATISTICS counted SET STATISTICS 101",
    ),
    *each(GUIDE, "ALTER STATISTICS", "ALTER STATISTICS counted SET STATISTICS 100"),
    *each(
        DSQLBASE,
        "COMMENT",
        "COMMENT ON TABLE thing IS 'x'",
        "COMMENT ON COLUMN thing.a IS NULL",
        "COMMENT ON FUNCTION one() IS 'x'",
    ),
    # Parameters
    *[
        (f"SET {words}", PARAMETER.format(name), source)
        for words, name, source in (
            ("statement_timeout TO '1s'", "statement_timeout", RECORDED),
            ("SESSION lock_timeout = DEFAULT", "lock_timeout", RECORDED),
            ("client_min_messages = warning", "client_min_messages", ISSUES),
            ("ROLE reader", "role", ISSUES),
            ("LOCAL \"request.jwt.claims\" = '{}'", "request.jwt.claims", POSTGREST),
            ("SESSION AUTHORIZATION reader", "session_authorization", RECORDED),
            ("TRANSACTION READ WRITE", "TRANSACTION", RECORDED),
            ("default_transaction_read_only = on", "default_transaction_read_only", ISSUES),
        )
    ],
    *each(POSTGREST, PARAMETER.format("response.headers"), "SELECT set_config('response.headers', '[]', true)"),
    *each(
        GUIDE,
        "SET",
        "SET search_path TO other, public",
        "SET TIME ZONE 'Europe/Berlin'",
        "SET NAMES 'UTF8'",
        "SET SCHEMA 'other'",
        "SET dsql.enable_batched_nestloop = off",
        "SET SESSION AUTHORIZATION DEFAULT",
    ),
    *each(POSTGRESQL, '42704 unrecognized configuration parameter "none"', "SHOW none"),
    # Queries
    *each(
        RECORDED,
        LOCKING,
        "SELECT * FROM thing FOR SHARE SKIP LOCKED",
        "SELECT * FROM (SELECT 1 FROM thing FOR NO KEY UPDATE NOWAIT) x",
        "WITH w AS (SELECT 1 FROM thing FOR SHARE) SELECT * FROM w",
    ),
    *each(
        RECORDED,
        "0A000 TABLESAMPLE clause not supported",
        "SELECT 1 FROM thing t TABLESAMPLE BERNOULLI (10) REPEATABLE (1)",
        "DELETE FROM thing USING holder TABLESAMPLE SYSTEM (1)",
    ),
    *each(
        RECORDED,
        '42704 text search configuration "french" does not exist',
        "SELECT phraseto_tsquery('french', 'x')",
        "SELECT to_tsvector('french'::regconfig, 'x')",
    ),
    *each(POSTGREST, "SELECT 1", "SELECT to_tsvector('simple', 'a b') @@ plainto_tsquery('simple', 'b')"),
    *each(ISSUES, "0A000 function pg_try_advisory_lock not supported", "SELECT pg_catalog.pg_try_advisory_lock(1, 2)"),
    *each(RECORDED, "42809 sys.wait_for_job(unknown) is a procedure", "SELECT sys.wait_for_job('x')"),
    *each(LINTER, "DEALLOCATE ALL", "DEALLOCATE PREPARE ALL"),
    *each(GUIDE, "EXPLAIN", "EXPLAIN (ANALYZE, VERBOSE, FORMAT JSON) SELECT 1", "EXPLAIN INSERT INTO thing SELECT 1"),
    *each(GUIDE, "ANALYZE", "ANALYZE public.thing", "ANALYZE thing, holder"),
    *each(WORDED_AFTER, "0A000 unsupported ANALYZE statement", "ANALYZE"),
    *each(WORDED_AFTER, "0A000 unsupported COPY statement", "COPY thing FROM '/tmp/x'", "COPY thing TO PROGRAM 'cat'"),
]

OUTSIDE = [
    *each(
        "github.com/awslabs/aurora-dsql-tools, and the preview's text",
        "0A000 Unsupported isolation level: SERIALIZABLE",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "START TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE",
    ),
    *each(RECORDED, "0A000 unsupported transaction statement: SAVEPOINT", "savepoint s"),
    *each(WORDED_AFTER, "0A000 unsupported transaction statement: RELEASE", "RELEASE s"),
    *each(WORDED_AFTER, "0A000 unsupported transaction statement: PREPARE TRANSACTION", "PREPARE TRANSACTION 'x'"),
]


NEWER_THAN_15 = {  # what a PostgreSQL 15 of the machine has no grammar for
    "CREATE TABLE t (a text STORAGE MAIN, b time(3) with time zone, c interval day to second, d short)": "STORAGE",
    "ALTER TABLE thing ALTER a SET STORAGE DEFAULT": "DEFAULT",
}


@pytest.fixture(scope="module")
def dsql():
    with LocalDsql() as dsql:
        dsql.execute(SETUP)
        yield dsql


@pytest.fixture
def client(connect):
    return connect()


def outcome(client, sql):
    """The command tag of one statement, or the SQLSTATE and text of its error."""
    client.send(query(sql))
    for message in client.replies():
        if message.kind == b"E":
            return "{C} {M}".format(**error_fields(message))
        if message.kind == b"C":
            return message.texts(1)[0]
    raise AssertionError("no answer")


@pytest.mark.parametrize(("sql", "expected", "source"), STATEMENTS, ids=[sql[:60] for sql, _, _ in STATEMENTS])
def test_siblings_of_what_was_recorded(dsql, client, sql, expected, source):
    """What the source says, in a transaction that is rolled back; what PostgreSQL 15 lacks is exactly what came after it."""
    if str(dsql.status()["postgres"]).startswith("postgresql-15.") and sql in NEWER_THAN_15:
        expected = f'42601 syntax error at or near "{NEWER_THAN_15[sql]}"'
    client.run("BEGIN")
    assert outcome(client, sql) == expected, source
    client.run("ROLLBACK")


@pytest.mark.parametrize(("sql", "expected", "source"), OUTSIDE, ids=[sql[:60] for sql, _, _ in OUTSIDE])
def test_siblings_outside_a_transaction(client, sql, expected, source):
    """What begins or divides transactions."""
    assert outcome(client, sql) == expected, source


def test_numeric_has_a_default(client):
    """A column declared numeric holds 18 digits, 6 of them after the point, and its neighbours what they say (user guide)."""
    client.run('CREATE TABLE rates (a NUMERIC, "é" pg_catalog.numeric NOT NULL DEFAULT 0.1234567, c dec(9, 8), d decimal)')
    client.run("INSERT INTO rates (a, c, d) VALUES (1.23456789, 1.23456789, 0.0000006)")
    client.run("ALTER TABLE rates ADD COLUMN e numeric")
    client.run("UPDATE rates SET e = 9.87654321")
    assert client.run("SELECT a, é, c, d, e FROM rates") == [["1.234568", "0.123457", "1.23456789", "0.000001", "9.876543"]]
    assert client.error("INSERT INTO rates (a) VALUES (1234567890123)").startswith("22003 numeric field overflow")


def test_there_are_no_more_than(client):
    """Ten schemas beside public, and 24 indexes on a table, the primary key's among them (seen on clusters)."""
    for number in range(9):
        client.run(f"CREATE SCHEMA s{number}")
    assert client.error("CREATE SCHEMA IF NOT EXISTS s1") == "54000 more than 10 schemas not allowed"
    for number in range(23):
        client.run(f"CREATE INDEX ASYNC holder_{number} ON holder (parent_id)")
    assert client.error("CREATE INDEX ASYNC ON holder (parent_id)") == "54000 more than 24 indexes per table are not allowed"
