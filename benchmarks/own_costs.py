"""Small costs of the layer's own, in microseconds of CPU time: signing a token, and lending a pool's idle connection. The pool is
compared with a `queue.LifoQueue` that hands out the same object.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from queue import LifoQueue
from typing import Any

from dsql_lambda import Connection, Pool

from .local import options_of
from .report import Say, Section, interleaved, number, table, yes

_ROUNDS = 15
_TIMES = 500


def measure(environment: Mapping[str, str], *, rounds: int = _ROUNDS) -> dict[str, list[float]]:
    """Microseconds of each, round by round."""
    options = options_of(environment)
    shelf: LifoQueue[Connection] = LifoQueue()
    with Pool(options) as pool:
        with pool.connection() as connection:
            shelf.put(connection)

        def lend() -> None:
            with pool.connection():
                pass

        works: dict[str, Callable[[], Any]] = {"token": options.token, "queue": lambda: shelf.put(shelf.get()), "pool": lend}
        found = interleaved(works, rounds=rounds, times=_TIMES, clock=time.thread_time)
    return {name: [seconds * 1e6 for seconds in times] for name, times in found.items()}


def section(environment: Mapping[str, str], *, say: Say) -> Section:
    """The page's chapter."""
    say("own costs: tokens and the pool")
    found = measure(environment)
    more = [pool - queue for pool, queue in zip(found["pool"], found["queue"], strict=True)]
    rows = [
        ("`ConnectOptions.token()`: one signature", found["token"], 100.0),
        ("`LifoQueue` get and put", found["queue"], None),
        ("`with pool.connection(): pass` on an idle pool", found["pool"], None),
        ("the pool, beyond the queue", more, 5.0),
    ]
    body = []
    for name, values, most in rows:
        median = statistics.median(values)
        judged = [f"{most:g}", yes(held=median <= most)] if most is not None else ["", ""]
        body.append([name, number(median), number(min(values)), number(max(values)), *judged])
    text = f"""CPU time; medians of {_ROUNDS} rounds of {_TIMES:,}, interleaved.

{table(["", "microseconds", "from", "to", "at most", "holds"], body)}
"""
    return Section(title="Own costs", text=text)
