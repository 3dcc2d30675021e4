"""Each type of DSQL's, there and back: the values that psycopg 3 gives, or what docs/values.md says of the difference.

Generated values go to a plain PostgreSQL; psycopg's own loaders read the bytes that it answers with, and its dumpers write
what ours write.
"""

import datetime
import enum
import ipaddress
import json
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pg8000.types import PGInterval, Range
from psycopg.adapt import Transformer
from psycopg.pq import Format

from dsql_lambda import Connection, DatabaseError
from dsql_local.postgres.server import Postgres
from dsql_local.postgres.template import SUPERUSER

DEFAULTS = {"datestyle": "ISO, MDY", "timezone": "UTC", "intervalstyle": "postgres", "bytea_output": "hex"}

campaign = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


class Both:
    """A connection of ours and one of psycopg's, to one plain PostgreSQL, with the same settings."""

    def __init__(self, postgres):
        self.ours = Connection(SUPERUSER, unix_sock=str(postgres.socket), database="postgres", ssl_context=False)
        self.theirs = psycopg.connect(host=str(postgres.folder), user=SUPERUSER, dbname="postgres", autocommit=True)
        self.set({})
        self.ours.run("CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE TYPE pair AS (a text, b text)")
        self.ours.run("CREATE TYPE nested AS (first pair, others pair[])")

    def set(self, values):
        for name, value in (DEFAULTS | values).items():
            self.ours.run(f"SET {name} = '{value}'")
            self.theirs.execute(f"SET {name} = '{value}'")

    def read(self, kind, texts):
        """For each text cast to the type: what we read, what psycopg reads (or its error), and what the server wrote."""
        sql = f"SELECT CAST(v AS {kind}) FROM unnest(CAST({{}} AS text[])) WITH ORDINALITY AS t(v, n) ORDER BY n"
        ours = [value for (value,) in self.ours.run(sql.format(":texts"), texts=texts)]
        answer: Any = self.theirs.execute(sql.format("%s"), (texts,)).pgresult
        written = [answer.get_value(row, 0) for row in range(len(texts))]
        loader = Transformer(self.theirs).get_loader(answer.ftype(0), Format.TEXT)
        return [(own, loaded(loader, data), data.decode()) for own, data in zip(ours, written, strict=True)]

    def psycopg(self, sql: Any, *values: Any) -> Any:
        """A value as psycopg reads it."""
        row = self.theirs.execute(sql, values or None).fetchone()
        assert row is not None
        return row[0]

    def read_or_none(self, kind, texts):
        """What we read, with None for None."""
        found = iter(self.read(kind, [text for text in texts if text is not None]))
        return [None if text is None else next(found)[0] for text in texts]

    def written(self, kind, value, theirs):
        """What the server makes of a value cast to the type, sent by us and by psycopg: the text of each."""
        ((text,),) = self.ours.run(f"SELECT CAST(CAST(:v AS {kind}) AS text)", v=value)
        return text, self.psycopg(f"SELECT CAST(CAST(%s AS {kind}) AS text)", theirs)

    def back(self, kind, value):
        """A value written and read by us."""
        return self.ours.run(f"SELECT CAST(:v AS {kind})", v=value)[0][0]

    def read_by_psycopg(self, kind, value):
        """A value written by us and read by psycopg."""
        text = self.ours.run(f"SELECT CAST(CAST(:v AS {kind}) AS text)", v=value)[0][0]
        return self.psycopg(f"SELECT CAST(%s AS {kind})", text)

    def close(self):
        self.ours.close()
        self.theirs.close()


def loaded(loader, data):
    try:
        return loader.load(data)
    except (psycopg.DataError, NotImplementedError) as error:
        return error


@pytest.fixture(scope="module")
def both():
    postgres = Postgres()
    postgres.start()
    both = Both(postgres)
    yield both
    both.close()
    postgres.stop()


