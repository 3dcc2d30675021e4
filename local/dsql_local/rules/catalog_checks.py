"""The queries on the catalog that a statement needs before it is executed, because its text alone does not decide.

Pure: a parse tree in, SQL out. The statement policy runs the queries.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from .parse_tree import Node, at
from .quoting import quote_identifier, quote_literal
from .rulebook import StatementError
from .unsupported import Found, matches, rule_error

__all__ = ["CatalogCheck", "catalog_checks", "qualified"]


@dataclass(frozen=True, slots=True)
class CatalogCheck:
    """A query on the catalog: if it returns a row, the statement is refused. The message may contain the row's first value."""

    sql: str
    error: StatementError

    def error_for(self, row: list[str | None]) -> StatementError:
        """The error, with the first value of a row of the query."""
        return replace(self.error, message=self.error.message.replace("{found}", row[0] or ""))


def catalog_checks(kind: str, statement: Node, found: Found) -> Iterator[CatalogCheck]:
    """The checks of a statement that its text does not refuse."""
    for rule, node in matches(kind, found):
        if "lookup" not in rule:
            continue
        for role in [at(role, "RoleSpec.rolename") or "" for role in node.get("roles", ())] or [""]:
            values = {
                "table": qualified(statement.get("relation") or {}),
                "name": str(node.get("name") or ""),
                "role": role,
                "columns": _columns(statement),
            }
            sql = rule["lookup"].format(**{name: quote_literal(value) for name, value in values.items()})
            yield CatalogCheck(sql, rule_error(rule, node, role=role, found="{found}"))


def qualified(relation: Node) -> str:
    """A relation, as `to_regclass` reads it."""
    parts = (relation.get("schemaname"), relation.get("relname"))
    return ".".join(quote_identifier(part) for part in parts if part)


def _columns(statement: Node) -> str:
    """The columns that are keys of a new index, as an array of names is written."""
    names = [at(element, "IndexElem.name") for element in statement.get("indexParams", ())]
    return "{" + ",".join('"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"' for name in names if name) + "}"
