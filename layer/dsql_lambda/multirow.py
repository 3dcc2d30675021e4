"""A statement for many rows, made of the one for a single row: `MultiRow`.

Knows which statements can be made so, and how the row's placeholders are numbered. Pure; knows no transaction, and no limit but
the protocol's count of parameters.

    INSERT INTO t (id, n) VALUES (:id, :n) ON CONFLICT (id) DO UPDATE SET n = EXCLUDED.n
    UPDATE t SET n = v.n FROM (VALUES (:id, :n)) AS v (id, n) WHERE t.id = v.id
    DELETE FROM t USING (VALUES (:id)) AS v (id) WHERE t.id = v.id
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import sql as sql_text
from .errors import TransactionError
from .flight import Statement

_VALUES = re.compile(r"\bVALUES\s*\(", re.IGNORECASE)
_RETURNING = re.compile(r"\bRETURNING\b", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"\$(\d+)")
_FORMS = {
    "INSERT": "INSERT INTO t (id, n) VALUES (:id, :n)",
    "UPDATE": "UPDATE t SET n = v.n FROM (VALUES (:id, :n)) AS v (id, n) WHERE t.id = v.id",
    "DELETE": "DELETE FROM t USING (VALUES (:id)) AS v (id) WHERE t.id = v.id",
}


class MultiRow:
    """A statement with one `VALUES (...)` list, which is repeated for each row. Raises `TransactionError` for any other."""

    def __init__(self, sql: str) -> None:
        query = sql_text.parse(sql)
        if query.first_word not in _FORMS:
            raise TransactionError(f"only INSERT, UPDATE and DELETE are written in chunks: {sql}")
        if query.numbered or not query.names:
            raise TransactionError(f"the values of a row are named placeholders, as in {_FORMS[query.first_word]}: {sql}")
        code = sql_text.code_of(query.text)
        if _RETURNING.search(code):
            raise TransactionError(f"rows that are written in chunks are not returned: leave RETURNING out: {sql}")
        start, end = _row_in(code, sql, query.first_word)
        if len(set(_PLACEHOLDER.findall(code, start, end))) != len(query.names):
            raise TransactionError(
                f"every placeholder must be in the VALUES list, which is repeated for each row (in ON CONFLICT, the row is "
                f"EXCLUDED): {sql}"
            )
        self.names = query.names
        """The placeholders of a row, in the order of their first appearance."""
        self.most_rows = sql_text.MOST_PARAMETERS // len(query.names)
        """How many rows a statement takes, by the count of its parameters."""
        self._sql = sql
        self._before, self._behind = query.text[:start], query.text[end:]
        self._row, self._numbers = _template(query.text, code, start, end)
        self._count, self._text = 0, ""

    def values_of(self, row: Any, index: int) -> tuple[Any, ...]:
        """The values of a row: a mapping by the placeholders' names, or a sequence in their order.

        What else a mapping holds is left out. Raises `TransactionError`, which names the row by its index.
        """
        if isinstance(row, Mapping):
            missing = next((name for name in self.names if name not in row), None)
            if missing is not None:
                raise TransactionError(f"row {index} has no value for the placeholder :{missing}")
            return tuple([row[name] for name in self.names])
        if not isinstance(row, Sequence) or isinstance(row, str | bytes | bytearray):
            raise TransactionError(
                f"row {index} is a {type(row).__name__}: it must be a mapping by the placeholders' names, or a sequence"
            )
        if len(row) != len(self.names):
            raise TransactionError(f"row {index} has {len(row)} values, and the placeholders are {', '.join(self.names)}")
        return tuple(row)

    def statements(self, rows: Sequence[tuple[Any, ...]]) -> Iterator[Statement]:
        """As few statements as take these rows. For errors each has the text that was written."""
        for first in range(0, len(rows), self.most_rows):
            part = rows[first : first + self.most_rows]
            values = tuple([value for row in part for value in row])
            yield Statement(self._sql, self._text_for(len(part)), values, (), self.names * len(part))

    def _text_for(self, count: int) -> str:
        if count != self._count:  # all chunks but the last are of one size, or nearly
            width = len(self.names)
            lists = [self._row % tuple([number + width * row for number in self._numbers]) for row in range(count)]
            self._count, self._text = count, f"{self._before}{', '.join(lists)}{self._behind}"
        return self._text


def _row_in(code: str, sql: str, word: str) -> tuple[int, int]:
    """Where the VALUES list's only row stands, with its parentheses."""
    found = [(match.end() - 1, _past_bracket(code, match.end() - 1)) for match in _VALUES.finditer(code)]
    rows = [(start, end) for start, end in found if _PLACEHOLDER.search(code, start, end)]
    if len(rows) != 1 or code[rows[0][1] :].lstrip().startswith(","):
        raise TransactionError(f"it takes one VALUES list, with one row of placeholders, as in {_FORMS[word]}: {sql}")
    return rows[0]


def _past_bracket(code: str, start: int) -> int:
    depth = 0
    for at in range(start, len(code)):
        depth += {"(": 1, ")": -1}.get(code[at], 0)
        if not depth:
            return at + 1
    return len(code)


def _template(text: str, code: str, start: int, end: int) -> tuple[str, tuple[int, ...]]:
    """The row for `%`, and the numbers of its placeholders."""
    pieces, at = [], start
    numbers = []
    for match in _PLACEHOLDER.finditer(code, start, end):
        pieces.append(text[at : match.start()].replace("%", "%%"))
        numbers.append(int(match[1]))
        at = match.end()
    pieces.append(text[at:end].replace("%", "%%"))
    return "$%d".join(pieces), tuple(numbers)
