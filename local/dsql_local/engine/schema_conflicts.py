"""OC001: what each session knows of the catalog, and whether another session has changed it.

A session knows the objects that its statements have named. A statement fails with OC001 if it names an object that was changed
since the session last named it. The session then takes the current catalog as known, so that the retry succeeds. A new object is
known to nobody, whatever had its name before. In the mode "any", every change affects every session. Pure: `catalog_changes` asks
PostgreSQL what DDL has changed.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from ..rules.objects import ObjectName

__all__ = ["CatalogHistory", "CatalogView", "Change", "SchemaConflicts", "SearchPath"]

SchemaConflicts = Literal["touched", "any"]
SearchPath = Callable[[], Awaitable[frozenset[str]]]
MAX_NAMES = 10_000  # remembered names of objects, for the server and for each session; the newest ones
_ANY_SCHEMA = ""  # the schema of an object of which only the name is known


@dataclass(frozen=True, slots=True)
class Change:
    """An object that a transaction has changed or, if `is_new`, created."""

    object: ObjectName
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class _Versions:
    """The catalog versions that last changed and that created an object; 0 if it existed before."""

    changed: int
    created: int


class CatalogHistory:
    """The versions of a server's catalog: each transaction with DDL makes one."""

    def __init__(self) -> None:
        self.version = 0
        self._objects: dict[str, dict[str, _Versions]] = {}  # by name and schema

    def record(self, changes: Iterable[Change]) -> None:
        """A transaction with DDL was committed and made these changes."""
        self.version += 1
        for each in changes:
            name, schema = each.object.name, each.object.schema or _ANY_SCHEMA
            schemas = self._objects.pop(name, {})
            created = self.version if each.is_new else schemas[schema].created if schema in schemas else 0
            self._objects[name] = {**schemas, schema: _Versions(self.version, created)}
        _drop_oldest(self._objects)

    def changed_since(self, name: str, version: int) -> frozenset[str]:
        """The schemas whose object of this name existed at that version and was changed later."""
        return frozenset(schema for schema, at in self._objects.get(name, {}).items() if at.created <= version < at.changed)


class CatalogView:
    """The catalog as one session knows it."""

    def __init__(self, history: CatalogHistory, mode: SchemaConflicts, search_path: SearchPath) -> None:
        self._history = history
        self._any = mode == "any"
        self._search_path = search_path
        self._known_version = history.version  # it knows all objects that it has named as of this version, or a later one
        self._known_names: dict[str, int] = {}  # the catalog version when it last named an object
        self._named: set[ObjectName] = set()
        self._used = False

    @property
    def needs_changes(self) -> bool:
        """Whether `committed` needs the list of changes."""
        return not self._any

    def begin(self) -> None:
        """A transaction begins, or the previous one has ended."""
        self._named.clear()
        self._used = False

    def refresh(self) -> None:
        """Take the current catalog as known: earlier changes cause no conflict."""
        self._known_version = self._history.version

    async def conflicts(self, objects: Iterable[ObjectName]) -> bool:
        """Whether a statement that names these objects conflicts with another session's change."""
        objects = frozenset(objects)
        if await self._is_stale(objects):
            self.refresh()
            return True
        for each in objects:
            self._known_names[each.name] = self._history.version
        _drop_oldest(self._known_names)
        self._named |= objects
        self._used = True
        return False

    async def commit_conflicts(self) -> bool:
        """Whether another session has changed an object that the transaction has named."""
        stale = self._used and await self._is_stale(frozenset(self._named))
        if stale:
            self.refresh()
        return stale

    def committed(self, changes: Iterable[Change]) -> None:
        """A transaction with DDL of this session was committed."""
        changes = tuple(changes)
        self._history.record(changes)
        if self._any:
            self.refresh()
        for each in changes:
            if each.object.name in self._known_names:
                self._known_names[each.object.name] = self._history.version

    async def _is_stale(self, objects: frozenset[ObjectName]) -> bool:
        if self._known_version == self._history.version:
            return False
        if self._any:
            return True
        for each in objects:
            schemas = self._changed(each)
            if each.schema in schemas or _ANY_SCHEMA in schemas:
                return True
            if each.schema is None and schemas and not schemas.isdisjoint(await self._search_path()):
                return True
        return False

    def _changed(self, named: ObjectName) -> frozenset[str]:
        """The schemas whose object of this name was changed since this session last named one."""
        seen = self._known_names.get(named.name)
        return frozenset() if seen is None else self._history.changed_since(named.name, max(seen, self._known_version))


def _drop_oldest(names: dict[str, Any]) -> None:
    while len(names) > MAX_NAMES:
        del names[next(iter(names))]
