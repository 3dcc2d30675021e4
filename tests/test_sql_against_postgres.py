"""Texts as PostgreSQL reads them: its own scanner and parser (libpg_query), and a server's answers to what is sent.

DSQL_TEXTS=500000 python -m pytest tests/test_sql_against_postgres.py     # a campaign: other texts each time
"""

import os
import random
import re
from collections.abc import Iterator

import postgast
import psycopg
import pytest
from pg8000.exceptions import InterfaceError

from dsql_lambda.sql import Query, bind, parse, refused_word

CAMPAIGN = os.environ.get("DSQL_TEXTS")
TEXTS = int(CAMPAIGN or 20_000)

# --- The scanner ---

# What the texts are made of. Most of it is a whole token; the halves make the scanner see what nobody would write.
PARTS = """
:a :b :lo :hi :größe :_x :a1 :E :e :n :u : :: := => :1 ::int :: :a::b
SELECT BETWEEN AND ARRAY n x t e E b N U lo hi e1 a$b a$ ä数 cast json_object
1 2 0 10 1.5 .5 1. 1e5 0x1F 1_000 $1 $2 $10
' '' ''' ' '' 'it''s' ':x' 'a:b' '\\' '\\\\' '--' '/*' '"' '$$'
E' e' E'\\'' e':x' E'it\\'s' E'\\\\' E'''' E'a''b\\'c' E'''\\''' e1'\\' end'\\' _e'\\' N':x' B'1' x'f' U&':x' u&"x:y"
" "" "a" "a:x" "it""s" "'" "$$"
$ $$ $$x$$ $a$ $a$:x$a$ $a$$$$a$ $ä$:x$ä$ $b$ $a $1$$
-- --:x -- /* */ /**/ /*:x*/ /*/ /*/**/*/ /***/ **/ */* // - / *
[ ] [ ] ( ) ( ) [1:2] [lo:hi] [:n] [:a:b] [a:n] [1:n] ['a':n]
, ; . .. + - * / < > = <= <> ~ ! @ # % ^ & | ` ? -> ->> #>> @> || @- +- <-> =:a +:b -:a ||:b
""".split()  # noqa: SIM905 - it reads better so
SEPARATORS = [" "] * 12 + [""] * 9 + ["\n", "\r", "\r\n", "\t", "\f", "\v", "--\n", "-- it's\r", "/**/", "\n--\n", "\xa0"]

WORD = re.compile(rb"[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*")
CONSTANTS = {"ICONST", "FCONST", "SCONST", "BCONST", "XCONST", "USCONST", "UIDENT", "PARAM"}


def texts(rng: random.Random) -> Iterator[str]:
    while True:
        yield "".join(rng.choice(PARTS) + rng.choice(SEPARATORS) for _ in range(rng.randint(1, 14)))


class Token:
    """One of PostgreSQL's: where it stands in the UTF-8, and what it is called."""

    def __init__(self, data: bytes, start: int, end: int, name: str) -> None:
        self.start, self.end, self.name = start, end, name
        self.raw = data[start:end]
        self.is_word = WORD.fullmatch(self.raw) is not None
        self.is_expression = name in CONSTANTS or self.raw[:1] in {b'"', b")", b"]"}


NOTHING = Token(b"", -1, -1, "")


def scanned(text: str) -> list[Token] | None:
    """PostgreSQL's tokens without its comments; None where it refuses the text.

    None also where an escape string goes on behind a comment: libpg_query makes the comment a token, which ends the string. What
    a server makes of it stands below.
    """
    data = text.encode()
    try:
        found = postgast.scan(text).tokens
    except postgast.PgQueryError:
        return None
    tokens = [Token(data, each.start, each.end, postgast.pg_query_pb2.Token.Name(each.token)) for each in found]
    kinds = "".join({b"e'": "E", b"--": "-"}.get(each.raw[:2].lower(), "'" if each.raw[:1] == b"'" else " ") for each in tokens)
    if re.search("E-+'", kinds):
        return None
    return [each for each in tokens if each.name not in {"SQL_COMMENT", "C_COMMENT"}]


