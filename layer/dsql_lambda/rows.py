"""Rows out of whole buffers: DataRow messages, cut into values that are read column by column.

Knows nothing of sockets, flights or statements. A buffer is cut by its length fields, and a column's values are read together,
so that what Python does for each of them is one call of something written in C. Each fast reader here stands for one of
module `values` and gives the same values. An adapter of the user's is called as it is.
https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-DATAROW
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from struct import Struct
from typing import TYPE_CHECKING

from .values import (
    read_bool,
    read_bytea,
    read_date,
    read_float,
    read_integer,
    read_json,
    read_numeric,
    read_text,
    read_timestamp,
    read_uuid,
)

if TYPE_CHECKING:
    from typing import Any

    Texts = list[str]
    """A column's values that are not null, decoded as Latin-1: a character a byte."""

    Column = Callable[[Texts], list[Any]]

DATA_ROW = 68
"""The code of the message, as the number that a byte is."""

_SHORTEST_ROW = 6  # its length and its count of values

_size_at = Struct("!i").unpack_from
_count_at = Struct("!H").unpack_from


def split(buffer: bytes, position: int, width: int, most: int) -> tuple[list[str | None], int, int]:
    """Cut at most `most` complete DataRow messages of `width` values that start at `position`.

    Returns their values in order, how many rows they are, and where they end. Raises `ValueError` for a row whose lengths do not
    fit its values, or whose values do not fit the columns.
    """
    end = len(buffer)
    first = position
    stops: list[int] = []
    while len(stops) < most and position + 5 <= end and buffer[position] == DATA_ROW:
        (size,) = _size_at(buffer, position + 1)
        position += 1 + size
        if position > end or size < _SHORTEST_ROW:
            break
        stops.append(position)
    if not stops:
        raise ValueError("a row is too short to say how many values it has")
    last = stops[-1]
    text = str(buffer[first:last], "latin-1")
    values: list[str | None] = []
    append = values.append
    position = first
    for stop in stops:
        if _count_at(buffer, position + 5)[0] != width:
            raise ValueError("a row has another number of values than there are columns")
        position += 7
        while position < stop:
            (size,) = _size_at(buffer, position)
            position += 4
            if size < 0:
                append(None)
            else:
                append(text[position - first : position - first + size])
                position += size
        if position != stop:
            raise ValueError("a row's values do not fill it")
    if len(values) != width * len(stops):
        raise ValueError("a row has another number of values than it says")
    return values, len(stops), last


class Decoder:
    """Makes rows of what `split` cuts, buffer after buffer."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._functions: Sequence[Callable[[str], Any]] = ()
        self._columns: list[Column] = []

    def decode(self, values: Sequence[str | None], count: int, functions: Sequence[Callable[[str], Any]]) -> list[list[Any]]:
        """The rows, given the function for each column, ours or the user's. Raises what one of them raises."""
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
    """How to convert each column, given the function for it and the connection's encoding."""
    if encoding in {"utf8", "utf-8"}:
        return [_FAST.get(id(function)) or _each(function, _texts) for function in functions]
    return [_each(function, lambda texts: [str(text.encode("latin-1"), encoding) for text in texts]) for function in functions]


def _each(function: Callable[[str], Any], as_texts: Column) -> Column:
    """Any function of one text."""
    return lambda texts: list(map(function, as_texts(texts)))


def _texts(texts: Texts) -> list[Any]:
    if "".join(texts).isascii():
        return texts
    return [text if text.isascii() else text.encode("latin-1").decode() for text in texts]


def _booleans(texts: Texts) -> list[Any]:
    return [text == "t" for text in texts]


def _byteas(texts: Texts) -> list[Any]:
    return [bytes.fromhex(text[2:]) if text[:2] == "\\x" else read_bytea(text) for text in texts]


def _jsons(texts: Texts) -> list[Any]:
    """All values as one array: the decoder is entered once."""
    from json import loads  # noqa: PLC0415 - for those who have some

    strings = _texts(texts)
    try:
        decoded = loads(f"[{','.join(strings)}]")
    except ValueError:
        decoded = ()
    return decoded if len(decoded) == len(texts) else list(map(loads, strings))


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


def _dates(texts: Texts) -> list[Any]:
    try:
        return list(map(date.fromisoformat, texts))
    except ValueError:
        return [read_date(text) for text in texts]


def _timestamps(texts: Texts) -> list[Any]:
    try:
        return list(map(datetime.fromisoformat, texts))
    except ValueError:
        return [read_timestamp(text) for text in texts]


def _decimals(texts: Texts) -> list[Any]:
    from decimal import Decimal  # noqa: PLC0415 - the same

    return list(map(Decimal, texts))


# By the function's identity: what a user registered is never taken for one of these.
_FAST: dict[int, Column] = {
    id(read_bool): _booleans,
    id(read_bytea): _byteas,
    id(read_date): _dates,
    id(read_float): lambda texts: list(map(float, texts)),
    id(read_integer): lambda texts: list(map(int, texts)),
    id(read_json): _jsons,
    id(read_numeric): _decimals,
    id(read_text): _texts,
    id(read_timestamp): _timestamps,
    id(read_uuid): _uuids,
}
