"""Latency: how long a transaction takes at a distance, and what a thousand rows cost to decode.

Knows the clients of `round_trips` and the delay of `distance`. `python -m benchmarks.latency` prints the tables.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import pg8000.native

from dsql_lambda import ConnectOptions, connect

from . import charts
from .distance import away
from .local import authority_of, credentials_of, options_of, served
from .peers import versions
from .report import Say, Section, number, ratio, table, yes
from .round_trips import CONNECTOR, HERE, STOCK, WORKS, NamedContext, connector, layer, stock

DISTANCES_MS = (0, 2, 10)
_ROUNDS = 7
_TRANSACTIONS = 10
_MEASURED = WORKS[1:4]

ROWS = 1000
_ROWS_SQL = """
SELECT n, 'row number ' || n AS words, (n * 1.25)::numeric(12, 2) AS price, timestamptz '2026-01-01' + n * interval '1 minute
0.123456 s' AS at,
    md5(n::text)::uuid AS key, jsonb_build_object('n', n, 'tags', jsonb_build_array('a', 'b')) AS document, n % 2 = 0 AS even,
    n * 0.1::float8 AS share,
    date '2026-01-01' + n % 300 AS day, NULL::text AS nothing
FROM numbers ORDER BY n"""


def interleaved(
    works: Mapping[str, Callable[[], Any]], *, rounds: int, times: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of one call of each, round by round; every second round in the reverse order. The first does not count."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for count in range(-1, rounds):
        for name, work in reversed(list(works.items())) if count % 2 else works.items():
            started_at = clock()
            for _ in range(times):
                work()
            if count >= 0:
                found[name].append((clock() - started_at) / times)
    return found


def transactions(environment: Mapping[str, str], *, say: Say) -> dict[tuple[str, int], dict[str, list[float]]]:
    """For each work and distance, the seconds of each client."""
    found = {}
    options = options_of(environment)
    for distance in DISTANCES_MS:
        say(f"latency: transactions at {distance} ms")
        with ExitStack() as stack:
            there = options.replace(port=stack.enter_context(away(options.port, distance)))
            clients = {
                STOCK: stack.enter_context(stock(there)),
                CONNECTOR: stack.enter_context(connector(there, environment)),
                HERE: stack.enter_context(layer(there)),
            }
            for work in _MEASURED:
                calls = {name: client[work] for name, client in clients.items()}
                found[work, distance] = interleaved(calls, rounds=_ROUNDS, times=_TRANSACTIONS, clock=time.perf_counter)
    return found


def decoding(environment: Mapping[str, str], *, rounds: int = 15, times: int = 5) -> dict[str, dict[str, list[float]]]:
    """Seconds for a query of 1,000 rows by 10 columns: the client's CPU time, and the elapsed time."""
    import psycopg  # noqa: PLC0415

    options = options_of(environment)
    with ExitStack() as stack:
        ours = stack.enter_context(connect(options))
        ours.run("DROP TABLE IF EXISTS numbers")
        ours.run("CREATE TABLE numbers (n int PRIMARY KEY)")
        ours.run(f"INSERT INTO numbers SELECT generate_series(1, {ROWS})")
        native = _stock_connection(options)
        stack.callback(native.close)
        authority = stack.enter_context(authority_of(environment))
        libpq = stack.enter_context(
            psycopg.connect(
                host=options.host,
                hostaddr=options.hostaddr,
                port=options.port,
                user="admin",
                dbname="postgres",
                password=options.token().value,
                sslmode="verify-full",
                sslrootcert=authority,
                autocommit=True,
            )
        )
        works: dict[str, Callable[[], Any]] = {
            "stock pg8000": lambda: native.run(_ROWS_SQL + " LIMIT :n", n=ROWS),
            "psycopg 3 (C)": lambda: libpq.execute(_ROWS_SQL.replace("%", "%%") + " LIMIT %s", (ROWS,)).fetchall(),
            HERE: lambda: ours.run(_ROWS_SQL + " LIMIT :n", n=ROWS),
        }
        return {
            "CPU time of the client": interleaved(works, rounds=rounds, times=times, clock=time.process_time),
            "elapsed, the server's time included": interleaved(works, rounds=rounds, times=times, clock=time.perf_counter),
        }


def _stock_connection(options: ConnectOptions) -> pg8000.native.Connection:
    return pg8000.native.Connection(
        "admin",
        host=options.hostaddr,
        port=options.port,
        database="postgres",
        password=options.token().value,
        ssl_context=NamedContext.of(options),
    )


def section(environment: Mapping[str, str], *, say: Say) -> Section:
    """The page's chapter, with its chart."""
    with credentials_of(environment):
        found = transactions(environment, say=say)
        say("latency: rows")
        decoded = decoding(environment)
    rows = [
        [
            f"{work}, {distance} ms",
            *(f"{number(statistics.median(times) * 1000)} ms" for times in clients.values()),
            *(
                ratio([theirs / own for theirs, own in zip(clients[name], clients[HERE], strict=True)])
                for name in (STOCK, CONNECTOR)
            ),
        ]
        for (work, distance), clients in found.items()
    ]
    decoding_head = ["1,000 rows", *next(iter(decoded.values())), "stock, times ours", "ours, times psycopg 3", "target holds"]
    decoding_rows = []
    for what, clients in decoded.items():
        to_stock = [theirs / own for theirs, own in zip(clients["stock pg8000"], clients[HERE], strict=True)]
        to_libpq = [own / theirs for theirs, own in zip(clients["psycopg 3 (C)"], clients[HERE], strict=True)]
        decoding_rows.append(
            [
                what,
                *(f"{number(statistics.median(times) * 1000)} ms" for times in clients.values()),
                ratio(to_stock),
                ratio(to_libpq),
                yes(held=statistics.median(to_stock) >= 2.5 and statistics.median(to_libpq) <= 1.5) if "CPU" in what else "",
            ]
        )
    chart = charts.bars(
        f"A transaction at 10 ms of round trip: {WORKS[2]}",
        {name: {"ms": statistics.median(times) * 1000} for name, times in found[WORKS[2], 10].items()},
        unit="ms",
    )
    peers = versions()
    text = f"""Transactions on the local DSQL through a proxy that hands on every byte later; median of {_ROUNDS} rounds of
{_TRANSACTIONS} transactions, every second round in the reverse order; ratios are taken within a round. pg8000
{peers["pg8000"]}, `aurora-dsql-python-connector` {peers["aurora-dsql-python-connector"]} on psycopg {peers["psycopg"]}.

{table(["work, round trip", STOCK, CONNECTOR, HERE, "stock pg8000, times ours", "connector, times ours"], rows)}

![latency](latency.svg)

{ROWS:,} rows of 10 columns (int, text, numeric, timestamptz, uuid, jsonb, bool, float, date, NULL), from the statement to Python
values. The target for the decoding is at least 2.5 times as fast as stock pg8000 and within 1.5 times of psycopg
{peers["psycopg"]} with its C part:

{table(decoding_head, decoding_rows)}
"""
    return Section(title="Latency", text=text, charts={"latency.svg": chart})


def main() -> None:
    """Print the chapter."""
    with served() as environment:
        with connect(options_of(environment)) as connection:
            connection.run("CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL)")
            connection.run("INSERT INTO accounts VALUES (1, 100)")
        print(section(environment, say=lambda line: print(line, file=sys.stderr)).text)


if __name__ == "__main__":
    main()
