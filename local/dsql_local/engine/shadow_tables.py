"""Shadow tables: temporary copies of the tables that a lost transaction writes to, so that its statements still succeed.

A transaction that lost a conflict must not change the real rows any more, but a client of DSQL learns of the conflict at COMMIT.
So the rows that the transaction sees are copied to tables in pg_temp, which PostgreSQL searches first. The rollback removes them.
Internal commands on one backend; `transaction` decides when to use them.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ..postgres.backend import Backend
from ..rules.quoting import quote_identifier, quote_literal

__all__ = [
    "OWN_LOCKS",
    "OWN_ROW",
    "USER_TABLE",
    "Table",
    "copy_rows",
    "create_shadows",
    "locked_tables",
    "named_tables",
    "touch_locked_rows",
]


@dataclass(frozen=True, slots=True)
class Table:
    """A table, by schema and name."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{quote_identifier(self.schema)}.{quote_identifier(self.name)}"


OWN_LOCKS = "pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace"
# A row version is the transaction's own if its xmin is not below its transaction id: those of later transactions are not in its
# snapshot.
OWN_ROW = "xmin::text::bigint >= (pg_current_xact_id()::text::bigint & 4294967295)"
USER_TABLE = "c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"


async def locked_tables(backend: Backend) -> set[Table]:
    """The tables in which the open transaction has written or locked rows."""
    rows = await backend.run(
        f"SELECT DISTINCT n.nspname, c.relname FROM {OWN_LOCKS} WHERE l.pid = pg_backend_pid() AND {USER_TABLE} "
        "AND l.mode IN ('RowExclusiveLock', 'RowShareLock')"
    )
    return _tables(rows)


async def named_tables(backend: Backend, names: Iterable[str]) -> set[Table]:
    """The tables that these names resolve to in the search path, without shadow tables."""
    array = ", ".join(quote_literal(name) for name in sorted(names))
    rows = await backend.run(
        f"SELECT n.nspname, c.relname FROM unnest(ARRAY[{array}]::text[]) AS given (name) "
        "JOIN pg_class c ON c.oid = to_regclass(quote_ident(given.name)) "
        f"JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {USER_TABLE}"
    )
    return _tables(rows)


def _tables(rows: Iterable[list[str | None]]) -> set[Table]:
    return {Table(schema, name) for schema, name in rows if schema is not None and name is not None}


async def copy_rows(backend: Backend, tables: Collection[Table]) -> dict[Table, bytes]:
    """The rows of these tables as the open transaction sees them, including its own changes."""
    return {table: await backend.copy_out(f"COPY {table} TO STDOUT") for table in tables}


async def create_shadows(backend: Backend, rows_of: dict[Table, bytes]) -> None:
    """Create a shadow of each table with these rows, first in the search path. Raises `CommandFailed`."""
    like = "INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES INCLUDING GENERATED INCLUDING STORAGE"
    for table, rows in rows_of.items():
        name = quote_identifier(table.name)
        await backend.run(f"CREATE TEMP TABLE {name} (LIKE {table} {like})")
        for index in await _copies_of_invalid_indexes(backend, table):
            await backend.run(f"DROP INDEX pg_temp.{quote_identifier(index)}")
        for column in await _identity_columns(backend, table):
            sequence = f"pg_get_serial_sequence({quote_literal(str(table))}, {quote_literal(column)})"
            await backend.run(f"ALTER TABLE pg_temp.{name} ALTER {quote_identifier(column)} SET DEFAULT nextval({sequence})")
        await backend.copy_in(f"COPY pg_temp.{name} FROM STDIN", rows)
    # pg_temp is always searched first; naming it changes the text of the setting, so that PostgreSQL replans prepared statements.
    ((path,),) = await backend.run("SELECT current_setting('search_path')")
    if path is not None and not path.startswith("pg_temp"):
        await backend.run(f"SET LOCAL search_path = pg_temp, {path}")


async def _copies_of_invalid_indexes(backend: Backend, table: Table) -> list[str]:
    """The shadow's copies of indexes that are not valid, because their job has not run or has failed.

    The copies are valid, and would reject existing duplicates. LIKE copies indexes in the order of their oids, so that originals
    and copies can be matched by position.
    """
    indexes = "SELECT indexrelid, indisvalid, row_number() OVER (ORDER BY indexrelid) AS place FROM pg_index WHERE indrelid ="
    original, copy = quote_literal(str(table)), quote_literal(f"pg_temp.{quote_identifier(table.name)}")
    rows = await backend.run(
        f"SELECT c.relname FROM ({indexes} {original}::regclass) o JOIN ({indexes} {copy}::regclass) s USING (place) "
        "JOIN pg_class c ON c.oid = s.indexrelid WHERE NOT o.indisvalid"
    )
    return [name for (name,) in rows if name is not None]


async def _identity_columns(backend: Backend, table: Table) -> list[str]:
    rows = await backend.run(
        f"SELECT attname FROM pg_attribute WHERE attrelid = {quote_literal(str(table))}::regclass AND attidentity <> ''"
    )
    return [name for (name,) in rows if name is not None]


async def touch_locked_rows(backend: Backend) -> int:
    """Update the rows that the transaction has locked with FOR UPDATE, without change: DSQL treats such a lock as a write.

    Returns the size of their primary keys, without those of rows that the transaction has already written.
    """
    size = "string_agg(format('coalesce(octet_length(%I::text), 0)', k.attname), ' + ')"
    keys = (
        f"SELECT {size} FROM pg_index i JOIN pg_attribute k ON k.attrelid = i.indrelid AND k.attnum = ANY (i.indkey) "
        "WHERE i.indrelid = c.oid AND i.indisprimary AND has_column_privilege(c.oid, k.attnum, 'SELECT')"
    )
    columns = await backend.run(
        f"SELECT n.nspname, c.relname, a.attname, ({keys}) FROM {OWN_LOCKS} JOIN LATERAL (SELECT attname FROM pg_attribute "
        "WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attidentity = '' "
        "AND has_column_privilege(c.oid, attnum, 'UPDATE') ORDER BY attnum DESC LIMIT 1) a ON true "
        f"WHERE l.pid = pg_backend_pid() AND l.mode = 'RowShareLock' AND {USER_TABLE}"
    )
    mine = (
        "SELECT transactionid FROM pg_locks WHERE locktype = 'transactionid' AND pid = pg_backend_pid() "
        "AND mode = 'ExclusiveLock' AND granted"
    )
    total = 0
    for schema, name, column, key in columns:
        if schema is not None and name is not None and column is not None:
            table, same = Table(schema, name), quote_identifier(column)
            ((key_bytes,),) = await backend.run(
                f"SELECT coalesce(sum({key or 0}), 0) FROM ONLY {table} WHERE xmax IN ({mine}) AND NOT {OWN_ROW}"
            )
            total += int(key_bytes or 0)
            await backend.run(f"UPDATE {table} SET {same} = {same} WHERE xmax IN ({mine})")
    return total