def expected(tokens: list[Token]) -> tuple[list[bytes], list[bytes]] | None:
    """By PostgreSQL's tokens: what shall be sent, token by token, and the names.

    A colon and a word that follows it at once are a placeholder, unless an expression ends where the colon begins, or a string
    begins where the word ends. None where our names end earlier than PostgreSQL's words (`:a$b`, `:u&"x"`), and for numbers that
    no slice has (`1.`, `1.e5`): the module sees no number end there.
    """
    sent: list[bytes] = []
    names: list[bytes] = []
    brackets: list[bytes] = []
    expression_end = -1
    position = 0
    while position < len(tokens):
        token, word, after = (*tokens[position : position + 3], NOTHING, NOTHING)[:3]
        position += 1
        if token.name == "FCONST" and re.search(rb"\.$|\.[eE]", token.raw):
            return None
        if token.name == "ASCII_58" and word.start == token.end and token.start != expression_end:
            if (word.is_word and b"$" in word.raw) or word.name in {"USCONST", "UIDENT"}:
                return None
            if word.is_word and not (after.start == word.end and after.raw[:1] == b"'"):
                names += [word.raw] if word.raw not in names else []
                sent.append(b"$%d" % (names.index(word.raw) + 1))
                expression_end = word.end
                position += 1
                continue
        if token.raw in {b"[", b"("}:
            brackets.append(token.raw)
        elif token.raw in {b"]", b")"} and brackets:
            brackets.pop()
        if token.is_expression or (token.is_word and brackets[-1:] == [b"["]):
            expression_end = token.end
        sent.append(token.raw)
    return sent, names


def parsed(text: str) -> tuple[Query | None, str]:
    """Our reading, or the sentence of a refusal. Nothing else comes of any text."""
    try:
        return parse(text), ""
    except InterfaceError as error:
        return None, str(error)


def test_the_scanner_of_postgresql_agrees():
    """In every generated text, the placeholders are its colons with a word; what is sent has its other tokens, unchanged."""
    rng = random.Random(None if CAMPAIGN else 10)
    compared = numbered = with_names = 0
    for text in texts(rng):
        query, refusal = parsed(text)
        tokens = scanned(text)
        wanted = tokens and expected(tokens)
        if not tokens or not wanted:
            continue
        sent, names = wanted
        is_numbered = any(each.name == "PARAM" for each in tokens)
        if query is None:
            assert (tokens[-1].raw == b":") if "ends in a colon" in refusal else (is_numbered and names), repr(text)
            numbered += is_numbered
            continue
        assert not (is_numbered and names), repr(text)
        assert [name.encode() for name in query.names] == names, repr(text)
        assert [each.raw for each in scanned(query.text) or ()] == sent, repr((text, query.text))
        compared += 1
        with_names += bool(names)
        if compared == TEXTS:
            break
    assert with_names > TEXTS / 4
    assert numbered > TEXTS / 40


# --- The parser ---

WORDS = ["BEGIN", "start transaction", "Commit", "END", "rollback", "ABORT", "prepare transaction 'x'", "ROLLBACK TO a"]
OTHERS = ["SELECT 1", "select commit", "VALUES (1)", "SAVEPOINT a", "RELEASE a", "SET TRANSACTION READ ONLY", "commit_(1)", ""]
BLANKS = " |\t|\n|\r|\f|\v|;|--|--\n|-- x\r|--;\r\n|/**/|/* /* */ */|/*/ */|/* -- */|/* ' */|--/*\n|--*/\r|/*|*/|/* END */|\xa0|-"


def commands(rng: random.Random) -> Iterator[str]:
    while True:
        blanks = [rng.choice(BLANKS.split("|")) for _ in range(rng.randint(0, 6))]
        yield (
            "".join(blanks)
            + rng.choice(WORDS if rng.random() < 0.7 else OTHERS)
            + rng.choice(["", ";", "--", "/**/", " work", "\xa0"])
        )


def test_the_parser_of_postgresql_agrees_on_what_ends_a_transaction():
    """Whatever it reads as one statement that begins or ends a transaction is refused, and nothing else is."""
    rng = random.Random(None if CAMPAIGN else 11)
    seen = dict.fromkeys([True, False], 0)
    for text in commands(rng):
        try:
            statements = postgast.parse(text).stmts
        except postgast.PgQueryError:
            continue
        kinds = postgast.pg_query_pb2.TransactionStmtKind.Name
        found = [each.stmt.transaction_stmt for each in statements if each.stmt.HasField("transaction_stmt")]
        ends = any(kinds(each.kind) not in {"TRANS_STMT_SAVEPOINT", "TRANS_STMT_RELEASE"} for each in found)
        assert bool(refused_word(bind(text, {})[0])) == ends, repr(text)
        seen[ends] += 1
        if sum(seen.values()) == TEXTS // 4:
            break
    assert min(seen.values()) > TEXTS / 40


# --- A server's answers ---


@pytest.fixture
def connection(dsql):
    with psycopg.connect(**dsql.libpq(), autocommit=True, cursor_factory=psycopg.RawCursor) as connection:
        yield connection