def integers(bits):
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20) | st.sampled_from(
    [
        "",
        "NULL",
        "null",
        "nUlL",
        '"',
        "\\",
        "\\\\",
        '\\"',
        "{}",
        "a,b",
        "(x)",
        "[1,2)",
        " ",
        "\t\n\r\v\f",
        "'",
        "é",
        "\u2028",
        "𝄞",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ZONES = st.sampled_from(
    ["UTC", "Asia/Kolkata", "America/New_York", "Europe/Amsterdam", "Pacific/Kiritimati", "Africa/Monrovia"]
).map(ZoneInfo)
OFFSETS = st.integers(-15 * 3600, 15 * 3600).map(lambda seconds: datetime.timezone(datetime.timedelta(seconds=seconds)))
FAR_DATES = [
    "infinity",
    "-infinity",
    "0044-03-15 BC",
    "4713-01-01 BC",
    "0001-01-01 BC",
    "10000-01-01",
    "99999-12-31",
    "5874897-12-31",
]
FAR_MOMENTS = [
    *("infinity", "-infinity", "0044-03-15 12:00:00 BC", "0001-12-31 23:59:59.5 BC", "0001-12-31 23:59:59.123456 BC"),
    *("9999-12-31 23:59:59.999999", "10000-01-01 00:00:00", "123410-05-05 10:10:10", "294276-12-31 23:59:59.999999"),
    *("2024-02-29 24:00:00", "2024-06-30 23:59:60", "1890-01-01 00:00:00", "0001-01-01 00:00:00"),
]
NUMBERS = st.sampled_from(["NaN", "Infinity", "-Infinity", "-0", "0", "0.00", "1e-20", "-1.5", "1" * 60, "0." + "3" * 60])


def interval_text(parts):
    return " ".join(f"{amount:+} {unit}" for unit, amount in zip(("months", "days", "microseconds"), parts, strict=True))


SPANS = st.tuples(st.just(0), st.integers(-(10**6), 10**6), st.integers(-(10**15), 10**15)).map(interval_text)
MONTHS = st.tuples(st.integers(-5000, 5000), st.integers(-1000, 1000), st.integers(-(10**12), 10**12)).map(interval_text)
ADDRESSES = st.ip_addresses().flatmap(
    lambda address: st.integers(0, address.max_prefixlen).map(lambda length: f"{address}/{length}") | st.just(str(address))
)

# By DSQL's page of types: the columns', then those of a query's run time. For each, texts that PostgreSQL casts to it.
TYPES = {
    "smallint": integers(16).map(str),
    "integer": integers(32).map(str),
    "bigint": integers(64).map(str),
    "real": st.floats(width=32).map(str) | NUMBERS.filter(lambda text: len(text) < 30),
    "double precision": st.floats().map(str) | NUMBERS,
    "numeric": st.decimals(allow_nan=False, allow_infinity=False).filter(lambda d: abs(d.adjusted()) < 300).map(str) | NUMBERS,
    "numeric(18,6)": st.decimals(-(10**11), 10**11, places=6).map(str) | st.just("NaN"),
    "char(5)": st.text("abc é", max_size=5),
    "varchar": TEXT,
    "varchar(9)": st.text("abc'\"é", max_size=9),
    "bpchar": TEXT,
    "text": TEXT,
    "date": st.dates().map(str) | st.sampled_from(FAR_DATES),
    "time": st.times().map(str) | st.just("24:00:00"),
    "timetz": st.builds(lambda time, zone: str(time.replace(tzinfo=zone)), st.times(), OFFSETS) | st.just("24:00:00+00"),
    "timestamp": st.datetimes().map(str) | st.sampled_from(FAR_MOMENTS),
    "timestamptz": st.datetimes().map(str) | st.sampled_from(FAR_MOMENTS),
    "interval": SPANS | MONTHS,
    "boolean": st.sampled_from(["t", "f"]),
    "bytea": st.binary(max_size=20).map(lambda data: f"\\x{data.hex()}"),
    "uuid": st.uuids().map(str),
    "json": JSON.map(lambda value: f" {json.dumps(value, indent=1)}\n"),
    "jsonb": JSON.map(lambda value: json.dumps(value, ensure_ascii=False).replace("\\u0000", "")),
    "inet": ADDRESSES,
}


EPOCH = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)


def plain(value):
    """A value with its type and all that tells it apart, but for the class of a time zone."""
    if isinstance(value, list | tuple):
        return type(value), [plain(each) for each in value]
    if isinstance(value, datetime.datetime) and (offset := value.utcoffset()) is not None:
        return datetime.datetime, value.replace(tzinfo=datetime.UTC) - EPOCH - offset
    if isinstance(value, Range):
        return Range, value.is_empty or (plain(value.lower), plain(value.upper), value.bounds)
    return type(value), repr(value)


def expected(theirs, text):
    """What docs/values.md says that is read here, given what psycopg reads of the server's text."""
    if isinstance(theirs, psycopg.DataError):
        return text  # a value that Python has no type for
    if isinstance(theirs, ipaddress.IPv4Interface | ipaddress.IPv6Interface) and theirs.ip == theirs.network.network_address:
        return theirs.network
    return theirs


def has_months(text):
    return "mon" in text or "year" in text


@pytest.mark.parametrize("kind", TYPES)
@campaign
@given(data=st.data())
def test_a_value_is_read_as_psycopg_reads_it(both, kind, data):
    """Or as the table of differences says."""
    texts = data.draw(st.lists(TYPES[kind], min_size=1, max_size=20))
    for ours, theirs, text in both.read(kind, texts):
        if kind == "interval" and has_months(text):
            assert isinstance(ours, PGInterval), text  # whose months psycopg has as 30 days
        else:
            assert plain(ours) == plain(expected(theirs, text)), text


@pytest.mark.parametrize("kind", TYPES)
@campaign
@given(data=st.data())
def test_a_value_that_was_read_is_written_as_the_same(both, kind, data):
    """Also where it is PostgreSQL's text, or a PGInterval."""
    texts = data.draw(st.lists(TYPES[kind], min_size=1, max_size=3))
    for ours, _, _ in both.read(kind, texts):
        value = json.dumps(ours) if kind in {"json", "jsonb"} else ours
        assert plain(both.back(kind, value)) == plain(ours)


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind not in {"json", "jsonb"}])
@campaign
@given(data=st.data())
def test_an_array_is_read_and_written_element_by_element(both, kind, data):
    """With NULLs, in one dimension or two, and whatever its bounds are."""
    width = data.draw(st.integers(1, 3))
    rows = data.draw(st.lists(st.lists(TYPES[kind] | st.none(), min_size=width, max_size=width), min_size=1, max_size=3))
    texts = rows if data.draw(st.booleans()) else rows[0]
    flat = [text for row in rows for text in row] if texts is rows else rows[0]
    elements = iter(both.read_or_none(kind, flat))
    wanted = [[next(elements) for _ in row] for row in rows] if texts is rows else list(elements)
    read = both.ours.run(f"SELECT CAST(CAST(:texts AS text[]) AS {kind}[])", texts=texts)[0][0]
    assert plain(read) == plain(wanted)
    assert plain(both.back(f"{kind}[]", read)) == plain(wanted)


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 7


