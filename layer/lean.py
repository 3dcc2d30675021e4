"""Moves pg8000's costly imports into the functions that use them. The layer's build runs it on the copy that it packages.

    python layer/lean.py <the folder that holds pg8000>

pg8000 imports at its top what a first row from DSQL never needs: scramp, hashlib, dateutil.parser, importlib.metadata, uuid,
and in the package itself both DB-API modules. That is two thirds of what its import costs. `literal`, a function by the type of
its argument, has its types named instead of evaluated. Version and text must be those that the moves below were written for;
nothing else is changed.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import NamedTuple

VERSION = "1.31.6"


class Move(NamedTuple):
    """A text of a module, what takes its place, and how often it is there."""

    before: str
    after: str
    times: int = 1


CORE = (
    Move("from importlib.metadata import version\n", ""),
    Move('ver = version("pg8000")\n', f'ver = "{VERSION}"\n'),
    Move("from hashlib import md5\n", ""),
    Move('            pwd = b"md5" + md5(\n', '            from hashlib import md5\n\n            pwd = b"md5" + md5(\n'),
    Move("import scramp\n\n", ""),
    Move("            self.auth = scramp.", "            import scramp\n\n            self.auth = scramp."),
)

CONVERTERS = (
    Move("from dateutil.parser import ParserError, parse\n\n", ""),
    Move(
        "    except ValueError:\n        try:\n            return parse(data)\n",
        "    except ValueError:\n        from dateutil.parser import ParserError, parse\n\n"
        "        try:\n            return parse(data)\n",
        2,
    ),
    Move("from uuid import UUID\n\n", "\n"),
    Move("    return UUID(data)\n", "    from uuid import UUID\n\n    return UUID(data)\n"),
    # A type that is not in the table of functions is sent as its `str`, which is what uuid_out does; in the table of OIDs only
    # the DB-API modules look up.
    Move("    UUID: uuid_out,  # uuid\n", ""),
    Move("    UUID: UUID_TYPE,\n", ""),
    # Registered by its annotation, a function has that evaluated by `typing`, which costs more than the function.
    *(
        Move(f"@literal.register\ndef _(value: {kind}):", f"@literal.register({kind})\ndef _(value):")
        for kind in ("bool", "Datetime", "Date", "Time", "Timedelta", "list")
    ),
    Move("@literal.register\ndef _(value: None):", "@literal.register(type(None))\ndef _(value):"),
)

DBAPI = (
    Move(
        "from pg8000.types import Range\n",
        "from pg8000.types import Range\nfrom uuid import UUID\n\nPY_PG[UUID] = UUID_TYPE\n",
    ),
)

# The names that the package takes from `pg8000.legacy` are looked up there when they are first asked for; so are its submodules,
# which are its attributes once it has imported them. `connect` is a function of its own, and finds `Connection` the same way.
NAMES_ON_DEMAND = """\
def __getattr__(name):
    from importlib import import_module

    if name in {"converters", "core", "dbapi", "exceptions", "legacy", "types"}:
        return import_module(f"pg8000.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module("pg8000.legacy"), name)
    return value
"""


class UnexpectedTextError(Exception):
    """This pg8000 is not the one that the moves were written for."""


def package_moves(text: str) -> tuple[Move, ...]:
    """Those of `pg8000/__init__.py`, whose import is as long as its list of names."""
    first = ast.parse(text).body[0]
    if not isinstance(first, ast.ImportFrom) or first.module != "pg8000.legacy":
        raise UnexpectedTextError("pg8000/__init__.py does not begin with its import of pg8000.legacy")
    imported = "".join(text.splitlines(keepends=True)[: first.end_lineno])
    connect = "    return Connection(\n"
    return Move(imported, NAMES_ON_DEMAND), Move(connect, f"    from pg8000 import Connection\n\n{connect}")


def moved(name: str, text: str, moves: tuple[Move, ...]) -> str:
    """The text of a module after the moves. Raises `UnexpectedTextError` for one that they do not fit."""
    for before, after, times in moves:
        if text.count(before) != times:
            raise UnexpectedTextError(f"pg8000/{name} does not hold {before.strip().splitlines()[0]!r} {times} times")
        text = text.replace(before, after)
    return text


def make_lean(folder: Path) -> None:
    """Change the four files in `folder/pg8000`, all or none. Raises `UnexpectedTextError`."""
    if not (folder / f"pg8000-{VERSION}.dist-info").is_dir():
        raise UnexpectedTextError(f"{folder} does not hold pg8000 {VERSION}")
    package = folder / "pg8000"
    names = ("__init__.py", "converters.py", "core.py", "dbapi.py")
    texts = {name: (package / name).read_text(encoding="utf-8") for name in names}
    moves = dict(zip(names, (package_moves(texts["__init__.py"]), CONVERTERS, CORE, DBAPI), strict=True))
    lean = {name: moved(name, text, moves[name]) for name, text in texts.items()}
    for name, text in lean.items():
        (package / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        make_lean(Path(sys.argv[1]))
    except (UnexpectedTextError, OSError) as error:
        sys.exit(f"dsql-lambda: pg8000's imports can't be moved: {error}; layer/lean.py is written for pg8000 {VERSION}")
