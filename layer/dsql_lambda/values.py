"""Reading: what the text of a value means in Python, a function for each of PostgreSQL's types.

Knows texts as PostgreSQL writes them and the OIDs of its built-in types; nothing of connections, of rows, or of how a value
is written (module `parameters`). Types are those that pg8000 documents. One rule stands above all: a value that Python has
no type for (a date before the year 1 or past 9999, `infinity`, `24:00`) stays PostgreSQL's text, and never becomes another
value. docs/values.md has the table.
https://www.postgresql.org/docs/current/datatype.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, time
from typing import TYPE_CHECKING

from .driver import converters

if TYPE_CHECKING:
    from typing import Any

    Reader = Callable[[str], Any]


def read_text(text: str) -> str:
    """The text itself: of character types, of what Python has no type for, and of every type that is not in `READERS`."""
    return text


def read_integer(text: str) -> int:
    """An `int`."""
    return int(text)


def read_float(text: str) -> float:
    """A `float`; `NaN` and `Infinity` are among them."""
    return float(text)


def read_bool(text: str) -> bool:
    """A `bool`."""
    return text == "t"


def read_bytea(text: str) -> bytes:
    """`bytes`, whichever form `bytea_output` chose."""
    if text.startswith("\\x"):
        return bytes.fromhex(text[2:])
    plain = re.sub(r"\\(\\|[0-7]{3})", lambda found: "\\" if found[1] == "\\" else chr(int(found[1], 8)), text)
    return plain.encode("latin-1")


def read_numeric(text: str) -> Any:
    """A `decimal.Decimal`; `NaN` and `Infinity` are among them."""
    from decimal import Decimal  # noqa: PLC0415 - for those who have some

    return Decimal(text)


def read_uuid(text: str) -> Any:
    """A `uuid.UUID`."""
    from uuid import UUID  # noqa: PLC0415 - the same

    return UUID(text)


def read_json(text: str) -> Any:
    """What `json.loads` makes of it."""
    from json import loads  # noqa: PLC0415 - the same

    return loads(text)


# Dates and times. PostgreSQL's default DateStyle is ISO, and `fromisoformat` refuses every other form: the years that `date`
# has not, BC, infinity, and the other styles, whose order of day and month the text does not tell.


def read_date(text: str) -> date | str:
    """A `date`, or the text where there is none."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return text


def read_timestamp(text: str) -> datetime | str:
    """A `datetime`, with an offset if the text has one, or the text where there is none."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return text


def read_time(text: str) -> time | str:
    """A `time`, with an offset if the text has one, or the text: of 24:00:00, which is not 00:00:00."""
    return text if text.startswith("24") else time.fromisoformat(text)


def read_interval(text: str) -> Any:
    """A `timedelta`; a `PGInterval` where it has months or years, which have no fixed length, or too many days."""
    from .intervals import read_interval as read  # noqa: PLC0415 - for those who have some

    return read(text)


# Network addresses.


def read_inet(text: str) -> Any:
    """An `ip_address`; with a netmask, an `ip_interface` where bits of the host are set, else an `ip_network`."""
    from ipaddress import ip_address, ip_interface  # noqa: PLC0415 - for those who have some

    if "/" not in text:
        return ip_address(text)
    interface = ip_interface(text)
    return interface.network if interface.ip == interface.network.network_address else interface


def read_cidr(text: str) -> Any:
    """An `ip_network`."""
    from ipaddress import ip_network  # noqa: PLC0415 - the same

    return ip_network(text)


# Types made of others. What has a special character stands in double quotes, in which a quote or a backslash has a backslash
# before it, or (not in arrays) is doubled: of each such pair the second is meant.
# https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
# https://www.postgresql.org/docs/current/rowtypes.html#ROWTYPES-IO-SYNTAX
# https://www.postgresql.org/docs/current/rangetypes.html#RANGETYPES-IO

_QUOTED = r'"((?:[^"\\]|\\.|"")*)"'


def _unquoted(inside: str) -> str:
    return re.sub(r'[\\"](.)', r"\1", inside, flags=re.DOTALL)


def _array_of(read: Reader, delimiter: str = ",") -> Reader:
    """The reader of an array of what `read` reads: a list, of lists where it has several dimensions."""
    tokens = rf'([{{}}])|"((?:[^"\\]|\\.)*)"|([^{{}}"{delimiter}]+)'

    def read_array(text: str) -> list[Any]:
        if text.startswith("["):  # the bounds, where one does not begin with 1: Python's lists have none
            text = text[text.index("=") + 1 :]
        if '"' not in text and text.rfind("{") == 0:
            return [None if item == "NULL" else read(item) for item in text[1:-1].split(delimiter)] if text != "{}" else []
        lists: list[list[Any]] = [[]]
        for found in re.finditer(tokens, text, re.DOTALL):
            brace, quoted, plain = found.groups()
            if brace == "{":
                lists.append([])
            elif brace == "}":
                lists[-2].append(lists.pop())
            elif quoted is not None:
                lists[-1].append(read(_unquoted(quoted) if "\\" in quoted else quoted))
            else:
                lists[-1].append(None if plain == "NULL" else read(plain))
        return lists[0][0]  # type: ignore[no-any-return]

    return read_array


def read_record(text: str) -> tuple[str | None, ...]:
    """A tuple of texts: of a row's fields the types are not sent. `ROW(NULL)` and `ROW()` are one text, and the empty tuple."""
    if text == "()":
        return ()
    fields = re.finditer(rf"(?:{_QUOTED}|([^,\"]*))[,)]", text[1:], re.DOTALL)
    return tuple(field[2] or None if field[1] is None else _unquoted(field[1]) for field in fields)


