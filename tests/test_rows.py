"""Rows from whole buffers: pg8000's rows, and the values that `values` reads one by one."""

import datetime
import decimal
import json
import struct

import pg8000.native
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsql_lambda import Connection, DatabaseError, rows
from dsql_lambda.driver import converters
from dsql_lambda.values import read_json
from dsql_local.postgres.server import Postgres
from dsql_local.postgres.template import SUPERUSER


class Both:
    """Stock pg8000 and ours on one plain PostgreSQL, with the same settings."""

    def __init__(self, postgres):
        self.postgres = postgres
        self.ours = self.opened(Connection)
        self.stock = self.opened(pg8000.native.Connection)

    def opened(self, kind):
        return kind(SUPERUSER, unix_sock=str(self.postgres.socket), database="postgres", ssl_context=False)

    def close(self):
        self.ours.close()
        self.stock.close()


@pytest.fixture(scope="module")
def postgres():
    postgres = Postgres()
    postgres.start()
    yield postgres
    postgres.stop()


@pytest.fixture(scope="module")
def both(postgres):
    both = Both(postgres)
    yield both
    both.close()


@pytest.fixture
def ours(postgres):
    connection = Connection(SUPERUSER, unix_sock=str(postgres.socket), database="postgres", ssl_context=False)
    yield connection
    connection.close()


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
DATES = st.dates().map(str) | st.sampled_from(["infinity", "-infinity", "0044-03-15 BC", "10000-01-01", "5874897-12-31"])
MOMENTS = st.datetimes().map(str) | st.sampled_from(
    ["infinity", "-infinity", "0044-03-15 12:00:00 BC", "0001-12-31 23:59:59.123456 BC", "123410-05-05 10:10:10", "1890-01-01"]
)
NUMBERS = st.sampled_from(["NaN", "Infinity", "-Infinity", "-0", "0", "1e-20", "-1.5"])

# The types that have a fast reader.
VALUES = {
    "int8": st.integers(-(2**63), 2**63 - 1).map(str),
    "float8": st.floats().map(str) | NUMBERS,
    "numeric": st.decimals(allow_nan=False, allow_infinity=False, places=6).map(str) | NUMBERS,
    "text": TEXT,
    "date": DATES,
    "time": st.times().map(str) | st.just("24:00:00"),
    "timestamp": MOMENTS,
    "timestamptz": MOMENTS,
    "uuid": st.uuids().map(str),
    "json": TEXT.map(lambda text: f' [1, {{"a": {json.dumps(text)}}}]\n') | st.sampled_from(["null", "1", '"a"', "{}", "[]"]),
    "bool": st.sampled_from(["t", "f"]),
    "bytea": st.binary(max_size=20).map(lambda data: f"\\x{data.hex()}"),
    "inet": st.ip_addresses().map(str),
    "text[]": st.lists(TEXT, max_size=3).map(lambda texts: "{" + ",".join(map(json.dumps, texts)) + "}"),
}
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "datestyle": st.sampled_from(["SQL, DMY", "SQL, MDY", "German", "Postgres, MDY"]),
        "timezone": st.sampled_from(["Asia/Kolkata", "America/New_York", "Europe/Amsterdam", "-00:30"]),
        "bytea_output": st.just("escape"),
        "client_encoding": st.just("latin1"),
    },
)


@pytest.mark.parametrize("kind", VALUES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.data(), chosen=SETTINGS)
def test_a_column_is_read_as_its_values_are_one_by_one(ours, kind, values, chosen):
    """Whatever the value, the session's styles and the nulls between: a fast reader is no other reader."""
    texts = values.draw(st.lists(VALUES[kind] | st.none(), min_size=1, max_size=4))
    if "client_encoding" in chosen:
        texts = [text if text is None or text.isascii() else text.encode("latin1", "ignore").decode("latin1") for text in texts]
    ours.run("RESET ALL")
    for name, value in chosen.items():
        ours.run(f"SET {name} = '{value}'")
    sql = f"SELECT CAST(v AS {kind}), 1 FROM unnest(CAST(:texts AS text[])) WITH ORDINALITY AS t(v, n) ORDER BY n"
    fast = ours.run(sql, texts=texts)
    oid = ours.columns[0]["type_oid"]
    function = ours.pg_types[oid]
    ours.register_in_adapter(oid, lambda text: function(text))  # noqa: PLW0108 - another function, so that it is not known
    one_by_one = ours.run(sql, texts=texts)
    ours.register_in_adapter(oid, function)
    assert [[(type(value), repr(value)) for value in row] for row in fast] == [
        [(type(value), repr(value)) for value in row] for row in one_by_one
    ]


USUAL = """
SELECT g, 'naïve ' || g, g * 1.25, timestamptz '2024-01-02 03:04:05.6+00' + g * interval '1 s', md5(g::text)::uuid,
       jsonb_build_object('id', g, 'ünï', true), g % 2 = 0, g / 3.0::float8, date '2024-01-01' + g, NULL::text
FROM generate_series(1, {}) AS g
"""


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_simple_and_parameterised_calls_give_the_same_rows(both, count):
    """Rows of ten columns over many buffers, by both protocols."""
    assert both.ours.run(USUAL.format(count)) == both.stock.run(USUAL.format(count))
    assert both.ours.run(USUAL.format(":n"), n=count) == both.stock.run(USUAL.format(":n"), n=count)
    assert both.ours.columns == both.stock.columns
    assert both.ours.row_count == both.stock.row_count == count


