"""What is sent for a Python value, and what is refused: by name, with what to do, before anything is sent."""

import array
import datetime
import enum
import ipaddress
import json
import numbers
import re
import subprocess
import sys
import types
from collections import OrderedDict, namedtuple
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from pg8000.converters import make_params
from pg8000.types import PGInterval, Range

from dsql_lambda.parameters import WRITERS, Writers, oid_of, to_texts


class Colour(enum.Enum):
    RED = "red"
    NUMBER = 5
    MOMENT = datetime.date(2024, 1, 2)


class Mixed(str, enum.Enum):  # noqa: UP042 - its `str` is another
    RED = "red"


class MixedNumber(int, enum.Enum):
    SEVEN = 7


class Level(enum.IntEnum):
    HIGH = 7


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Shown(str):
    __slots__ = ()

    def __str__(self):
        return "for people"


class ShownNumber(int):
    def __repr__(self):
        return "for people"


class ShownFloat(float):
    def __repr__(self):
        return "for people"


class Moment(datetime.datetime):
    def isoformat(self, *_):
        return "for people"


Point = namedtuple("Point", "x y")


def identifier(value):
    """A parameter as it stands in a test's name: the same in every process, so without its address."""
    return re.sub(" at 0x[0-9a-f]+", "", repr(value))[:40]


SENT = [
    (None, None),
    (True, "true"),
    (7, "7"),
    (-(2**70), str(-(2**70))),
    ("", ""),
    ("null", "null"),
    ("𝄞", "𝄞"),
    (1e-07, "1e-07"),
    (float("inf"), "Infinity"),
    (float("-inf"), "-Infinity"),
    (float("nan"), "NaN"),
    (Decimal("1.50"), "1.50"),
    (Decimal("1E+3"), "1E+3"),
    (Decimal("-Infinity"), "-Infinity"),
    (Decimal("-NaN"), "NaN"),
    (Decimal("sNaN12"), "NaN"),
    (b"ab", "\\x6162"),
    (b"", "\\x"),
    (bytearray(b"ab"), "\\x6162"),
    (memoryview(b"abcd")[::2], "\\x6163"),
    (memoryview(b"abcd").cast("B", (2, 2)), "\\x61626364"),
    (array.array("B", b"ab"), "\\x6162"),
    (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (ipaddress.ip_address("::1"), "::1"),
    (ipaddress.ip_network("10.0.0.0/8"), "10.0.0.0/8"),
    (ipaddress.ip_interface("10.0.0.1/8"), "10.0.0.1/8"),
    (datetime.date(44, 3, 15), "0044-03-15"),
    (datetime.time(1, 2, 3, 4), "01:02:03.000004"),
    (datetime.datetime.fromisoformat("2024-01-02T03:04:05.000006"), "2024-01-02T03:04:05.000006"),
    (datetime.datetime(2024, 7, 2, 3, tzinfo=ZoneInfo("America/New_York")), "2024-07-02T07:00:00+00:00"),
    (datetime.datetime(2024, 11, 3, 1, 30, fold=0, tzinfo=ZoneInfo("America/New_York")), "2024-11-03T05:30:00+00:00"),
    (datetime.datetime(2024, 11, 3, 1, 30, fold=1, tzinfo=ZoneInfo("America/New_York")), "2024-11-03T06:30:00+00:00"),
    (
        datetime.datetime.max.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=-5))),
        "9999-12-31T23:59:59.999999-05:00",
    ),
    (datetime.timedelta(seconds=-1), "-1 days +86399 seconds +0 microseconds"),
    (PGInterval(years=1, months=-2, seconds=1e-06), "+1 years -2 months +0.000001 seconds"),
    (PGInterval(millennia=1, weeks=2, microseconds=-3), "+1 millennia +2 weeks -3 microseconds"),
    (PGInterval(), "0 seconds"),
    ({"a": [1, None, "é"]}, '{"a": [1, null, "\\u00e9"]}'),
    (OrderedDict(a=1), '{"a": 1}'),
    (Range(1, 5), "[1,5)"),
    (Range(None, 5, "(]"), "(,5]"),
    (Range(is_empty=True), "empty"),
    (Range("a,b", 'c"d'), '["a,b","c\\"d")'),
    ([], "{}"),
    ([1, None, 3], "{1,NULL,3}"),
    (["null", "NULL", "nUlL", "", " ", "a,b", '"', "\\", "é"], '{"null","NULL","nUlL",""," ","a,b","\\"","\\\\","é"}'),
    ([[1, 2], [3, None]], "{{1,2},{3,NULL}}"),
    ([b"ab"], '{"\\\\x6162"}'),
    ([{"a": 1}], '{"{\\"a\\": 1}"}'),
    ([Range(1, 5), Range(7, 8)], "{[1,5),[7,8)}"),
    ([Colour.RED, Level.HIGH], "{red,7}"),
    ((1, None, "", "a b"), '(1,,"","a b")'),
    ((2.5, -1), "(2.5,-1)"),
    (((1, 2), [3]), '("(1,2)","{3}")'),
    ([(1, "x")], '{"(1,x)"}'),
    (Point(1, 2), "(1,2)"),
    (Colour.RED, "red"),
    (Colour.NUMBER, "5"),
    (Colour.MOMENT, "2024-01-02"),
    (Mixed.RED, "red"),
    (MixedNumber.SEVEN, "7"),
    (Level.HIGH, "7"),
    (Access.READ | Access.WRITE, "3"),
    (Shown("right"), "right"),
    (ShownNumber(5), "5"),
    (ShownFloat(1.5), "1.5"),
    (Moment(2024, 1, 2), "2024-01-02T00:00:00"),
    (np.int64(7), "7"),
    (np.uint8(7), "7"),
    (np.float64(0.1), "0.1"),
    (np.float32(0.5), "0.5"),
    (np.bool_(True), "true"),
    (np.str_("a"), "a"),
    (np.bytes_(b"a"), "\\x61"),
    (np.datetime64("2024-01-02T03:04:05", "us"), "2024-01-02T03:04:05"),
    (np.timedelta64(5, "s"), "+0 days +5 seconds +0 microseconds"),
    ([np.int32(1), 2], "{1,2}"),
]


