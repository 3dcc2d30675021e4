"""Transactions step by step: how they begin, fail and end, what they may hold, and several statements in one Query message."""

from . import CONCURRENCY, LINTER, QUOTAS, RECORDED, UNSUPPORTED, WORDED_AFTER, Script, Step, each

TRUNCATE = UNSUPPORTED + "Truncate"
ROW_LIMIT = "54000 transaction row limit exceeded"
TWO_DDL = "0A000 multiple ddl statements not supported in a transaction"
MIXED = "0A000 ddl and dml are not supported in the same transaction"
NO_SET = '0A000 setting configuration parameter "TRANSACTION" not supported'
IGNORED = "25P02 current transaction is aborted, commands ignored until end of transaction block"

# What begins or divides a transaction, outside of one.
CASES = [
    *each(
        LINTER,
        "0A000 Unsupported isolation level: SERIALIZABLE",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "START TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE",
    ),
    *each(RECORDED, "0A000 unsupported transaction statement: SAVEPOINT", "savepoint s"),
    *each(WORDED_AFTER, "0A000 unsupported transaction statement: RELEASE", "RELEASE s"),
    *each(WORDED_AFTER, "0A000 unsupported transaction statement: PREPARE TRANSACTION", "PREPARE TRANSACTION 'x'"),
]


def script(name: str, source: str, *steps: tuple[str, ...]) -> Script:
    """Steps of one session: a text, and the answer to each of its statements."""
    return Script(name, source, [Step("A", sql, tuple(answers)) for sql, *answers in steps])