def test_several_statements_in_a_string_add_their_rows(both):
    """As in pg8000: the rows of all, the columns of the last."""
    sql = "SELECT 1, 'a'; SELECT true; SELECT; SELECT 2.5, NULL, date '2024-01-01'"
    assert (
        both.ours.run(sql)
        == both.stock.run(sql)
        == [[1, "a"], [True], [], [decimal.Decimal("2.5"), None, datetime.date(2024, 1, 1)]]
    )
    assert both.ours.columns == both.stock.columns


def test_a_prepared_statement_gives_the_same_rows(both):
    """`prepare`, which keeps its own columns."""
    sql = "SELECT g, g::text FROM generate_series(1, :n) AS g"
    assert both.ours.prepare(sql).run(n=3) == both.stock.prepare(sql).run(n=3) == [[1, "1"], [2, "2"], [3, "3"]]


class Unhashable:  # noqa: PLW1641 - that is its point
    """An adapter that can't be a key."""

    def __eq__(self, other):
        return self is other

    def __call__(self, text):
        return f"<{text}>"


@pytest.mark.parametrize("adapter", [Unhashable(), lambda text: f"<{text}>", "<{}>".format])
def test_a_users_adapter_wins(ours, adapter):
    """For every type that has a fast converter, with the text as PostgreSQL wrote it."""
    sql = "SELECT 7, 'ö', 1.50, true, jsonb '{\"ö\":1}', date '2024-01-01', NULL::int, bytea '\\x00'"
    before = ours.run(sql)
    for column in ours.columns:
        ours.register_in_adapter(column["type_oid"], adapter)
    texts = ["7", "ö", "1.50", "t", '{"ö": 1}', "2024-01-01", None, "\\x00"]
    assert ours.run(sql) == [[text if text is None else f"<{text}>" for text in texts]]
    assert before[0][0] == 7


def test_pg8000s_own_converters_can_be_registered_for_other_types(ours):
    """By the function, not by the type, a converter is known."""
    ours.register_in_adapter(25, converters.json_in)
    assert ours.run("SELECT '[1, 2]'::text, 'null'::text, NULL::text") == [[[1, 2], None, None]]


@pytest.mark.parametrize("reader", [read_json, converters.json_in])
def test_text_that_is_no_json_is_an_error(ours, reader):
    """Joined with its neighbours it must not become two values."""
    ours.register_in_adapter(25, reader)
    with pytest.raises(json.JSONDecodeError):
        ours.run("SELECT unnest(ARRAY['1,2', '3'])")
    with pytest.raises(json.JSONDecodeError):
        ours.run("SELECT unnest(ARRAY['[1', '2]'])")
    assert ours.run("SELECT '[1, 2]'::text") == [[[1, 2]]]


def test_python_functions_can_be_registered(ours):
    """They get the text, decoded: a digit that is not ASCII is a digit to `int`."""
    ours.register_in_adapter(25, int)
    assert ours.run("SELECT '\u0663'") == [[3]]


def test_a_large_row_behind_a_small_one(ours):
    """It arrives in many pieces."""
    sizes = [1, 5_000_000, 2]
    assert [len(row[0]) for row in ours.run("SELECT repeat('x', unnest(:sizes::int[]))", sizes=sizes)] == sizes


def test_an_error_behind_rows(ours):
    """What came before it is not returned, and the connection is in order."""
    with pytest.raises(DatabaseError, match="division by zero"):
        ours.run("SELECT 10 / (3 - g) FROM generate_series(1, 5) AS g")
    assert ours.run("SELECT 1") == [[1]]


def message(*values):
    """A DataRow."""
    body = len(values).to_bytes(2, "big")
    for value in values:
        body += b"\xff\xff\xff\xff" if value is None else len(value).to_bytes(4, "big") + value
    return b"D" + (len(body) + 4).to_bytes(4, "big") + body


@given(
    st.lists(st.lists(st.none() | st.binary(max_size=300), min_size=3, max_size=3)),
    st.integers(0, 2000),
    st.binary(),
    st.integers(1, 5),
)
def test_only_complete_messages_are_cut(wanted, end, before, most):
    """A message that is not all there, or is another one, stays where it is; so does what is too much for one batch."""
    messages = [message(*row) for row in wanted]
    stream = b"".join([before, *messages, b"C\0\0\0\4"])[: len(before) + end]
    complete = min(sum(len(b"".join(messages[: n + 1])) <= end for n in range(len(messages))), most)
    if not complete:
        with pytest.raises(ValueError, match="a row is too short"):
            rows.split(stream, len(before), 3, most)
        return
    values, count, position = rows.split(stream, len(before), 3, most)
    assert count == complete
    assert position == len(before) + len(b"".join(messages[:complete]))
    assert [value if value is None else value.encode("latin-1") for value in values] == [
        v for row in wanted[:complete] for v in row
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\1",
        b"\0\2\0\0\0\1a",
        b"\0\1\0\0\0\2a",
        b"\0\1\0\0\0\1ab",
        b"\0\1\0\0\0\1a\0\0\0\1b",
        b"\0\2\0\0\0\1a\0\0\0\1b",
        b"\0\1\0\0",
    ],
)
def test_a_row_whose_lengths_do_not_fit_is_refused(body):
    """Whatever is wrong with it, no value of another row's is taken."""
    row = b"D" + (len(body) + 4).to_bytes(4, "big") + body
    with pytest.raises((ValueError, struct.error)):
        rows.split(row + message(b"next"), 0, 1, 256)