class Text(str):
    __slots__ = ()

    def __str__(self):
        return "for people"


class Moment(datetime.datetime):
    pass


def as_memoryview(data: bytes) -> memoryview:
    return memoryview(data)


# What is written, for each Python type, and the types that it may be cast to. A pair of functions where psycopg has a type of
# its own for it.
WRITTEN = {
    "bool": (st.booleans(), ["boolean", "text"]),
    "int": (integers(64), ["bigint", "numeric", "text"]),
    "small int": (integers(16), ["smallint", "integer", "real"]),
    "float": (st.floats(), ["double precision"]),
    # Not -NaN, which psycopg sends as it is, and PostgreSQL refuses.
    "decimal": (st.decimals().filter(lambda d: not d.is_signed() if d.is_nan() else abs(d.adjusted()) < 300), ["numeric"]),
    "str": (TEXT, ["text", "varchar", "bpchar"]),
    "str subclass": (TEXT.map(Text), ["text"]),
    "str enum": (st.just(Colour.RED), ["text"]),
    "int enum": (st.just(Level.HIGH), ["integer"]),
    "bytes": (st.binary(), ["bytea"]),
    "bytearray": (st.binary().map(bytearray), ["bytea"]),
    "memoryview": (st.binary().map(as_memoryview), ["bytea"]),
    "uuid": (st.uuids(), ["uuid", "text"]),
    "date": (st.dates(), ["date", "timestamp"]),
    "time": (st.times(), ["time"]),
    "time with an offset": (st.builds(lambda time, zone: time.replace(tzinfo=zone), st.times(), OFFSETS), ["timetz"]),
    "datetime": (st.datetimes(), ["timestamp"]),
    "datetime subclass": (st.datetimes().map(lambda at: Moment(*at.timetuple()[:6])), ["timestamp"]),
    "datetime with a zone": (st.datetimes(timezones=ZONES), ["timestamptz", "timestamp", "date"]),
    "datetime with an offset": (st.datetimes(timezones=OFFSETS), ["timestamptz", "timestamp"]),
    "timedelta": (st.timedeltas(), ["interval"]),
    "ip": (st.ip_addresses(), ["inet"]),
    "ip interface": (ADDRESSES.map(ipaddress.ip_interface), ["inet"]),
    "list of str": (st.lists(TEXT | st.none(), max_size=4), ["text[]"]),
    "list of lists": (st.lists(st.tuples(TEXT, TEXT).map(list), min_size=1, max_size=3), ["text[]", "varchar[]"]),
    "list of int": (st.lists(integers(32) | st.none(), max_size=4), ["int[]", "numeric[]"]),
    "list of bytes": (st.lists(st.binary(max_size=5), max_size=3), ["bytea[]"]),
    "list of datetimes": (st.lists(st.datetimes(timezones=ZONES), max_size=3), ["timestamptz[]"]),
    "list of timedeltas": (st.lists(st.timedeltas(), max_size=3), ["interval[]"]),
    "list of uuids": (st.lists(st.uuids(), max_size=3), ["uuid[]"]),
    "None": (st.none(), ["integer", "text"]),
}


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, (_, kinds) in WRITTEN.items() for kind in kinds])
@campaign
@given(data=st.data())
def test_a_value_is_written_as_psycopg_writes_it(both, name, kind, data):
    """The server makes the same of it."""
    value = data.draw(WRITTEN[name][0])
    try:
        ours, theirs = both.written(kind, value, value)
    except psycopg.Error as refused:  # then it is refused here as well
        with pytest.raises(DatabaseError, match=refused.sqlstate):
            both.back(kind, value)
    else:
        assert ours == theirs


