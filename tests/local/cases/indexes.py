"""CREATE INDEX ASYNC, in the order in which a cluster looks at a statement's parts."""

from . import ASYNC_INDEXES, POSTGRESQL, POSTGREST, RECORDED, TROUBLESHOOTING, WORDED_AFTER, Case, each, query

CASES = [
    *[
        Case(sql, "CREATE INDEX", ASYNC_INDEXES, ["job_id"])
        for sql in (
            "CREATE INDEX ASYNC ON thing (a, b)",
            "CREATE INDEX ASYNC IF NOT EXISTS by_b ON thing (b)",
            "CREATE UNIQUE INDEX ASYNC ON thing (big) NULLS NOT DISTINCT",
            "CREATE INDEX ASYNC ON thing (upper(a))",
            "CREATE INDEX ASYNC ON thing (a) WHERE b IS NOT NULL",
            "CREATE UNIQUE INDEX ASYNC ON thing (b) WHERE a = 'x'",
            "CREATE INDEX ASYNC wide ON public.thing (b) INCLUDE (a, big)",
        )
    ],
    *each(RECORDED, '42601 syntax error at or near "."', "CREATE UNIQUE INDEX ASYNC other.i ON thing (a)"),
    # Their jobs
    query("SELECT job_id FROM sys.jobs WHERE job_id = 'none'", "job_id", source=ASYNC_INDEXES),
    query(
        "SELECT * FROM sys.jobs WHERE false",
        "job_id status details job_type class_id object_id object_name start_time update_time",
        source=RECORDED,
    ),
    *each(RECORDED, "42809 sys.wait_for_job(text) is a procedure", "SELECT sys.wait_for_job(text 'x')"),
    *each(RECORDED, "22P02 Unable to convert text to UUID", "CALL sys.wait_for_job('nonsense')"),
    # The order in which a cluster looks at a statement: CONCURRENTLY, USING, the mode, the keys, their number
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
    *each(POSTGRESQL, '42601 syntax error at or near "ON"', "CREATE INDEX ASYNC IF NOT EXISTS ON thing (a)"),
    *each(POSTGRESQL, '42703 column "none" does not exist', "CREATE INDEX ASYNC ON thing (none)"),
    *each(POSTGRESQL, '42P07 relation "thing_pkey" already exists', "CREATE INDEX ASYNC thing_pkey ON thing (a)"),
    *each(
        ASYNC_INDEXES,
        "CREATE INDEX",
        "CREATE INDEX ASYNC ON thing (a NULLS FIRST, b NULLS LAST) INCLUDE (big)",
        "create unique index async if not exists i on public.thing (a) nulls not distinct",
        "CREATE INDEX ASYNC i ON thing ((doc ->> 'a'), lower(a)) WHERE a LIKE 'USING x (%'",
        "CREATE INDEX ASYNC i ON thing USING btree_index (a)",
    ),
    *each(POSTGRESQL, "DROP INDEX", "DROP INDEX IF EXISTS nowhere, other.nowhere CASCADE"),
]
