"""Rows from whole buffers: the same values, of the same types, as pg8000's own reading of the same answers."""

import datetime
import decimal
import json
import socket
from contextlib import closing

import pg8000.native
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsql_lambda import DatabaseError, rows
from dsql_lambda.driver import converters
from dsql_lambda.link import Link
from dsql_lambda.wire import Wire
from dsql_local.postgres.server import Postgres
from dsql_local.postgres.template import SUPERUSER


class Both:
    """Stock pg8000 and ours on one plain PostgreSQL, with the same settings."""

    def __init__(self, postgres):
        self.postgres = postgres
        self.ours = self.opened(Wire)
        self.stock = self.opened(pg8000.native.Connection)

    def opened(self, kind):
        return kind(SUPERUSER, unix_sock=str(self.postgres.socket), database="postgres", ssl_context=False)

    def set(self, values):
        for connection in (self.ours, self.stock):
            for name, value in values.items():
                connection.run(f"SET {name} = '{value}'")

    def answers(self, sql, values, **params):
        """What each makes of it; stock pg8000 is of no use after a value that it could not convert."""
        ours = described(self.ours, sql, params)
        stock = described(self.stock, sql, params)
        if stock[0] != "rows":
            self.stock.close()
            self.stock = self.opened(pg8000.native.Connection)
            self.ours.close()
            self.ours = self.opened(Wire)
            self.set(values)
        return ours, stock

    def close(self):
        self.ours.close()
        self.stock.close()


def described(connection, sql, params):
    """The rows, each value with its type and all that tells it apart; or the error."""
    try:
        rows = connection.run(sql, **params)
    except Exception as error:
        return type(error).__name__, str(error) if not isinstance(error, pg8000.native.DatabaseError) else error.args[0]["C"]
    return "rows", [[(type(value), repr(value)) for value in row] for row in rows]


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
    connection = Wire(SUPERUSER, unix_sock=str(postgres.socket), database="postgres", ssl_context=False)
    yield connection
    connection.close()


def integers(bits):
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).map(str)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
DATES = st.dates().map(str) | st.sampled_from(
    ["infinity", "-infinity", "0044-03-15 BC", "4713-01-01 BC", "0001-01-01 BC", "10000-01-01", "99999-12-31", "5874897-12-31"]
)
MOMENTS = st.datetimes().map(str) | st.sampled_from(
    [
        "infinity",
        "-infinity",
        "0044-03-15 12:00:00 BC",
        "0001-12-31 23:59:59.5 BC",
        "2024-02-29 24:00:00",
        "2024-06-30 23:59:60",
        "1890-01-01 00:00:00",
        "9999-12-31 23:59:59.999999",
        "10000-01-01 00:00:00",
        "294276-12-31 23:59:59.999999",
    ]
)
NUMBERS = st.sampled_from(["NaN", "Infinity", "-Infinity", "-0", "0", "0.00", "1e-20", "-1.5"])
FLOATS = st.floats(width=32).map(str) | NUMBERS

