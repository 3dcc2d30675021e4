"""What SET accepts, and what a session can be asked about itself."""

from . import ISSUES, POSTGRESQL, POSTGREST, RECORDED, SQL_FEATURES, Case, each, query

PARAMETER = '0A000 setting configuration parameter "{}" not supported'

CASES = [
    # What a session can ask about itself
    Case('SHOW "server_version"', "SHOW", RECORDED, ["server_version"], [["16.15"]]),
    Case('SHOW "server_version_num"', "SHOW", RECORDED, ["server_version_num"], [["160015"]]),
    Case("SHOW TIME ZONE", "SHOW", RECORDED, ["TimeZone"], [["UTC"]]),
    Case('SHOW "client_encoding"', "SHOW", RECORDED, ["client_encoding"], [["UTF8"]]),
    Case("SHOW TRANSACTION ISOLATION LEVEL", "SHOW", RECORDED, ["transaction_isolation"], [["repeatable read"]]),
    query("SELECT version() AS v", "v", ("PostgreSQL 16",), source=RECORDED),
    query("SELECT current_setting('SERVER_VERSION') AS v", "v", ("16.15",), source=RECORDED),
    query("SELECT current_setting('server_version_num')::int / 10000 AS major", "major", ("16",), source=RECORDED),
    query(
        "SELECT current_database(), current_catalog",
        "current_database current_catalog",
        ("postgres", "postgres"),
        source=RECORDED,
    ),
    query(
        "SELECT current_schema(), current_schemas(false)",
        "current_schema current_schemas",
        ("public", "{public}"),
        source=RECORDED,
    ),
    query("SELECT current_user, session_user", "current_user session_user", ("admin", "admin"), source=SQL_FEATURES),
    # What can be set
    *each(
        RECORDED, PARAMETER.format("default_transaction_isolation"), "SET SESSION default_transaction_isolation TO 'serializable'"
    ),
    *[
        Case(f"SET {words}", PARAMETER.format(name), source)
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
        SQL_FEATURES,
        "SET",
        "SET search_path TO other, public",
        "SET TIME ZONE 'Europe/Berlin'",
        "SET NAMES 'UTF8'",
        "SET SCHEMA 'other'",
        "SET dsql.enable_batched_nestloop = off",
        "SET SESSION AUTHORIZATION DEFAULT",
    ),
    *each(POSTGRESQL, '42704 unrecognized configuration parameter "none"', "SHOW none"),
]