@pytest.mark.parametrize(("value", "wanted"), SENT, ids=identifier)
def test_a_value_is_sent_as_text(value, wanted):
    """As PostgreSQL reads it, and never what `__str__` or `__repr__` of a subclass says."""
    assert to_texts([value], WRITERS) == [wanted]


class Unknown:
    def __str__(self):
        return "sent by mistake"


endless: list[object] = []
endless.append(endless)
circle: dict[str, object] = {}
circle["circle"] = circle

REFUSED = [
    ({1, 2}, TypeError, "no type for a set: pass a list"),
    (frozenset(), TypeError, "no type for a frozenset: pass a list"),
    (range(3), TypeError, "no type for a range: pass a list"),
    ({}.keys(), TypeError, "no type for a dict_keys: pass a list"),
    (map(str, ()), TypeError, "no type for a map: pass a list"),
    (np.array([1]), TypeError, "no type for a numpy.ndarray: pass a list"),
    (Unknown(), TypeError, "no type for a .*Unknown: pass str.it. if its text is meant, or register"),
    (Unknown, TypeError, "no type for a type"),
    (1j, TypeError, "no type for a complex"),
    (types.SimpleNamespace(), TypeError, "no type for a types.SimpleNamespace"),
    (array.array("i", [1]), TypeError, r"two things: pass tolist\(\) for an array, tobytes\(\) for bytea"),
    (np.datetime64("2024-01-02", "ns"), TypeError, "no value for this numpy.datetime64"),
    (np.timedelta64(5, "ns"), TypeError, "no value for this numpy.timedelta64"),
    (np.longdouble(1), TypeError, "no value for this numpy.longdouble"),
    ([1, {2}], TypeError, "no type for a set"),
    (("a", Unknown()), TypeError, "no type for a .*Unknown"),
    ({"a": Unknown()}, TypeError, "JSON, and this one can't be: Object of type Unknown"),
    (circle, ValueError, "JSON, and this one can't be: Circular"),
    ([[1], [2, 3]], ValueError, "of one length"),
    ([[1], 2], ValueError, "of one length"),
    ([[1], None], ValueError, "of one length"),
    ([[]], ValueError, "of one length, which is not 0"),
    ([[[1]], [[1], [2]]], ValueError, "of one length"),
    (endless, ValueError, "six dimensions at most"),
    ("a\0b", ValueError, "a NUL character at 1, which PostgreSQL can't hold"),
    (["\0"], ValueError, "a NUL character"),
    ("é\ud800", ValueError, "half a surrogate pair at 1"),
    (datetime.time(1, tzinfo=ZoneInfo("Europe/Paris")), ValueError, "Europe/Paris is not known without a date"),
]