@pytest.mark.parametrize(
    ("text", "params", "answer"),
    [
        ("SELECT 5 BETWEEN:lo AND:hi", {"lo": 1, "hi": 9}, True),
        ("SELECT 7-:a::int", {"a": 3}, 4),
        ("SELECT 'order:id' /* client's own */ || :id::text", {"id": "7"}, "order:id7"),
        (r"SELECT '\' || :a::text", {"a": "x"}, "\\x"),
        (r"SELECT E'it\'s :x' || :a::text", {"a": "x"}, "it's :xx"),
        ("SELECT E'a'  -- it's\n '\\':x' || :a::text", {"a": "x"}, "a':xx"),
        ('SELECT "a:b" FROM (SELECT :a::int AS "a:b") AS t', {"a": 3}, 3),
        ("SELECT U&'\\0041:x' || :a::text", {"a": "x"}, "A:xx"),
        ("SELECT $$it's :x$$ || $q$ $$:x$q$ || :a::text", {"a": "y"}, "it's :x $$:xy"),
        ("WITH t(a$1, b$) AS (VALUES (5, 6)) SELECT a$1+:a+b$ FROM t", {"a": 1}, 12),
        ("SELECT 1 -- :x\r+ :a /* /* :x */ ' :x */ + :b", {"a": 10, "b": 100}, 111),
        ("SELECT (ARRAY[1,2,3])[1:2] || :a::int", {"a": 9}, [1, 2, 9]),
        ("SELECT (ARRAY[1,2,3])[:a : :b]", {"a": 2, "b": 3}, [2, 3]),
        ("SELECT (ARRAY[1,2,3])[: :b]", {"b": 1}, [1]),
        ("SELECT t[lo:hi] || :lo::int FROM (SELECT ARRAY[1,2,3] AS t, 1 AS lo, 2 AS hi) AS s", {"lo": 7}, [1, 2, 7]),
        ("SELECT t[:lo:hi] FROM (SELECT ARRAY[1,2,3] AS t, 2 AS hi) AS s", {"lo": 2}, [2]),
        ("SELECT t[: hi] || :x::int FROM (SELECT ARRAY[1,2,3] AS t, 1 AS hi) AS s", {"x": 8}, [1, 8]),
        ("SELECT json_object('a':x, 'b': :b::int)::text FROM (SELECT 1 AS x) AS s", {"b": 2}, '{"a" : 1, "b" : 2}'),
        ("SELECT make_interval(days:=:d)::text", {"d": 3}, "3 days"),
        ("SELECT :größe::int", {"größe": 4}, 4),
        ("SELECT $2::text || $1::text", {"a": "x", "b": "y"}, "yx"),
    ],
)
def test_postgresql_answers_as_the_text_means(connection, text, params, answer):
    """Each construct of the manual's chapter with a placeholder beside it."""
    query, values = bind(text, params)
    ((value,),) = connection.execute(query.text, values).fetchall()
    assert value == answer


def test_a_text_without_parameters_needs_no_thought(connection):
    """PostgreSQL reads the slice, the URL, the time and the pair."""
    text = "SELECT (ARRAY[1,2,3])[1:2], $q$at 10:30$q$, json_object('a':1)::text /* https://wiki.example/x */"
    assert connection.execute(bind(text, {})[0].text).fetchone() == ([1, 2], "at 10:30", '{"a" : 1}')


def left_the_transaction(connection, text):
    """Did this text, as one statement of the extended protocol, begin or end a transaction inside of one?"""
    pgconn = connection.pgconn
    connection.execute("BEGIN")
    connection.execute("SELECT 1")
    pgconn.exec_params(text.encode(), [])
    has_left = pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE
    connection.execute("ROLLBACK")
    return has_left


@pytest.mark.parametrize(
    "spelling", ["{}", ";{}", ";;/**/ ; {};", "/* x /* y */ z */ {}", "-- x\r{}", "--\n{}", " \t\f{}", "/*/ */{}"]
)
@pytest.mark.parametrize("word", ["COMMIT", "end", "Rollback", "abort", "COMMIT AND NO CHAIN", "END TRANSACTION"])
def test_a_server_ends_the_transaction_and_tx_refuses(connection, spelling, word):
    """An empty statement before it does not make it two: the server commits at `;COMMIT`, so it is refused here."""
    text = spelling.format(word)
    assert left_the_transaction(connection, text)
    assert refused_word(bind(text, {})[0])


@pytest.mark.parametrize(
    "text",
    ["\xa0COMMIT", "\ufeffCOMMIT", "/* /* */ COMMIT", "-- COMMIT", "SELECT 1; COMMIT", "(COMMIT)", '"COMMIT"', "EXPLAIN COMMIT",
     "SAVEPOINT a", "RELEASE a", "SET TRANSACTION READ ONLY", "DO $$ BEGIN COMMIT; END $$", "commit_(1)"],
)  # fmt: skip
def test_what_tx_lets_pass_leaves_the_transaction_open(connection, text):
    """The server refuses it, or it does something else."""
    assert not refused_word(bind(text, {})[0])
    assert not left_the_transaction(connection, text)
