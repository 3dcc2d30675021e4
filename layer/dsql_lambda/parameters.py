"""Writing: the text of a parameter, by its Python type.

Knows Python's types and the text that PostgreSQL reads for each; nothing of statements, connections or reading (module
`values`). A value that no type of PostgreSQL stands for is an error that names it: what `str` makes of it is never sent.
docs/values.md has the table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from typing import TYPE_CHECKING

from .driver import converters

if TYPE_CHECKING:
    from typing import Any

    Writer = Callable[[Any], Any]


def to_texts(values: Sequence[Any], writers: Mapping[type, Writer], names: Sequence[str] = ()) -> list[str | None]:
    """What is sent for each value; None is NULL. `names` are the placeholders', for errors; without them parameters are numbered.

    Raises `TypeError` for a value of a type that nobody wrote a writer for, and `ValueError` for one that PostgreSQL can't
    hold. What a writer of the user's raises is not touched.
    """
    texts: list[str | None] = []
    for index, value in enumerate(values):
        try:
            text = _text(value, writers)
            if text is not None and ("\0" in text or not text.isascii()):
                _refuse_unsendable(text)
        except (_BadType, _BadValue) as refused:
            name = f":{names[index]}" if names else str(index + 1)
            kind = TypeError if isinstance(refused, TypeError) else ValueError
            raise kind(f"parameter {name}: {refused}") from refused.__cause__
        texts.append(text)
    return texts


def oid_of(value: Any, writers: Mapping[type, Writer]) -> int:
    """The OID of the type that a value is sent as; 0 leaves it to the statement, as for texts.

    Of a bare `:a > :b` PostgreSQL makes a comparison of texts: numbers, bytes and moments say what they are, as psycopg 3 has
    them do. What can mean two types (a float beside a numeric, a moment with an offset, a list) is left to the statement.
    https://www.postgresql.org/docs/current/typeconv-oper.html
    """
    kind = type(value)
    if kind is str or writers.get(kind) is not WRITERS.get(kind):
        return 0
    if kind is int:
        return _INT4 if -0x80000000 <= value < 0x80000000 else _INT8 if -(1 << 63) <= value < 1 << 63 else _NUMERIC
    if kind is datetime:
        return _TIMESTAMP if value.tzinfo is None else 0
    module = kind.__module__
    if module == "numpy" and _is_number_of_numpy(kind, value, writers):
        return oid_of(int(value), writers)
    return _OIDS.get(kind.__name__, 0) if module in {"builtins", "datetime", "decimal"} else 0


_INT4, _INT8, _NUMERIC, _TIMESTAMP = 23, 20, 1700, 1114
_OIDS = {"Decimal": _NUMERIC, "bytes": 17, "bytearray": 17, "date": 1082, "timedelta": 1186}


class _BadType(TypeError):
    """A value of a type that can't be sent, before its parameter's name is known."""


class _BadValue(ValueError):
    """The same of a value that can't, though others of its type can."""


def _text(value: Any, writers: Mapping[type, Writer]) -> str | None:
    writer = _writer_of(type(value), writers)
    if type(writer) is _Nested:
        return writer.text(value, writers)
    text = writer(value)
    if text is None or isinstance(text, str):
        return text
    raise _BadType(
        f"the function registered for {_name(type(value))} returned a {_name(type(text))}: it must return str, or None"
    )


