"""The types of columns, of keys, and of what functions return."""

from . import DATA_TYPES, MIGRATION_TOOLKIT, POSTGREST, RECORDED, SPIKE, WORDED_AFTER, Case, each

FULL_NAMES = {
    "pg_catalog.bit(3)": "bit",
    "bit varying(12)": "bit varying",
    "varchar(9)[]": "character varying[]",
    "uuid[3]": "uuid[]",
    "text[2]": "text[]",
    "timestamp ARRAY": "timestamp without time zone[]",
}
IN_A_KEY = "0A000 datatype {} is not supported in a key"

CASES = [
    # Types of columns: those that DSQL has, by every name
    *[
        Case(f"CREATE TABLE t (k int PRIMARY KEY, c {name})", "CREATE TABLE", DATA_TYPES)
        for name in (
            *("smallint", "int2", "integer", "int", "int4", "bigint", "int8", "real", "float4", "float(24)"),
            *("double precision", "float8", "float", "numeric", "numeric(12, 3)", "decimal", "decimal(9)"),
            *("char", "char(7)", "character(7)", "bpchar", "varchar", "varchar(40)", "character varying(40)", "text"),
            *("date", "time", "time(2)", "time without time zone", "timetz", "time with time zone", "timestamp", "timestamp(3)"),
            *("timestamptz", "timestamp with time zone", "interval", "interval hour to minute"),
            *("boolean", "bool", "bytea", "uuid", "json", "jsonb"),
        )
    ],
    # Those that it does not have
    *[
        Case(statement.format(name), f"0A000 datatype {FULL_NAMES.get(name, name)} not supported", source)
        for source, names in (
            (RECORDED, ("money", "xml", "inet", "cidr", "macaddr", "point", "line", "lseg", "box", "path", "polygon", "circle")),
            (RECORDED, ("tsvector", "tsquery", "int4range", "tsrange", "pg_catalog.bit(3)", "bit varying(12)", "pg_lsn")),
            (RECORDED, ("integer[]", "text[2]")),
            (WORDED_AFTER, ("macaddr8", "int8multirange", "daterange", "jsonpath", "varchar(9)[]", "uuid[3]", "timestamp ARRAY")),
        )
        for name in names
        for statement in (
            "CREATE TABLE IF NOT EXISTS t (k int, c {})",
            "ALTER TABLE IF EXISTS ONLY thing ADD COLUMN IF NOT EXISTS c {}",
        )
    ],
    *each(RECORDED, "0A000 datatype money not supported", "CREATE DOMAIN d AS money"),
    *each(
        RECORDED,
        '42704 type "serial" does not exist',
        "CREATE TABLE t (c serial, d int)",
        "ALTER TABLE thing ADD COLUMN c Serial",
    ),
    *each(RECORDED, '42704 type "bigserial" does not exist', "CREATE TABLE t (c bigserial)"),
    # Values
    *each(RECORDED, "0A000 datatype line not supported", "SELECT '{0,1,2}'::line", "SELECT line(point(0, 0), point(1, 1))"),
    *each(RECORDED, "0A000 datatype circle not supported", "SELECT circle(point(1, 1), 2)", "SELECT '<(0,0),2>'::circle"),
    *[
        Case(statement.format(name), IN_A_KEY.format(name), SPIKE if name == "jsonb" else MIGRATION_TOOLKIT)
        for name in ("jsonb", "bytea")
        for statement in ("CREATE TABLE t (c {} PRIMARY KEY)", "CREATE TABLE t (k int, c {}, UNIQUE (k, c))")
    ],
    *each(MIGRATION_TOOLKIT, IN_A_KEY.format("bytea"), "CREATE INDEX ASYNC ON public.thing (id, raw)"),
    *each(DATA_TYPES, IN_A_KEY.format("interval"), "CREATE INDEX ASYNC ON thing (span)"),
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
]
