"""Texts: which `:name` is a placeholder, how it is numbered, what is refused, and what reading costs.

That PostgreSQL's own scanner agrees stands in `test_sql_against_postgres.py`.
"""

import sys
import threading
from typing import SupportsIndex

import pytest
from pg8000.exceptions import InterfaceError

from dsql_lambda import sql
from dsql_lambda.sql import Cache, Query, bind, parse, refused_word

# Texts of one placeholder or more: as they are written, as they are sent, and the names of $1, $2 and so on.
PLACEHOLDERS = {
    "one": ("SELECT :id", "SELECT $1", "id"),
    "two": ("SELECT :a, :b", "SELECT $1, $2", "a b"),
    "the same name has the same number": ("SELECT :a, :b, :a", "SELECT $1, $2, $1", "a b"),
    "names are case-sensitive": ("SELECT :a, :A", "SELECT $1, $2", "a A"),
    "a name of letters, digits and underscores": ("SELECT :_a1_B2 + 1", "SELECT $1 + 1", "_a1_B2"),
    "a name beyond ASCII": ("SELECT :größe, :数量", "SELECT $1, $2", "größe 数量"),
    "a name with a combining mark": ("SELECT :नाम", "SELECT $1", "नाम"),
    "a name at the very end": ("SELECT 1 WHERE true = :b", "SELECT 1 WHERE true = $1", "b"),
    "a name at the very beginning": (":a", "$1", "a"),
    "after a keyword": ("x BETWEEN:lo AND:hi", "x BETWEEN $1 AND $2", "lo hi"),
    "after a word that ends in a dollar or a letter beyond ASCII": ("a$:x ä:y", "a$ $1 ä $2", "x y"),
    "after a lone dollar, which would become a dollar quote": ("$:a $:b", "$ $1 $ $2", "a b"),
    "after an operator": ("a=:a+:b<:c->>:d||:e@>:f", "a=$1+$2<$3->>$4||$5@>$6", "a b c d e f"),
    "after a bracket": ("f(:a,:b) = ANY(ARRAY[:c,:d])", "f($1,$2) = ANY(ARRAY[$3,$4])", "a b c d"),
    "after a comment": ("SELECT/**/:a--\n:b", "SELECT/**/$1--\n$2", "a b"),
    "cast": ("SELECT :a::int, :b :: text", "SELECT $1::int, $2 :: text", "a b"),
    "cast to an array": ("= ANY(:ids::uuid[])", "= ANY($1::uuid[])", "ids"),
    "a cast, then a placeholder": ("now()::date > :day", "now()::date > $1", "day"),
    "named argument": ("f(a:=:a, b := :b, c => :c)", "f(a:=$1, b := $2, c => $3)", "a b c"),
    "operators beside comments": ("1 -/* :x */:a */**/:b", "1 -/* :x */$1 */**/$2", "a b"),
    # Slices, and SQL/JSON, which separates with a colon too.
    "slice of numbers": ("t[1:2] = :a", "t[1:2] = $1", "a"),
    "slice to a column": ("t[1:n] = :a", "t[1:n] = $1", "a"),
    "slice of columns": ("t[lo:hi], t[f(x):y], t[s[1]:e] = :a", "t[lo:hi], t[f(x):y], t[s[1]:e] = $1", "a"),
    "slice to a call": ("t[1:array_length(t, 1) - 1] = :a", "t[1:array_length(t, 1) - 1] = $1", "a"),
    "slice from a placeholder": ("t[:a:n]", "t[$1:n]", "a"),
    "slice from placeholder to placeholder": ("t[:a : :b]", "t[$1 : $2]", "a b"),
    "slice to a placeholder": ("t[1: :b], t[1:(:c)]", "t[1: $1], t[1:($2)]", "b c"),
    "slice to a column, without a lower bound": ("t[: n] = :a", "t[: n] = $1", "a"),
    "slice without an upper bound": ("t[1:], t[:], t[:a:]", "t[1:], t[:], t[$1:]", "a"),
    "subscript": ("t[:a], t[:a][:b]", "t[$1], t[$1][$2]", "a b"),
    "cast inside of brackets": ("t[1::int], t[:a::int]", "t[1::int], t[$1::int]", "a"),
    "a keyword inside of parentheses in brackets": ("t[(SELECT:a)]", "t[(SELECT $1)]", "a"),
    "a decimal number": ("t[1.5:n], t[.5:n], t[1e5:n] = :a", "t[1.5:n], t[.5:n], t[1e5:n] = $1", "a"),
    "JSON": ("json_object('a':x, 'b': :b, \"k\":1, :k:2)", "json_object('a':x, 'b': $1, \"k\":1, $2:2)", "b k"),
    "JSON with prefixed strings": (
        r"json_object(k:e'it\'s :x', 'l':E'\\', m:N'x' || :b)",
        r"json_object(k:e'it\'s :x', 'l':E'\\', m:N'x' || $1)",
        "b",
    ),
    "a digit begins no name": ("t[1:2], :1 = :a", "t[1:2], :1 = $1", "a"),
    # What is text.
    "string": ("':x', 'it''s :x' = :a", "':x', 'it''s :x' = $1", "a"),
    "backslashes are ordinary": (r"'\' = :a AND '\\' = :b", r"'\' = $1 AND '\\' = $2", "a b"),
    "escape string": (r"E'it\'s :x' || e'\\' || :a", r"E'it\'s :x' || e'\\' || $1", "a"),
    "escape string with doubled quotes": (r"E''':x\'''' || :a", r"E''':x\'''' || $1", "a"),
    "escape string, doubled quote first": (r"E'a''b\':x' || :a", r"E'a''b\':x' || $1", "a"),
    "escape string over lines": ("E'a'  -- it's\n\n '\\':x' || :a", "E'a'  -- it's\n\n '\\':x' || $1", "a"),
    "escape string, and another string on its line": (r"E'a' '\' || :a", r"E'a' '\' || $1", "a"),
    "an E that ends a word": (r"name'\' || :a", r"name'\' || $1", "a"),
    "an E that begins a word": (r"e1'\' || Ende'\' || :a", r"e1'\' || Ende'\' || $1", "a"),
    "an E behind a dollar or a digit": (r"a$e'\' || a1e'\' || :a", r"a$e'\' || a1e'\' || $1", "a"),
    "bit, national and Unicode strings": (r"B'1', X'f', N'\', U&'\' || :a", r"B'1', X'f', N'\', U&'\' || $1", "a"),
    "quoted identifier": ('"a:x", "it""s :x", U&"\\:x" = :a', '"a:x", "it""s :x", U&"\\:x" = $1', "a"),
    "a string in an identifier, an identifier in a string": ("\"'\" = :a, '\"' = :b", "\"'\" = $1, '\"' = $2", "a b"),
    "dollar quote": ("$$ :x ' $ $$ || :a", "$$ :x ' $ $$ || $1", "a"),
    "dollar quote with a tag": ("$q1$ :x $$ $q$ $Q1$ $q1$ || :a", "$q1$ :x $$ $q$ $Q1$ $q1$ || $1", "a"),
    "dollar quote whose tag is beyond ASCII": ("$ä$ :x $$ $ä$ || :a", "$ä$ :x $$ $ä$ || $1", "a"),
    "dollars in an identifier": ("a$b$ = :a, c$$ = :b", "a$b$ = $1, c$$ = $2", "a b"),
    "a dollar alone": ("$ = :a, $-$ = :b", "$ = $1, $-$ = $2", "a b"),
    "line comment to LF, to CR, to the end": (
        "-- :x\n:a -- :x\r:b -- it's :x\r\n:c -- :x",
        "-- :x\n$1 -- :x\r$2 -- it's :x\r\n$3 -- :x",
        "a b c",
    ),
    "block comment": ("/* it's :x -- */ :a /**/ :b /***/ :c", "/* it's :x -- */ $1 /**/ $2 /***/ $3", "a b c"),
    "nested comment": ("/* /* :x */ :x /*/ */ :x */ :a", "/* /* :x */ :x /*/ */ :x */ $1", "a"),
    "an opened comment is not closed by its own star": ("/*/ :x */ :a", "/*/ :x */ $1", "a"),
    "white space beyond ASCII is a letter": ("SELECT\xa0:a", "SELECT\xa0 $1", "a"),
    # What PostgreSQL refuses is left to it, and nothing in it is a placeholder by mistake.
    "open string": (":a 'x :b", "$1 'x :b", "a"),
    "open escape string": (r":a E'x\' :b", r"$1 E'x\' :b", "a"),
    "open identifier": (':a "x :b', '$1 "x :b', "a"),
    "open dollar quote": (":a $$ :b $", "$1 $$ :b $", "a"),
    "open comment": (":a /* /* :b */ :c", "$1 /* /* :b */ :c", "a"),
    "brackets that do not match": ("]) :a[ (", "]) $1[ (", "a"),
}

