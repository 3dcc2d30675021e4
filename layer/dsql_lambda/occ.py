"""What an optimistic concurrency conflict is: its type, its code, and how to tell one from any other error.

Knows the SQLSTATE and the marker in the message, and how each PostgreSQL driver carries them. Imports no driver.

DSQL answers every conflict with SQLSTATE 40001; the kind stands in the message: "change conflicts with another transaction
(OC000)", "schema has been updated by another transaction (OC001)" (recorded on a cluster). The wording has changed
before, so only 40001 and the marker count. The codes OC000 and OC001 as SQLSTATEs are what the connectors document.
https://docs.aws.amazon.com/aurora-dsql/latest/userguide/working-with-concurrency-control.html
"""

from __future__ import annotations

from enum import StrEnum

from .errors import CommitOutcomeUnknown
from .fields import Frozen

SERIALIZATION_FAILURE = "40001"
_LONGEST_CHAIN = 32  # of causes; an error can be made its own cause


class OCCType(StrEnum):
    """The connectors' three kinds of conflict."""

    DATA = "data"
    """OC000: another transaction changed the same rows."""
    SCHEMA = "schema"
    """OC001: another session changed the catalog (DDL, GRANT, an index build) since this one last looked."""
    UNKNOWN = "unknown"
    """A serialization failure without a marker."""


class OCCConflict(Frozen):
    """A conflict as it was classified."""

    type: OCCType
    code: str
    """`OC000`, `OC001`, or `40001` where the server named neither."""

    __match_args__ = ("type", "code")

    def __init__(self, type: OCCType, code: str) -> None:  # noqa: A002 - the field's name
        self.__dict__.update(type=type, code=code)


_BY_CODE = {
    "OC000": OCCConflict(OCCType.DATA, "OC000"),
    "OC001": OCCConflict(OCCType.SCHEMA, "OC001"),
}
_UNMARKED = OCCConflict(OCCType.UNKNOWN, SERIALIZATION_FAILURE)


def classify_occ(error: BaseException | None) -> OCCConflict | None:
    """Tell what kind of conflict an error is, or None if it is none.

    Understands pg8000's errors (a dict in `args[0]`), those of psycopg and asyncpg (`sqlstate`), of psycopg2 (`pgcode`),
    and wrappers around any of them: SQLAlchemy's (`orig`), Django's and Tortoise's (`raise ... from error`).
    """
    seen = 0
    while error is not None and not isinstance(error, CommitOutcomeUnknown) and seen < _LONGEST_CHAIN:
        sqlstate, message = _sqlstate_and_message(error)
        if sqlstate == SERIALIZATION_FAILURE:
            return next((conflict for code, conflict in _BY_CODE.items() if f"({code})" in message), _UNMARKED)
        if sqlstate:
            return _BY_CODE.get(sqlstate)
        wrapped = getattr(error, "orig", None)
        error = wrapped if isinstance(wrapped, BaseException) else error.__cause__
        seen += 1
    return None


def is_occ_error(error: BaseException | None) -> bool:
    """Is this error a conflict, so that running the whole transaction again can help?"""
    return classify_occ(error) is not None


def _sqlstate_and_message(error: BaseException) -> tuple[str, str]:
    fields = error.args[0] if error.args else None
    if isinstance(fields, dict):  # pg8000: {"S": severity, "C": SQLSTATE, "M": message, ...}
        return str(fields.get("C", "")), str(fields.get("M", ""))
    sqlstate = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return (sqlstate if isinstance(sqlstate, str) else ""), str(error)
