"""A local Aurora DSQL: real PostgreSQL behind the front that a cluster shows.

    with LocalDsql() as dsql:
        os.environ.update(dsql.environment)

`LocalDsql` is the cluster; `Event` is one line of its log; `SqlError` and `PostgresError` are what its methods raise.
"""

from .log import Event
from .server import LocalDsql, SqlError
from .template import PostgresError

__all__ = ["Event", "LocalDsql", "PostgresError", "SqlError"]
