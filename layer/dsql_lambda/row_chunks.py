"""Rows, cut into chunks that are each a transaction below DSQL's limits: `Chunk`, `chunks_of`, and ranges of rows.

Pure: knows sizes and indexes; knows no statement's text, and nothing of what becomes of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .errors import ConfigError
from .multirow import MultiRow

_VALUE_BYTES = 8  # beside its text: the lengths of a parameter, and what a short one takes when it is stored

Range = tuple[int, int]
"""Rows by their index: the first, and the one behind the last."""


class Chunk:
    """Rows that are written in one transaction."""

    __slots__ = ("rows", "start")

    def __init__(self, start: int, rows: list[tuple[Any, ...]]) -> None:
        self.start = start
        """The index of the first row."""
        self.rows = rows

    @property
    def range(self) -> Range:
        """Which rows these are."""
        return self.start, self.start + len(self.rows)


def chunks_of(
    many: MultiRow, rows: Iterable[Any], *, max_rows: int, max_bytes: int, committed: Sequence[Range]
) -> Iterator[Chunk]:
    """Cut rows into chunks; those that are committed are passed over. A row that is larger than `max_bytes` is a chunk."""
    done = iter(committed)
    skipped = next(done, None)
    chunk, size = Chunk(0, []), 0
    for index, row in enumerate(rows):
        while skipped is not None and index >= skipped[1]:
            skipped = next(done, None)
        is_committed = skipped is not None and index >= skipped[0]
        values = () if is_committed else many.values_of(row, index)
        row_size = sum(map(_size, values))
        if chunk.rows and (is_committed or size + row_size > max_bytes):
            yield chunk
            chunk, size = Chunk(index, []), 0
        if is_committed:
            continue
        if not chunk.rows:
            chunk.start = index
        chunk.rows.append(values)
        size += row_size
        if len(chunk.rows) == max_rows:
            yield chunk
            chunk, size = Chunk(index + 1, []), 0
    if chunk.rows:
        yield chunk


def _size(value: object) -> int:
    """About how many bytes a value takes on its way. Bytes are sent in hexadecimal."""
    if isinstance(value, bytes | bytearray | memoryview):
        return _VALUE_BYTES + 2 * memoryview(value).nbytes
    text = value if isinstance(value, str) else str(value)
    return _VALUE_BYTES + (len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")))


def merged(ranges: Iterable[Range]) -> list[Range]:
    """In their order, those that touch as one. Raises `ConfigError` for what is no range of rows."""
    found: list[Range] = []
    for each in sorted(ranges):
        start, end = each
        if not 0 <= start <= end:
            raise ConfigError(f"{each} is no range of rows: the first row, from 0, comes before the one behind the last")
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        elif end > start:
            found.append((start, end))
    return found


def said_of(ranges: Sequence[Range]) -> str:
    """For a sentence: the first row and the last of each."""
    return ", ".join(f"{start} to {end - 1}" for start, end in ranges)
