"""What a value's text means: examples from PostgreSQL's manual, and what users of other drivers have reported as wrong."""

import datetime
import ipaddress
from decimal import Decimal

import pytest
from pg8000.types import PGInterval, Range

from dsql_lambda import Connection
from dsql_lambda.intervals import read_interval
from dsql_lambda.values import READERS
from dsql_local.postgres.server import Postgres
from dsql_local.postgres.template import SUPERUSER


@pytest.fixture(scope="module")
def postgres():
    postgres = Postgres()
    postgres.start()
    yield postgres
    postgres.stop()


@pytest.fixture
def connection(postgres):
    with Connection(SUPERUSER, unix_sock=str(postgres.socket), database="postgres", ssl_context=False) as connection:
        yield connection


def span(**parts):
    return datetime.timedelta(**parts)


INTERVALS = {
    # postgres
    "00:00:00": span(),
    "-02:03:04": -span(hours=2, minutes=3, seconds=4),
    "1 day -00:30:00": span(days=1, minutes=-30),
    "-1 days +02:03:00.5": span(days=-1, hours=2, minutes=3, seconds=0.5),
    "-00:00:00.000001": span(microseconds=-1),
    "2147483647:00:00": span(hours=2147483647),
    "1 mon": PGInterval(months=1),
    "1 year 2 mons -3 days +04:05:06.7": PGInterval(years=1, months=2, days=-3, hours=4, minutes=5, seconds=6.7),
    "-1 years -2 mons +3 days -04:05:06": PGInterval(years=-1, months=-2, days=3, hours=-4, minutes=-5, seconds=-6),
    "2147483647 days": PGInterval(days=2147483647),
    # postgres_verbose
    "@ 0": span(),
    "@ 1 day 2 hours 3 mins 4.5 secs": span(days=1, hours=2, minutes=3, seconds=4.5),
    "@ 4 hours 5 mins ago": -span(hours=4, minutes=5),
    "@ 1 day -2 hours ago": span(days=-1, hours=2),
    "@ 1 year 2 mons -3 days 4 hours 5 mins 6 secs ago": PGInterval(
        years=-1, months=-2, days=3, hours=-4, minutes=-5, seconds=-6
    ),
    # iso_8601
    "PT0S": span(),
    "P1DT2H3M4.5S": span(days=1, hours=2, minutes=3, seconds=4.5),
    "PT-0.000001S": span(microseconds=-1),
    "P-1Y-2M3DT-4H-5M-6S": PGInterval(years=-1, months=-2, days=3, hours=-4, minutes=-5, seconds=-6),
    # sql_standard
    "0": span(),
    "1 2:03:04.5": span(days=1, hours=2, minutes=3, seconds=4.5),
    "-1 2:03:04": -span(days=1, hours=2, minutes=3, seconds=4),
    "-2:03:04": -span(hours=2, minutes=3, seconds=4),
    "1-2": PGInterval(years=1, months=2),
    "-1-2": PGInterval(years=-1, months=-2),
    "+1-2 -3 +4:05:06": PGInterval(years=1, months=2, days=-3, hours=4, minutes=5, seconds=6),
    "+0-0 +1 -2:00:00": span(days=1, hours=-2),
    # what PostgreSQL 17 has
    "infinity": "infinity",
}


@pytest.mark.parametrize("text", INTERVALS)
def test_an_interval_keeps_every_sign(text):
    """In each of the four styles: one sign for all parts, or one for each."""
    assert read_interval(text) == INTERVALS[text]
    assert type(read_interval(text)) is type(INTERVALS[text])


ARRAYS = {
    "{}": [],
    "{a,b}": ["a", "b"],
    '{NULL,"NULL","",null}': [None, "NULL", "", "null"],
    '{"a,b","{}","\\"","\\\\","c d"}': ["a,b", "{}", '"', "\\", "c d"],
    '{"\n"}': ["\n"],
    "{{a,b},{c,NULL}}": [["a", "b"], ["c", None]],
    '{{{a},{"b,"}}}': [[["a"], ["b,"]]],
    "[0:1]={a,b}": ["a", "b"],
    "[-5:-4][9:9]={{a},{b}}": [["a"], ["b"]],
    '[0:0]={"[1:1]={a}"}': ["[1:1]={a}"],
    '{é,"é,"}': ["é", "é,"],
}


