"""Prints the documentation's table of options, made from `ConnectOptions` itself: `python docs/options_table.py`.

A test sees to it that docs/how-it-works.md holds just what this prints.
"""

from __future__ import annotations

import ast
import inspect
from textwrap import fill

from dsql_lambda import options
from dsql_lambda.conninfo import URL_PARAMETERS
from dsql_lambda.options import ConnectOptions
from dsql_lambda.variables import OBJECTS, SAMPLES_VARIABLES, variable_of

_WIDTH = 118
_PARTS_OF_A_URL = {"host": "the host", "port": "the port", "user": "the user", "database": "the path"}


def table() -> str:
    """Markdown: a row for each option, in the order of the class, and below them what each is."""
    in_url = {**_PARTS_OF_A_URL}
    for name, option in URL_PARAMETERS.items():
        in_url[option] = f"{in_url[option]}, `{name}`" if option in in_url else f"`{name}`"
    defaults = {name: each.default for name, each in inspect.signature(ConnectOptions).parameters.items()}
    rows = ["| keyword | variable | URL | default |", "| --- | --- | --- | --- |"]
    meanings = []
    for name, meaning in _meanings().items():
        variable = "" if name in OBJECTS else f"`{variable_of(name)}`"
        if name in SAMPLES_VARIABLES:
            variable += f", `{SAMPLES_VARIABLES[name]}`"
        shown = "" if defaults[name] in ("", None) else f"`{defaults[name]}`"
        rows.append(f"| `{name}` | {variable} | {in_url.get(name, '')} | {shown} |")
        meanings.append(fill(f"- `{name}`: {meaning}", _WIDTH, subsequent_indent="  ", break_on_hyphens=False))
    return "\n".join([*rows, "", *meanings])


def _meanings() -> dict[str, str]:
    """Each field's docstring: the string that stands below it in the source."""
    classes = {each.name: each for each in ast.parse(inspect.getsource(options)).body if isinstance(each, ast.ClassDef)}
    found: dict[str, str] = {}
    for statement in classes[ConnectOptions.__name__].body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found[statement.target.id] = ""
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and found:
            name = next(reversed(found))
            found[name] = found[name] or " ".join(str(statement.value.value).split())
    return found


if __name__ == "__main__":
    print(table())
