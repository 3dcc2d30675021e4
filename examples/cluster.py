"""The cluster that the examples use: the one named by the environment, or else a local DSQL for the duration of the example."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

NAMES = ("DSQL_HOST", "DSQL_URL", "CLUSTER_ENDPOINT")


@contextmanager
def cluster() -> Iterator[None]:
    """Inside the block, the environment names a cluster."""
    if any(os.environ.get(name) for name in NAMES):
        yield
        return
    from dsql_local import LocalDsql

    with LocalDsql() as dsql:
        os.environ.update(dsql.environment)
        print(f"no endpoint is set, so this uses a local DSQL: {dsql.endpoint}")
        yield