def _range_of(read: Reader) -> Reader:
    """The reader of a range of what `read` reads: a `Range`. An open end is None."""
    bound = rf"(?:{_QUOTED}|([^,\"]*))"

    def read_range(text: str) -> Any:
        if text == "empty":
            return converters.Range(is_empty=True)
        found = re.fullmatch(rf".{bound},{bound}.", text, re.DOTALL)
        if found is None:
            raise ValueError(f"not a range: {text}")
        lower, upper = (
            (read(plain) if plain else None) if quoted is None else read(_unquoted(quoted))
            for quoted, plain in (found.group(1, 2), found.group(3, 4))
        )
        return converters.Range(lower, upper, bounds=text[0] + text[-1])

    return read_range


def _multirange_of(read: Reader) -> Reader:
    """The reader of a multirange of what `read` reads: a list of `Range`."""
    read_range = _range_of(read)
    ranges = r'[\[(](?:"(?:[^"\\]|\\.|"")*"|[^"\])])*[\])]'
    return lambda text: [read_range(each) for each in re.findall(ranges, text, re.DOTALL)]


def read_point(text: str) -> tuple[float, ...]:
    """A tuple of two floats."""
    return tuple(map(float, text[1:-1].split(",")))


def read_vector(text: str) -> list[int]:
    """A list of ints."""
    return [int(each) for each in text.split()]


# A type's OID and that of its array, as PostgreSQL's `pg_type` has them.
_TYPES: dict[Reader, tuple[tuple[int, int], ...]] = {
    read_bool: ((16, 1000),),
    read_bytea: ((17, 1001),),
    read_integer: ((20, 1016), (21, 1005), (23, 1007), (26, 1028), (28, 1011)),  # int8, int2, int4, oid, xid
    read_float: ((700, 1021), (701, 1022)),
    read_numeric: ((1700, 1231),),
    read_date: ((1082, 1182),),
    read_time: ((1083, 1183), (1266, 1270)),  # time, timetz
    read_timestamp: ((1114, 1115), (1184, 1185)),  # timestamp, timestamptz
    read_interval: ((1186, 1187),),
    read_uuid: ((2950, 2951),),
    read_json: ((114, 199), (3802, 3807)),  # json, jsonb
    read_inet: ((869, 1041),),
    read_cidr: ((650, 651),),
    read_record: ((2249, 2287),),
    read_point: ((600, 1017),),
    read_vector: ((22, 1006),),  # int2vector
    _range_of(read_integer): ((3904, 3905), (3926, 3927)),  # int4range, int8range
    _range_of(read_numeric): ((3906, 3907),),
    _range_of(read_date): ((3912, 3913),),
    _range_of(read_timestamp): ((3908, 3909), (3910, 3911)),  # tsrange, tstzrange
    _multirange_of(read_integer): ((4451, 6150), (4536, 6157)),
    _multirange_of(read_numeric): ((4532, 6151),),
    _multirange_of(read_date): ((4535, 6155),),
    _multirange_of(read_timestamp): ((4533, 6152), (4534, 6153)),
    read_text: (
        *((18, 1002), (19, 1003), (25, 1009), (1042, 1014), (1043, 1015)),  # "char", name, text, bpchar, varchar
        *((142, 143), (790, 791), (1560, 1561), (1562, 1563), (4072, 4073)),  # xml, money, bit, varbit, jsonpath
        *((829, 1040), (774, 775), (3614, 3643), (3615, 3645), (3642, 3644)),  # macaddr, macaddr8, the types of text search
        *(
            (2205, 2210),
            (2206, 2211),
            (24, 1008),
            (2202, 2207),
            (2203, 2208),
        ),  # regclass, regtype, regproc, regprocedure, regoper
        *((2204, 2209), (3734, 3735), (3769, 3770), (4089, 4090), (4096, 4097)),  # operator, config, dictionary, namespace, role
        *((4191, 4192), (27, 1010), (29, 1012), (30, 1013), (5069, 271)),  # regcollation, tid, cid, oidvector, xid8
        *((3220, 3221), (5038, 5039), (2970, 2949), (1033, 1034), (1790, 2201)),  # pg_lsn, snapshots, aclitem, refcursor
        *((628, 629), (601, 1018), (602, 1019), (604, 1027), (718, 719)),  # line, lseg, path, polygon, circle
        *((2275, 1263),),  # cstring
    ),
}

READERS: dict[int, Reader] = {
    oid: function
    for read, oids in _TYPES.items()
    for array in (_array_of(read),)
    for scalar_oid, array_oid in oids
    for oid, function in ((scalar_oid, read), (array_oid, array))
}
"""The function that reads a type, by the type's OID: a connection's `pg_types` until somebody registers another."""
READERS[1020] = _array_of(read_text, ";")  # of boxes, the only type with this delimiter
