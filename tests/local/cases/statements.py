"""Statements of kinds that DSQL does not have, and what it says of functions, views, types, domains, roles and privileges."""

from . import (
    DSQLBASE,
    ISSUES,
    LINTER,
    POSTGREST,
    RECORDED,
    SPIKE,
    SQL_FEATURES,
    TROUBLESHOOTING,
    UNSUPPORTED,
    WORDED_AFTER,
    Case,
    each,
)

PARAMETER = '0A000 setting configuration parameter "{}" not supported'

CASES = [
    # Statements of kinds that DSQL does not have are named by their kind
    *each(RECORDED, UNSUPPORTED + "CreateForeignTable", "CREATE FOREIGN TABLE IF NOT EXISTS f (a text) SERVER s"),
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
        "EXPLAIN CREATE TABLE t AS SELECT 1",
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
        Case(sql, UNSUPPORTED + kind, LINTER)
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
        Case(sql, UNSUPPORTED + kind, WORDED_AFTER)
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
        )
    ],
    *each(
        RECORDED,
        "0A000 unsupported statement type: MERGE",
        "EXPLAIN MERGE INTO thing t USING holder h ON t.id = h.id WHEN MATCHED THEN DELETE",
    ),
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
        Case(
            f"CREATE FUNCTION f() RETURNS int LANGUAGE {name} AS 'x'",
            f"0A000 CREATE FUNCTION with language {name.strip(chr(34)).lower()} not supported",
            source,
        )
        for source, names in ((RECORDED, ("PLpgSQL", '"plpgsql"')), (WORDED_AFTER, ("c", "internal", "plpython3u")))
        for name in names
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
    *each(SQL_FEATURES, "CREATE SCHEMA", "CREATE SCHEMA IF NOT EXISTS third AUTHORIZATION admin"),
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
    *each(SQL_FEATURES, "ALTER STATISTICS", "ALTER STATISTICS counted SET STATISTICS 100"),
    *each(
        DSQLBASE,
        "COMMENT",
        "COMMENT ON TABLE thing IS 'x'",
        "COMMENT ON COLUMN thing.a IS NULL",
        "COMMENT ON FUNCTION one() IS 'x'",
    ),
]
