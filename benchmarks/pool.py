"""The pool's own cost: lending an idle connection, against a `queue.LifoQueue` that hands out the same object.

`python -m benchmarks.pool` prints the table.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping
from queue import LifoQueue

from dsql_lambda import Connection, Pool

from .latency import interleaved
from .local import options_of, served
from .report import Say, Section, number, table, yes

_ROUNDS = 15
_TIMES = 2000
_MOST_MICROSECONDS = 5.0


def measure(environment: Mapping[str, str], *, rounds: int = _ROUNDS) -> dict[str, list[float]]:
    """Microseconds of one loan, round by round; what a poll of the socket costs is measured with it."""
    shelf: LifoQueue[Connection] = LifoQueue()
    with Pool(options_of(dict(environment))) as pool:
        with pool.connection() as connection:
            shelf.put(connection)

        def lend() -> None:
            with pool.connection():
                pass

        def get_and_put() -> None:
            shelf.put(shelf.get())

        works = {"queue": get_and_put, "pool": lend, "poll": connection._session.transport.is_readable}
        found = interleaved(works, rounds=rounds, times=_TIMES, clock=time.perf_counter)
    return {name: [seconds * 1e6 for seconds in times] for name, times in found.items()}


def section(environment: Mapping[str, str], *, say: Say) -> Section:
    """The page's chapter."""
    say("pool: lending an idle connection")
    found = measure(environment)
    more = [pool - queue for pool, queue in zip(found["pool"], found["queue"], strict=True)]
    text = f"""`with pool.connection(): pass` on an idle pool, against `get` and `put` of a `queue.LifoQueue`; median of {
        _ROUNDS
    } rounds of {_TIMES:,}, interleaved. The target is at most
{_MOST_MICROSECONDS:g} microseconds more.

{
        table(
            ["", "microseconds", "from", "to"],
            [
                [name, number(statistics.median(values)), number(min(values)), number(max(values))]
                for name, values in {
                    "`LifoQueue` get + put": found["queue"],
                    "`Pool.connection()`": found["pool"],
                    "of which one poll of the socket (has the peer closed?)": found["poll"],
                    "the pool, beyond the queue": more,
                }.items()
            ],
        )
    }

At most {_MOST_MICROSECONDS:g} more: {yes(held=statistics.median(more) <= _MOST_MICROSECONDS)}.
"""
    return Section(title="Pool", text=text)


def main() -> None:
    """Print the chapter."""
    with served() as environment:
        print(section(environment, say=lambda line: print(line, file=sys.stderr)).text)


if __name__ == "__main__":
    main()
