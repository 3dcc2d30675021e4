"""Which cluster the examples use: the one that the environment names, or else a local DSQL that lives as long as the example."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

NAMES = ("DSQL_HOST", "DSQL_URL", "CLUSTER_ENDPOINT")


@contextmanager
def cluster() -> Iterator[None]:
    """The environment names a cluster inside the block."""
    if any(os.environ.get(name) for name in NAMES):
        yield
        return
    from dsql_local import LocalDsql

    with LocalDsql() as dsql:
        os.environ.update(dsql.environment)
        print(f"no endpoint is set: this runs on a local DSQL, {dsql.endpoint}")
        yield
