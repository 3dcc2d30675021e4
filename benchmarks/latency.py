"""Latency: how long a transaction takes at a distance, and what a thousand rows cost to decode.

Knows the clients of `round_trips` and the delay of `distance`.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from dsql_lambda import Idempotency, Transaction, connect, with_dsql_transaction

from . import charts, many_rows
from .distance import away
from .local import accounts, credentials_of, libpq_of, options_of
from .peers import versions
from .report import Say, Section, interleaved, number, ratio, table, yes
from .round_trips import CLIENTS, CONNECTOR, DEPENDENT, HERE, READ, READ_AND_WRITES, STOCK, WRITE, WRITES, stock_connection

DISTANCES_MS = (0, 2, 10)
_ROUNDS = 7
_TRANSACTIONS = 10

ROWS = 1000
_ROWS_SQL = """
SELECT n, 'row number ' || n AS words, (n * 1.25)::numeric(12, 2) AS price,
    timestamptz '2026-01-01' + n * interval '1 minute 0.123456 s' AS at, md5(n::text)::uuid AS key,
    jsonb_build_object('n', n, 'tags', jsonb_build_array('a', 'b')) AS document, n % 2 = 0 AS even, n * 0.1::float8 AS share,
    date '2026-01-01' + n % 300 AS day, NULL::text AS nothing
FROM numbers ORDER BY n"""
_CPU, _ELAPSED = "CPU time of the client", "elapsed, the server's time included"
_LIBPQ = "psycopg 3 (C)"


def transactions(environment: Mapping[str, str], *, say: Say) -> dict[tuple[str, int], dict[str, list[float]]]:
    """For each work and distance, the seconds of each client."""
    found = {}
    options = options_of(environment)
    for distance in DISTANCES_MS:
        say(f"latency: transactions at {distance} ms")
        with ExitStack() as stack:
            there = options.replace(port=stack.enter_context(away(options.port, distance)))
            clients = {name: stack.enter_context(opened(there, environment)) for name, opened in CLIENTS.items()}
            for work in (DEPENDENT, READ_AND_WRITES, WRITES):
                calls = {name: client[work] for name, client in clients.items()}
                found[work, distance] = interleaved(calls, rounds=_ROUNDS, times=_TRANSACTIONS, clock=time.perf_counter)
    return found


def keyed(environment: Mapping[str, str]) -> dict[str, list[float]]:
    """At 2 ms, the seconds of a read and two writes: without a key, and with each lookup of one."""
    options = options_of(environment)
    events = itertools.count()

    def work(event: dict[str, int], tx: Transaction) -> None:
        tx.value(READ, id=1)
        for _ in range(2):
            tx.defer(WRITE, a=1, id=1)

    with away(options.port, 2) as port, connect(options.replace(port=port)) as connection:
        connection.run(Idempotency(key="n").create_table())
        keys = {"no key": None, "`first`": Idempotency(key="n", lookup="first"), "`ride`": Idempotency(key="n", lookup="ride")}
        handlers = {name: with_dsql_transaction(source=connection, idempotency=key)(work) for name, key in keys.items()}
        calls = {name: partial(lambda handler: handler({"n": next(events)}), handler) for name, handler in handlers.items()}
        return interleaved(calls, rounds=_ROUNDS, times=4 * _TRANSACTIONS, clock=time.perf_counter)


def decoding(environment: Mapping[str, str], *, rounds: int = 15, times: int = 5) -> dict[str, dict[str, list[float]]]:
    """Seconds for a query of 1,000 rows by 10 columns: the client's CPU time, and the elapsed time."""
    import psycopg  # noqa: PLC0415

    options = options_of(environment)
    with ExitStack() as stack:
        ours = stack.enter_context(connect(options))
        for sql in ("DROP TABLE IF EXISTS numbers", "CREATE TABLE numbers (n int PRIMARY KEY)"):
            ours.run(sql)
        ours.run(f"INSERT INTO numbers SELECT generate_series(1, {ROWS})")
        native = stock_connection(options)
        stack.callback(native.close)
        where = stack.enter_context(libpq_of(environment))
        libpq = stack.enter_context(psycopg.connect(dbname="postgres", password=options.token().value, **where))
        works: dict[str, Callable[[], Any]] = {
            STOCK: lambda: native.run(_ROWS_SQL + " LIMIT :n", n=ROWS),
            _LIBPQ: lambda: libpq.execute(_ROWS_SQL.replace("%", "%%") + " LIMIT %s", (ROWS,)).fetchall(),
            HERE: lambda: ours.run(_ROWS_SQL + " LIMIT :n", n=ROWS),
        }
        clocks = {_CPU: time.process_time, _ELAPSED: time.perf_counter}
        return {what: interleaved(works, rounds=rounds, times=times, clock=clock) for what, clock in clocks.items()}


