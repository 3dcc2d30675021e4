"""Which types a column may have, and how DSQL names the others. Pure: a TypeName node in, a refusal's SQLSTATE and text out."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .parse_tree import Node, at, strings

__all__ = ["DataTypes", "internal"]

_WRITTEN = re.compile(rb'(?:"?pg_catalog"?\s*\.\s*)?"?\w+"?', re.IGNORECASE)


class DataTypes:
    """The types as the rules list them."""

    def __init__(self, types: Mapping[str, Any]) -> None:
        self._names: Mapping[str, str] = types["names"]
        self._serial = frozenset(types["serial"])
        self._never = frozenset(types["never"])
        self._not_as_column = frozenset(types["not_as_column"]) | self._never
        self._not_as_result = frozenset(types["not_as_result"]) | self._never
        self._not_in_key = frozenset(types["not_in_key"])
        self._length: Mapping[str, tuple[int, str]] = types["length"]
        self._modifiers: Mapping[str, str] = types["modifiers"]

    def display(self, type_name: Node) -> str:
        """A type as messages name it, without its modifiers."""
        name = internal(type_name) or ".".join(strings(type_name.get("names")))
        return self._names.get(name, name) + ("[]" if type_name.get("arrayBounds") else "")

    def refused_as_column(self, type_name: Node) -> tuple[str, str] | None:
        """The key of the answer and the name to put into it, for a type that no column may have."""
        name = internal(type_name)
        if name in self._serial and not type_name.get("arrayBounds"):
            return "serial", name
        if type_name.get("arrayBounds") or name in self._not_as_column:
            return "datatype", self.display(type_name)
        return None

    def length(self, type_name: Node) -> int | None:
        """The length that a character type was declared with."""
        declared = at(next(iter(type_name.get("typmods", ())), None), "A_Const.ival.ival")
        return declared if internal(type_name) in self._length else None

    def too_long(self, type_name: Node) -> tuple[int, str] | None:
        """The greatest length that may be declared and the type as messages name it then, for a type declared longer."""
        limit, name = self._length.get(internal(type_name), (0, ""))
        return (limit, name) if (self.length(type_name) or 0) > limit else None

    def with_modifiers(self, sql: str, columns: Sequence[Node]) -> str | None:
        """The statement with the modifiers that DSQL gives the types of columns declared without them; None if there are none."""
        told = sql.encode()
        for type_name in sorted((column.get("typeName", {}) for column in columns), key=lambda each: -each.get("location", 0)):
            modifier = self._modifiers.get(internal(type_name))
            written = _WRITTEN.match(told, type_name.get("location", 0))  # an offset in bytes
            if modifier and written and not type_name.get("typmods") and not type_name.get("arrayBounds"):
                told = told[: written.end()] + modifier.encode() + told[written.end() :]
        return None if told == sql.encode() else told.decode()

    def refused_in_key(self, type_name: Node) -> bool:
        """Whether no key may have a column of this type."""
        return internal(type_name) in self._not_in_key

    def refused_as_result(self, type_name: Node) -> bool:
        """Whether no function may give a value of this type back."""
        return internal(type_name) in self._not_as_result and not type_name.get("arrayBounds")

    def refused_anywhere(self, type_name: Node) -> bool:
        """Whether even a value of this type cannot be made."""
        return internal(type_name) in self._never

    def never(self, name: str) -> bool:
        """The same for a type given by its name."""
        return name in self._never


def internal(type_name: Node) -> str:
    """The name that a built-in type has in pg_type; empty for a type of another schema."""
    names = strings(type_name.get("names"))
    return names[-1] if len(names) == 1 or names[:1] == ["pg_catalog"] else ""
