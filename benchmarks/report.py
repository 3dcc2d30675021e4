"""What a benchmark hands over: a `Section` of the page with its tables and charts. How works are timed, and numbers written."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Say = Callable[[str], None]
"""Takes a line of progress."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """One chapter of the page. `charts` are SVG texts by the names of their files."""

    title: str
    text: str
    charts: dict[str, str] = field(default_factory=dict)


def paragraph(text: str) -> str:
    """Lines short enough to read, each name whole."""
    return textwrap.fill(text, 124, break_on_hyphens=False, break_long_words=False)


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


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def ratio(values: Sequence[float]) -> str:
    """The median of ratios, and from which to which they lie."""
    return f"{number(statistics.median(values))} ({number(min(values))} to {number(max(values))})"


def number(value: float) -> str:
    """Three digits at most, as a person would write them."""
    if value >= 99.5:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def yes(*, held: bool) -> str:
    """Whether a target holds."""
    return "yes" if held else "**no**"