def _refuse_unsendable(text: str) -> None:
    if "\0" in text:
        raise _BadValue(
            f"its text has a NUL character at {text.index(chr(0))}, which PostgreSQL can't hold: take it out, or send bytes"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _BadValue(
            f"its text has half a surrogate pair at {error.start}, which no encoding has: take it out, or send bytes"
        ) from None


# Which function writes a type.


class Writers(dict[type, "Writer"]):
    """A connection's table. pg8000's prepared statements look up in it too, and must find what `to_texts` finds."""

    def __missing__(self, kind: type) -> Writer:
        return _writer_of(kind, self)


def _writer_of(kind: type, writers: Mapping[type, Writer]) -> Writer:
    """The type's own writer, or that of its nearest base class that has one. Raises `_BadType` where there is none."""
    writer = writers.get(kind)
    if writer is not None:
        return writer
    for base in kind.__mro__:
        writer = writers.get(base) or _WRITERS_BY_NAME.get(f"{base.__module__}.{base.__qualname__}")
        if writer is not None:
            return writer
    for base, writer in writers.items():  # an abstract class, or a union of types, that the user registered
        try:
            if issubclass(kind, base):
                return writer
        except TypeError:
            pass
    if issubclass(kind, getattr(sys.modules.get("numpy"), "generic", ())):
        return _NUMPY
    if issubclass(kind, Iterable):
        raise _BadType(f"PostgreSQL has no type for a {_name(kind)}: pass a list{_REGISTER}")
    raise _BadType(f"PostgreSQL has no type for a {_name(kind)}: pass str(it) if its text is meant{_REGISTER}")


_REGISTER = ", or register a function that writes it (register_out_adapter)"


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class _Nested:
    """A writer of values that hold others, which are written by the connection's own table."""

    def __init__(self, text: Callable[[Any, Mapping[type, Writer]], str | None]) -> None:
        self.text = text

    def __call__(self, value: Any) -> str | None:
        return self.text(value, WRITERS)


# Plain values. A subclass's own `__str__` or `__repr__` is for people.


def _bytea(value: Any) -> str:
    return f"\\x{value.hex()}"


def _float(value: float) -> str:
    return {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}.get(text := float.__repr__(value), text)


def _decimal(value: Any) -> str:
    return "NaN" if value.is_nan() else str(value)  # also for sNaN and -NaN, which PostgreSQL has not


def _datetime(value: datetime) -> str:
    """With an offset, the moment in UTC: that is also what a column without time zone gets, as in pg8000."""
    if value.utcoffset() is None:
        return datetime.isoformat(value)
    try:
        return datetime.isoformat(value.astimezone(UTC))
    except OverflowError:  # within a day of the first or the last that Python has
        return datetime.isoformat(value)


def _time(value: time) -> str:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise _BadValue(f"the offset of {value.tzinfo} is not known without a date: pass a datetime, or an offset")
    return time.isoformat(value)


def _buffer(value: Any) -> str:
    """An `array.array`: of bytes it is bytes; of numbers it could be either of two things."""
    if value.itemsize == 1:
        return _bytea(value.tobytes())
    raise _BadType("an array.array of numbers can mean two things: pass tolist() for an array, tobytes() for bytea")


def _timedelta(value: timedelta) -> str:
    from .intervals import write_timedelta  # noqa: PLC0415 - for those who have some

    return write_timedelta(value)


def _interval(value: Any) -> str:
    from .intervals import write_interval  # noqa: PLC0415 - the same

    return write_interval(value)


def _json(value: Any) -> str:
    from json import dumps  # noqa: PLC0415 - for those who have some

    try:
        return dumps(value)
    except (TypeError, ValueError) as error:
        kind = _BadType if isinstance(error, TypeError) else _BadValue
        raise kind(f"a dict is sent as JSON, and this one can't be: {error}") from error


def _is_number_of_numpy(kind: type, value: Any, writers: Mapping[type, Writer]) -> bool:
    """Is it a whole number that `_numpy` writes? A `timedelta64` is one of numpy's integers too."""
    return issubclass(kind, sys.modules["numpy"].integer) and value.dtype.kind in "iu" and _writer_of(kind, writers) is _NUMPY


def _numpy(value: Any, writers: Mapping[type, Writer]) -> str | None:
    """A scalar of numpy's is what `item` makes of it. Of moments in nanoseconds that is a bare number, so they are refused."""
    item = value.item()
    if type(item) is type(value) or (isinstance(item, int) and value.dtype.kind in "mM"):
        raise _BadType(f"Python has no value for this {_name(type(value))}: convert it")
    return _text(item, writers)


# Values that hold others.


def _quoted(text: str | None, null: str) -> str:
    """A part of an array, a row or a range."""
    if text is None:
        return null
    if text and not text.strip(_PLAIN) and text.upper() != "NULL":
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_PLAIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-._:"


def _array(value: Sequence[Any], writers: Mapping[type, Writer]) -> str:
    return _array_of_shape(value, writers, 1)[0]


def _array_of_shape(value: Sequence[Any], writers: Mapping[type, Writer], depth: int) -> tuple[str, tuple[int, ...]]:
    """The text of a list, and how many items each dimension has."""
    if depth > 6:
        raise _BadValue("an array has six dimensions at most: this list is nested deeper")
    found = [_writer_of(kind, writers) for kind in set(map(type, value))]
    if any(writer is _ARRAY for writer in found):
        are_all = all(writer is _ARRAY for writer in found)
        parts = [_array_of_shape(item, writers, depth + 1) for item in value] if are_all else []
        shapes = {shape for _, shape in parts}
        if len(shapes) != 1 or shapes == {(0,)}:
            raise _BadValue("the lists in a list must be of one length, which is not 0: an array is a rectangle")
        return f"{{{','.join(text for text, _ in parts)}}}", (len(value), *shapes.pop())
    if found and all(writer is _RANGE for writer in found):  # as pg8000 has it, a list of ranges is a multirange
        return f"{{{','.join(_range(item, writers) for item in value)}}}", (len(value),)
    return f"{{{','.join(_quoted(_text(item, writers), 'NULL') for item in value)}}}", (len(value),)


def _row(value: tuple[Any, ...], writers: Mapping[type, Writer]) -> str:
    return f"({','.join(_quoted(_text(item, writers), '') for item in value)})"


def _range(value: Any, writers: Mapping[type, Writer]) -> str:
    if value.is_empty:
        return "empty"
    lower, upper = (_quoted(_text(bound, writers), "") for bound in (value.lower, value.upper))
    return f"{value.bounds[0]}{lower},{upper}{value.bounds[1]}"


_ARRAY = _Nested(_array)
_ENUM = _Nested(lambda value, writers: _text(value.value, writers))
_NUMPY = _Nested(_numpy)
_RANGE = _Nested(_range)

WRITERS: dict[type, Writer] = {
    type(None): lambda _: None,
    bool: lambda value: "true" if value else "false",
    int: int.__repr__,
    str: str.__str__,
    float: _float,
    bytes: _bytea,
    bytearray: _bytea,
    memoryview: lambda value: _bytea(value.tobytes()),
    datetime: _datetime,
    date: date.isoformat,
    time: _time,
    timedelta: _timedelta,
    list: _ARRAY,
    tuple: _Nested(_row),
    dict: _json,
    Enum: _ENUM,
    converters.PGInterval: _interval,
    converters.Range: _RANGE,
}
"""The function that writes a type: a connection's `py_types` until somebody registers another."""

_WRITERS_BY_NAME: dict[str, Writer] = {
    "decimal.Decimal": _decimal,
    "uuid.UUID": str,
    "array.array": _buffer,
    **dict.fromkeys((f"ipaddress.IPv{v}{kind}" for v in (4, 6) for kind in ("Address", "Interface", "Network")), str),
}
"""The same for types of modules that are not loaded before somebody has such a value."""
