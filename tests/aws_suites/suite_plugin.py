"""Loaded into the process that runs AWS's tests: where the cluster's name leads, and what became of each test.

libpq finds the local DSQL by PGHOSTADDR and PGPORT; asyncpg asks Python's resolver, which is told here; Tortoise's clients have
5432 as a default. `SUITE_RESULTS` names the file that gets a line of JSON for each test: its id, its outcome, and why.
"""

import json
import os
import socket
from pathlib import Path

from tortoise.backends.base_postgres.client import BasePostgresClient

if os.environ.get("DRIVER") == "dsql_lambda":  # the suite knows psycopg and psycopg2, and gets this driver in the place of one
    import aurora_dsql_sqlalchemy
    from aurora_dsql_sqlalchemy import psycopg

    from dsql_lambda.sqlalchemy import create_engine
    from dsql_lambda.sqlalchemy_dialect import AuroraDialect

    aurora_dsql_sqlalchemy.create_dsql_engine = lambda host, user, driver: create_engine(host=host, user=user)
    psycopg.AuroraDSQLDialect_psycopg = AuroraDialect

resolve = socket.getaddrinfo


def getaddrinfo(host, port, *args, **kwargs):
    """The cluster is on this machine; everybody else is where he is."""
    name = host.decode() if isinstance(host, bytes) else host
    if name != os.environ["CLUSTER_ENDPOINT"]:
        return resolve(host, port, *args, **kwargs)
    return resolve(os.environ["PGHOSTADDR"], int(os.environ["PGPORT"]), *args, **kwargs)


socket.getaddrinfo = getaddrinfo
begin = BasePostgresClient.__init__
begin.__defaults__ = tuple(int(os.environ["PGPORT"]) if default == 5432 else default for default in begin.__defaults__ or ())


def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        why = str(report.longrepr or "")[-2000:]
        line = json.dumps({"id": report.nodeid, "outcome": report.outcome, "why": why})
        with Path(os.environ["SUITE_RESULTS"]).open("a") as results:
            results.write(line + "\n")