PAIRS = st.tuples(TEXT | st.none(), TEXT | st.none())


@campaign
@given(PAIRS, st.tuples(PAIRS | st.none(), st.lists(PAIRS, max_size=3)))
def test_a_row_is_written_as_psycopg_writes_it(both, pair, nested):
    """A tuple, and tuples and lists in it."""
    for kind, value in (("pair", pair), ("nested", nested)):
        ours, theirs = both.written(kind, value, value)
        assert ours == theirs


@campaign
@given(st.lists(TEXT | st.none(), max_size=4))
def test_a_record_is_read_as_psycopg_reads_it(both, fields):
    """A tuple of texts, with NULLs, quotes and backslashes."""
    sql = f"SELECT ROW({', '.join('CAST({} AS text)' for _ in fields)})"
    names = [f"f{n}" for n in range(len(fields))]
    ours = both.ours.run(sql.format(*(f":{name}" for name in names)), **dict(zip(names, fields, strict=True)))[0][0]
    assert ours == both.psycopg(sql.format(*["%s"] * len(fields)), *fields)
    if fields not in ([], [None]):  # ROW() and ROW(NULL) are one text
        assert ours == tuple(fields)


STYLES = ["postgres", "postgres_verbose", "iso_8601", "sql_standard"]


@pytest.mark.parametrize("style", STYLES)
@campaign
@given(texts=st.lists(SPANS | MONTHS, min_size=1, max_size=10))
def test_an_interval_is_the_same_in_every_style(both, style, texts):
    """Signs, mixed signs and fractions, to be read and to be written."""
    wanted = [ours for ours, _, _ in both.read("interval", texts)]
    both.set({"intervalstyle": style})
    try:
        read = [ours for ours, _, _ in both.read("interval", texts)]
        assert [plain(each) for each in read] == [plain(each) for each in wanted]
        assert [plain(both.back("interval", each)) for each in read[:2]] == [plain(each) for each in wanted[:2]]
    finally:
        both.set({})


