"""What the local DSQL costs: its start, and a round trip beside the same one on PostgreSQL's own unix socket.

Knows psycopg, which is the client of both.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Mapping
from contextlib import ExitStack

import psycopg

from dsql_local import LocalDsql
from dsql_local.postgres.server import Postgres

from .local import libpq_of, options_of
from .report import Say, Section, number, table

_STARTS = 7
_ROUNDS = 20
_TIMES = 50
_UPDATE = "UPDATE account SET n = n + 1 WHERE id = 1"
WORKS = {
    "a read": ("SELECT 1",),
    "100 rows": ("SELECT g FROM generate_series(1, 100) g",),
    "a write": (_UPDATE,),
    "a transaction": ("BEGIN", _UPDATE, "INSERT INTO entry VALUES (1)", "COMMIT"),
}

Times = dict[tuple[str, str], list[list[float]]]
"""By work and statement: the seconds of each client."""


def starts() -> list[float]:
    """Seconds of a start, where the template of PostgreSQL's data exists."""
    found = []
    for _ in range(_STARTS):
        started_at = time.perf_counter()
        with LocalDsql():
            found.append(time.perf_counter() - started_at)
    return found[1:]


def round_trips(environment: Mapping[str, str]) -> Times:
    """Each statement in turn on PostgreSQL alone and through the local DSQL."""
    postgres = Postgres()
    postgres.start()
    with ExitStack() as stack:
        stack.callback(postgres.stop)
        where = stack.enter_context(libpq_of(environment))
        places = ({"host": str(postgres.socket.parent), "user": "admin", "autocommit": True}, where)
        token = options_of(environment).token().value
        clients = [stack.enter_context(psycopg.connect(dbname="postgres", password=token, **each)) for each in places]
        for client in clients:
            for sql in ("TABLE account (id int PRIMARY KEY, n int)", "TABLE entry (n int)"):
                client.execute(f"CREATE {sql}")
            client.execute("INSERT INTO account VALUES (1, 0)")
        found: Times = {(work, sql): [[], []] for work, statements in WORKS.items() for sql in statements}
        for _, (work, statements), which in itertools.product(range(_ROUNDS), WORKS.items(), range(2)):
            for sql in statements * _TIMES:
                started_at = time.perf_counter()
                clients[which].execute(sql, prepare=False)
                found[work, sql][which].append(time.perf_counter() - started_at)
    return found


def section(environment: Mapping[str, str], *, say: Say) -> Section:
    """The page's chapter."""
    say("local DSQL: starts and round trips")
    start = statistics.median(starts())
    rows = []
    for (work, sql), times in round_trips(environment).items():
        alone, through = (statistics.median(each) * 1000 for each in times)
        rows.append([f"{work}: `{sql}`", *map(number, (alone, through, through - alone))])
    text = f"""A start takes {start * 1000:.0f} ms (median of {_STARTS - 1}), where the template of PostgreSQL's data exists.
Medians of round trips by psycopg, in ms:

{table(["statement", "PostgreSQL's unix socket", "the local DSQL", "more"], rows)}
"""
    return Section(title="Local DSQL", text=text)
