"""What a statement's text alone does not say: the questions to the catalog that the rules ask before it is executed.

Pure: a parse tree in, SQL out. `guard` asks.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from .parse_tree import Node, at
from .quoting import quote_identifier, quote_literal
from .rulebook import StatementError
from .unsupported import Found, matches, refusal

__all__ = ["CatalogCheck", "lookups", "qualified"]


@dataclass(frozen=True, slots=True)
class CatalogCheck:
    """A question to the catalog: if it has a row, the statement is refused, and the row's first value may stand in the words."""

    sql: str
    refused: StatementError

    def answered(self, row: list[str | None]) -> StatementError:
        """The refusal, told what the catalog said first."""
        return replace(self.refused, message=self.refused.message.replace("{found}", row[0] or ""))


def lookups(kind: str, statement: Node, found: Found) -> Iterator[CatalogCheck]:
    """The questions about a statement that its text does not refuse."""
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
            yield CatalogCheck(sql, refusal(rule, node, role=role, found="{found}"))


def qualified(relation: Node) -> str:
    """A relation, as `to_regclass` reads it."""
    parts = (relation.get("schemaname"), relation.get("relname"))
    return ".".join(quote_identifier(part) for part in parts if part)


def _columns(statement: Node) -> str:
    """The columns that are keys of a new index, as an array of names is written."""
    names = [at(element, "IndexElem.name") for element in statement.get("indexParams", ())]
    return "{" + ",".join('"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"' for name in names if name) + "}"