@pytest.mark.parametrize("style", ["SQL, DMY", "SQL, MDY", "German", "Postgres, MDY", "Postgres, DMY"])
@pytest.mark.parametrize("kind", ["date", "timestamp", "timestamptz"])
@campaign
@given(data=st.data())
def test_a_date_of_another_style_is_never_a_wrong_one(both, kind, style, data):
    """Whether the day or the month comes first, the text does not tell: it stays as it is."""
    texts = data.draw(st.lists(TYPES[kind], min_size=1, max_size=10))
    both.set({"datestyle": style})
    try:
        for ours, _, text in both.read(kind, texts):
            assert ours == text
    finally:
        both.set({})


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/New_York", "Europe/Amsterdam", "Pacific/Kiritimati", "-00:30"])
@campaign
@given(texts=st.lists(TYPES["timestamptz"].filter(lambda text: "294276" not in text), min_size=1, max_size=10))
def test_a_moment_is_the_same_in_every_time_zone(both, zone, texts):
    """Also where the zone's offset has minutes and seconds."""
    both.set({"timezone": zone})
    try:
        for ours, theirs, text in both.read("timestamptz", texts):
            assert plain(ours) == plain(expected(theirs, text))
    finally:
        both.set({})


@campaign
@given(st.binary())
def test_bytes_are_the_same_in_every_output(both, data):
    """`bytea_output = escape` is read too."""
    both.set({"bytea_output": "escape"})
    try:
        assert both.back("bytea", data) == data
    finally:
        both.set({})


RANGES = {
    "int4range": (integers(31), ""),
    "int8range": (integers(63), ""),
    "numrange": (st.decimals(-1000, 1000, places=3), ""),
    "daterange": (st.dates(datetime.date(2, 1, 1), datetime.date(9998, 1, 1)), ""),
    "tsrange": (st.datetimes(), ""),
    "tstzrange": (st.datetimes(timezones=st.just(datetime.UTC)), ""),
}


@pytest.mark.parametrize("kind", RANGES)
@campaign
@given(data=st.data())
def test_ranges_and_multiranges_come_back(both, kind, data):
    """As psycopg's, with other classes: a `Range` of pg8000's, and a list of them."""
    bounds = st.none() | RANGES[kind][0]

    def one():
        lower, upper = data.draw(bounds), data.draw(bounds)
        if lower is not None and upper is not None and lower > upper:
            lower, upper = upper, lower
        return Range(lower, upper, bounds=data.draw(st.sampled_from(["[)", "(]", "[]", "()"])))

    def as_ours(theirs):
        return Range(theirs.lower, theirs.upper, theirs.bounds) if theirs else Range(is_empty=True)

    value = one()
    ours = both.back(kind, value)
    theirs = both.read_by_psycopg(kind, value)
    assert plain(ours) == plain(as_ours(theirs))
    several = [one(), one()]
    multirange = kind.replace("range", "multirange")
    ours = both.back(multirange, several)
    theirs = both.read_by_psycopg(multirange, several)
    assert plain(ours) == plain([as_ours(each) for each in theirs])


