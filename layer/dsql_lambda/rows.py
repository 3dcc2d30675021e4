"""Rows out of whole buffers: DataRow messages, and the text that PostgreSQL writes values in.

Knows nothing of sockets, flights or statements. A buffer is cut into values by its length fields, and the values are
converted column by column, so that what Python does for each of them is one call of something written in C. Values and
types are those of pg8000's own converters: each fast one here stands for one of pg8000's functions, does what that one
does for the forms that PostgreSQL usually writes, and leaves the rest to it. An adapter of the user's is called as it is.
https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-DATAROW
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from struct import Struct

from .driver import converters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Texts = list[str]
    """A column's values that are not null, decoded as Latin-1: a character a byte."""

    Column = Callable[[Texts], list[Any]]

DATA_ROW = 68
"""The code of the message, as the number that a byte is."""

_size_at = Struct("!i").unpack_from


def split(buffer: bytes, position: int) -> tuple[list[str | None], int, int]:
    """Cut the complete DataRow messages that start at `position`: their values in order, how many rows, and where they end."""
    text = str(buffer, "latin-1")
    end = len(buffer)
    values: list[str | None] = []
    append = values.append
    count = 0
    while position + 5 <= end and buffer[position] == DATA_ROW:
        stop = position + 1 + _size_at(buffer, position + 1)[0]
        if stop > end:
            break
        position += 7
        while position < stop:
            (size,) = _size_at(buffer, position)
            position += 4
            if size < 0:
                append(None)
            else:
                append(text[position : position + size])
                position += size
        count += 1
    return values, count, position


class Decoder:
    """Makes rows of what `split` cuts, buffer after buffer."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._functions: Sequence[Callable[[str], Any]] = ()
        self._columns: list[Column] = []

    def decode(self, values: Sequence[str | None], count: int, functions: Sequence[Callable[[str], Any]]) -> list[list[Any]]:
        """The rows, given pg8000's or the user's function for each column. Raises what one of them raises."""
        if self._functions is not functions:  # another statement's answer has begun
            self._functions = functions
            self._columns = columns_for(functions, self._encoding)
        width = len(self._columns)
        if not width:
            return [[] for _ in range(count)]
        return list(map(list, zip(*(_decoded(values[i::width], each) for i, each in enumerate(self._columns)), strict=True)))


def _decoded(values: Sequence[Any], column: Column) -> list[Any]:
    if None not in values:
        return column(values)  # type: ignore[arg-type]
    texts = [value for value in values if value is not None]
    if not texts:
        return list(values)
    decoded = iter(column(texts))
    return [None if value is None else next(decoded) for value in values]


def columns_for(functions: Sequence[Callable[[str], Any]], encoding: str) -> list[Column]:
    """How to convert each column, given pg8000's (or the user's) function for it and the connection's encoding."""
    if encoding not in {"utf8", "utf-8"}:
        return [_each(function, encoding) for function in functions]
    return [_FAST.get(id(function)) or _each(function, encoding) for function in functions]


def _each(function: Callable[[str], Any], encoding: str) -> Column:
    """Any function of one text, as pg8000 calls it."""

    def column(texts: Texts) -> list[Any]:
        return [function(str(text.encode("latin-1"), encoding)) for text in texts]

    return column


def _strings(texts: Texts) -> list[Any]:
    if "".join(texts).isascii():
        return texts
    return [text if text.isascii() else text.encode("latin-1").decode() for text in texts]


def _booleans(texts: Texts) -> list[Any]:
    return [text == "t" for text in texts]


def _bytes(texts: Texts) -> list[Any]:
    return [bytes.fromhex(text[2:]) for text in texts]


def _jsons(texts: Texts) -> list[Any]:
    """All values as one array: the decoder is entered once."""
    strings = _strings(texts)
    try:
        decoded = converters.loads(f"[{','.join(strings)}]")
    except ValueError:
        decoded = ()
    return decoded if len(decoded) == len(texts) else [converters.json_in(text) for text in strings]


_new = object.__new__
_set = object.__setattr__


def _uuids(texts: Texts) -> list[Any]:
    """As `UUID(text)`, without its doubts about what the text might be."""
    from uuid import UUID, SafeUUID  # noqa: PLC0415 - for those who have some

    uuids = []
    for text in texts:
        uuid = _new(UUID)
        _set(uuid, "int", int(text.replace("-", ""), 16))
        _set(uuid, "is_safe", SafeUUID.unknown)
        uuids.append(uuid)
    return uuids


# pg8000 reads dates and times by `strptime`, and where that fails (other DateStyles, years past 9999 or BC, `infinity`,
# offsets with minutes) by dateutil, or leaves the text. `fromisoformat` reads the usual form to the same value; of the rest
# it refuses all but what is held back below.


def _dates(texts: Texts) -> list[Any]:
    try:
        return list(map(date.fromisoformat, texts))
    except ValueError:
        return [converters.date_in(text) for text in texts]


def _times(texts: Texts) -> list[Any]:
    # 24:00:00, which pg8000 refuses and newer versions of Python read as 00:00:00
    return [converters.time_in(text) if text.startswith("24") else time.fromisoformat(text) for text in texts]


def _timestamps(texts: Texts) -> list[Any]:
    try:
        return list(map(datetime.fromisoformat, texts))
    except ValueError:
        return [converters.timestamp_in(text) for text in texts]


def _timestamptzs(texts: Texts) -> list[Any]:
    try:
        # Whole hours east or west: of +05:30, dateutil makes an offset of a type of its own.
        if {text[-3] for text in texts} <= {"+", "-"}:
            return list(map(datetime.fromisoformat, texts))
    except (ValueError, IndexError):
        pass
    return [converters.timestamptz_in(text) for text in texts]


def _decimals(texts: Texts) -> list[Any]:
    from decimal import Decimal  # noqa: PLC0415 - the same

    return list(map(Decimal, texts))


def _numbers(kind: Callable[[str], Any]) -> Column:
    return lambda texts: list(map(kind, texts))


# By the function's identity: what a user registered is never taken for one of these.
_FAST: dict[int, Column] = {
    id(int): _numbers(int),
    id(float): _numbers(float),
    id(converters.bool_in): _booleans,
    id(converters.bytes_in): _bytes,
    id(converters.date_in): _dates,
    id(converters.json_in): _jsons,
    id(converters.numeric_in): _decimals,
    id(converters.string_in): _strings,
    id(converters.time_in): _times,
    id(converters.timestamp_in): _timestamps,
    id(converters.timestamptz_in): _timestamptzs,
    id(converters.uuid_in): _uuids,
}