@pytest.mark.parametrize(("value", "kind", "why"), REFUSED, ids=identifier)
def test_a_value_without_a_text_is_refused(value, kind, why):
    """With the parameter's name or number, what is wrong, and what to do; the value itself is not in the message."""
    with pytest.raises(kind, match=f"^parameter :amount: .*{why}") as error:
        to_texts([1, value], WRITERS, ["id", "amount"])
    assert type(error.value) is kind
    with pytest.raises(kind, match="^parameter 2: "):
        to_texts([1, value], WRITERS)


@pytest.mark.parametrize("value", [{1}, Unknown(), array.array("i", [1])], ids=identifier)
def test_a_prepared_statement_refuses_it_too(value):
    """pg8000 looks up its values in the connection's table by itself."""
    with pytest.raises(TypeError, match="PostgreSQL has no type|two things"):
        make_params(Writers(WRITERS), [1, value])
    assert make_params(Writers(WRITERS), [1, None, Decimal(2), [Decimal(1), None]]) == ("1", None, "2", "{1,NULL}")


def test_a_users_writer_wins():
    """For the type, for those derived from it, and in lists, rows and ranges."""
    writers = Writers(WRITERS)
    writers[int] = lambda value: f"<{value}>"
    writers[Unknown] = lambda _: "known"
    writers[Colour] = lambda value: value.name
    writers[numbers.Complex] = lambda value: f"{value.real}+{value.imag}i"
    values = [1, True, ShownNumber(2), Unknown(), Colour.NUMBER, 1j, [1, [2]][:1], (1, Colour.RED), Range(1, 2), {"a": 1}, 0.5]
    wanted = [
        "<1>",
        "true",
        "<for people>",
        "known",
        "NUMBER",
        "0.0+1.0i",
        '{"<1>"}',
        '("<1>",RED)',
        '["<1>","<2>")',
        '{"a": 1}',
        "0.5",
    ]
    assert to_texts(values, writers) == wanted


def test_a_users_writer_of_a_container_gets_the_container():
    """A list as JSON, for one."""
    writers = WRITERS | {list: json.dumps, set: sorted, frozenset: lambda _: None}
    assert to_texts([[1, [2, "a"]], frozenset()], writers) == ['[1, [2, "a"]]', None]
    with pytest.raises(
        TypeError, match="^parameter 1: the function registered for set returned a list: it must return str, or None"
    ):
        to_texts([{1}], writers)


def test_a_writer_of_any_object_is_for_what_has_no_other():
    """pg8000's way with unknown types can be had."""
    writers = Writers(WRITERS)
    writers[object] = str
    assert to_texts([Unknown(), {1}, 1.0, None, Decimal(2), b"a"], writers) == [
        "sent by mistake",
        "{1}",
        "1.0",
        None,
        "2",
        "\\x61",
    ]


class Unhashable:  # noqa: PLW1641 - that is its point
    def __eq__(self, other):
        return self is other

    def __call__(self, value):
        return "written"


def test_a_users_writer_may_be_any_callable_and_its_errors_are_its_own():
    """Also one that can't be a key, and one that raises ValueError."""

    def failing(value):
        raise ValueError("mine")

    writers = WRITERS | {Unknown: Unhashable(), set: failing}
    assert to_texts([Unknown(), [Unknown()], (Unknown(),)], writers) == ["written", "{written}", "(written)"]
    with pytest.raises(ValueError, match="^mine$"):
        to_texts([{1}], writers)


@pytest.mark.parametrize(
    ("value", "oid"),
    [
        (np.int64(7), 23),
        (np.int64(1 << 40), 20),
        (np.uint64((1 << 64) - 1), 1700),
        (np.int8(-1), 23),
        (np.float64(1), 0),
        (np.bool_(True), 0),
        (np.timedelta64(5, "s"), 0),
        (np.array([1]), 0),
    ],
    ids=repr,
)
def test_numpys_whole_numbers_say_what_they_are(value, oid):
    """As `int` does, so that `:a > :b` compares numbers; what somebody else writes is left to the statement."""
    assert oid_of(value, WRITERS) == oid
    assert oid_of(value, WRITERS | {np.integer: str, np.ndarray: str}) == 0


def test_numpy_is_never_imported():
    """Its scalars are known where somebody else has loaded it."""
    code = "import sys, dsql_lambda.parameters as p; print(p.to_texts([1], p.WRITERS), 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['1'] False\n"
