"""A script as statements: where each begins and ends, and the words that it begins with. `split`.

Tokens are `sql`'s; here is only what psql knows beyond them: a semicolon ends a statement outside of parentheses and of a body
between BEGIN ATOMIC and END. Knows no grammar and no connection.
https://www.postgresql.org/docs/current/xfunc-sql.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .sql import past_token

_BLANK = " \t\n\r\f\v"


class ScriptStatement(NamedTuple):
    """One statement of a script."""

    text: str
    """Without its semicolon, and without what stands before its first word."""
    line: int
    """Of its first word, from 1."""


def split(script: str) -> tuple[ScriptStatement, ...]:
    """The statements of a script; comments and empty statements are none."""
    found: list[ScriptStatement] = []
    first, last = -1, 0
    words: list[str] = []
    parentheses = blocks = 0
    for start, end in tokens(script):
        text = script[start:end]
        if text == ";" and not parentheses and not blocks:
            if first >= 0:
                found.append(ScriptStatement(script[first:last], _line(script, first)))
            first, words = -1, []
            continue
        if first < 0:
            first, parentheses, blocks = start, 0, 0
        last = end
        if text == "(":
            parentheses += 1
        elif text == ")":
            parentheses = max(parentheses - 1, 0)
        elif is_word(text):
            word = text.upper()
            words.append(word)
            if _is_routine(words) and not parentheses:  # psql's own rule, in psqlscan.l
                if word == "BEGIN" or (word == "CASE" and blocks):
                    blocks += 1
                elif word == "END":
                    blocks = max(blocks - 1, 0)
    if first >= 0:
        found.append(ScriptStatement(script[first:last], _line(script, first)))
    return tuple(found)


def tokens(sql: str) -> Iterator[tuple[int, int]]:
    """Start and end of each token, but of white space and comments."""
    at = 0
    while at < len(sql):
        start, at = at, past_token(sql, at)
        if sql[start] not in _BLANK and not sql.startswith(("--", "/*"), start):
            yield start, at


def shape(sql: str) -> tuple[str, ...]:
    """The tokens of a statement, its unquoted words in capitals: what it is, whatever its spelling."""
    return tuple(token.upper() if is_word(token) else token for token in (sql[start:end] for start, end in tokens(sql)))


def is_word(token: str) -> bool:
    """Is a token a keyword or an unquoted name?"""
    return (token[0].isalpha() or token[0] == "_") and token[-1] != "'"


def folded(token: str) -> str:
    """A name as PostgreSQL keeps it: in lower case, unless it is quoted."""
    return token[1:-1].replace('""', '"') if token.startswith('"') else token.lower()


def qualified(written: list[str], at: int) -> str:
    """The name that begins at a token, with its schema if it has one, as it was written; empty if there is none."""
    name = "".join(written[at : at + 1])
    while written[at + 1 : at + 2] == ["."] and at + 2 < len(written):
        name += "." + written[at + 2]
        at += 2
    return name


def _is_routine(words: list[str]) -> bool:
    begins = words[:4]
    if begins[1:3] == ["OR", "REPLACE"]:
        begins = [begins[0], *begins[3:]]
    return begins[:1] == ["CREATE"] and begins[1:2] in (["FUNCTION"], ["PROCEDURE"])


def _line(script: str, at: int) -> int:
    return script.count("\n", 0, at) + 1
