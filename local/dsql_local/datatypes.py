"""Which types a column may have, and how DSQL names the others. Pure: a TypeName node in, a refusal's SQLSTATE and text out."""

from collections.abc import Mapping
from typing import Any

from .matching import Node, strings

__all__ = ["DataTypes"]


class DataTypes:
    """The types as the rules list them."""

    def __init__(self, types: Mapping[str, Any]) -> None:
        self._names: Mapping[str, str] = types["names"]
        self._serial = frozenset(types["serial"])
        self._never = frozenset(types["never"])
        self._not_as_column = frozenset(types["not_as_column"]) | self._never

    def display(self, type_name: Node) -> str:
        """A type as messages name it, without its modifiers."""
        name = self._internal(type_name) or ".".join(strings(type_name.get("names")))
        return self._names.get(name, name) + ("[]" if type_name.get("arrayBounds") else "")

    def refused_as_column(self, type_name: Node) -> tuple[str, str] | None:
        """The key of the answer and the name to put into it, for a type that no column may have."""
        name = self._internal(type_name)
        if name in self._serial and not type_name.get("arrayBounds"):
            return "serial", name
        if type_name.get("arrayBounds") or name in self._not_as_column:
            return "datatype", self.display(type_name)
        return None

    def refused_anywhere(self, type_name: Node) -> bool:
        """Whether even a value of this type cannot be made."""
        return self._internal(type_name) in self._never

    def never(self, name: str) -> bool:
        """The same for a type given by its name."""
        return name in self._never

    @staticmethod
    def _internal(type_name: Node) -> str:
        """The name that a built-in type has in pg_type; empty for a type of another schema."""
        names = strings(type_name.get("names"))
        return names[-1] if len(names) == 1 or names[:1] == ["pg_catalog"] else ""
