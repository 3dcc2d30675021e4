"""Where a statement ends: psql's rules on the layer's own lexer, compared with PostgreSQL's scanner."""

import postgast
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from dsql_lambda.script import ScriptStatement, folded, shape, split

FRAGMENTS = [
    *(" 1 ", " a ", " ", "\n", "--x;\n", "/* ; /* ; */ ; */", "';'", "'a''b;'", '"x;y"', "$$;$$", "$t$ $$;$$ $t$", "E'\\';'"),
    *(" 1.5e3 ", "::", " é ", "U&'\\00e9;'", " $1 ", "-", "/", "(;)", "([;])"),
]
STATEMENT = st.lists(st.sampled_from(FRAGMENTS), max_size=6).map(lambda parts: "SELECT " + "".join(parts))


@pytest.mark.parametrize(
    ("script", "statements"),
    [
        ("", []),
        (";;\n-- nothing\n;", []),
        ("SELECT 1", [("SELECT 1", 1)]),
        ("-- first\nSELECT 1;\n\n  SELECT\n2 ;", [("SELECT 1", 2), ("SELECT\n2", 4)]),
        ("SELECT ';', \";\", $$;$$, E'\\';' /* ; */; SELECT 2", [("SELECT ';', \";\", $$;$$, E'\\';'", 1), ("SELECT 2", 1)]),
        ("SELECT (1;2); SELECT 3", [("SELECT (1;2)", 1), ("SELECT 3", 1)]),
        (
            "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; SELECT 3",
            [
                ("CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END", 1),
                ("SELECT 3", 1),
            ],
        ),
        ("SELECT 1 AS begin; SELECT 2", [("SELECT 1 AS begin", 1), ("SELECT 2", 1)]),
    ],
)
def test_a_script_is_split(script, statements):
    """Each statement with the line of its first word; comments before it are not part of it."""
    assert split(script) == tuple(ScriptStatement(*each) for each in statements)


@given(st.lists(STATEMENT | st.sampled_from(["", "\n"]), max_size=5).map(";".join))
def test_postgresql_s_scanner_ends_statements_at_the_same_places(script):
    """libpg_query's, which leaves the comments before a statement in it."""
    try:
        theirs = [shape(each) for each in postgast.split(script, method="scanner")]
    except postgast.PgQueryError:  # what two fragments make together is no token, which is PostgreSQL's to say
        reject()
    assert [shape(each.text) for each in split(script)] == [each for each in theirs if each]


def test_the_shape_of_a_statement_is_its_tokens():
    """Words in capitals, quoted names and strings as they were written, no comments."""
    assert shape('create /* x */ Index "Mixed" on t(a) -- end') == ("CREATE", "INDEX", '"Mixed"', "ON", "T", "(", "A", ")")
    assert [folded(each) for each in ("Some", '"Some"', '"a""b"')] == ["some", "Some", 'a"b']
