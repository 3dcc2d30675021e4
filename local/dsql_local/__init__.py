"""A local Aurora DSQL: real PostgreSQL behind the front that a cluster shows.

    with LocalDsql() as dsql:
        os.environ.update(dsql.environment)

`LocalDsql` is the cluster and `Limits` what it takes; `Event` is one line of its log; `SqlError` and `PostgresError` are what its
methods raise. They are imported when they are named: pytest loads the plugin in every project of an interpreter that has this
package.
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

_HOMES = {
    "Event": "events",
    "Limits": "rules.limits",
    "LocalDsql": "api.local_dsql",
    "PostgresError": "postgres.binaries",
    "SqlError": "api.admin_session",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
