"""The types that columns, keys and results may have, and their names in DSQL's messages. Pure functions of TypeName nodes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .parse_tree import Node, at, strings

__all__ = ["DataTypes", "internal"]

_WRITTEN = re.compile(rb'(?:"?pg_catalog"?\s*\.\s*)?"?\w+"?', re.IGNORECASE)


class DataTypes:
    """The types in the rules."""

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
        """The name of a type in messages, without modifiers."""
        name = internal(type_name) or ".".join(strings(type_name.get("names")))
        return self._names.get(name, name) + ("[]" if type_name.get("arrayBounds") else "")

    def refused_as_column(self, type_name: Node) -> tuple[str, str] | None:
        """For a type that columns may not have: the name of the error, and the type's name for its message."""
        name = internal(type_name)
        if name in self._serial and not type_name.get("arrayBounds"):
            return "serial", name
        if type_name.get("arrayBounds") or name in self._not_as_column:
            return "datatype", self.display(type_name)
        return None

    def length(self, type_name: Node) -> int | None:
        """The declared length of a character type."""
        declared = at(next(iter(type_name.get("typmods", ())), None), "A_Const.ival.ival")
        return declared if internal(type_name) in self._length else None

    def too_long(self, type_name: Node) -> tuple[int, str] | None:
        """For a type that is declared too long: the maximum length, and the type's name for the message."""
        limit, name = self._length.get(internal(type_name), (0, ""))
        return (limit, name) if (self.length(type_name) or 0) > limit else None

    def with_modifiers(self, sql: str, columns: Sequence[Node]) -> str | None:
        """The statement with DSQL's default modifiers for column types without modifiers; None if nothing changes."""
        encoded = sql.encode()
        for type_name in sorted((column.get("typeName", {}) for column in columns), key=lambda each: -each.get("location", 0)):
            modifier = self._modifiers.get(internal(type_name))
            written = _WRITTEN.match(encoded, type_name.get("location", 0))  # the location is an offset in bytes
            if modifier and written and not type_name.get("typmods") and not type_name.get("arrayBounds"):
                encoded = encoded[: written.end()] + modifier.encode() + encoded[written.end() :]
        return None if encoded == sql.encode() else encoded.decode()

    def refused_in_key(self, type_name: Node) -> bool:
        """Whether keys may not contain a column of this type."""
        return internal(type_name) in self._not_in_key

    def refused_as_result(self, type_name: Node) -> bool:
        """Whether functions may not return this type."""
        return internal(type_name) in self._not_as_result and not type_name.get("arrayBounds")

    def refused_anywhere(self, type_name: Node) -> bool:
        """Whether values of this type are not supported at all."""
        return internal(type_name) in self._never

    def never(self, name: str) -> bool:
        """The same for the name of a type."""
        return name in self._never


def internal(type_name: Node) -> str:
    """The name of a built-in type in pg_type; empty for a type in another schema."""
    names = strings(type_name.get("names"))
    return names[-1] if len(names) == 1 or names[:1] == ["pg_catalog"] else ""