VALUES = {
    "int2": integers(16),
    "int4": integers(32),
    "int8": integers(64),
    "oid": st.integers(0, 2**32 - 1).map(str),
    "text": TEXT,
    "varchar": TEXT,
    "char(5)": st.text("abc ", max_size=5),
    "name": TEXT.filter(lambda text: len(text.encode()) < 64),
    "numeric": st.decimals(allow_nan=False, allow_infinity=False, places=6).map(str) | NUMBERS,
    "numeric(12,2)": st.decimals(-1_000_000, 1_000_000, places=2).map(str),
    "date": DATES,
    "time": st.times().map(str) | st.just("24:00:00"),
    "timetz": st.times().map(str),
    "timestamp": MOMENTS,
    "timestamptz": MOMENTS,
    "interval": st.timedeltas().map(lambda delta: f"{delta.days} days {delta.seconds} seconds"),
    "uuid": st.uuids().map(str),
    "json": JSON.map(lambda value: f" {json.dumps(value, indent=1)}\n"),
    "jsonb": JSON.map(lambda value: json.dumps(value, ensure_ascii=False).replace("\\u0000", "")),
    "bool": st.sampled_from(["t", "f"]),
    "float4": FLOATS,
    "float8": st.floats().map(str) | NUMBERS,
    "bytea": st.binary(max_size=20).map(lambda data: f"\\x{data.hex()}"),
    "inet": st.ip_addresses().map(str),
    "int4[]": st.lists(integers(32), max_size=3).map(lambda each: f"{{{','.join(each)}}}"),
    "point": st.just("(1,2.5)"),
}
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "datestyle": st.sampled_from(["ISO, MDY", "ISO, DMY", "SQL, DMY", "SQL, MDY", "German", "Postgres, MDY"]),
        "timezone": st.sampled_from(
            ["UTC", "Asia/Kolkata", "America/New_York", "Europe/Amsterdam", "Pacific/Kiritimati", "Asia/Kathmandu", "-00:30"]
        ),
        "intervalstyle": st.sampled_from(["postgres", "postgres_verbose", "iso_8601", "sql_standard"]),
        "bytea_output": st.sampled_from(["hex", "escape"]),
        "client_encoding": st.sampled_from(["utf8", "latin1"]),
        "extra_float_digits": st.sampled_from(["0", "1"]),
    },
)
DEFAULTS = {
    "datestyle": "ISO, MDY",
    "timezone": "UTC",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "client_encoding": "utf8",
    "extra_float_digits": "1",
}


@pytest.mark.parametrize("kind", VALUES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_values_and_types_are_pg8000s_own(both, kind, data):
    """Whatever the value, the session's styles and the nulls between; also the errors are the same."""
    chosen = DEFAULTS | data.draw(SETTINGS)
    values = data.draw(st.lists(VALUES[kind] | st.none(), min_size=1, max_size=4))
    both.set(chosen)
    ours, stock = both.answers(
        f"SELECT CAST(v AS {kind}), 1 FROM unnest(CAST(:texts AS text[])) WITH ORDINALITY AS t(v, n) ORDER BY n",
        chosen,
        texts=[json.dumps(text) if text == "NULL" else text for text in values],
    )
    assert ours == stock


USUAL = """
SELECT g, 'naïve ' || g, g * 1.25, timestamptz '2024-01-02 03:04:05.6+00' + g * interval '1 s', md5(g::text)::uuid,
       jsonb_build_object('id', g, 'ünï', true), g % 2 = 0, g / 3.0::float8, date '2024-01-01' + g, NULL::text
FROM generate_series(1, {}) AS g
"""


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_simple_and_parameterised_calls_give_the_same_rows(both, count):
    """Rows of ten columns over many buffers, by both protocols."""
    both.set(DEFAULTS)
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


def test_text_that_is_no_json_raises_what_pg8000_raises(both):
    """Joined with its neighbours it must not become two values."""
    for connection in (both.ours, both.stock):
        connection.register_in_adapter(25, converters.json_in)
    ours, stock = both.answers("SELECT unnest(ARRAY['1,2', '3'])", DEFAULTS)
    assert ours == stock
    assert ours[0] == "JSONDecodeError"


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


@given(st.lists(st.lists(st.none() | st.binary(max_size=300), min_size=3, max_size=3)), st.integers(0, 2000), st.binary())
def test_only_complete_messages_are_cut(wanted, end, before):
    """A message that is not all there, or is another one, stays where it is."""
    messages = [message(*row) for row in wanted]
    stream = b"".join([before, *messages, b"C\0\0\0\4"])[: len(before) + end]
    values, count, position = rows.split(stream, len(before))
    complete = sum(len(b"".join(messages[: n + 1])) <= end for n in range(len(messages)))
    assert count == complete
    assert position == len(before) + len(b"".join(messages[:complete]))
    assert [value if value is None else value.encode("latin-1") for value in values] == [
        v for row in wanted[:complete] for v in row
    ]


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1), st.data())
def test_the_link_gives_back_what_came_in_whatever_the_pieces(pieces, data):
    """`fill` and `read`, over pieces of any size."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        for piece in pieces:
            theirs.send(piece)
    stream, read = b"".join(pieces), b""
    with closing(Link(ours)) as link:
        while len(read) < len(stream):
            size = data.draw(st.integers(1, len(stream) - len(read)))
            assert link.fill(size)
            read += link.read(size)
        assert read == stream
        assert not link.fill(1)
