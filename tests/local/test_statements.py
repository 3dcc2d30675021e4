"""SQL text as statements."""

import itertools
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_local.rules.bulk_insert import condense
from dsql_local.rules.statements import Kind, identifiers, kind_of, locks_for_update, may_write, split
from dsql_local.rules.verdict import judge


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("", []),
        (" ; ;; ", []),
        ("SELECT 1", ["SELECT 1"]),
        ("BEGIN; UPDATE a SET b = 1;COMMIT ;", ["BEGIN", "UPDATE a SET b = 1", "COMMIT"]),
        ("SELECT ';'; SELECT 2", ["SELECT ';'", "SELECT 2"]),
        ("SELECT 'it''s;'; SELECT 2", ["SELECT 'it''s;'", "SELECT 2"]),
        (r"SELECT E'\';'; SELECT 2", [r"SELECT E'\';'", "SELECT 2"]),
        (r"SELECT '\'; SELECT 2", [r"SELECT '\'", "SELECT 2"]),
        ('SELECT 1 AS ";"; SELECT 2', ['SELECT 1 AS ";"', "SELECT 2"]),
        ("SELECT $$;$$; SELECT $a$;$$;$a$", ["SELECT $$;$$", "SELECT $a$;$$;$a$"]),
        ("SELECT $1; SELECT $2", ["SELECT $1", "SELECT $2"]),
        ("SELECT 1 -- ;\n; SELECT 2", ["SELECT 1", "SELECT 2"]),
        ("SELECT 1 /* ; /* ; */ ; */; SELECT 2", ["SELECT 1", "SELECT 2"]),
        ("-- nothing", []),
        ("SELECT 'open; SELECT 2", ["SELECT 'open; SELECT 2"]),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; SELECT 3",
            ["CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END", "SELECT 3"],
        ),
    ],
)
def test_a_script_is_split_where_statements_end(sql, expected):
    """Only a `;` outside strings, names, comments, dollar quotes and function bodies ends a statement."""
    assert list(split(sql)) == expected


@given(st.text(alphabet="a;'\"$-/*\\ \nE1", max_size=40))
def test_splitting_never_fails_and_loses_no_word(sql):
    """Whatever the text, splitting ends, and what it gives stands in the text in this order."""
    at = 0
    for statement in split(sql):
        at = sql.index(statement, at) + len(statement)


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("BEGIN", Kind.BEGIN),
        ("begin isolation level repeatable read", Kind.BEGIN),
        ("/* hi */ BEGIN READ ONLY", Kind.BEGIN),
        ("START TRANSACTION", Kind.BEGIN),
        ("COMMIT", Kind.COMMIT),
        ("END", Kind.COMMIT),
        ("-- now\nCOMMIT WORK", Kind.COMMIT),
        ("ROLLBACK", Kind.ROLLBACK),
        ("ABORT", Kind.ROLLBACK),
        ("ROLLBACK TO a", Kind.SAVEPOINT),
        ("ROLLBACK WORK TO SAVEPOINT a", Kind.SAVEPOINT),
        ("SAVEPOINT a", Kind.SAVEPOINT),
        ("RELEASE a", Kind.SAVEPOINT),
        ("COMMIT PREPARED 'x'", Kind.OTHER),
        ("START REPLICATION", Kind.OTHER),
        ("SELECT 'COMMIT'", Kind.OTHER),
        ("", Kind.OTHER),
    ],
)
def test_what_a_statement_means_to_a_transaction(statement, kind):
    """BEGIN, COMMIT, ROLLBACK and savepoints are known in all their spellings."""
    assert kind_of(statement) is kind


@pytest.mark.parametrize(
    ("statement", "writes"),
    [
        ("SELECT 1", False),
        ("select * from t where a = 'FOR UPDATE'", False),
        ("SELECT * FROM t FOR UPDATE", True),
        ("SELECT * FROM t FOR KEY SHARE", True),
        ("TABLE t", False),
        ("WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", True),
        ("UPDATE t SET a = 1", True),
        ("COPY t FROM STDIN", True),
    ],
)
def test_what_may_write(statement, writes):
    """A statement that surely only reads needs no savepoint; every other one gets it."""
    assert may_write(statement) is writes


@pytest.mark.parametrize(
    ("statement", "locks"),
    [
        ("SELECT * FROM t FOR UPDATE", True),
        ("SELECT * FROM t FOR NO KEY UPDATE NOWAIT", True),
        ("SELECT * FROM t FOR KEY SHARE", False),
        ("SELECT 'FOR UPDATE' FROM t", False),
        ("SELECT substring(a FOR 2) FROM t", False),
    ],
)
def test_what_locks_for_update(statement, locks):
    """FOR UPDATE counts as a write, weaker locks do not."""
    assert locks_for_update(statement) is locks


def test_names_are_folded_as_postgresql_does():
    """Unquoted names are in lower case, quoted ones as written, strings are no names."""
    assert {"update", "accounts", 'Odd"One'} <= identifiers("""UPDATE Accounts SET "Odd""One" = 'nobody'""")
    assert "nobody" not in identifiers("SELECT 'nobody'")


ROWS = st.lists(
    st.sampled_from(
        [
            "({}::int, {}, {})",
            "(CAST({} AS text), {}, {})",
            "(1, '({}), ({})', {})",
            '({}, -1, "a" /* ( */)',
            "({}, f(g({}), {}), $$)$$)",
        ]
    ),
    min_size=1,
    max_size=12,
)


@given(ROWS, st.sampled_from([",", ", ", ",\n  "]))
def test_a_long_insert_is_judged_like_a_short_one(rows, between):
    """What is left out of a long INSERT changes nothing but that its rows are counted, and never too few of them."""
    number = itertools.count(1)
    texts = [re.sub(r"\{\}", lambda _: f"${next(number)}", row) for row in rows]
    short, left_out = condense("INSERT INTO s.t VALUES " + between.join(texts))
    whole, condensed_verdict = judge("INSERT INTO s.t VALUES " + between.join(texts)), judge(short)
    assert replace(whole, rows=None) == replace(condensed_verdict, rows=None)
    assert (condensed_verdict.rows or 0) + left_out >= (whole.rows or 0)


@pytest.mark.parametrize("rows", [1, 999, 3001])
def test_the_rows_of_a_long_insert_are_counted(rows):
    """Rows that look alike stand once in what is parsed, and count all the same."""
    values = ", ".join(f"(${3 * row + 1}::int, ${3 * row + 2}::text, ${3 * row + 3})" for row in range(rows))
    assert judge(f"INSERT INTO t (a, b, c) VALUES {values} ON CONFLICT DO NOTHING").rows == rows
    assert len(condense(f"INSERT INTO t VALUES {values}")[0]) < 80
