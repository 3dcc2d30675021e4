"""The tables, views, sequences and functions that a statement names. Pure: a parse tree in, names out.

The search path is PostgreSQL's business; objects behind a name (a view's tables, a table's indexes) are not included.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from .parse_tree import Node, at, strings
from .unsupported import Found

__all__ = ["ObjectName", "named_objects"]

_SEQUENCE_FUNCTIONS = ("nextval", "currval", "setval")
_RELATIONS = ("OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_SEQUENCE", "OBJECT_INDEX")


@dataclass(frozen=True, slots=True)
class ObjectName:
    """The name of an object; `schema` is None if the search path decides."""

    name: str
    schema: str | None = None

    @classmethod
    def of(cls, parts: list[str]) -> "ObjectName":
        """The name with these parts."""
        return cls(parts[-1], parts[-2] if len(parts) > 1 else None)


def named_objects(kind: str, statement: Node, found: Found) -> frozenset[ObjectName]:
    """All objects that a statement names, including built-in functions and names of WITH queries."""
    return frozenset(name for name in _names(kind, statement, found) if name.name)


def _names(kind: str, statement: Node, found: Found) -> Iterator[ObjectName]:
    for relation in found.get("RangeVar", ()):
        yield ObjectName(str(relation.get("relname", "")), relation.get("schemaname"))
    for function in found.get("ObjectWithArgs", ()):
        yield ObjectName.of(strings(function.get("objname")) or [""])
    for call in found.get("FuncCall", ()):
        name = strings(call.get("funcname")) or [""]
        yield ObjectName.of(name)
        if name[-1] in _SEQUENCE_FUNCTIONS:
            yield from _sequence(next(iter(call.get("args") or ()), None))
    if kind == "CreateFunctionStmt":
        yield ObjectName.of(strings(statement.get("funcname")) or [""])
    if kind == "DropStmt" and statement.get("removeType") in _RELATIONS:
        for name in statement.get("objects", ()):
            yield ObjectName.of(strings(at(name, "List.items")) or [""])


def _sequence(argument: object) -> Iterator[ObjectName]:
    """The sequence in nextval('…'), if it is a literal."""
    text = at(argument, "A_Const.sval.sval") or at(argument, "TypeCast.arg.A_Const.sval.sval")
    if isinstance(text, str):
        yield ObjectName.of([part.strip('"') for part in text.split(".")])
