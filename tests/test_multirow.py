"""`MultiRow`: one statement for many rows, made of the one for a single row; anything else is refused in a clear sentence."""

import pytest

from dsql_lambda import TransactionError
from dsql_lambda.multirow import MultiRow
from dsql_lambda.sql import code_of


def made_of(statement, *rows):
    """The texts and values that are sent for these rows."""
    return [(each.text, each.values) for each in MultiRow(statement).statements(rows)]


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("INSERT INTO t (id, n) VALUES (:id, :n)", "INSERT INTO t (id, n) VALUES ($1, $2), ($3, $4)"),
        (
            "insert into t (id, n) values(:id,\n lower(:n)) on conflict (id) do update set n = excluded.n",
            "insert into t (id, n) values($1,\n lower($2)), ($3,\n lower($4)) on conflict (id) do update set n = excluded.n",
        ),
        (
            "UPDATE t SET n = v.n FROM (VALUES (:id::uuid, :n)) AS v (id, n) WHERE t.id = v.id",
            "UPDATE t SET n = v.n FROM (VALUES ($1::uuid, $2), ($3::uuid, $4)) AS v (id, n) WHERE t.id = v.id",
        ),
        (
            "DELETE FROM t WHERE (id, n) IN (VALUES (:id, :n))",
            "DELETE FROM t WHERE (id, n) IN (VALUES ($1, $2), ($3, $4))",
        ),
        (
            "INSERT INTO t VALUES (:id, :n, :id, DEFAULT, now(), '100 % of (:id) $1', \"a%b\" /* :n ) */)",
            (
                "INSERT INTO t VALUES ($1, $2, $1, DEFAULT, now(), '100 % of (:id) $1', \"a%b\" /* :n ) */), "
                "($3, $4, $3, DEFAULT, now(), '100 % of (:id) $1', \"a%b\" /* :n ) */)"
            ),
        ),
        (
            "INSERT INTO \"VALUES (\" (id, n) -- VALUES (:x)\nVALUES (:id, E'\\'(' || :n)",
            "INSERT INTO \"VALUES (\" (id, n) -- VALUES (:x)\nVALUES ($1, E'\\'(' || $2), ($3, E'\\'(' || $4)",
        ),
    ],
)
def test_the_row_is_repeated(statement, text):
    """With its own text, and its placeholders numbered on; what else the statement says stands once."""
    assert made_of(statement, (1, "a"), (2, "b")) == [(text, (1, "a", 2, "b"))]


def test_a_statement_takes_as_many_rows_as_the_protocol_has_parameters():
    """65,535 in all; what does not fit goes into another statement."""
    columns = ", ".join(f":c{number}" for number in range(30))
    many = MultiRow(f"INSERT INTO t VALUES ({columns})")
    assert many.most_rows == 2184
    counts = [len(each.values) for each in many.statements([tuple(range(30))] * 3000)]
    assert counts == [2184 * 30, 816 * 30]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELECT * FROM (VALUES (:id)) AS v", "only INSERT, UPDATE and DELETE are written in chunks"),
        ("CREATE TABLE t (id int)", "only INSERT, UPDATE and DELETE"),
        ("COMMIT", "only INSERT, UPDATE and DELETE"),
        ("INSERT INTO t VALUES ($1, $2)", "named placeholders, as in INSERT INTO"),
        ("INSERT INTO t VALUES (1, 2)", "named placeholders"),
        ("INSERT INTO t SELECT :id, :n", "one VALUES list, with one row of placeholders, as in INSERT INTO"),
        ("UPDATE t SET n = :n WHERE id = :id", "as in UPDATE t SET n = v.n FROM \\(VALUES"),
        ("DELETE FROM t WHERE id = :id", "as in DELETE FROM t USING \\(VALUES"),
        ("INSERT INTO t VALUES (:a, :b), (:c, :d)", "one VALUES list, with one row"),
        ("INSERT INTO t VALUES (:id, 1) ON CONFLICT (id) DO UPDATE SET n = :n", "in ON CONFLICT, the row is EXCLUDED"),
        ("UPDATE t SET n = :n FROM (VALUES (:id)) AS v (id) WHERE t.id = v.id", "every placeholder must be in the VALUES list"),
        ("INSERT INTO t VALUES (:id, :n) RETURNING id", "leave RETURNING out"),
    ],
)
def test_another_statement_is_refused_with_the_form_that_works(statement, said):
    """It names what to write, and shows the statement."""
    with pytest.raises(TransactionError, match=said) as refused:
        MultiRow(statement)
    assert statement in str(refused.value)


def test_a_row_is_a_mapping_or_a_sequence():
    """By the placeholders' names, whatever else it has, or in their order."""
    many = MultiRow("INSERT INTO t (id, n) VALUES (:id, :n)")
    assert many.values_of({"n": "a", "id": 1, "more": 2}, 0) == (1, "a")
    assert many.values_of([1, "a"], 0) == (1, "a")
    for row, said in [
        ({"id": 1}, "row 7 has no value for the placeholder :n"),
        ((1,), "row 7 has 1 values, and the placeholders are id, n"),
        ("ab", "row 7 is a str"),
        ({1, 2}, "row 7 is a set"),
    ]:
        with pytest.raises(TransactionError, match=said):
            many.values_of(row, 7)


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("a 'b' c", "a c"),
        ("a 'it''s' c", "a c"),
        ('"a b" c', "c"),
        ("a -- b\nc", "a c"),
        ("a /* b /* c */ */ d", "a d"),
        ("$$a$$ $t$b$t$ $1 a$b", "$1 a$b"),
        ("E'\\'' e'a' n'a'", "n"),
        ("'open", ""),
        ("a - b / c", "a - b / c"),
    ],
)
def test_what_is_no_code_becomes_blank(sql, words):
    """Strings, quoted identifiers and comments, in PostgreSQL's spelling; the rest stands where it stood."""
    code = code_of(sql)
    assert code.split() == words.split()
    assert len(code) == len(sql)
    assert all(kept in (" ", was) for kept, was in zip(code, sql, strict=True))
