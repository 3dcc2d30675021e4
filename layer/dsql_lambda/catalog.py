"""What a database has: the objects of its catalog, each with a digest of its definition. `read_catalog`, `differences`.

Knows PostgreSQL's catalog; knows nothing of migrations. What is PostgreSQL's or DSQL's own is left out, and so is a table that
keeps the books. A digest is of what the server itself writes as the definition, so only digests of one cluster compare.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from .transaction import Transaction

_OWN = "n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'sys')"
_GRANTS = "(SELECT coalesce(string_agg(g::text, ',' ORDER BY g::text), '') FROM unnest({}) AS g)"

# One statement, one round trip. Each part answers the name of an object, and its definition.
_OBJECTS: Final = f"""
SELECT CASE c.relkind WHEN 'v' THEN 'view ' WHEN 'S' THEN 'sequence ' ELSE 'table ' END || n.nspname || '.' || c.relname,
    concat_ws(' ', pg_get_userbyid(c.relowner), {_GRANTS.format("c.relacl")},
        CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) END,
        (SELECT string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text, a.attidentity,
            a.attgenerated, pg_get_expr(d.adbin, d.adrelid), a.attacl::text), ', ' ORDER BY a.attnum)
            FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind <> 'S'))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'v', 'S') AND c.relname <> :ledger AND {_OWN}
UNION ALL SELECT 'index ' || n.nspname || '.' || c.relname, pg_get_indexdef(c.oid)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE t.relname <> :ledger AND {_OWN}
UNION ALL SELECT 'constraint ' || k.conname || ' of ' || n.nspname || '.' || coalesce(c.relname, t.typname),
    pg_get_constraintdef(k.oid)
    FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace LEFT JOIN pg_class c ON c.oid = k.conrelid
    LEFT JOIN pg_type t ON t.oid = k.contypid WHERE coalesce(c.relname, '') <> :ledger AND {_OWN}
UNION ALL SELECT 'function ' || n.nspname || '.' || p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')',
    concat_ws(' ', pg_get_functiondef(p.oid), pg_get_userbyid(p.proowner), {_GRANTS.format("p.proacl")})
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.prokind = 'f' AND {_OWN}
UNION ALL SELECT 'domain ' || n.nspname || '.' || t.typname,
    concat_ws(' ', format_type(t.typbasetype, t.typtypmod), t.typnotnull::text, t.typdefault)
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype = 'd' AND {_OWN}
UNION ALL SELECT 'schema ' || n.nspname, concat_ws(' ', pg_get_userbyid(n.nspowner), {_GRANTS.format("n.nspacl")})
    FROM pg_namespace n WHERE {_OWN}
"""  # noqa: S608 - of constants

# An index that is being built, or whose job has failed; a constraint waits for its VALIDATE by choice.
_INVALID: Final = f"""
SELECT n.nspname || '.' || c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT i.indisvalid AND {_OWN} ORDER BY 1
"""  # noqa: S608


def read_catalog(tx: Transaction, *, ledger: str) -> dict[str, str]:
    """The digest of each object's definition, by the object's name; without the table `ledger` and what belongs to it."""
    rows = tx.run(_OBJECTS, ledger=ledger)
    return {name: hashlib.sha256((definition or "").encode()).hexdigest()[:16] for name, definition in sorted(rows)}


def invalid_indexes(tx: Transaction) -> list[str]:
    """The indexes that are not valid: those that are being built, and those whose job has failed."""
    return [name for (name,) in tx.run(_INVALID)]


def digest(catalog: Mapping[str, str]) -> str:
    """One digest of all objects."""
    return hashlib.sha256("\n".join(f"{name} {catalog[name]}" for name in sorted(catalog)).encode()).hexdigest()


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What has come, gone and changed since, an object a line."""
    gone = [f"{name}: is gone" for name in before if name not in now]
    changed = [f"{name}: has another definition" for name in before if name in now and now[name] != before[name]]
    new = [f"{name}: is in no migration" for name in now if name not in before]
    return sorted([*gone, *changed, *new])
