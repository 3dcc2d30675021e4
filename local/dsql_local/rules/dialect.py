"""DSQL's own statements, which PostgreSQL does not have: `CREATE INDEX ASYNC`, `ALTER TABLE ASYNC`, `AWS IAM GRANT` and `REVOKE`.

They are recognized before the parser runs, and translated to calls of functions in the schema `sys` (see `postgres.sys_schema`).
Pure functions of the text; nothing is refused here.
"""

import re
from dataclasses import dataclass

from .quoting import quote_literal

__all__ = ["NEW_JOB", "Translation", "first_word", "index_method", "translate"]

NEW_JOB = "<job>"  # the placeholder for the id of a new job in an `execution`
_S = r"(?:\s|--[^\n]*(?:\n|\Z)|/\*(?:[^*]|\*(?!/))*\*/)"  # whitespace and comments
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
class Translation:
    """A statement in DSQL's own syntax.

    `plain` is the statement without ASYNC, for the parser; None if PostgreSQL has no similar statement. `execution` is what
    PostgreSQL executes instead, and `tag` the command tag for the client; both are None if the syntax is wrong.
    """

    plain: str | None
    execution: str | None = None
    tag: str | None = None


def first_word(sql: str) -> str:
    """The first word of a statement, in upper case."""
    word = _WORD.match(sql)
    return "" if word is None else word[1].upper()


def index_method(plain: str) -> tuple[str | None, str]:
    """The access method of a CREATE INDEX without ASYNC, and the statement without it. The parse tree does not contain it."""
    found = _METHOD.match(plain)
    if found is None or found[2] is None:
        return None, plain
    return _folded(found[2]), found[1] + plain[found.end() :]


def translate(sql: str) -> Translation | None:
    """The translation of a statement in DSQL's own syntax, None for any other statement."""
    index = _INDEX.fullmatch(sql)
    if index is not None:
        _, not_unique = index_method("CREATE INDEX" + index[2])
        call = f"SELECT sys._create_index('{NEW_JOB}', {quote_literal(not_unique)}, {index[1] is not None}) AS job_id"
        return Translation(f"CREATE {'' if index[1] is None else 'UNIQUE '}INDEX{index[2]}", call, "CREATE INDEX")
    table = _TABLE.fullmatch(sql)
    if table is not None:
        constraint = _VALIDATE.fullmatch(table[2])
        if constraint is None:  # it is refused, or PostgreSQL reports a syntax error
            return Translation(table[1] + table[2])
        written, name = quote_literal(constraint[2]), quote_literal(constraint[3])
        call = f"SELECT sys._validate('{NEW_JOB}', {written}, {name}, {constraint[1] is not None}) AS job_id"
        return Translation(table[1] + table[2], call, "ALTER TABLE")
    if _IAM.match(sql) is None:
        return None
    mapping = _MAPPING.fullmatch(sql)
    if mapping is None:
        return Translation(None)
    verb = (mapping[1] or mapping[3]).upper()
    role, arn = quote_literal(_folded(mapping[2] or mapping[4])), quote_literal(mapping[5].replace("''", "'"))
    return Translation(None, f"CALL sys._iam_{verb.lower()}({role}, {arn})", f"AWS IAM {verb}")


def _folded(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
