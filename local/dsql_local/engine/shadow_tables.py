"""Shadows: temporary copies of the tables that a lost transaction writes to, so that its statements still answer.

A transaction that has lost must not touch the real rows any more, yet DSQL tells it so only at COMMIT. Its tables are read as
it sees them (`dump`) and made anew in pg_temp, which PostgreSQL searches first (`load`); all of it goes away with the rollback.
Commands of our own on one backend; when to use them is decided in `transaction`.
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
    "dump",
    "load",
    "locked_tables",
    "named_tables",
    "touch_locked_rows",
]


@dataclass(frozen=True, slots=True)
class Table:
    """A table by its schema and name."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{quote_identifier(self.schema)}.{quote_identifier(self.name)}"


OWN_LOCKS = "pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace"
# A row is the transaction's own if its transaction id is not below it: rows of younger ones are not in its snapshot.
OWN_ROW = "xmin::text::bigint >= (pg_current_xact_id()::text::bigint & 4294967295)"
USER_TABLE = "c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"


async def locked_tables(backend: Backend) -> set[Table]:
    """The tables in which this backend's transaction wrote or locked rows."""
    rows = await backend.run(
        f"SELECT DISTINCT n.nspname, c.relname FROM {OWN_LOCKS} WHERE l.pid = pg_backend_pid() AND {USER_TABLE} "
        "AND l.mode IN ('RowExclusiveLock', 'RowShareLock')"
    )
    return _tables(rows)


async def named_tables(backend: Backend, names: Iterable[str]) -> set[Table]:
    """The tables that these names mean in this backend's search path, shadows excepted."""
    array = ", ".join(quote_literal(name) for name in sorted(names))
    rows = await backend.run(
        f"SELECT n.nspname, c.relname FROM unnest(ARRAY[{array}]::text[]) AS given (name) "
        "JOIN pg_class c ON c.oid = to_regclass(quote_ident(given.name)) "
        f"JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {USER_TABLE}"
    )
    return _tables(rows)


def _tables(rows: Iterable[list[str | None]]) -> set[Table]:
    return {Table(schema, name) for schema, name in rows if schema is not None and name is not None}


async def dump(backend: Backend, tables: Collection[Table]) -> dict[Table, bytes]:
    """The tables' rows as the open transaction sees them, its own changes included."""
    return {table: await backend.copy_out(f"COPY {table} TO STDOUT") for table in tables}


async def load(backend: Backend, dumped: dict[Table, bytes]) -> None:
    """Make a shadow of each table with these rows, and let statements find it. Raises `CommandFailed`."""
    like = "INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES INCLUDING GENERATED INCLUDING STORAGE"
    for table, rows in dumped.items():
        name = quote_identifier(table.name)
        await backend.run(f"CREATE TEMP TABLE {name} (LIKE {table} {like})")
        for index in await _copied_too_soon(backend, table):
            await backend.run(f"DROP INDEX pg_temp.{quote_identifier(index)}")
        for column in await _identity_columns(backend, table):
            sequence = f"pg_get_serial_sequence({quote_literal(str(table))}, {quote_literal(column)})"
            await backend.run(f"ALTER TABLE pg_temp.{name} ALTER {quote_identifier(column)} SET DEFAULT nextval({sequence})")
        await backend.copy_in(f"COPY pg_temp.{name} FROM STDIN", rows)
    # Naming pg_temp first changes nothing but the text: it makes PostgreSQL plan prepared statements anew.
    ((path,),) = await backend.run("SELECT current_setting('search_path')")
    if path is not None and not path.startswith("pg_temp"):
        await backend.run(f"SET LOCAL search_path = pg_temp, {path}")


async def _copied_too_soon(backend: Backend, table: Table) -> list[str]:
    """A shadow's indexes that PostgreSQL made valid although a job has not built the original, or could not.

    There may be duplicates. LIKE copies indexes in the order of their oids, and gives them oids in that order.
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
    """Write the rows that the transaction has locked with FOR UPDATE, unchanged: DSQL counts locking as writing.

    Gives the bytes of their primary keys; those of rows that the transaction has written before were counted then.
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
            ((bytes_of_keys,),) = await backend.run(
                f"SELECT coalesce(sum({key or 0}), 0) FROM ONLY {table} WHERE xmax IN ({mine}) AND NOT {OWN_ROW}"
            )
            total += int(bytes_of_keys or 0)
            await backend.run(f"UPDATE {table} SET {same} = {same} WHERE xmax IN ({mine})")
    return total
