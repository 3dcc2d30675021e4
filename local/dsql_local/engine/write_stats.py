"""How much a backend has written, bytes and rows, where nobody else has counted it: commands of our own, nothing decided."""

from ..postgres.backend import Backend, CommandFailed
from .shadow_tables import OWN_ROW, locked_tables

__all__ = ["modified_rows", "written_bytes"]

_SAVEPOINT = "_dsql_measure"


async def written_bytes(backend: Backend) -> int | None:
    """The bytes of the row versions that it has written, as text; None where this role may not read them."""
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
    """How many rows it has modified, by PostgreSQL's own count: foreign keys' actions included, and what was rolled back.

    It begins anywhere, so only the difference of two of one transaction says something.
    """
    ((count,),) = await backend.run("SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_xact_user_tables")
    return int(count or 0)