SCRIPTS = [
    # How a transaction begins and ends
    script(
        "the one isolation level can be named",
        CONCURRENCY,
        ("START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE", "START TRANSACTION"),
        ("SELECT holder FROM account WHERE id = 3", "SELECT 1"),
        ("END", "COMMIT"),
    ),
    script(
        "a transaction may be read only",
        RECORDED,
        ("BEGIN READ ONLY", "BEGIN"),
        ("TABLE account", "SELECT 4"),
        ("COMMIT WORK", "COMMIT"),
    ),
    script(
        "what is committed stays",
        RECORDED,
        ("BEGIN WORK", "BEGIN"),
        ("INSERT INTO account VALUES (4, 'Dora', 1), (5, 'Emil', 2)", "INSERT 0 2"),
        ("COMMIT TRANSACTION", "COMMIT"),
        ("SELECT id FROM account WHERE id IN (4, 5)", "SELECT 2"),
    ),
    script(
        "what is rolled back is gone",
        RECORDED,
        ("BEGIN", "BEGIN"),
        ("INSERT INTO account VALUES (4, 'Dora', 1)", "INSERT 0 1"),
        ("ABORT", "ROLLBACK"),
        ("SELECT id FROM account WHERE id = 4", "SELECT 0"),
    ),
    script(
        "constraints can be deferred",
        RECORDED,
        ("BEGIN", "BEGIN"),
        ("SET CONSTRAINTS ALL IMMEDIATE", "SET CONSTRAINTS"),
        ("COMMIT", "COMMIT"),
    ),
    # What a refusal does to it
    script(
        "after a refusal COMMIT rolls back",
        RECORDED,
        ("BEGIN", "BEGIN"),
        ("INSERT INTO counted VALUES (1)", "INSERT 0 1"),
        ("SET TRANSACTION READ WRITE", NO_SET),
        ("SELECT n FROM counted", IGNORED),
        ("COMMIT", "ROLLBACK"),
        ("SELECT n FROM counted", "SELECT 0"),
    ),
    script(
        "what it sets cannot be read only",
        RECORDED,
        ("BEGIN", "BEGIN"),
        ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", NO_SET),
        ("SELECT n FROM counted", IGNORED),
        ("COMMIT", "ROLLBACK"),
    ),
    script(
        "a refused statement fails the transaction",
        RECORDED,
        ("BEGIN", "BEGIN"),
        ("TRUNCATE counted, payment", TRUNCATE),
        ("SELECT n FROM counted", IGNORED),
        ("ROLLBACK WORK", "ROLLBACK"),
    ),
    script(
        "a failed transaction says so before it looks at a statement",
        RECORDED,
        ("BEGIN", "BEGIN"),
        ("TRUNCATE counted", TRUNCATE),
        ("TRUNCATE payment", IGNORED),
        ("ROLLBACK", "ROLLBACK"),
    ),
    script(
        "the session goes on after ROLLBACK",
        RECORDED,
        ("BEGIN", "BEGIN"),
        ("SET TRANSACTION NOT DEFERRABLE", NO_SET),
        ("ROLLBACK", "ROLLBACK"),
        ("SELECT balance FROM account WHERE id = 1", "SELECT 1"),
    ),
    script(
        "outside of a transaction a refusal fails nothing else",
        RECORDED,
        ("TRUNCATE ONLY counted", TRUNCATE),
        ("SELECT balance FROM account WHERE id = 2", "SELECT 1"),
    ),
    script(
        "an error of PostgreSQL's does the same",
        RECORDED,
        ("BEGIN", "BEGIN"),
        ("UPDATE account SET balance = balance / 0", "22012 division by zero"),
        ("DELETE FROM counted", IGNORED),
        ("END", "ROLLBACK"),
    ),
    # What it may hold
    script(
        "one DDL statement is the most",
        RECORDED,
        ("BEGIN", "BEGIN"),
        ("CREATE TABLE first_of_two (id int)", "CREATE TABLE"),
        ("CREATE TABLE second_of_two (id int)", TWO_DDL),
        ("ROLLBACK", "ROLLBACK"),
    ),
    script(
        "DDL of any kind counts",
        CONCURRENCY,
        ("BEGIN", "BEGIN"),
        ("CREATE VIEW rich AS SELECT id FROM account WHERE balance > 99", "CREATE VIEW"),
        ("ALTER TABLE counted ADD COLUMN m int", TWO_DDL),
        ("ROLLBACK", "ROLLBACK"),
    ),
    script(
        "no data after DDL",
        RECORDED,
        ("BEGIN", "BEGIN"),
        ("CREATE TABLE short_lived (id int)", "CREATE TABLE"),
        ("INSERT INTO short_lived VALUES (1)", MIXED),
        ("ROLLBACK", "ROLLBACK"),
    ),
    script(
        "no DDL after data",
        RECORDED,
        ("BEGIN", "BEGIN"),
        ("DELETE FROM payment", "DELETE 0"),
        ("DROP TABLE payment", MIXED),
        ("ROLLBACK", "ROLLBACK"),
    ),
    script(
        "3,000 rows may be modified",
        QUOTAS,
        ("BEGIN", "BEGIN"),
        ("INSERT INTO counted SELECT * FROM generate_series(-2999, 0)", "INSERT 0 3000"),
        ("SELECT max(n) FROM counted", "SELECT 1"),
        ("ROLLBACK", "ROLLBACK"),
    ),
    script(
        "3,001 rows may not",
        QUOTAS,
        ("BEGIN", "BEGIN"),
        ("INSERT INTO counted SELECT * FROM generate_series(-3000, 0)", ROW_LIMIT),
        ("SELECT max(n) FROM counted", IGNORED),
        ("ROLLBACK", "ROLLBACK"),
    ),
    script(
        "of too many rows none stays",
        RECORDED,
        ("BEGIN", "BEGIN"),
        ("INSERT INTO counted SELECT * FROM generate_series(1, 4000)", ROW_LIMIT),
        ("ROLLBACK", "ROLLBACK"),
        ("SELECT n FROM counted", "SELECT 0"),
    ),
    script(
        "the statements of a transaction count together",
        QUOTAS,
        ("BEGIN", "BEGIN"),
        ("INSERT INTO counted SELECT * FROM generate_series(1, 2000)", "INSERT 0 2000"),
        ("INSERT INTO counted SELECT * FROM generate_series(2001, 3001)", ROW_LIMIT),
        ("ROLLBACK", "ROLLBACK"),
    ),
    # Several statements in one Query message
    script(
        "two queries are answered in turn",
        RECORDED,
        ("SELECT holder FROM account; SELECT n FROM counted", "SELECT 4", "SELECT 0"),
    ),
    script(
        "two writes are one transaction",
        RECORDED,
        ("INSERT INTO counted VALUES (1), (2); INSERT INTO counted VALUES (3)", "INSERT 0 2", "INSERT 0 1"),
        ("INSERT INTO counted VALUES (4); SELECT 1 / 0", "INSERT 0 1", "22012 division by zero"),
        ("TABLE counted", "SELECT 3"),
    ),
    script(
        "a Query message can hold a whole transaction",
        RECORDED,
        ("BEGIN; INSERT INTO counted VALUES (7); COMMIT", "BEGIN", "INSERT 0 1", "COMMIT"),
    ),
    script(
        "DDL and data do not fit into one Query message",
        RECORDED,
        ("CREATE TABLE not_alone (id int); INSERT INTO not_alone VALUES (1)", "CREATE TABLE", MIXED),
        ("SELECT 1 FROM not_alone", '42P01 relation "not_alone" does not exist'),
    ),
    script(
        "nor does a table with its index",
        RECORDED,
        ("CREATE TABLE indexed (id int); CREATE INDEX ASYNC ON indexed (id)", "CREATE TABLE", TWO_DDL),
    ),
    script(
        "nor do two tables",
        RECORDED,
        ("CREATE TABLE twin_a (id int); CREATE TABLE twin_b (id int)", "CREATE TABLE", TWO_DDL),
    ),
    script(
        "an index is built in a transaction of its own",
        RECORDED,
        ("BEGIN; CREATE INDEX ASYNC counted_by_n ON counted (n); COMMIT", "BEGIN", "CREATE INDEX", "COMMIT"),
    ),
]
