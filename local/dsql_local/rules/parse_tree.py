"""Parse trees of libpg_query, searched by declarations: which nodes stand in a statement, and which of them a `where` describes.

It knows the shape of the trees (a node is an object whose only key is its kind) and nothing of DSQL or of what a match means.
"""

from collections.abc import Mapping
from typing import Any

__all__ = ["Node", "at", "fits", "nodes", "strings"]

Node = Mapping[str, Any]

# Members whose node is written without its kind.
_KINDS = {
    "typeName": "TypeName",
    "returnType": "TypeName",
    "intoClause": "IntoClause",
    "setstmt": "VariableSetStmt",
    "relation": "RangeVar",
    "view": "RangeVar",
    "sequence": "RangeVar",
    "pktable": "RangeVar",
}


def nodes(tree: Any) -> list[tuple[str, Node]]:
    """(kind, node) of everything in a tree, outermost first."""
    found: list[tuple[str, Node]] = []
    _visit(tree, found)
    return found


def _visit(tree: Any, found: list[tuple[str, Node]]) -> None:
    if isinstance(tree, list):
        for item in tree:
            _visit(item, found)
        return
    for name, member in tree.items() if isinstance(tree, dict) else ():
        if isinstance(member, dict):
            if name[0].isupper() or name in _KINDS:
                found.append((_KINDS.get(name) or str(name), member))
            _visit(member, found)
        elif isinstance(member, list):
            _visit(member, found)


def at(node: Any, path: str) -> Any:
    """What stands at a dotted path of members, None if nothing does."""
    for name in path.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    return node


def fits(node: Node, where: Mapping[str, Any]) -> bool:
    """Whether every path of `where` holds what is asked.

    That is a value, one of a list, none of `{not = [...]}`, more than `{above = …}`, a list of names with one of `{any = [...]}`,
    or (true, false) something or nothing.
    """
    return all(_holds(at(node, path), asked) for path, asked in where.items())


def _holds(found: Any, asked: Any) -> bool:
    if isinstance(asked, bool):
        return bool(found) is asked
    if isinstance(asked, list):
        return found in asked
    if isinstance(asked, dict):
        if "any" in asked:
            return not set(asked["any"]).isdisjoint(strings(found))
        if "above" in asked:
            return isinstance(found, int) and found > asked["above"]
        return found not in asked["not"]
    return bool(found == asked)


def strings(names: Any) -> list[str]:
    """The texts of a list of String nodes: a qualified name, say."""
    return [at(name, "String.sval") or "" for name in names or ()]
