"""The files of a folder of migrations: their order, their statements and their checksums. `read_migrations`.

Knows names of files and what may not stand in them; knows no database.

    migrations/0001_accounts.sql    four digits, and a name in lower case. Files are applied in the order of their numbers
    checksum                        SHA-256 of the text, whose lines may end in any way: a checkout may change that
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from .errors import DsqlError
from .script import ScriptStatement, shape, split

_NAME = re.compile(r"([0-9]{4})_([a-z0-9_]+)\.sql")
_DATA = frozenset({"INSERT", "UPDATE", "DELETE", "SELECT", "WITH", "VALUES", "TABLE"})
_ENDS_ANOTHER = frozenset({"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "PREPARE", "SAVEPOINT", "RELEASE"})


class MigrationError(DsqlError):
    """A migration that can't be applied, or that is not what was applied. Says which file, line and statement, and what to do."""

    def __init__(self, message: str, *, file: str = "", line: int = 0, number: int = 0, statement: str = "") -> None:
        super().__init__(message)
        self.file = file
        """The file, where the error is about one; else empty."""
        self.line = line
        """The line that the statement begins on, from 1; else 0."""
        self.number = number
        """Which statement of the file it is, from 1; else 0."""
        self.statement = statement
        """The statement's text; else empty."""


class Migration(NamedTuple):
    """One file."""

    version: str
    """The four digits."""
    name: str
    """The file's name, as `0001_accounts.sql`."""
    path: Path
    statements: tuple[ScriptStatement, ...]
    checksum: str

    def place(self, number: int) -> str:
        """The file and line of a statement, counted from 1."""
        return f"{self.path}:{self.statements[number - 1].line}"

    def checksum_of_first(self, count: int) -> str:
        """Of the texts of the first statements: what was applied of a file may not change, and what was not yet may."""
        return _sha256("\0".join(each.text for each in self.statements[:count]))


def read_migrations(folder: Path | str) -> tuple[Migration, ...]:
    """The migrations of a folder, in their order. Raises `MigrationError` for a file that can't be one."""
    folder = Path(folder)
    if not folder.is_dir():
        raise MigrationError(f"{folder} is no folder: name the one that holds NNNN_name.sql files")
    found: dict[str, Migration] = {}
    for path in sorted(folder.glob("*.sql")):
        named = _NAME.fullmatch(path.name)
        if named is None:
            raise MigrationError(f"{path} is not named as a migration: use four digits and a name, as 0007_add_notes.sql")
        if named[1] in found:
            raise MigrationError(f"{path} has the number of {found[named[1]].name}: give it the next free one")
        found[named[1]] = _read(path, named[1])
    return tuple(found.values())


def is_data(statement: ScriptStatement) -> bool:
    """Does it read or change rows, so that it can share a transaction with its record? DDL can't, on DSQL."""
    return shape(statement.text)[0] in _DATA


def _read(path: Path, version: str) -> Migration:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise MigrationError(f"{path} is not UTF-8 ({error}): save it as UTF-8") from error
    statements = split(text)
    if not statements:
        raise MigrationError(f"{path} has no statement: write one, or take the file away")
    for number, statement in enumerate(statements, 1):
        wrong = _wrong(shape(statement.text))
        if wrong:
            raise MigrationError(
                f"{path}:{statement.line}: {wrong}", file=str(path), line=statement.line, number=number, statement=statement.text
            )
    return Migration(version, path.name, path, statements, _sha256(text.replace("\r\n", "\n").replace("\r", "\n")))


def _wrong(words: tuple[str, ...]) -> str:
    """What keeps a statement from being part of a migration; empty if nothing does."""
    if words[0] in _ENDS_ANOTHER:
        return f"{words[0]} is not for a migration: each statement is a transaction of its own, so take it out"
    if words[0] in {"SET", "RESET"}:
        return f"{words[0]} ends with its own transaction, so the next statement does not see it: take it out, and qualify names"
    if words[0] == "\\":
        return "a command of psql is no SQL: take it out"
    if words[0] == "COPY":
        return "COPY needs data that a migration does not have: write INSERT"
    if words[0] == "CREATE" and "INDEX" in words[1:3]:
        head = [
            each for each in words[words.index("INDEX") + 1 :][:5] if each not in {"ASYNC", "CONCURRENTLY", "IF", "NOT", "EXISTS"}
        ]
        if head[:1] == ["ON"]:
            return "the index has no name, so a run that was cut off could build it twice: name it"
    if words[:2] == ("ALTER", "TABLE") and any(
        words[at] == "ADD" and words[at + 1] in {"CHECK", "FOREIGN", "UNIQUE", "PRIMARY"} for at in range(len(words) - 1)
    ):
        return "the constraint has no name, so a run that was cut off could add it twice: write ADD CONSTRAINT and a name"
    return ""


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