# Faults of others that were reported in public: by where, the text in short, as it is sent, and the names.
REPORTED = {
    "sqlalchemy#11309": ("SELECT CAST(:p::VARCHAR[] AS text)", "SELECT CAST($1::VARCHAR[] AS text)", "p"),
    "asyncpgsa#80": (
        "generate_series(:m::date, :n::date, '1 d'::interval)",
        "generate_series($1::date, $2::date, '1 d'::interval)",
        "m n",
    ),
    "spring-framework#20887": ("UPDATE t SET name = array[:param]", "UPDATE t SET name = array[$1]", "param"),
    "spring-framework#12613": ("SELECT -- of it \n'B' WHERE y > :y", "SELECT -- of it \n'B' WHERE y > $1", "y"),
    "spring-framework#21055": ("SELECT $$ :x $$, :a", "SELECT $$ :x $$, $1", "a"),
    "jdbi#1387": ("actions[1:array_position(actions, plan) - 1] = :a", "actions[1:array_position(actions, plan) - 1] = $1", "a"),
    "jdbi#1681": ("matches[1:5] = :a", "matches[1:5] = $1", "a"),
    "jdbi#1731": ("WHERE \n-- no'\nid = :id AND d ->> 't' = :t", "WHERE \n-- no'\nid = $1 AND d ->> 't' = $2", "id t"),
    "jdbi#432": ("SET a := :a", "SET a := $1", "a"),
    "jdbi#2481": (":foo->>'x'", "$1->>'x'", "foo"),
    "jdbi#350": ("INSERT INTO 数据(编号) VALUES(:编号)", "INSERT INTO 数据(编号) VALUES($1)", "编号"),
    "npgsql#1177": ("WHERE ключ = :ключ", "WHERE ключ = $1", "ключ"),
    "sqlfluff#8565": ("'2025-01-01 12:30:00'::timestamp, t[1:3] = :u", "'2025-01-01 12:30:00'::timestamp, t[1:3] = $1", "u"),
    "tinypg#2": ("'2025-02-15 00:00:00'::timestamptz < :t", "'2025-02-15 00:00:00'::timestamptz < $1", "t"),
    "sqlx#983": ("SELECT :boundary::jsonb", "SELECT $1::jsonb", "boundary"),
    "sqlx#180": ("to_date('23/10 23:59', 'DD/MM HH24:MI') = :a", "to_date('23/10 23:59', 'DD/MM HH24:MI') = $1", "a"),
    "doctrine/dbal#3640": (r"LIKE :a ESCAPE '\' AND b LIKE :b ESCAPE '\'", r"LIKE $1 ESCAPE '\' AND b LIKE $2 ESCAPE '\'", "a b"),
    "doctrine/dbal#2295": ("jsonb_exists_any(a.b, ARRAY[:p])", "jsonb_exists_any(a.b, ARRAY[$1])", "p"),
    "named-placeholders#9": (":f -- the row's\n, :f -- a row's\n, :g", "$1 -- the row's\n, $1 -- a row's\n, $2", "f g"),
    "node-mysql2#776": ("/*:active is not read*/ :id, :active", "/*:active is not read*/ $1, $2", "id active"),
    "pgjdbc#4363": ("/*/ ' :x */ :a", "/*/ ' :x */ $1", "a"),
    "jOOQ#20249": ("1 /* a /**/ :x */, :a", "1 /* a /**/ :x */, $1", "a"),
    "Kilo#92": ("-- the colon: here\nname || ':' || :v", "-- the colon: here\nname || ':' || $1", "v"),
    "knex documentation#19": (":v::bigint", "$1::bigint", "v"),
    "dbeaver#5440": ("(regexp_split_to_array(x, ''))[: n] = :a", "(regexp_split_to_array(x, ''))[: n] = $1", "a"),
    "shardingsphere#16136": ('/*$0*/ "t$0" -- $0 \n = :a /* $0 /* $0 */ */', '/*$0*/ "t$0" -- $0 \n = $1 /* $0 /* $0 */ */', "a"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "sent", "names"), [*PLACEHOLDERS.values(), *REPORTED.values()], ids=[*PLACEHOLDERS, *REPORTED])
