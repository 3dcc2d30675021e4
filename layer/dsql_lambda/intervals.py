"""Intervals: PostgreSQL's text of one, and what it is in Python, in both directions.

Knows the four forms of the setting `IntervalStyle`, `timedelta` and pg8000's `PGInterval`; nothing of other types.
https://www.postgresql.org/docs/current/datatype-datetime.html#DATATYPE-INTERVAL-OUTPUT
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

from .driver import converters

if TYPE_CHECKING:
    from typing import Any

UNITS = (
    *("millennia", "centuries", "decades", "years", "months", "weeks"),
    *("days", "hours", "minutes", "seconds", "microseconds"),
)
"""The fields of a `PGInterval`, which are also units that PostgreSQL reads."""

_CLOCK = r"(?:(?P<clock>[-+])?(?P<hours>\d+):(?P<minutes>\d+):(?P<seconds>[\d.]+))?"


def _field(name: str, before: str, unit: str) -> str:
    return rf"(?:{before}(?P<{name}>[-+]?[\d.]+){unit})?"


def _fields(before: str, after: str, **units: str) -> str:
    return "".join(_field(name, before, unit + after) for name, unit in units.items())


_POSTGRES = _fields("", " ?", years=" years?", months=" mons?", days=" days?") + _CLOCK
_SQL_STANDARD = r"(?:(?P<both>[-+])?(?P<years>\d+)-(?P<months>\d+) ?)?" + _field("days", "", " ?") + _CLOCK
_ISO_8601 = "P" + _fields("", "", years="Y", months="M", days="D") + "T?" + _fields("", "", hours="H", minutes="M", seconds="S")
_VERBOSE = (
    "@(?: 0)?"
    + _fields(" ", "", years=" years?", months=" mons?", days=" days?", hours=" hours?", minutes=" mins?", seconds=" secs?")
    + "(?P<ago> ago)?"
)
_ALL = {"P": (_ISO_8601,), "@": (_VERBOSE,)}


def read_interval(text: str) -> Any:
    """A `timedelta`; a `PGInterval` where it has months or years, which have no fixed length, or too many days."""
    forms = _ALL.get(text[0], (_POSTGRES, _SQL_STANDARD))
    found = next(filter(None, (re.fullmatch(form, text) for form in forms)), None)
    if found is None:  # `infinity`, which PostgreSQL 17 has
        return text
    parts = found.groupdict()
    signs = dict.fromkeys(("years", "months"), parts.get("both"))
    if "clock" in parts:  # without a sign of its own, it has that of the days before it: "-3 4:05:06"
        signs.update(dict.fromkeys(("hours", "minutes", "seconds"), parts["clock"] or (parts["days"] or "")[:1]))
    fields = {}
    for name in ("years", "months", "days", "hours", "minutes", "seconds"):
        amount = float(parts[name] or 0) if name == "seconds" else int(parts[name] or 0)
        if amount:
            fields[name] = -amount if (signs.get(name) == "-") != bool(parts.get("ago")) else amount
    if "years" not in fields and "months" not in fields:
        try:
            return timedelta(**fields)
        except OverflowError:
            pass
    return converters.PGInterval(**fields)


def write_timedelta(value: timedelta) -> str:
    """Every part with its sign: the style `sql_standard` takes a first minus for that of all parts without one."""
    return f"{value.days:+} days {value.seconds:+} seconds {value.microseconds:+} microseconds"


def write_interval(value: Any) -> str:
    """A `PGInterval`, field by field."""
    amounts = ((unit, getattr(value, unit)) for unit in UNITS)
    # Of a float every decimal, for PostgreSQL does not read 1e-06.
    fields = [f"{amount:+} {unit}" if isinstance(amount, int) else f"{amount:+.6f} {unit}" for unit, amount in amounts if amount]
    return " ".join(fields) or "0 seconds"
