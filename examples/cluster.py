"""Where the examples run: on the cluster that CLUSTER_ENDPOINT or DSQL_HOST names, else on a local DSQL while they run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cluster() -> Iterator[None]:
    """See to it that the environment names a cluster."""
    if os.environ.get("CLUSTER_ENDPOINT") or os.environ.get("DSQL_HOST") or os.environ.get("DSQL_URL"):
        yield
        return
    from dsql_local import LocalDsql

    with LocalDsql() as dsql:
        os.environ.update(dsql.environment)
        print(f"no CLUSTER_ENDPOINT: this runs on a local DSQL, {dsql.endpoint}")
        yield
