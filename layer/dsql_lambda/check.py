"""The SQL texts of a project, prepared on a cluster that has its schema: `find_sql`, `SqlText.check`. For tests.

    @pytest.mark.parametrize("sql", find_sql("src"), ids=str)
    def test_the_schema_takes_every_statement(dsql, sql):
        sql.check()

Finds texts by Python's own parser, and has PostgreSQL's check them: nothing here knows SQL. Preparing a statement runs nothing.
Loaded by nothing else of this package.
"""

from __future__ import annotations

import ast
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from . import sql as sql_text
from .connection import connect
from .driver import exceptions
from .options import ConnectOptions
from .parameters import WRITERS, oid_of
from .server_errors import DatabaseError

METHODS: Final = frozenset({"run", "rows", "row", "value", "stream", "defer"})
"""The calls of a transaction that take a statement."""

_RUNNERS: Final = {"run_transaction": 0, "transaction_with_retry": 0, "durable_transaction": 1}  # and where their function stands
_RESERVED: Final = frozenset({"expect_rows", "types"})
_UNDECIDED: Final = {"42P18", "42725"}  # a parameter's type depends on its value


class SqlError(AssertionError):
    """PostgreSQL or DSQL refuses a statement. The text has the file, the line and the statement."""


class Unchecked(unittest.SkipTest):
    """A statement that can't be checked, which pytest and unittest list as a skipped test."""


class SqlText(NamedTuple):
    """One SQL text of a project, or the place of a call whose text is not in the source."""

    file: Path
    line: int
    """Where the text stands, from 1."""
    method: str
    """The call that it is given to, as `rows`."""
    text: str
    """Empty where it is made at run time."""
    oids: tuple[tuple[str, int], ...] = ()
    """The types of those placeholders whose values are in the source."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def is_literal(self) -> bool:
        """Is the text in the source, so that it can be checked?"""
        return bool(self.text)

    def check(self, target: ConnectOptions | str | None = None) -> None:
        """Prepare the statement on a cluster; None is the one that the environment names.

        Raises `SqlError` if it is refused: an unknown column, a wrong type, what DSQL does not support. Raises `Unchecked`
        for a text that is made at run time, or whose meaning depends on the values.
        """
        __tracebackhide__ = True
        if not self.is_literal:
            raise Unchecked(f"{self}: the SQL given to {self.method}() is made at run time, so it is not checked")
        try:
            query = sql_text.parse(self.text)
        except exceptions.InterfaceError as error:
            raise SqlError(f"{self}: {error}") from None
        if sql_text.refused_word(query):
            raise SqlError(f"{self}: {query.first_word} is not for tx, which begins and ends the transaction itself")
        oids = dict(self.oids)
        with connect(target) as connection:
            try:
                connection.prepare_statement(query.text, tuple(oids.get(name, 0) for name in query.names))
            except DatabaseError as error:
                refused = error
            else:
                return
        if refused.sqlstate in _UNDECIDED:
            raise Unchecked(f"{self}: {refused.message}: that depends on the values; write a cast to have it checked")
        raise SqlError(self._explain(refused, query.text)) from None

    def _explain(self, error: DatabaseError, sent: str) -> str:
        """The server's word, with the place in the file and in the statement."""
        position = int(error._field("P") or 1) - 1
        start, end = sent.rfind("\n", 0, position) + 1, sent.find("\n", position)
        shown = sent[start : end if end >= 0 else len(sent)]
        hint = f"\n    {error.hint}" if error.hint else ""
        return (
            f"{self.file}:{self.line + sent.count(chr(10), 0, position)}: {error.message} (SQLSTATE {error.sqlstate})\n"
            f"    {shown}\n    {' ' * (position - start)}^{hint}"
        )


def find_sql(*paths: Path | str) -> list[SqlText]:
    """The SQL given to `tx` in Python files, and in those below folders: in order of place.

    `tx` is what has that name, a parameter annotated as a `Transaction`, the parameter of a function that is given to
    `run_transaction` or its like, and what `with connection.transaction() as` names. A text is a literal, a name that the file
    gives one literal, or what is joined of them. A call whose text is none of these is listed with an empty text.
    Raises `FileNotFoundError` for a path that is not there, and `SyntaxError` for a file that is no Python.
    """
    found: dict[SqlText, None] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path} is not there: name the folders that hold the handlers")
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
            found.update(dict.fromkeys(_of_file(file, tree)))
    return sorted(found)