def test_placeholders_are_numbered(text, sent, names):
    """Those that PostgreSQL would see outside of everything that is text to it."""
    query = parse(text)
    assert (query.text, " ".join(query.names)) == (sent, names)


@pytest.mark.parametrize(
    "text", [*(text for text, *_ in [*PLACEHOLDERS.values(), *REPORTED.values()]), "SELECT $1", "x :", "a$1"]
)
def test_a_text_without_parameters_is_sent_as_it_is(text):
    """Slices, times, URLs and JSON need no thought where there is nothing to put in."""
    query, values = bind(text, {})
    assert (query.text, query.names, values) == (text, (), ())


def test_values_come_in_the_order_of_the_numbers():
    """Each once, whatever the order of the call."""
    query, values = bind("SELECT :b, :a, :b", {"a": 1, "b": None})
    assert (query.text, query.names, values) == ("SELECT $1, $2, $1", ("b", "a"), (None, 1))


def test_numbered_placeholders_take_the_parameters_in_the_order_of_the_call():
    """As pg8000 documents it; the names are those of the call, so that types can be given by name."""
    query, values = bind("SELECT $2, $1, $2, a$3", {"title": "x", "year": 7})
    assert (query.text, query.names, values) == ("SELECT $2, $1, $2, a$3", ("title", "year"), ("x", 7))
    assert bind("SELECT $2, $1", {"year": 7, "title": "x"})[0].names == ("year", "title")


