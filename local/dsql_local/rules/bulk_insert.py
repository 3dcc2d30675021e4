"""A long INSERT in short: rows of parameters that all look alike stand in it once. What is said of one holds for all.

Pure; it reads no SQL beyond this. Only repetitions without quotes or comments are left out, so that nothing else reads otherwise.
"""

import re

__all__ = ["condensed"]

_PARAMETER = re.compile(r"(?<![\w$])\$\d+")
_ATOM = r"(?:[^()'\"$/*-]|\$1)*"
_ROWS = re.compile(rf"(?P<row>\({_ATOM}(?:\({_ATOM}\){_ATOM})*\))(?:\s*,\s*(?P=row))+")


def condensed(sql: str) -> tuple[str, int]:
    """The text with such rows once and every parameter as $1, and how many rows were left out at most."""
    left_out = 0

    def once(rows: re.Match[str]) -> str:
        nonlocal left_out
        left_out += rows[0].count(rows["row"]) - 1
        return rows["row"]

    short = _ROWS.sub(once, _PARAMETER.sub("$1", sql))
    return short, left_out