def _of_file(file: Path, tree: ast.Module) -> Iterator[SqlText]:
    receivers, constants = _receivers(tree), _constants(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr not in METHODS:
            continue
        if _last_name(node.func.value) not in receivers or not node.args:
            continue
        argument = node.args[0]
        texts = _texts(argument, constants)
        for text in texts or [""]:
            yield SqlText(file, argument.lineno, node.func.attr, text, _oids(node))


def _receivers(tree: ast.Module) -> set[str]:
    """The names of transactions in a file."""
    names = {"tx"}
    functions = {each.name: each.args for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation is not None:
            written = node.annotation.value if isinstance(node.annotation, ast.Constant) else ast.unparse(node.annotation)
            if str(written).rpartition(".")[2] == "Transaction":
                names.add(node.arg)
        elif isinstance(node, ast.withitem) and isinstance(node.optional_vars, ast.Name):
            if isinstance(node.context_expr, ast.Call) and _last_name(node.context_expr.func) == "transaction":
                names.add(node.optional_vars.id)
        elif isinstance(node, ast.Call) and (place := _RUNNERS.get(_last_name(node.func))) is not None:
            given = node.args[place] if len(node.args) > place else None
            arguments = given.args if isinstance(given, ast.Lambda) else functions.get(_last_name(given))
            if arguments is not None and (arguments.posonlyargs or arguments.args):
                names.add([*arguments.posonlyargs, *arguments.args][0].arg)
    return names - {"self", "cls"}


def _last_name(node: ast.expr | None) -> str:
    """`tx` of `tx`, and of `self.tx`."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """The names that a file gives one value, and that value."""
    values: dict[str, list[ast.expr | None]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for each in ast.walk(target):
                    if isinstance(each, ast.Name):
                        values.setdefault(each.id, []).append(node.value if each is target else None)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            values.setdefault(node.target.id, []).append(node.value)
        elif isinstance(node, ast.arg):
            values.setdefault(node.arg, []).append(None)
        elif isinstance(node, ast.AugAssign | ast.For | ast.comprehension | ast.NamedExpr):
            for each in ast.walk(node.target):
                if isinstance(each, ast.Name):
                    values.setdefault(each.id, []).append(None)
    return {name: given[0] for name, given in values.items() if len(given) == 1 and given[0] is not None}


def _texts(node: ast.expr, constants: dict[str, ast.expr], depth: int = 0) -> list[str]:
    """What an expression can be, as far as the source says; empty if it does not."""
    if depth > 8:
        return []
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.Name(id=name) if name in constants:
            return _texts(constants[name], constants, depth + 1)
        case ast.IfExp(body=body, orelse=orelse):
            both = _texts(body, constants, depth + 1), _texts(orelse, constants, depth + 1)
            return [*both[0], *both[1]] if all(both) else []
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _joined([left, right], constants, depth)
        case ast.JoinedStr(values=parts):
            return _joined([each.value if isinstance(each, ast.FormattedValue) else each for each in parts], constants, depth)
    return []


def _joined(parts: list[ast.expr], constants: dict[str, ast.expr], depth: int) -> list[str]:
    texts = [""]
    for part in parts:
        more = _texts(part, constants, depth + 1)
        texts = [before + after for before in texts for after in more]
    return texts


def _oids(call: ast.Call) -> tuple[tuple[str, int], ...]:
    """The types that the layer sends for values in the source, by their placeholders."""
    found: dict[str, int] = {}
    for keyword in call.keywords:
        try:
            value: Any = ast.literal_eval(keyword.value)
        except (ValueError, TypeError):
            continue
        if keyword.arg == "types" and isinstance(value, dict):
            found |= {str(name): oid for name, oid in value.items() if isinstance(oid, int)}
        elif keyword.arg is not None and keyword.arg not in _RESERVED:
            found.setdefault(keyword.arg, oid_of(value, WRITERS))
    return tuple(sorted((name, oid) for name, oid in found.items() if oid))