MOST = {f"p{number}": number for number in range(65_536)}
REFUSED = {
    "missing": ("SELECT :a, :b", {"a": 1}, "the placeholder :b has no parameter"),
    "missing, and it was to be a slice": ("SELECT t[:n], :a", {"a": 1}, "or write a space after a colon"),
    "all missing": ("SELECT :a", {"b": 1}, "the placeholder :a has no parameter"),
    "unknown": ("SELECT :a", {"a": 1, "b": 2}, "no placeholder for the parameter b:"),
    "unknown, the text has none": ("SELECT 1", {"b": 2}, "no placeholder for the parameter b:"),
    "unknown, it is in a comment": ("SELECT :a -- :b", {"a": 1, "b": 2}, "write :b outside of strings and comments"),
    "unknown, it ends a slice": ("SELECT t[:lo:hi]", {"lo": 1, "hi": 2}, "not right after an expression"),
    "a colon at the end": ("SELECT :", {"a": 1}, "ends in a colon without a name"),
    "a colon at the end, behind a placeholder": ("SELECT :a, : \n", {"a": 1}, "ends in a colon without a name"),
    "a number beside names": ("SELECT :a, $1", {"a": 1}, "has $1 beside :a"),
    "a number beside names, which is 0": ("SELECT $0, :a", {"a": 1}, "has $0 beside :a"),
    "too few for the numbers": ("SELECT $1, $3", {"a": 1, "b": 2}, "go up to $3 and 2 parameters were passed"),
    "too many for the numbers": ("SELECT $1", {"a": 1, "b": 2}, "go up to $1 and 2 parameters were passed"),
    "a number beyond all": ("SELECT $" + "9" * 5_000, {"a": 1}, "go up to $999999 and 1 parameters"),
    "too many": ("SELECT " + ",".join(f":{name}" for name in MOST), MOST, "has 65536 placeholders, and PostgreSQL takes 65535"),
    "NUL": ("SELECT '\0', :a", {"a": 1}, "has a NUL character"),
    "NUL without parameters": ("\0COMMIT", {}, "has a NUL character"),
}