@pytest.mark.parametrize("text", ARRAYS)
def test_an_array_is_a_list(text):
    """Of lists where it has dimensions; its bounds are not kept."""
    assert READERS[1009](text) == ARRAYS[text]


RECORDS = {
    "()": (),
    "(1)": ("1",),
    "(,)": (None, None),
    '("",)': ("", None),
    '(1,,"a b")': ("1", None, "a b"),
    '("say ""x""","a\\\\b","(c,d)")': ('say "x"', "a\\b", "(c,d)"),
    '("(1,""x y"")","{a,b}")': ('(1,"x y")', "{a,b}"),
    '("\n")': ("\n",),
}


@pytest.mark.parametrize("text", RECORDS)
def test_a_record_is_a_tuple_of_texts(text):
    """NULL is None, and not an empty text."""
    assert READERS[2249](text) == RECORDS[text]


RANGES = {
    (3904, "empty"): Range(is_empty=True),
    (3904, "[1,5)"): Range(1, 5),
    (3904, "(,5]"): Range(None, 5, "(]"),
    (3906, "(1.5,)"): Range(Decimal("1.5"), None, "()"),
    (3912, "[2024-01-02,infinity)"): Range(datetime.date(2024, 1, 2), "infinity"),
    (3912, '["0044-03-15 BC",2024-01-02)'): Range("0044-03-15 BC", datetime.date(2024, 1, 2)),
    (3908, '["2024-01-02 03:04:05",)'): Range(datetime.datetime.fromisoformat("2024-01-02T03:04:05"), None),
    (3910, '(-infinity,"2024-01-02 03:04:05+05:30"]'): Range(
        "-infinity", datetime.datetime.fromisoformat("2024-01-02T03:04:05+05:30"), "(]"
    ),
    (4451, "{}"): [],
    (4451, "{[1,2),[5,)}"): [Range(1, 2), Range(5, None)],
    (4535, '{(,"0044-03-15 BC"),[2024-01-02,infinity]}'): [
        Range(None, "0044-03-15 BC", "()"),
        Range(datetime.date(2024, 1, 2), "infinity", "[]"),
    ],
    (3905, '{"[1,2)",empty,NULL}'): [Range(1, 2), Range(is_empty=True), None],
    (6150, '{"{[1,2)}","{}"}'): [[Range(1, 2)], []],
}


@pytest.mark.parametrize(("oid", "text"), RANGES)
def test_a_range_has_its_bounds(oid, text):
    """Quoted or not; one that Python has no type for is its text; a multirange is a list."""
    assert READERS[oid](text) == RANGES[oid, text]


def utc(text):
    return datetime.datetime.fromisoformat(f"{text}+00:00")


