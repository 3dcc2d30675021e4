"""The texts of statements, read as PostgreSQL's scanner reads them: which `:name` is a placeholder, which word begins it.

The only reader of SQL in the package: `script` finds the ends of statements by its `past_token`. Knows the lexical structure
of PostgreSQL with standard_conforming_strings on, as it always is on DSQL; knows no grammar, no values and no connection.
https://www.postgresql.org/docs/current/sql-syntax-lexical.html

    :name       a placeholder. A name is one of PostgreSQL's unquoted identifiers, case-sensitive and without `$`: letters
                (any character beyond ASCII is one), digits and underscores, no digit first. The same name is the same value.
    '…' "…"     what stands in strings, quoted identifiers, dollar quotes and comments is text
    :: :=       a cast and a named argument, wherever two such characters meet: `[1::n]` casts
    [1:n]       no placeholder. A colon right after an expression separates: after a number, a string, a quoted identifier,
                `)`, `]`, a placeholder, and in brackets after a word, as in `[a:b]`. So does one with a space after it
    [:n]        a placeholder, as is `[1: :n]`; a slice up to the column n is `[: n]`
    $1          a numbered placeholder takes the parameters in the order of the call, as pg8000 has it; not beside `:name`

A text without parameters is sent as it is. One that PostgreSQL refuses, as for an open string, is left to PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from threading import Lock
from typing import TYPE_CHECKING

from .driver import exceptions

if TYPE_CHECKING:
    from typing import Any

MOST_PARAMETERS = 65_535
"""The Bind message counts them in 16 bits."""

LONGEST_CACHED_BYTES = 16 * 1024
"""No text above it is kept; each is read anew."""

MOST_CACHED_BYTES = 1024 * 1024
"""Of everything that is kept: texts as they were written, as they are sent, and the names of their placeholders."""

_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")
_DIGITS = frozenset("0123456789")
_NAME = _LETTERS | _DIGITS
_WORD = _NAME | {"$"}
_OTHERS = frozenset("([)]-/$'\"")  # of what begins neither a word nor a number, whatever is not a token of one character
_ASCII = "\x7f"  # beyond it, every character is a letter to PostgreSQL
_NEWLINE = "\n\r"
_BLANK = " \t\f\v" + _NEWLINE  # the vertical tab since PostgreSQL 17; before, it is a syntax error

# What begins or ends a transaction: PREPARE TRANSACTION ends it, ROLLBACK TO begins with ROLLBACK. SAVEPOINT, RELEASE and SET
# TRANSACTION leave it open, and DSQL refuses them in its own words.
_REFUSED = frozenset({"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "PREPARE"})


class Query:
    """A text, ready to be sent, and what its placeholders are called."""

    __slots__ = ("first_word", "names", "numbered", "text")

    def __init__(self, text: str, names: tuple[str, ...], first_word: str, numbered: int = 0) -> None:
        self.text = text
        """As it is sent: the placeholders are `$1`, `$2` and so on, one number for each name."""
        self.names = names
        """The name of `$1`, of `$2`, and so on."""
        self.first_word = first_word
        """In capitals, past white space, semicolons and comments; empty if the text begins with no word."""
        self.numbered = numbered
        """The highest `$n` that the text was written with; 0 if it was written with none."""


def bind(sql: str, params: Mapping[str, Any]) -> tuple[Query, tuple[Any, ...]]:
    """The query of a text, and the values of `$1`, `$2` and so on. Without parameters the text is sent as it is.

    Raises pg8000's `InterfaceError` where text and parameters do not fit together. No value is in its sentence.
    """
    if "\0" in sql:
        raise exceptions.InterfaceError("the statement has a NUL character, which PostgreSQL's texts can't have: take it out")
    if not params:
        return Query(sql, (), _first_word(sql)), ()
    query = parse(sql)
    if query.numbered:
        if len(params) != query.numbered:
            raise exceptions.InterfaceError(
                f"the statement's placeholders go up to ${query.numbered} and {len(params)} parameters were passed: "
                "pass one for each number, in their order"
            )
        return Query(query.text, tuple(params), query.first_word, query.numbered), tuple(params.values())
    try:
        values = tuple([params[name] for name in query.names])
    except KeyError:
        missing = next(name for name in query.names if name not in params)
        raise exceptions.InterfaceError(
            f"the placeholder :{missing} has no parameter: pass {missing}=..., or write a space after a colon that is not "
            "a placeholder's"
        ) from None
    if len(values) != len(params):
        names = set(query.names)
        unknown = next(name for name in params if name not in names)
        raise exceptions.InterfaceError(
            f"the statement has no placeholder for the parameter {unknown}: leave it out, or write :{unknown} outside of "
            "strings and comments, and not right after an expression"
        )
    return query, values


def parse(sql: str) -> Query:
    """Read a text and number its placeholders; a short one is read once.

    Raises pg8000's `InterfaceError` for a text that ends in a colon, has `$1` beside `:name`, or too many placeholders.
    """
    return _cache.find(sql) or _cache.add(sql, _read(sql))


def past_token(sql: str, start: int) -> int:
    """Past the token that begins at `start`: a comment, a string, a quoted name, a word, a number, or one other character."""
    character = sql[start]
    if character in _LETTERS or character > _ASCII:
        at = _past(_WORD, sql, start + 1)
        return _past_escapes(sql, at) if at == start + 1 and character in "eE" and sql.startswith("'", at) else at
    if character in _DIGITS:
        return _past(_NAME, sql, start + 1)
    if character in "-/":
        return _past_comment(sql, start) or start + 1
    if character == "$":
        return _past_dollar(sql, start) or start + 1
    if character in "'\"":
        return sql.find(character, start + 1) + 1 or len(sql)
    return start + 1


def refused_word(query: Query) -> str:
    """The word that would begin or end the transaction, if the text begins with one by any spelling, else nothing."""
    return query.first_word if query.first_word in _REFUSED else ""


def code_of(sql: str) -> str:
    """The text with spaces in place of strings, quoted identifiers and comments. What is left stands where it stood."""
    pieces: list[str] = []
    at, end = 0, len(sql)
    while at < end:
        start, character = at, sql[at]
        if character in _NAME or character > _ASCII:
            at = _past(_WORD, sql, at)
            is_code = not (sql[start:at] in {"e", "E"} and sql.startswith("'", at))
            at = at if is_code else _past_escapes(sql, at)
        elif character in "'\"":
            at, is_code = sql.find(character, at + 1) + 1 or end, False
        elif character == "$" and sql[at + 1 : at + 2] not in _DIGITS:
            at = _past_dollar(sql, start) or at + 1
            is_code = at == start + 1
        else:
            at = _past_comment(sql, start) or at + 1
            is_code = at == start + 1
        pieces.append(sql[start:at] if is_code else " " * (at - start))
    return "".join(pieces)


class Cache:
    """The queries of texts, by the text; bounded in bytes. The one that came first goes first."""

    def __init__(self, *, most_bytes: int = MOST_CACHED_BYTES) -> None:
        self.most_bytes = most_bytes
        self.held_bytes = 0
        self._queries: dict[str, tuple[Query, int]] = {}
        self._is_changing = Lock()

    def __len__(self) -> int:
        return len(self._queries)

    def find(self, sql: str) -> Query | None:
        """The query of this text, if it is held."""
        if len(sql) > LONGEST_CACHED_BYTES:
            return None  # not even hashed
        held = self._queries.get(sql)
        return held and held[0]

    def add(self, sql: str, query: Query) -> Query:
        """Hold this query, if its text is short; return it."""
        if sql.__sizeof__() > LONGEST_CACHED_BYTES:
            return query
        size = sum(each.__sizeof__() for each in (sql, query, query.text, query.names, *query.names)) + 256
        # Not waited for: a thread that comes second adds nothing, and a fork leaves no lock behind that somebody needs.
        if size > self.most_bytes or not self._is_changing.acquire(blocking=False):
            return query
        try:
            if sql not in self._queries:
                while self.held_bytes + size > self.most_bytes:
                    self.held_bytes -= self._queries.pop(next(iter(self._queries)))[1]
                self._queries[sql] = query, size
                self.held_bytes += size
        finally:
            self._is_changing.release()
        return query


_cache = Cache()


def _first_word(sql: str) -> str:
    start, end = 0, len(sql)
    while start < end and sql[start] not in _LETTERS:
        if sql[start] in _BLANK or sql[start] == ";":
            start += 1
        elif after := _past_comment(sql, start):
            start = after
        else:
            return ""
    return sql[start : _past(_WORD, sql, start)].upper()


def _read(sql: str) -> Query:
    pieces: list[str] = []
    copied = 0
    numbers: dict[str, int] = {}
    numeral, numbered, after_colon = "", 0, 0
    for start, end in _marks(sql):
        name = sql[start + 1 : end]
        if sql[start] == "$":
            numeral, numbered = sql[start:end], max(numbered, int(name.lstrip("0")[:6] or 0))
        elif name:
            number = numbers.setdefault(name, len(numbers) + 1)
            is_glued = start > 0 and (sql[start - 1] in _WORD or sql[start - 1] > _ASCII)  # BETWEEN$1 would be an identifier
            pieces += sql[copied:start], f" ${number}" if is_glued else f"${number}"
            copied = end
        else:
            after_colon = end
    if after_colon and not sql[after_colon:].strip(_BLANK):
        raise exceptions.InterfaceError("the statement ends in a colon without a name: write the placeholder's name after it")
    if numbers and numeral:
        raise exceptions.InterfaceError(
            f"the statement has {numeral} beside :{next(iter(numbers))}: name all of its placeholders, or number all of them"
        )
    if len(numbers) > MOST_PARAMETERS:
        raise exceptions.InterfaceError(
            f"the statement has {len(numbers)} placeholders, and PostgreSQL takes {MOST_PARAMETERS}: split it"
        )
    pieces.append(sql[copied:])
    return Query("".join(pieces), tuple(numbers), _first_word(sql), numbered)


def _marks(sql: str) -> Iterator[tuple[int, int]]:  # noqa: PLR0912 - one case for each kind of token
    """Start and end of each placeholder, `:name` or `$1`, and of each colon that begins none. One pass over the text.

    Each character is looked at, or passed by a search that ends where its token does.
    """
    end = len(sql)
    brackets: list[str] = []
    at = 0
    word_end = expression_end = -1
    while at < end:
        start, character = at, sql[at]
        at += 1
        if character == ":":
            if sql.startswith(":", at):
                at += 1
                continue
            if expression_end != start and (word_end != start or brackets[-1:] != ["["]) and sql[at : at + 1] not in _DIGITS:
                after = _past(_NAME, sql, at)
                if after > at and not sql.startswith("'", after):  # `:e'…'` is a colon and a string with a prefix
                    at = expression_end = after
            yield start, at
        elif character in _LETTERS or character > _ASCII:
            at = word_end = _past(_WORD, sql, at)
            if character in "eE" and at == start + 1 and sql.startswith("'", at):
                at = expression_end = _past_escapes(sql, at)
        elif character in _DIGITS:
            at = expression_end = _past(_NAME, sql, at)
        elif character not in _OTHERS:
            pass
        elif character in "([":
            brackets.append(character)
        elif character in ")]":
            expression_end = at
            if brackets:
                brackets.pop()
        elif character in "-/":
            at = _past_comment(sql, start) or at
        elif character == "$":
            at = _past_dollar(sql, start) or at
            if at > start + 1:
                expression_end = at
            if sql[start + 1 : start + 2] in _DIGITS:
                yield start, at
        else:
            found = sql.find(character, at)  # a doubled quote ends one string and begins the next, which is as good here
            at = expression_end = found + 1 or end


def _past(characters: frozenset[str], sql: str, at: int) -> int:
    """Past these characters, and those beyond ASCII."""
    for position in range(at, len(sql)):
        if sql[position] not in characters and sql[position] <= _ASCII:
            return position
    return len(sql)


def _past_comment(sql: str, start: int) -> int:
    """Past the comment that begins at `start`, to the end if nothing ends it; 0 if none begins."""
    at, end = start + 2, len(sql)
    if sql.startswith("--", start):
        while at < end and sql[at] not in _NEWLINE:
            at += 1
        return at
    if not sql.startswith("/*", start):
        return 0
    depth = 1
    while depth and at < end:
        pair = sql[at : at + 2]
        if pair == "/*":
            depth += 1
        elif pair == "*/":
            depth -= 1
        at += 2 if pair in {"/*", "*/"} else 1
    return at


def _past_dollar(sql: str, start: int) -> int:
    """Past a dollar quote, or past `$1`; 0 if it begins neither."""
    at = start + 1
    if sql[at : at + 1] in _DIGITS:
        while sql[at : at + 1] in _DIGITS:
            at += 1
        return at
    at = _past(_NAME, sql, at)
    if not sql.startswith("$", at):
        return 0
    tag = sql[start : at + 1]
    found = sql.find(tag, at + 1)
    return found + len(tag) if found >= 0 else len(sql)


def _past_escapes(sql: str, start: int) -> int:
    """Past a string whose opening quote, after an E, is at `start`, and past what continues it on another line."""
    at, end = start + 1, len(sql)
    while at < end:
        if sql[at] == "\\":
            at += 2
        elif sql[at] != "'":
            at += 1
        else:
            at += 1
            continued = _past_line(sql, at)
            if not sql.startswith("'", continued):  # a doubled quote goes on too
                return at
            at = continued + 1
    return end


def _past_line(sql: str, at: int) -> int:
    """Past white space and `--` comments that hold a newline; `at` itself if they hold none."""
    start, end, has_newline = at, len(sql), False
    while at < end:
        if sql[at] in _BLANK:
            has_newline = has_newline or sql[at] in _NEWLINE
            at += 1
        elif sql.startswith("--", at):
            at = _past_comment(sql, at)
        else:
            break
    return at if has_newline else start