@pytest.mark.parametrize(("text", "params", "said"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence(text, params, said):
    """pg8000's `InterfaceError`, which says what was wrong and what to do; no parameter's value is in it."""
    with pytest.raises(InterfaceError) as refused:
        bind(text, {name: f"secret {value}" for name, value in params.items()})
    (sentence,) = refused.value.args
    assert said in sentence
    assert ": " in sentence
    assert "secret" not in sentence
    assert "\n" not in sentence
    assert not refused.value.__cause__
    assert refused.value.__suppress_context__ or not refused.value.__context__


def test_as_many_parameters_as_postgresql_takes():
    """65,535 of them."""
    del (params := dict(MOST))["p0"]
    query, values = bind("VALUES (" + ", ".join(f":{name}" for name in params) + ")", params)
    assert query.text.endswith(", $65534, $65535)")
    assert values == tuple(range(1, 65_536))


# --- The first word ---


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("SELECT 1", "SELECT"),
        ("select", "SELECT"),
        (" \t\n\r\f\vWith a AS", "WITH"),
        (";; ; values (1)", "VALUES"),
        ("-- one\n-- two\r/* three /* four */ */ Insert", "INSERT"),
        ("SELECT(1)", "SELECT"),
        ("select/**/1", "SELECT"),
        ("commit_log", "COMMIT_LOG"),
        ("commit$1", "COMMIT$1"),
        ("commitä", "COMMITÄ"),
        ("(SELECT 1)", ""),
        ('"commit"', ""),
        ("- - commit", ""),
        ("/ * commit", ""),
        ("1", ""),
        ("", ""),
        (" ; ", ""),
        ("-- COMMIT", ""),
        ("/* COMMIT", ""),
        ("/* /* */ COMMIT", ""),
        ("\xa0COMMIT", ""),
        ("\ufeffCOMMIT", ""),
    ],
)
def test_the_first_word(text, word):
    """In capitals, past white space, semicolons and comments."""
    assert bind(text, {})[0].first_word == word
    assert parse(text).first_word == word


@pytest.mark.parametrize("word", ["begin", "START", "Commit", "eND", "rollback", "ABORT", "prepare"])
@pytest.mark.parametrize(
    "spelling",
    [
        "{}",
        " \f\v{}",
        ";{}",
        "; ;\n{};",
        "{}/**/",
        "{}--",
        "-- x\n{}",
        "-- x\r{}",
        "--\r\n{}",
        "--{0}\n{0}",
        "/**/{}",
        "/***/{}",
        "/*/*/ */*/{}",
        "/* x /* y */ z */ {}",
        "/* ' */{}/* ' */",
        '/* " */{}',
        "/* $$ */{}",
        "/* -- */{}",
        "--/*\n{}--*/",
        "/*;*/;/*;*/{}",
    ],
)
def test_no_spelling_of_a_transaction_command_gets_past(word, spelling):
    """Comments nest, a carriage return ends one, and empty statements before it do not count."""
    assert refused_word(parse(spelling.format(word))) == word.upper()


@pytest.mark.parametrize(
    "text",
    ["SELECT 1", "ending()", "SAVEPOINT a", "RELEASE a", "/* COMMIT */ SELECT 1", "/* /* */ COMMIT */ SELECT 1", "", '"end"'],
)
def test_other_statements_are_not_refused(text):
    """A savepoint does not end the transaction; DSQL has none, and says so itself."""
    assert refused_word(parse(text)) == ""


# --- What reading costs ---


