"""Unique and foreign keys as a transaction's snapshot shows them.

PostgreSQL's unique indexes and foreign keys check the newest rows. So a transaction can insert a key that its snapshot still
contains, if another transaction has deleted it; and it cannot delete a row to which another transaction has added a reference.
DSQL checks the snapshot, and detects conflicts at COMMIT. Internal commands on one backend; `transaction` decides what follows.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..postgres.backend import Backend, CommandFailed
from ..rules.quoting import quote_identifier, quote_literal
from ..rules.statements import assigned_columns, identifiers
from .shadow_tables import OWN_LOCKS, OWN_ROW, USER_TABLE, Table

__all__ = ["ConstraintChecks", "KeyRemovals"]

_SAVEPOINT = "_dsql_check"
_REMOVES = re.compile(r"\b(?:DELETE|MERGE)\b", re.IGNORECASE)  # such a word in a string causes an unnecessary check, nothing more
_ADDS = re.compile(r"\b(?:INSERT|COPY|MERGE)\b", re.IGNORECASE)
_WRITES_IN_WITH = re.compile(r"\bWITH\b.*\b(?:INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE | re.DOTALL)
_ASSIGNS = re.compile(r"\bSET\b", re.IGNORECASE)

_KEY_TYPES = "JOIN pg_attribute a ON a.attrelid = i.indexrelid AND a.attnum <= i.indnkeyatts JOIN pg_type t ON t.oid = a.atttypid"


class KeyRemovals:
    """Counts the commits of a server that may have removed a unique key.

    Each is counted before and after its COMMIT: a transaction that takes its snapshot in between must notice it, whether or not
    the snapshot contains it.
    """

    def __init__(self) -> None:
        self.count = 0

    @contextlib.contextmanager
    def during(self, removes: bool) -> Iterator[None]:  # noqa: FBT001 - the only argument
        """Count the COMMIT inside the block, if it removes keys."""
        self.count += removes
        try:
            yield
        finally:
            self.count += removes


@dataclass(frozen=True, slots=True)
class Constraints:
    """For one catalog version: the columns of unique indexes, and the tables referenced by foreign keys with actions."""

    version: int
    columns: frozenset[str]
    with_actions: frozenset[str]
    has_string_keys: bool  # a key of any index contains a string


class ConstraintChecks:
    """The checks of one session. `version` returns the version of the catalog."""

    def __init__(self, backend: Backend, removals: KeyRemovals, version: Callable[[], int]) -> None:
        self._backend = backend
        self._removals = removals
        self._version = version
        self._constraints: Constraints | None = None

    @property
    def removals(self) -> int:
        """The server's count of commits that have removed keys."""
        return self._removals.count

    async def may_remove_keys(self, statements: Sequence[str]) -> bool:
        """Whether one of them may remove a unique key: a DELETE, or an UPDATE of a key's column."""
        return await self._any(statements, _REMOVES)

    async def may_add_keys(self, statements: Sequence[str]) -> bool:
        """Whether one of them may add a unique key: an INSERT, a COPY, or an UPDATE of a key's column."""
        return await self._any(statements, _ADDS)

    async def may_modify_untagged_rows(self, statements: Sequence[str]) -> bool:
        """Whether one of them may modify rows that its command tag does not count: in a WITH, or by a foreign key's action."""
        if any(_WRITES_IN_WITH.search(statement) for statement in statements):
            return True
        removing = [statement for statement in statements if _REMOVES.search(statement) or _ASSIGNS.search(statement)]
        with_actions = (await self._read_constraints()).with_actions if removing else frozenset[str]()
        return bool(with_actions) and any(not with_actions.isdisjoint(identifiers(statement)) for statement in removing)

    async def _any(self, statements: Sequence[str], verbs: re.Pattern[str]) -> bool:
        if any(verbs.search(statement) for statement in statements):
            return True
        names = {name for statement in statements if _ASSIGNS.search(statement) for name in assigned_columns(statement)}
        return bool(names) and not names.isdisjoint((await self._read_constraints()).columns)

    async def _read_constraints(self) -> "Constraints":
        if self._constraints is None or self._constraints.version != self._version():
            rows = await self._backend.run(
                "SELECT 'column', a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid "
                "AND (a.attnum = ANY (i.indkey) OR (0 = ANY (i.indkey) AND a.attnum > 0)) "
                "WHERE i.indisunique AND i.indrelid >= 16384 "  # PostgreSQL's own tables are below
                "UNION SELECT 'acting', f.relname FROM pg_constraint k JOIN pg_class f ON f.oid = k.confrelid "
                "WHERE k.contype = 'f' AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd')) "
                f"UNION SELECT 'string', '' WHERE EXISTS (SELECT FROM pg_index i {_KEY_TYPES} "
                "WHERE i.indrelid >= 16384 AND t.typcategory = 'S')"
            )
            columns, with_actions = ({name for kind, name in rows if kind == what and name} for what in ("column", "acting"))
            self._constraints = Constraints(self._version(), frozenset(columns), frozenset(with_actions), ["string", ""] in rows)
        return self._constraints

    async def has_string_keys(self) -> bool:
        """Whether a key of any table contains a string, which may be long."""
        return (await self._read_constraints()).has_string_keys

    async def has_keys_longer_than(self, length: int) -> bool:
        """Whether a row that the transaction has written has a key of more bytes than this."""
        key = "coalesce(octet_length((%s)::text), 0)"
        condition = "coalesce(' AND (' || pg_get_expr(i.indpred, i.indrelid) || ')', '')"
        size = (
            f"string_agg(CASE WHEN t.typlen > 0 THEN t.typlen::text ELSE format({quote_literal(key)}, "
            "pg_get_indexdef(i.indexrelid, a.attnum, false)) END, ' + ')"
        )
        long = f"SELECT 1 FROM ONLY %I.%I WHERE {OWN_ROW} AND %s > {length}%s"
        queries = await self._backend.run(
            f"SELECT format({quote_literal(long)}, nspname, relname, {size}, {condition}) "
            f"FROM {OWN_LOCKS} JOIN pg_index i ON i.indrelid = c.oid {_KEY_TYPES} "
            f"WHERE l.pid = pg_backend_pid() AND l.mode = 'RowExclusiveLock' AND {USER_TABLE} "
            "GROUP BY nspname, relname, i.indexrelid, i.indrelid, i.indpred HAVING bool_or(t.typcategory = 'S')"
        )
        return bool(queries) and await self._finds(" UNION ALL ".join(f"({sql} LIMIT 1)" for (sql,) in queries))

    async def has_duplicate_keys(self) -> bool:
        """Whether a row that the transaction has written has the same unique key as another row in its snapshot."""
        keys = "string_agg(format('(%s) AS k%s', pg_get_indexdef(i.indexrelid, place, false), place), ', ')"
        condition = "coalesce(' WHERE ' || pg_get_expr(i.indpred, i.indrelid), '')"
        rows = f"format('SELECT ctid AS at, xmin AS born, %s FROM ONLY %I.%I%s', {keys}, nspname, relname, {condition})"
        same = "string_agg(format('a.k%1$s = b.k%1$s', place), ' AND ')"
        twins = "'SELECT 1 FROM (%1$s) a JOIN (%1$s) b ON %2$s AND a.at <> b.at WHERE a.born::text::bigint >= %3$s'"
        queries = await self._backend.run(
            f"SELECT format({twins}, {rows}, {same}, pg_current_xact_id()::text::bigint & 4294967295) "
            f"FROM {OWN_LOCKS} JOIN pg_index i ON i.indrelid = c.oid AND i.indisunique, "
            "generate_series(1, i.indnkeyatts) AS place "
            f"WHERE l.pid = pg_backend_pid() AND l.mode = 'RowExclusiveLock' AND {USER_TABLE} "
            "GROUP BY nspname, relname, i.indexrelid, i.indrelid, i.indpred"
        )
        return bool(queries) and await self._finds(" UNION ALL ".join(f"({sql} LIMIT 1)" for (sql,) in queries))

    async def has_missing_parents(self, schema: str, table: str, constraint: str) -> bool:
        """Whether a row in the snapshot refers, by this foreign key, to none in the snapshot. Shadows replace their originals."""
        columns = "string_agg(format('p.%I = c.%I', p.attname, c.attname), ' AND '), string_agg(format('c.%I', c.attname), ', ')"
        rows = await self._backend.run(
            f"SELECT f.relname, {columns} FROM pg_constraint k JOIN pg_class f ON f.oid = k.confrelid, "
            "unnest(k.conkey, k.confkey) AS u (child, parent), pg_attribute c, pg_attribute p "
            f"WHERE k.conname = {quote_literal(constraint)} AND k.contype = 'f' "
            f"AND k.conrelid = {quote_literal(str(Table(schema, table)))}::regclass "
            "AND c.attrelid = k.conrelid AND c.attnum = child AND p.attrelid = k.confrelid AND p.attnum = parent "
            "GROUP BY f.relname"
        )
        for parent, same, referring in rows:
            return await self._finds(
                f"SELECT 1 FROM {quote_identifier(table)} c WHERE num_nulls({referring}) = 0 "
                f"AND NOT EXISTS (SELECT FROM {quote_identifier(parent or '')} p WHERE {same}) LIMIT 1",
                unreadable=True,
            )
        return True

    async def _finds(self, sql: str, *, unreadable: bool = False) -> bool:
        """Whether a query finds a row; `unreadable` if this role may not read the table."""
        await self._backend.run(f"SAVEPOINT {_SAVEPOINT}")
        try:
            return bool(await self._backend.run(sql))
        except CommandFailed:
            await self._backend.run(f"ROLLBACK TO {_SAVEPOINT}")
            return unreadable
        finally:
            await self._backend.run(f"RELEASE {_SAVEPOINT}")  # it holds no locks