REPORTS = {
    # An interval's fraction of a second lost its minus: node-postgres 1380, pgdog 1316.
    "interval '-13 days -00:40:17.545936'": -span(days=13, minutes=40, seconds=17.545936),
    # A minus before the time was overlooked when days stood before it: psycopg 1071.
    "interval '1 day -01:02:03'": span(days=1, hours=-1, minutes=-2, seconds=-3),
    # BC read as AD, or a year beside it: node-postgres 424, postgres-date 5, azuredatastudio-postgresql 250.
    "date '0063-01-01 BC'": "0063-01-01 BC",
    "timestamp '0001-01-01 00:00:00 BC'": "0001-01-01 00:00:00 BC",
    # Years of one or two digits taken for the 20th century: node-postgres 425, porsager/postgres 1185.
    "timestamptz '0050-06-15 12:30:00+00'": utc("0050-06-15T12:30:00"),
    # Years past 9999 taken for others: pipelinewise-tap-postgres 62.
    "timestamptz '15000-12-31 23:40:28+00'": "15000-12-31 23:40:28+00",
    # infinity as an error, or as no date at all: psycopg 1251, porsager/postgres 728.
    "ARRAY[date 'infinity', date '-infinity']": ["infinity", "-infinity"],
    # Offsets with minutes and with seconds: pg8000 117, psycopg2 1272, postgresql-simple 122.
    "timestamptz '1777-11-13 18:30:00+00' AT TIME ZONE 'Europe/Paris'": datetime.datetime.fromisoformat("1777-11-13T18:39:21"),
    # NULL and 'NULL' in an array: node-postgres 103.
    "ARRAY['NULL', NULL, 'null']": ["NULL", None, "null"],
    # The bounds of an array became a part of it: postgres-array 2, node-postgres 870, PyGreSQL 10, ruby-pg 272.
    "'[0:0]={example}'::text[]": ["example"],
    "'[9:10]={0,0}'::int[]": [0, 0],
    # An empty text in a row became None: psycopg2 141, duckdb 23789.
    "ROW(1, '')": ("1", ""),
    "ROW(13458706, NULL)": ("13458706", None),
    # Bounds of ranges of moments kept their quotes, or lost BC: rails 37648.
    "tsrange('0044-03-15 BC', '2018-01-01')": Range(
        "0044-03-15 00:00:00 BC", datetime.datetime.fromisoformat("2018-01-01T00:00:00")
    ),
    # A netmask lost the bits of the host: python-postgres/fe 71.
    "inet '10.0.0.1/24'": ipaddress.ip_interface("10.0.0.1/24"),
}


@pytest.mark.parametrize("sql", REPORTS)
def test_what_was_reported_of_other_drivers_is_right_here(connection, sql):
    """Read from the server."""
    assert connection.run(f"SELECT {sql}") == [[REPORTS[sql]]]


SENT = [
    # Line ends in an array's text were not quoted: pg8000 115.
    ("text[]", ["a", "\r\n", "b"], '{a,"\r\n",b}'),
    # An empty text in an array was left out, None was the text "null": postgresql-for-doctrine 40, pgadapter 87.
    ("text[]", ["", None, "NULL"], '{"",NULL,"NULL"}'),
    # Bounds with a comma or a quote: rails 57515, pgx 2647 and 2651.
    ("words", Range("a,b", 'c"d'), '["a,b","c""d")'),
    ("several_words", [Range("a,b", "c}"), Range("d\\", 'e"')], '{["a,b",c}),["d\\\\","e""")}'),
    # None in a row: psycopg2 26.
    ("a_row", (1, None, "hi"), "(1,,hi)"),
    # A time with an offset was sent as one without: psycopg2 272.
    ("timetz", datetime.time(12, tzinfo=datetime.timezone(datetime.timedelta(hours=-5))), "12:00:00-05"),
    # An address with a netmask: psycopg2 1574.
    ("inet", ipaddress.ip_interface("10.0.0.1/24"), "10.0.0.1/24"),
]


@pytest.mark.parametrize(("kind", "value", "text"), SENT)
def test_what_was_reported_of_other_drivers_is_sent_right(connection, kind, value, text):
    """The server writes it as it should be."""
    connection.run("BEGIN")
    connection.run("CREATE TYPE words AS RANGE (subtype = text, multirange_type_name = several_words)")
    connection.run("CREATE TYPE a_row AS (a int, b text, c text)")
    assert connection.run(f"SELECT (:v::{kind})::text", v=value) == [[text]]
    connection.run("ROLLBACK")


def test_a_prepared_statement_refuses_what_others_refuse(connection):
    """pg8000 writes its values by itself, from the connection's table."""
    statement = connection.prepare("SELECT CAST(:v AS text)")
    with pytest.raises(TypeError, match="no type for a set"):
        statement.run(v={1})
    assert statement.run(v=["null", None]) == [['{"null",NULL}']]
    statement.close()