OTHERS = [
    *("'a'::\"char\"", "'\\377'::\"char\"", "12.34::money", "'-12.34'::money", "b'101'", "b''::varbit", "xml '<a>&lt;</a>'"),
    *(
        "to_tsvector('simple', 'a ''b'' c')",
        "to_tsquery('a & b')",
        "timetz '12:00:00.5+05:30'",
        "'10.0.0.0/8'::cidr",
        "'::1'::cidr",
    ),
    *("macaddr '08:00:2b:01:02:03'", "macaddr8 '08:00:2b:01:02:03:04:05'", "'16/B374D848'::pg_lsn", "1::oid", "'5'::xid8"),
    *("'pg_class'::regclass", "'a'::name", "jsonpath '$.a'", "NULL", "'x'", "'1 2'::oidvector", "path '((1,2),(3,4))'"),
    *("'{}'::int[]", "'[0:2]={1,NULL,3}'::int[]", "'[-1:0][2:3]={{a,b},{c,\"d,\"}}'::text[]", "ARRAY[]::text[]"),
    *("ARRAY[timetz '12:00+01']", "ARRAY[xml '<a/>']", "ARRAY[box '((1,2),(3,4))', box '((5,6),(7,8))']", "ARRAY[1::oid]"),
    *("ARRAY[ROW(1, 'x, y', NULL), ROW(2, '\"', '')]", "ARRAY['{\"a\": [1, null]}'::jsonb]", "'{\"{}\"}'::json[]"),
    *(
        "ROW(ROW(1, NULL), ARRAY['a b'])",
        "ARRAY['a'::\"char\"]",
        "ARRAY[b'1']",
        "ARRAY['1'::money]",
        "'{1,2}'::positive[]",
        "7::positive",
    ),
]


@pytest.mark.parametrize("sql", OTHERS)
def test_other_types_are_read_as_psycopg_reads_them(both, sql):
    """Types that a query can answer with, arrays of them with any bounds, and domains."""
    assert plain(both.ours.run(f"SELECT {sql}")[0][0]) == plain(both.psycopg(f"SELECT {sql}"))


DIFFERENT = {
    "'1 2'::int2vector": [1, 2],
    "'5'::xid": 5,
    "point '(1,2.5)'": (1.0, 2.5),
    "interval '1 mon -2 days'": PGInterval(months=1, days=-2),
    "interval '2147483647 days'": PGInterval(days=2147483647),
    "inet '10.0.0.0/8'": ipaddress.ip_network("10.0.0.0/8"),
    "time '24:00'": "24:00:00",
    "date 'infinity'": "infinity",
    "timestamp '0044-03-15 12:00 BC'": "0044-03-15 12:00:00 BC",
    "timestamptz '10000-01-01'": "10000-01-01 00:00:00+00",
    "'{1.5}'::numeric[]": [Decimal("1.5")],
}


@pytest.mark.parametrize("sql", DIFFERENT)
def test_the_differences_are_those_that_the_page_names(both, sql):
    """Each is what pg8000 documents, or a text where psycopg has an error."""
    assert plain(both.ours.run(f"SELECT {sql}")[0][0]) == plain(DIFFERENT[sql])


def test_every_array_type_that_postgresql_has_is_read_as_a_list(both):
    """None of the server's catalog is missing, and each delimiter is known."""
    from dsql_lambda.values import READERS

    rows = both.ours.run(
        "SELECT a.oid, e.oid, e.typdelim::text FROM pg_type a JOIN pg_type e ON a.typelem = e.oid AND e.typarray = a.oid "
        "WHERE a.oid < 10000 AND e.typtype <> 'c'"
    )
    assert len(rows) > 70
    for array, element, delimiter in rows:
        assert READERS[array]("{}") == [], array
        assert READERS[array](f"{{NULL{delimiter}NULL}}") == [None, None], array
        assert element in READERS or delimiter == ";"