class Measured(str):
    """A text that counts the characters that are looked at, in its indexes, slices, searches and comparisons."""

    looked_at = 0

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        found = super().__getitem__(key)
        self.looked_at += len(found)
        return found

    def find(self, *arguments):
        found = super().find(*arguments)
        self.looked_at += (len(self) if found < 0 else found) - arguments[1]
        return found

    def startswith(self, prefix, *arguments):
        self.looked_at += 1
        return super().startswith(prefix, *arguments)


@pytest.mark.parametrize(
    "part",
    [":{},", "t[1:{}]", "'x'", "E'\\''", "E'x'\n--\n", '"x"', "$$x$$", "$a", "$a$", "$", "--\n", "--\r", "--", "/*", "/**/", "-/",
     "a$", "1.", "((", "[", ")", ": ", ":", "::", ":=", "e'", "\xa0", ";"],
)  # fmt: skip
def test_reading_is_linear_in_the_text(part):
    """Twice the text, twice the characters that are looked at; each at most a few times, whatever the text is made of."""

    def looked_at(count):
        text = Measured("SELECT " + "".join(part.format(f"a{number:05}") for number in range(count)) + "x")
        sql._read(text)
        return text.looked_at, len(text)

    (few, _), (many, length) = looked_at(1_000), looked_at(2_000)
    assert many <= 2.02 * few
    assert many <= 6 * length


def test_a_text_without_parameters_is_not_read_beyond_its_first_word():
    """However long it is, and whatever colons it has."""
    text = Measured("SELECT ':' " + ", t[1:2]" * 1_000)
    bind(text, {})
    assert text.looked_at < 20


# --- The cache ---


def test_a_short_text_is_read_once():
    """The same query, for texts that are equal."""
    assert parse("SELECT :first, :second") is parse("".join(["SELECT :first", ", :second"]))


def test_a_long_text_is_not_kept():
    """16 KiB, in bytes: a text beyond ASCII takes two or four for each character."""
    for text in ("SELECT :a -- " + "x" * 16_384, "SELECT :a -- " + "ä" * 16_384, "SELECT :a -- " + "数" * 8_192):
        before = sql._cache.held_bytes, len(sql._cache)
        assert parse(text) is not parse(text)
        assert (sql._cache.held_bytes, len(sql._cache)) == before
    text = "SELECT :a -- " + "x" * 16_000
    assert parse(text) is parse(text)


def size_of(text, query):
    return sum(map(sys.getsizeof, [text, query, query.text, query.first_word, query.names, *query.names]))


def test_the_cache_is_bounded_in_bytes():
    """Of texts and of names, which can be larger than their text; the first that came goes first."""
    cache = Cache(most_bytes=100_000)
    kept: dict[str, Query] = {}
    for number in range(300):
        text = f"SELECT {number}, " + ", ".join(f":a{name}" for name in range(number % 50))
        kept[text] = cache.add(text, sql._read(text))
        held = {text: query for text, query in kept.items() if cache.find(text)}
        assert sum(size_of(*each) for each in held.items()) <= cache.held_bytes <= cache.most_bytes
        assert list(held) == list(kept)[-len(held) :]
    assert 10 < len(cache) < 300
    text = "SELECT " + ", ".join(f":a{name}" for name in range(2_000))
    assert sys.getsizeof(text) < sql.LONGEST_CACHED_BYTES
    held_bytes = cache.held_bytes
    cache.add(text, sql._read(text))
    assert cache.find(text) is None
    assert cache.held_bytes == held_bytes


def test_threads_share_the_cache():
    """The bytes that it counts are those that it holds, and everybody gets the right query."""
    cache = Cache(most_bytes=50_000)
    wrong: list[str] = []

    def work(seed):
        for number in range(2_000):
            text = f"SELECT :a{(number * seed) % 700}"
            query = cache.find(text) or cache.add(text, sql._read(text))
            if query.names != (text.removeprefix("SELECT :"),):
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 3, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cache.held_bytes == sum(size for _, size in cache._queries.values()) <= cache.most_bytes