def _ratios(times: Mapping[str, list[float]], name: str, other: str) -> list[float]:
    return [first / second for first, second in zip(times[name], times[other], strict=True)]


def _medians(times: Mapping[str, list[float]]) -> list[str]:
    return [f"{number(statistics.median(each) * 1000)} ms" for each in times.values()]


def section(environment: Mapping[str, str], *, say: Say) -> Section:
    """The page's chapter, with its chart."""
    accounts(environment)
    with credentials_of(environment):
        found = transactions(environment, say=say)
        say("latency: keys, and rows")
        keys = keyed(environment)
        decoded = decoding(environment)
        many = many_rows.rates(environment)
    rows = [
        [f"{work}, {distance} ms", *_medians(clients), *(ratio(_ratios(clients, name, HERE)) for name in (STOCK, CONNECTOR))]
        for (work, distance), clients in found.items()
    ]
    decoding_head = ["1,000 rows", *decoded[_CPU], "stock, times ours", "ours, times psycopg 3", "target holds"]
    decoding_rows = []
    for what, clients in decoded.items():
        to_stock, to_libpq = _ratios(clients, STOCK, HERE), _ratios(clients, HERE, _LIBPQ)
        held = yes(held=statistics.median(to_stock) >= 2.5 and statistics.median(to_libpq) <= 1.5) if what == _CPU else ""
        decoding_rows.append([what, *_medians(clients), ratio(to_stock), ratio(to_libpq), held])
    bars = {name: {"ms": statistics.median(times) * 1000} for name, times in found[READ_AND_WRITES, 10].items()}
    chart = charts.bars(f"A transaction at 10 ms of round trip: {READ_AND_WRITES}", bars, unit="ms")
    peers = versions()
    text = f"""Transactions on the local DSQL through a proxy that delays every byte; medians of {_ROUNDS} rounds of
{_TRANSACTIONS} transactions, every second round in the reverse order; ratios are taken within a round. pg8000 {peers["pg8000"]},
`aurora-dsql-python-connector` {peers["aurora-dsql-python-connector"]} on psycopg {peers["psycopg"]}.

{table(["work, round trip", *CLIENTS, "stock pg8000, times ours", "connector, times ours"], rows)}

![latency](latency.svg)

An idempotency key costs a read and two writes, at 2 ms: `first`, which reads the key in a flight of its own, takes
{ratio(_ratios(keys, "`first`", "no key"))} times as long as no key; `ride`, which adds a row to the flight of COMMIT,
{ratio(_ratios(keys, "`ride`", "no key"))} times.

Many rows: the target is five times as many a second as a loop writes.

{many_rows.text_of(many)}

{ROWS:,} rows of 10 columns (int, text, numeric, timestamptz, uuid, jsonb, bool, float, date, NULL), from the statement to Python
values. The target for the decoding is at least 2.5 times as fast as stock pg8000 and within 1.5 times of psycopg
{peers["psycopg"]} with its C part:

{table(decoding_head, decoding_rows)}
"""
    return Section(title="Latency", text=text, charts={"latency.svg": chart})
