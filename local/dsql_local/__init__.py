"""A local Aurora DSQL: a real PostgreSQL that behaves like a cluster.

    with LocalDsql() as dsql:
        os.environ.update(dsql.environment)

`LocalDsql` is the cluster, `Limits` are its limits, `Event` is an entry of its log. Its methods raise `SqlError` and
`PostgresError`. All are imported at their first use, because pytest loads the plugin, and so this module, in every project.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api.admin_session import SqlError
    from .api.local_dsql import LocalDsql
    from .events import Event
    from .postgres.binaries import PostgresError
    from .rules.limits import Limits

__all__ = ["Event", "Limits", "LocalDsql", "PostgresError", "SqlError"]

_MODULES = {
    "Event": "events",
    "Limits": "rules.limits",
    "LocalDsql": "api.local_dsql",
    "PostgresError": "postgres.binaries",
    "SqlError": "api.admin_session",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value
