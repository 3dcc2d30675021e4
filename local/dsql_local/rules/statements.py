"""SQL text as statements: where one ends, and what its words tell about it.

A lexer, not a parser: it knows strings, quoted names, dollar quotes and comments, so it ignores what is inside them.
"""

import re
from collections.abc import Iterator
from enum import Enum

from .memoize import memoize_by_text

__all__ = [
    "Kind",
    "assigned_columns",
    "comments",
    "identifiers",
    "kind_of",
    "locks_for_key_share",
    "locks_for_update",
    "may_write",
    "split",
]

_TOKEN = re.compile(
    r"""
      (?P<space>\s+ | --[^\n]*)
    | (?P<comment>/\*)
    | (?P<string>[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z) | '(?:[^']|'')*(?:'|\Z))
    | (?P<name>"(?:[^"]|"")*(?:"|\Z))
    | (?P<dollar>\$(?:[^\W\d]\w*)?\$)
    | (?P<word>[^\W\d][\w$]*)
    | (?P<end>;)
    | (?P<other>\d[\w.]*|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_DATA = re.compile(r"\s*(?:INSERT|UPDATE|DELETE|SELECT)\b", re.IGNORECASE)
_FOR = re.compile(r"\bFOR\b", re.IGNORECASE)
_COMMENT_EDGE = re.compile(r"/\*|\*/")


class Kind(Enum):
    """What a statement does to a transaction."""

    BEGIN = "begin"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    SAVEPOINT = "savepoint"
    OTHER = "other"

    @property
    def is_transaction_control(self) -> bool:
        """Whether it begins or ends a transaction."""
        return self in (Kind.BEGIN, Kind.COMMIT, Kind.ROLLBACK)


def _tokens(sql: str) -> Iterator[tuple[str, str, int, int]]:
    """All tokens as (group, text, start, end); comments are spaces."""
    at = 0
    while at < len(sql):
        match = _TOKEN.match(sql, at)
        if match is None or match.lastgroup is None:  # the last alternative matches any character
            raise AssertionError(sql[at : at + 20])
        group, end = match.lastgroup, match.end()
        if group == "comment":
            group, end = "space", _end_of_comment(sql, end)
        elif group == "dollar":
            closing = sql.find(match.group(), end)
            group, end = "string", len(sql) if closing < 0 else closing + len(match.group())
        yield group, sql[at:end], at, end
        at = end


def _end_of_comment(sql: str, at: int) -> int:
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(sql, at)
        if edge is None:
            return len(sql)
        depth += 1 if edge.group() == "/*" else -1
        at = edge.end()
    return at


def comments(sql: str) -> Iterator[tuple[str, int, int]]:
    """Every /* comment */: its text, start and end."""
    return ((text, start, end) for group, text, start, end in _tokens(sql) if group == "space" and text.startswith("/*"))


@memoize_by_text
def split(sql: str) -> tuple[str, ...]:
    """The statements, without semicolons and without empty ones. A `BEGIN ATOMIC … END` body stays whole."""
    whole = sql.strip().removesuffix(";").rstrip()
    if _DATA.match(sql) and not any(mark in whole for mark in (";", "--", "/*")):
        return (whole,)
    found: list[str] = []
    start: int | None = None
    last, depth, words = 0, 0, list[str]()
    for group, text, begin, end in _tokens(sql):
        if group == "space":
            continue
        if group == "end" and depth == 0:
            if start is not None:
                found.append(sql[start:last])
            start, words = None, []
            continue
        if start is None:
            start = begin
        last = end
        if group == "word":
            words.append(text.upper())
            depth = _nesting(words, depth)
    if start is not None:
        found.append(sql[start:last])
    return tuple(found)


def _nesting(words: list[str], depth: int) -> int:
    """The nesting depth of BEGIN ATOMIC and CASE in a CREATE statement after its latest word."""
    if words[0] != "CREATE":
        return 0
    if words[-2:] == ["BEGIN", "ATOMIC"]:
        return depth + 1
    if depth and words[-1] == "CASE":
        return depth + 1
    return max(depth - 1, 0) if words[-1] == "END" else depth


def _words(statement: str) -> Iterator[str]:
    return (text.upper() for group, text, _, _ in _tokens(statement) if group == "word")


@memoize_by_text
def kind_of(statement: str) -> Kind:
    """What one statement does to a transaction."""
    words = _words(statement)
    first, rest = next(words, ""), words
    if first == "BEGIN" or (first == "START" and next(rest, "") == "TRANSACTION"):
        return Kind.BEGIN
    if first in ("COMMIT", "END"):
        return Kind.OTHER if next(rest, "") == "PREPARED" else Kind.COMMIT
    if first in ("ROLLBACK", "ABORT"):
        following = set(rest)
        if "PREPARED" in following:
            return Kind.OTHER
        return Kind.SAVEPOINT if "TO" in following else Kind.ROLLBACK
    return Kind.SAVEPOINT if first in ("SAVEPOINT", "RELEASE") else Kind.OTHER


@memoize_by_text
def may_write(statement: str) -> bool:
    """Whether a statement may write or lock a row. False only if it certainly reads; writes of functions are not detected."""
    words = _words(statement)
    if next(words, "") in ("SELECT", "VALUES", "TABLE", "SHOW", "FETCH"):
        return not {"FOR", "INTO"}.isdisjoint(words)
    return True


@memoize_by_text
def locks_for_update(statement: str) -> bool:
    """Whether a statement locks rows with FOR UPDATE (or FOR NO KEY UPDATE)."""
    words = list(_words(statement)) if _FOR.search(statement) else []
    following = ({tuple(words[at + 1 : at + 2]), tuple(words[at + 1 : at + 4])} for at, w in enumerate(words) if w == "FOR")
    return any(("UPDATE",) in after or ("NO", "KEY", "UPDATE") in after for after in following)


@memoize_by_text
def locks_for_key_share(statement: str) -> bool:
    """Whether a statement locks rows with FOR KEY SHARE."""
    words = list(_words(statement)) if _FOR.search(statement) else []
    return any(words[at : at + 3] == ["FOR", "KEY", "SHARE"] for at in range(len(words)))


@memoize_by_text
def identifiers(statement: str) -> frozenset[str]:
    """All names in a statement, folded as PostgreSQL does: unquoted ones in lower case, quoted ones as written."""
    return frozenset(_folded(group, text) for group, text, _, _ in _tokens(statement) if group in ("word", "name"))


def _folded(group: str, text: str) -> str:
    return text.lower() if group == "word" else text.strip('"').replace('""', '"')


@memoize_by_text
def assigned_columns(statement: str) -> frozenset[str]:
    """All names in its SET clauses, folded: at least the columns that it assigns to."""
    names = set[str]()
    depth, inside = 0, False
    for group, text, _, _ in _tokens(statement):
        word = text.upper() if group == "word" else ""
        if word == "SET":
            depth, inside = 0, True
        elif not inside:
            continue
        elif text in "()":
            depth += 1 if text == "(" else -1
            inside = depth >= 0
        elif depth == 0 and word in ("FROM", "WHERE", "RETURNING"):
            inside = False
        elif group in ("word", "name"):
            names.add(_folded(group, text))
    return frozenset(names)
