"""What each session knows of the catalog, and whether it meets a change of another one: OC001.

A session looks at the objects that its statements name. It meets a change of one at which it has looked before; then it looks at
everything anew, so that the next try goes through. A new object is one at which nobody has looked, whatever had its name before.
`mode` "any" takes every change for one of what the session has looked at.
Decisions alone: what a statement names is known from its text, what DDL has changed is asked by `catalog_changes`.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from ..rules.objects import ObjectName

__all__ = ["CatalogHistory", "CatalogView", "Change", "SchemaConflicts", "SearchPath"]

SchemaConflicts = Literal["touched", "any"]
SearchPath = Callable[[], Awaitable[frozenset[str]]]
NAMES = 10_000  # of objects that are remembered, by a server and by each session: the newest ones
_ANYWHERE = ""  # the schema of a name of which only the name is known


@dataclass(frozen=True, slots=True)
class Change:
    """An object that a transaction has changed or, `is_new`, made."""

    object: ObjectName
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class _Versions:
    """When an object was changed last, and when it was made: 0 is before all that is known."""

    changed: int
    made: int


class CatalogHistory:
    """Which version of a server's catalog has changed which object last. Every transaction with DDL makes a version."""

    def __init__(self) -> None:
        self.version = 0
        self._objects: dict[str, dict[str, _Versions]] = {}  # by name and schema

    def record(self, changes: Iterable[Change]) -> None:
        """A transaction with DDL is committed, and has changed these."""
        self.version += 1
        for each in changes:
            name, schema = each.object.name, each.object.schema or _ANYWHERE
            schemas = self._objects.pop(name, {})
            made = self.version if each.is_new else schemas[schema].made if schema in schemas else 0
            self._objects[name] = {**schemas, schema: _Versions(self.version, made)}
        _forget_oldest(self._objects)

    def changed_since(self, name: str, version: int) -> frozenset[str]:
        """The schemas whose object of this name was there at that version, and was changed after it."""
        return frozenset(schema for schema, at in self._objects.get(name, {}).items() if at.made <= version < at.changed)


class CatalogView:
    """One session's."""

    def __init__(self, history: CatalogHistory, mode: SchemaConflicts, search_path: SearchPath) -> None:
        self._history = history
        self._any = mode == "any"
        self._search_path = search_path
        self._all_seen = history.version  # everything at which it has looked, it knows as of this version at least
        self._seen: dict[str, int] = {}  # a name at which it has looked: the version
        self._touched: set[ObjectName] = set()
        self._used = False

    @property
    def needs_changes(self) -> bool:
        """Whether `committed` must be told what DDL has changed."""
        return not self._any

    def begin(self) -> None:
        """A transaction begins, or the one before has ended."""
        self._touched.clear()
        self._used = False

    def look(self) -> None:
        """Look at everything anew: what was changed so far is no news."""
        self._all_seen = self._history.version

    async def meets_conflict(self, objects: Iterable[ObjectName]) -> bool:
        """Whether a statement that names these meets another session's change."""
        objects = frozenset(objects)
        if await self._is_stale(objects):
            self.look()
            return True
        for each in objects:
            self._seen[each.name] = self._history.version
        _forget_oldest(self._seen)
        self._touched |= objects
        self._used = True
        return False

    async def commit_meets_conflict(self) -> bool:
        """Whether COMMIT finds what the transaction has touched changed by another session."""
        stale = self._used and await self._is_stale(frozenset(self._touched))
        if stale:
            self.look()
        return stale

    def committed(self, changes: Iterable[Change]) -> None:
        """DDL of this session is committed: news to every other session."""
        changes = tuple(changes)
        self._history.record(changes)
        if self._any:
            self.look()
        for each in changes:
            if each.object.name in self._seen:
                self._seen[each.object.name] = self._history.version

    async def _is_stale(self, objects: frozenset[ObjectName]) -> bool:
        if self._all_seen == self._history.version:
            return False
        if self._any:
            return True
        for each in objects:
            schemas = self._changed(each)
            if each.schema in schemas or _ANYWHERE in schemas:
                return True
            if each.schema is None and schemas and not schemas.isdisjoint(await self._search_path()):
                return True
        return False

    def _changed(self, named: ObjectName) -> frozenset[str]:
        """The schemas whose object of this name was changed since this session has looked at one of this name."""
        seen = self._seen.get(named.name)
        return frozenset() if seen is None else self._history.changed_since(named.name, max(seen, self._all_seen))


def _forget_oldest(names: dict[str, Any]) -> None:
    while len(names) > NAMES:
        del names[next(iter(names))]
