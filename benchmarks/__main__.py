"""All benchmarks in one run: `python -m benchmarks` writes `docs/benchmarks.md` and its charts. `make bench` calls it."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dsql_lambda import connect

from . import cold_start, contention, exactly_once, init_phase, latency, pool, round_trips, storm, warm_path
from .local import options_of, served
from .report import Section

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    """Measure, write the page, and say how far it is."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure everything and write docs/benchmarks.md.")
    parser.add_argument("--into", type=Path, default=DOCS, help="the folder for the page and its charts")
    into: Path = parser.parse_args().into
    started_at = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started_at:5.0f} s] {line}", file=sys.stderr, flush=True)

    for name in ("AWS_LAMBDA_RUNTIME_API", "AWS_LAMBDA_INITIALIZATION_TYPE"):
        os.environ.pop(name, None)
    with served() as environment:
        with connect(options_of(environment)) as connection:
            connection.run("CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL)")
            connection.run("INSERT INTO accounts VALUES (1, 100)")
        chapters: list[Callable[[], Section]] = [
            lambda: round_trips.section(say=say),
            lambda: latency.section(environment, say=say),
            lambda: cold_start.section(environment, say=say),
            lambda: init_phase.section(environment, say=say),
            lambda: warm_path.section(environment, say=say),
            lambda: pool.section(environment, say=say),
            lambda: contention.section(environment, say=say),
            lambda: exactly_once.section(environment, say=say),
            lambda: storm.section(say=say),
        ]
        sections = [chapter() for chapter in chapters]
    for section in sections:
        for name, svg in section.charts.items():
            (into / name).write_text(svg)
    (into / "benchmarks.md").write_text(page(sections, time.monotonic() - started_at))
    say(f"wrote {into / 'benchmarks.md'}")


def page(sections: list[Section], seconds: float) -> str:
    """The page's text."""
    head = f"""# Benchmarks

`make bench` wrote this page and its charts in {seconds / 60:.0f} minutes, on {os.cpu_count()} cores ({platform.machine()})
with Python {platform.python_version()}. Everything is measured on the local DSQL, TLS verified, with real tokens, in one run;
a time means nothing by itself, its ratio to another of the same run does. Ratios are medians, with from which to which they
lie. What is slow, or misses its target, stays in.

```console
make bench                            # all of it, in at most 15 minutes on two cores
```

One chapter, printed: `.venv/bin/python -m benchmarks.<module>`, where the module is `round_trips`, `latency`, `cold_start`,
`init_phase`, `warm_path`, `pool`, `contention` or `storm`. The two simulations give the same numbers on every machine.
"""
    return "\n".join([head, *(f"## {section.title}\n\n{section.text.strip()}\n" for section in sections)])


if __name__ == "__main__":
    main()
