"""Tables of figures, in Markdown: `table`."""

from __future__ import annotations

from collections.abc import Iterable


def table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """As Markdown; columns of numbers stand at the right."""
    lines = [list(each) for each in rows]
    is_number = [
        all(each[index].replace(",", "").replace(".", "").isdigit() for each in lines) for index, _ in enumerate(lines[0])
    ]
    found = [list(names), ["---:" if each else "---" for each in is_number], *lines]
    return "\n".join(f"| {' | '.join(each)} |" for each in found)
