"""Queries on a backend: which objects the DDL of its open transaction has changed. It decides nothing.

PostgreSQL locks a relation whose columns, constraints or indexes change, at least against other changes, and the referenced table
of a foreign key. GRANT takes no lock, but updates the catalog's row of the relation or the column. A view changes with what it
reads. A new table has new system columns, a new view a new rule and type. Dropped objects are not in the catalog any more: an
event trigger notes their names (see `postgres.sys_schema`).
"""

import json

from ..postgres.backend import Backend
from ..rules.objects import ObjectName
from .schema_conflicts import Change

__all__ = ["changed_objects", "search_path"]

# A row is the transaction's own if its xmin is not below its transaction id: those of later transactions are not in its snapshot.
_OWN = "{}.xmin::text::bigint >= (pg_current_xact_id()::text::bigint & 4294967295)"
_CHANGED = f"""
WITH RECURSIVE changed (oid) AS (
    SELECT relation FROM pg_locks WHERE pid = pg_backend_pid() AND relation >= 16384 AND mode IN ('ShareUpdateExclusiveLock',
        'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
    UNION SELECT oid FROM pg_class WHERE oid >= 16384 AND {_OWN.format("pg_class")}
    UNION SELECT attrelid FROM pg_attribute WHERE attrelid >= 16384 AND {_OWN.format("pg_attribute")}
    UNION SELECT r.ev_class FROM changed JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = changed.oid
        AND d.classid = 'pg_rewrite'::regclass JOIN pg_rewrite r ON r.oid = d.objid)
SELECT n.nspname, c.relname, EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum < 0 AND {_OWN.format("a")})
        OR EXISTS (SELECT FROM pg_rewrite r JOIN pg_type t ON t.typrelid = r.ev_class
            WHERE r.ev_class = c.oid AND {_OWN.format("r")} AND {_OWN.format("t")})
    FROM changed JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'v', 'S', 'i') AND c.relpersistence <> 't' AND n.nspname NOT IN ('sys', 'pg_catalog')
UNION SELECT n.nspname, p.proname, false FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid >= 16384 AND
    {_OWN.format("p")}"""


async def changed_objects(backend: Backend) -> list[Change]:
    """The tables, views, sequences, indexes and functions that the open transaction has created, changed or dropped."""
    rows = await backend.run(_CHANGED)
    ((dropped,),) = await backend.run("SELECT current_setting('dsql.dropped', true)")
    changes = [Change(ObjectName(name, schema), is_new=is_new == "t") for schema, name, is_new in rows if name is not None]
    return [*changes, *(Change(ObjectName(name, schema)) for schema, name in json.loads(dropped or "[]"))]


async def search_path(backend: Backend) -> frozenset[str]:
    """The schemas in which a name without a schema is searched."""
    rows = await backend.run("SELECT unnest(current_schemas(true))")
    return frozenset(schema for (schema,) in rows if schema is not None)
