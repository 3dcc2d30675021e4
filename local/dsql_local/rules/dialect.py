"""DSQL's own statements, which PostgreSQL's grammar does not have: recognised before the parser, told to PostgreSQL otherwise.

`CREATE INDEX ASYNC`, `ALTER TABLE ASYNC`, `AWS IAM GRANT` and `AWS IAM REVOKE`. What they do is done by the functions of the
schema `sys` (see `sys_schema`). Pure text in, pure text out; nothing is refused here.
"""

import re
from dataclasses import dataclass

from .quoting import quote_literal

__all__ = ["NEW_JOB", "Translated", "first_word", "index_method", "translate"]

NEW_JOB = "<job>"  # in what PostgreSQL is told, where the id of a new job is to stand
_S = r"(?:\s|--[^\n]*(?:\n|\Z)|/\*(?:[^*]|\*(?!/))*\*/)"  # white space and comments
_NAME = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'
_WORD = re.compile(rf"{_S}*(\w+)")
_INDEX = re.compile(rf"{_S}*CREATE{_S}+(UNIQUE{_S}+)?INDEX{_S}+ASYNC\b(.*)", re.IGNORECASE | re.DOTALL)
_METHOD = re.compile(
    rf"({_S}*CREATE{_S}+(?:UNIQUE{_S}+)?INDEX(?:{_S}+CONCURRENTLY)?(?:{_S}+IF{_S}+NOT{_S}+EXISTS)?(?:{_S}+{_NAME})?{_S}+ON{_S}+"
    rf"(?:ONLY{_S}+)?{_NAME}(?:{_S}*\.{_S}*{_NAME})*(?:{_S}*\*)?)(?:{_S}+USING{_S}+({_NAME}))?",
    re.IGNORECASE,
)
_TABLE = re.compile(rf"{_S}*(ALTER{_S}+TABLE){_S}+ASYNC\b(.*)", re.IGNORECASE | re.DOTALL)
_VALIDATE = re.compile(
    rf"{_S}+(IF{_S}+EXISTS{_S}+)?(?:ONLY{_S}+)?({_NAME}(?:{_S}*\.{_S}*{_NAME})*)(?:{_S}*\*)?{_S}+VALIDATE{_S}+CONSTRAINT{_S}+"
    rf"({_NAME}){_S}*;?{_S}*",
    re.IGNORECASE,
)
_IAM = re.compile(rf"{_S}*AWS\b", re.IGNORECASE)
_MAPPING = re.compile(
    rf"{_S}*AWS{_S}+IAM{_S}+(?:(GRANT){_S}+({_NAME}){_S}+TO|(REVOKE){_S}+({_NAME}){_S}+FROM){_S}*'((?:[^']|'')*)'{_S}*;?{_S}*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Translated:
    """A statement of DSQL's own. `plain` is what it is without DSQL's word, for the parser; None: it has no such form.

    `execution` is what PostgreSQL is told and `tag` what its command tag is to be, both None for a text that is malformed.
    """

    plain: str | None
    execution: str | None = None
    tag: str | None = None


def first_word(sql: str) -> str:
    """The word that a statement begins with, in upper case."""
    word = _WORD.match(sql)
    return "" if word is None else word[1].upper()


def index_method(plain: str) -> tuple[str | None, str]:
    """The access method that a CREATE INDEX without ASYNC names, which the parser does not tell, and the statement without it."""
    found = _METHOD.match(plain)
    if found is None or found[2] is None:
        return None, plain
    return _folded(found[2]), found[1] + plain[found.end() :]


def translate(sql: str) -> Translated | None:
    """What a statement is, if it is one of DSQL's own."""
    index = _INDEX.fullmatch(sql)
    if index is not None:
        _, not_unique = index_method("CREATE INDEX" + index[2])
        call = f"SELECT sys._create_index('{NEW_JOB}', {quote_literal(not_unique)}, {index[1] is not None}) AS job_id"
        return Translated(f"CREATE {'' if index[1] is None else 'UNIQUE '}INDEX{index[2]}", call, "CREATE INDEX")
    table = _TABLE.fullmatch(sql)
    if table is not None:
        constraint = _VALIDATE.fullmatch(table[2])
        if constraint is None:  # it is refused, or PostgreSQL finds its syntax wrong
            return Translated(table[1] + table[2])
        written, name = quote_literal(constraint[2]), quote_literal(constraint[3])
        call = f"SELECT sys._validate('{NEW_JOB}', {written}, {name}, {constraint[1] is not None}) AS job_id"
        return Translated(table[1] + table[2], call, "ALTER TABLE")
    if _IAM.match(sql) is None:
        return None
    mapping = _MAPPING.fullmatch(sql)
    if mapping is None:
        return Translated(None)
    verb = (mapping[1] or mapping[3]).upper()
    role, arn = quote_literal(_folded(mapping[2] or mapping[4])), quote_literal(mapping[5].replace("''", "'"))
    return Translated(None, f"CALL sys._iam_{verb.lower()}({role}, {arn})", f"AWS IAM {verb}")


def _folded(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
