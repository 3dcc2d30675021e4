"""Long INSERT statements in short: rows of parameters that look alike are kept once, since a verdict on one holds for all.

Only repetitions without quotes and comments are removed, so that the meaning of the rest cannot change.
"""

import re

__all__ = ["condense"]

_PARAMETER = re.compile(r"(?<![\w$])\$\d+")
_ATOM = r"(?:[^()'\"$/*-]|\$1)*"
_ROWS = re.compile(rf"(?P<row>\({_ATOM}(?:\({_ATOM}\){_ATOM})*\))(?:\s*,\s*(?P=row))+")


def condense(sql: str) -> tuple[str, int]:
    """The text with every parameter as $1 and such rows once, and the maximum number of removed rows."""
    removed = 0

    def once(rows: re.Match[str]) -> str:
        nonlocal removed
        removed += rows[0].count(rows["row"]) - 1
        return rows["row"]

    short = _ROWS.sub(once, _PARAMETER.sub("$1", sql))
    return short, removed
