"""How much the open transaction of a backend has written: bytes and rows. Queries only; it decides nothing."""

from ..postgres.backend import Backend, CommandFailed
from .shadow_tables import OWN_ROW, locked_tables

__all__ = ["modified_rows", "written_bytes"]

_SAVEPOINT = "_dsql_measure"


async def written_bytes(backend: Backend) -> int | None:
    """The size, as text, of the row versions that it has written. None if this role may not read them."""
    await backend.run(f"SAVEPOINT {_SAVEPOINT}")
    total = 0
    try:
        for table in await locked_tables(backend):
            rows = await backend.run(f"SELECT coalesce(sum(octet_length(t::text)), 0) FROM ONLY {table} t WHERE {OWN_ROW}")
            total += int(rows[0][0] or 0)
    except CommandFailed:
        await backend.run(f"ROLLBACK TO {_SAVEPOINT}")
        return None
    return total


async def modified_rows(backend: Backend) -> int:
    """PostgreSQL's count of modified rows, including foreign keys' actions and rolled back changes.

    The count does not start at 0: only the difference between two calls in one transaction has a meaning.
    """
    ((count,),) = await backend.run("SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_xact_user_tables")
    return int(count or 0)
