"""Searches in parse trees of libpg_query: which nodes a statement contains, and which of them a `where` describes.

It knows the shape of the trees: a node is an object whose only key is its kind. It does not know what a match means.
"""

from collections.abc import Mapping
from typing import Any

__all__ = ["Node", "at", "fits", "nodes", "strings"]

Node = Mapping[str, Any]

# Members whose node has no key for its kind.
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
    """All nodes of a tree as (kind, node), outermost first."""
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
    """The value at a dotted path of members, None if there is none."""
    for name in path.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    return node


def fits(node: Node, where: Mapping[str, Any]) -> bool:
    """Whether the value at every path of `where` meets its condition.

    A condition is a value; a list (one of its values); `{not = [...]}` (none of them); `{above = n}` (a greater number);
    `{any = [...]}` (a list that contains one of these names); true or false (whether there is a value).
    """
    return all(_holds(at(node, path), condition) for path, condition in where.items())


def _holds(found: Any, condition: Any) -> bool:
    if isinstance(condition, bool):
        return bool(found) is condition
    if isinstance(condition, list):
        return found in condition
    if isinstance(condition, dict):
        if "any" in condition:
            return not set(condition["any"]).isdisjoint(strings(found))
        if "above" in condition:
            return isinstance(found, int) and found > condition["above"]
        return found not in condition["not"]
    return bool(found == condition)


def strings(names: Any) -> list[str]:
    """The texts of a list of String nodes, such as a qualified name."""
    return [at(name, "String.sval") or "" for name in names or ()]
