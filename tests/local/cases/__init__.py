"""What a cluster answers, as tables by subject: statements written for this project, each with its answer and its source.

An answer is the command tag of a success, or the SQLSTATE and the message of an error. `test_cases` runs every table. A `Case` is
run in a transaction that is rolled back, on the objects of `SETUP`; a `Script` commits, on the objects of `SCRIPT_SETUP`.

`RECORDED`: this answer was recorded for another statement of the same kind. The pages of the Aurora DSQL User Guide are named by
their file. `WORDED_AFTER`: DSQL refuses the statement, or probably does, and its message is not known: ours has the form of a
recorded one.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

RECORDED = "recorded on a cluster (eu-central-1, PostgreSQL 16.15), 2026-09"
SQL_FEATURES = "User Guide, working-with-postgresql-compatibility-supported-sql-features"
SQL_SUBSETS = "User Guide, working-with-postgresql-compatibility-supported-sql-subsets"
DATA_TYPES = "User Guide, working-with-postgresql-compatibility-supported-data-types"
ASYNC_INDEXES = "User Guide, working-with-create-index-async"
CONCURRENCY = "User Guide, working-with-concurrency-control"
QUOTAS = "User Guide, CHAP_quotas"
LINTER = "awslabs/aurora-dsql-tools, dsql-lint, whose cases are run on a cluster, 2026-08"
TROUBLESHOOTING = "awslabs/agent-plugins, databases-on-aws, dsql: limits and error codes observed on 2026-10-01"
MIGRATION_TOOLKIT = "awslabs/dsql-migration-toolkit, verified on clusters, 2026-08"
DSQLBASE = "slsdotdev/dsqlbase, docs/internals/dsql-capabilities.md, verified on 2026-10-03"
POSTGREST = "measured on a cluster with PostgREST's schema, 2026-08-19 and 2026-08-28"
SPIKE = "measured on a cluster, 2026-09-23"
SQLALCHEMY = "tests of aurora-dsql-sqlalchemy 1.3.0, which AWS runs on a cluster"
ISSUES = "GitHub issues: transact-rs/sqlx#4162, pgadmin-org/pgadmin4#9433, flyway/flyway#4088"
POSTGRESQL = "PostgreSQL, from which no difference is known"
WORDED_AFTER = "refused; worded after a recorded message"

UNSUPPORTED = "0A000 unsupported statement: "

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
CREATE STATISTICS counted ON a, b FROM thing;
CREATE TABLE river (name text PRIMARY KEY, length_km int CHECK (length_km > 0), code short);
CREATE TABLE town (id int PRIMARY KEY, name text NOT NULL, people int, river text REFERENCES river);
INSERT INTO river VALUES ('Elbe', 1094, 'E'), ('Isar', 295, NULL);
INSERT INTO town VALUES (1, 'Dresden', 563, 'Elbe'), (2, 'Hamburg', 1910, 'Elbe'), (3, 'Hilden', 55, NULL)
"""

SCRIPT_SETUP = """
DROP TABLE IF EXISTS memo, stamp, invoice, payment, counted, account;
CREATE TABLE account (id int PRIMARY KEY, holder text, balance int);
CREATE TABLE payment (id int PRIMARY KEY, account int REFERENCES account);
CREATE TABLE memo (id int PRIMARY KEY, account int REFERENCES account ON DELETE CASCADE, words text);
CREATE TABLE stamp (id int PRIMARY KEY, account int REFERENCES account ON DELETE SET NULL, words text);
CREATE TABLE invoice (id int PRIMARY KEY, account int DEFAULT 9 REFERENCES account ON DELETE SET DEFAULT, words text);
CREATE TABLE counted (n int);
INSERT INTO account VALUES (1, 'Ada', 100), (2, 'Bela', 100), (3, 'Cato', 100), (9, 'the house', 0);
INSERT INTO memo VALUES (1, 2, 'x');
INSERT INTO stamp VALUES (1, 2, 'x');
INSERT INTO invoice VALUES (1, 2, 'x')
"""


class Case(NamedTuple):
    """A statement and its answer; of a query also the columns and the rows, as text, where they are known."""

    sql: str
    answer: str
    source: str
    columns: Sequence[str] | None = None
    rows: Sequence[Sequence[str | None]] | None = None


def each(source: str, answer: str, *statements: str) -> Iterator[Case]:
    """Statements that have one source and one answer."""
    return (Case(sql, answer, source) for sql in statements)


def query(sql: str, columns: str, *rows: tuple[str | None, ...], source: str = POSTGRESQL) -> Case:
    """A query and what it returns; `columns` are their names, with spaces between."""
    return Case(sql, f"SELECT {len(rows)}", source, columns.split(), rows)


class Step(NamedTuple):
    """What one session sends in one Query message, and the answer to each of its statements, up to an error."""

    session: str
    sql: str
    answers: tuple[str, ...]


class Script(NamedTuple):
    """Steps in their order, by one session or by two, on the objects of `SCRIPT_SETUP`."""

    name: str
    source: str
    steps: Sequence[Step]
