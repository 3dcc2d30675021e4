"""Many rows: how many a second `write_in_chunks` writes at a distance, beside a loop that writes one at a time.

Knows the delay of `distance`. A part of the chapter on latency.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any

from dsql_lambda import Pool, write_in_chunks

from .distance import away
from .local import options_of
from .report import interleaved, number, ratio, table, yes

_INSERT = "INSERT INTO readings (id, device, at, value) VALUES (:id, :device, :at, :value)"
LOOP, CHUNKS, PARALLEL = "a loop, each row a transaction", "`write_in_chunks`", "`write_in_chunks(parallel=4)`"
_COUNTS = {LOOP: 300, CHUNKS: 12_000, PARALLEL: 24_000}


def rates(environment: Mapping[str, str]) -> dict[str, list[float]]:
    """Rows a second of each way at 2 ms, round by round."""
    ids = itertools.count()
    options = options_of(environment)

    def rows(way: str) -> Iterator[dict[str, Any]]:
        for n in itertools.islice(ids, _COUNTS[way]):
            yield {"id": n, "device": f"device {n % 100}", "at": "2026-01-01 12:00Z", "value": n / 8}

    with away(options.port, 2) as port, Pool(options, port=port) as pool, pool.connection() as connection:
        connection.run("DROP TABLE IF EXISTS readings")
        connection.run("CREATE TABLE readings (id bigint PRIMARY KEY, device text, at timestamptz, value float8)")
        works = {
            LOOP: lambda: [connection.run(_INSERT, **row) for row in rows(LOOP)],
            CHUNKS: lambda: write_in_chunks(_INSERT, rows(CHUNKS), source=pool),
            PARALLEL: lambda: write_in_chunks(_INSERT, rows(PARALLEL), source=pool, parallel=4),
        }
        found = interleaved(works, rounds=5, times=1, clock=time.perf_counter)
    return {way: [_COUNTS[way] / seconds for seconds in times] for way, times in found.items()}


def text_of(found: Mapping[str, list[float]]) -> str:
    """The table, with the target."""
    times = {way: [each / loop for each, loop in zip(rows, found[LOOP], strict=True)] for way, rows in found.items()}
    held = {way: yes(held=statistics.median(times[way]) >= 5) for way in (CHUNKS, PARALLEL)}
    body = [[way, f"{number(statistics.median(rows))}/s", ratio(times[way]), held.get(way, "")] for way, rows in found.items()]
    return table(["rows of 4 columns, 2 ms", "rows", "times the loop", "5 times or more"], body)
