"""All benchmarks in one run, into `docs/benchmarks.md` and its charts: `make bench`. Or single chapters, printed."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path

from . import cold_start, contention, init_phase, latency, local_dsql, own_costs, round_trips
from .local import served
from .report import Section, paragraph

DOCS = Path(__file__).parents[1] / "docs"
_MODULES = (round_trips, latency, cold_start, init_phase, own_costs, contention, local_dsql)
CHAPTERS = {each.__name__.rpartition(".")[2].replace("_", "-"): each for each in _MODULES}


def main() -> None:
    """Measure, and write the page or print what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure everything and write docs/benchmarks.md.")
    parser.add_argument("chapters", nargs="*", metavar="chapter", help=f"print this one alone: {', '.join(CHAPTERS)}")
    chapters: list[str] = parser.parse_args().chapters
    if unknown := set(chapters) - set(CHAPTERS):
        parser.error(f"no chapter is called {', '.join(unknown)}: they are {', '.join(CHAPTERS)}")
    started_at = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started_at:5.0f} s] {line}", file=sys.stderr, flush=True)

    for name in ("AWS_LAMBDA_RUNTIME_API", "AWS_LAMBDA_INITIALIZATION_TYPE"):
        os.environ.pop(name, None)
    with served() as environment:
        sections = [CHAPTERS[name].section(environment, say=say) for name in chapters or CHAPTERS]
    if chapters:
        print("\n".join(section.text for section in sections))
        return
    for section in sections:
        for name, svg in section.charts.items():
            (DOCS / name).write_text(svg)
    (DOCS / "benchmarks.md").write_text(page(sections, time.monotonic() - started_at))


def page(sections: list[Section], seconds: float) -> str:
    """The page's text."""
    head = f"""# Benchmarks

`make bench` wrote this page and its charts in {seconds / 60:.0f} minutes, on {os.cpu_count()} cores ({platform.machine()}) with
Python {platform.python_version()}. Everything is measured on the local DSQL, with verified TLS and real tokens, in one run. Times
depend on the machine and on what else it does: compare them only with times of the same run. Ratios are medians, with their
range. What is slow or misses its target is listed too.

```console
make bench                            # all of it, in at most 15 minutes on two cores
```

{paragraph(f"`.venv/bin/python -m benchmarks <chapter>` prints one chapter: {', '.join(f'`{name}`' for name in CHAPTERS)}.")}
Instructions, round trips and the simulation of contention do not depend on the machine's load.
"""
    return "\n".join([head, *(f"## {section.title}\n\n{section.text.strip()}\n" for section in sections)])


if __name__ == "__main__":
    main()
