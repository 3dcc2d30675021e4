"""Keys as a transaction's snapshot shows them, where PostgreSQL's constraints look past it.

PostgreSQL's unique indexes and foreign keys know the newest rows. So a transaction may insert a key that it still sees, if a
rival has deleted it, and may not delete a row to which a rival has referred. DSQL asks the snapshot alone, and COMMIT. Commands
of our own on one backend, and what sessions tell each other for it; what follows from it is decided in `transaction`.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..postgres.backend import Backend, CommandFailed
from ..rules.quoting import quote_identifier, quote_literal
from ..rules.statements import assigned, identifiers
from .shadow_tables import OWN_LOCKS, OWN_ROW, USER_TABLE, Table

__all__ = ["ConstraintChecks", "KeyRemovals"]

_LOOK = "_dsql_look"
_REMOVES = re.compile(r"\b(?:DELETE|MERGE)\b", re.IGNORECASE)  # such a word in a string costs a look too many, no more
_BRINGS = re.compile(r"\b(?:INSERT|COPY|MERGE)\b", re.IGNORECASE)
_WRITES_IN_WITH = re.compile(r"\bWITH\b.*\b(?:INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE | re.DOTALL)
_ASSIGNS = re.compile(r"\bSET\b", re.IGNORECASE)


_KEY_TYPES = "JOIN pg_attribute a ON a.attrelid = i.indexrelid AND a.attnum <= i.indnkeyatts JOIN pg_type t ON t.oid = a.atttypid"


class KeyRemovals:
    """How many commits of a server may have taken a unique key away.

    Each is counted before and after: whoever takes a snapshot in between must notice it, whether the snapshot shows it or not.
    """

    def __init__(self) -> None:
        self.count = 0

    @contextlib.contextmanager
    def during(self, removes: bool) -> Iterator[None]:  # noqa: FBT001 - the only thing to say
        """Count what is executed inside, if it removes keys."""
        self.count += removes
        try:
            yield
        finally:
            self.count += removes


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a version of the catalog says of keys: columns of unique ones, tables to which a foreign key with an action refers."""

    version: int
    columns: frozenset[str]
    acting: frozenset[str]
    have_strings: bool  # in a key of any index


class ConstraintChecks:
    """One session's. `version` is that of the catalog."""

    def __init__(self, backend: Backend, removals: KeyRemovals, version: Callable[[], int]) -> None:
        self._backend = backend
        self._removals = removals
        self._version = version
        self._constraints: Constraints | None = None

    @property
    def removals(self) -> int:
        """How many commits have removed keys so far, of all sessions."""
        return self._removals.count

    async def removes(self, statements: Sequence[str]) -> bool:
        """Whether one of them may take a unique key away: DELETE, or UPDATE of such a column."""
        return await self._any(statements, _REMOVES)

    async def brings(self, statements: Sequence[str]) -> bool:
        """Whether one of them may bring a unique key: INSERT, COPY, or UPDATE of such a column."""
        return await self._any(statements, _BRINGS)

    async def reach_further(self, statements: Sequence[str]) -> bool:
        """Whether one of them may modify rows of which its command tag says nothing: in a WITH, or by a foreign key's action."""
        if any(_WRITES_IN_WITH.search(statement) for statement in statements):
            return True
        removing = [statement for statement in statements if _REMOVES.search(statement) or _ASSIGNS.search(statement)]
        acting = (await self._look_up()).acting if removing else frozenset[str]()
        return bool(acting) and any(not acting.isdisjoint(identifiers(statement)) for statement in removing)

    async def _any(self, statements: Sequence[str], verbs: re.Pattern[str]) -> bool:
        if any(verbs.search(statement) for statement in statements):
            return True
        names = {name for statement in statements if _ASSIGNS.search(statement) for name in assigned(statement)}
        return bool(names) and not names.isdisjoint((await self._look_up()).columns)

    async def _look_up(self) -> "Constraints":
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
            columns, acting = ({name for kind, name in rows if kind == what and name} for what in ("column", "acting"))
            have_strings = ["string", ""] in rows
            self._constraints = Constraints(self._version(), frozenset(columns), frozenset(acting), have_strings)
        return self._constraints

    async def have_strings(self) -> bool:
        """Whether a key of any table has a string in it, which may be long."""
        return (await self._look_up()).have_strings

    async def are_longer_than(self, length: int) -> bool:
        """Whether a row that the transaction has written has a key with more bytes than this."""
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

    async def are_doubled(self) -> bool:
        """Whether a row that the transaction has written has the unique key of another one that it sees."""
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

    async def are_missed(self, schema: str, table: str, constraint: str) -> bool:
        """Whether a row is seen whose foreign key refers to none that is seen. Shadows are taken for their originals."""
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
        """Whether a query finds a row, or what is taken for it where this role may not read."""
        await self._backend.run(f"SAVEPOINT {_LOOK}")
        try:
            return bool(await self._backend.run(sql))
        except CommandFailed:
            await self._backend.run(f"ROLLBACK TO {_LOOK}")
            return unreadable
        finally:
            await self._backend.run(f"RELEASE {_LOOK}")  # it holds no row of its own
