"""Draws the pictures of docs/how-it-works.md as SVG: `python docs/pictures.py` writes them beside itself.

Legible on light and dark pages: each picture has a ground of its own, which follows the reader's colour scheme. A test sees to it
that the files are what this draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

_STYLE = (
    "<style>text{font:13px system-ui,sans-serif;fill:#1f2328} .title{font-weight:600} .quiet{fill:#59636e} .page{fill:#ffffff} "
    "line{stroke:#59636e} .sent{stroke:#0969da} .answer{stroke:#1a7f37} .refused{stroke:#d1242f} .box{fill:#ddf4ff} "
    ".wait{fill:#fff8c5} .sent-end{fill:#0969da} .answer-end{fill:#1a7f37} .refused-end{fill:#d1242f} .bad{fill:#d1242f} "
    "@media (prefers-color-scheme: dark){text{fill:#e6edf3} .quiet{fill:#9198a1} .page{fill:#0d1117} line{stroke:#9198a1} "
    ".sent{stroke:#58a6ff} .answer{stroke:#3fb950} .refused{stroke:#ff7b72} .box{fill:#12325c} .wait{fill:#3b2e00} "
    ".sent-end{fill:#58a6ff} .answer-end{fill:#3fb950} .refused-end{fill:#ff7b72} .bad{fill:#ff7b72}}</style>"
)
_DROP = 14  # how much later a message arrives than it was sent


def _text(x: float, y: float, said: str, anchor: str = "start", kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{style}>{escape(said)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str = "") -> str:
    style = f' class="{kind}" stroke-width="1.5"' if kind else ""
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"{style}/>'


def _arrow(x1: float, y1: float, x2: float, kind: str) -> list[str]:
    """From one lifeline to another, falling, as time runs down the page."""
    y2 = y1 + _DROP
    back = 9 if x2 < x1 else -9
    head = f'<polygon class="{kind}-end" points="{x2:g},{y2:g} {x2 + back:g},{y2 - 6:g} {x2 + back:g},{y2 + 3:g}"/>'
    return [_line(x1, y1, x2, y2, kind), head]


def _picture(title: str, width: int, height: float, body: Sequence[str]) -> str:
    size = f'width="{width}" height="{height:g}" viewBox="0 0 {width} {height:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title, quote=True)}">{_STYLE}'
    page = f'<rect class="page" width="{width}" height="{height:g}" rx="6"/>'
    return "\n".join((head, page, *body, "</svg>\n"))


def flights() -> str:
    """A read, two writes and COMMIT: a flight for each statement beside two flights."""
    each = [["BEGIN"], ["SELECT balance …"], ["UPDATE … alice"], ["UPDATE … bob"], ["COMMIT"]]
    ours = [["BEGIN", "SELECT balance …"], ["UPDATE … alice", "UPDATE … bob", "COMMIT"]]
    body: list[str] = []
    lowest = 0.0
    for left, title, sent in ((16, "A statement a flight: 5 round trips", each), (396, "Here: 2 round trips", ours)):
        function, database = left + 150, left + 320
        body += [_text(left, 26, title, kind="title"), _text(function, 50, "function", "middle", "quiet")]
        body.append(_text(database, 50, "DSQL", "middle", "quiet"))
        y = 68.0
        start = y - 8
        for statements in sent:
            for row, statement in enumerate(statements):
                body.append(_text(function - 10, y + 5 + 16 * row, statement, "end"))
            y_sent = y + 16 * (len(statements) - 1)
            body += _arrow(function, y_sent, database, "sent")
            body += _arrow(database, y_sent + _DROP + 4, function, "answer")
            y = y_sent + 2 * _DROP + 22
        body += [_line(function, start, function, y - 8), _line(database, start, database, y - 8)]
        lowest = max(lowest, y)
    return _picture("A read, two writes and COMMIT: a flight for each statement, and here", 740, lowest + 4, body)


def conflict() -> str:
    """Two functions change the same row: the later COMMIT fails, and its function runs again."""
    first, database, second = 190, 370, 550
    body = [
        _text(first, 26, "function A", "middle", "title"),
        _text(database, 26, "DSQL", "middle", "title"),
        _text(second, 26, "function B", "middle", "title"),
    ]
    steps = (
        # y, of A, what it sends, how the answer is drawn, what it says
        (50, True, "BEGIN, SELECT balance", "answer", "100"),
        (72, False, "BEGIN, SELECT balance", "answer", "100"),
        (116, True, "UPDATE, COMMIT", "answer", "committed: 60"),
        (150, False, "UPDATE, COMMIT", "refused", "40001 OC000"),
        (262, False, "BEGIN, SELECT balance", "answer", "60"),
        (318, False, "UPDATE, COMMIT", "answer", "committed: 35"),
    )
    for y, is_first, sent, kind, answer in steps:
        x, anchor, out = (first, "end", -10) if is_first else (second, "start", 10)
        body += _arrow(x, y, database, "sent")
        body += _arrow(database, y + _DROP + 4, x, kind)
        body.append(_text(x + out, y + 5, sent, anchor))
        body.append(_text(x + out, y + 2 * _DROP + 9, answer, anchor, "bad" if kind == "refused" else "quiet"))
    body.append(f'<rect class="wait" x="{second + 4}" y="202" width="178" height="40" rx="4"/>')
    body += [_text(second + 12, 219, "rolled back; a short delay,"), _text(second + 12, 235, "then the function again")]
    for x, end in ((first, 160), (database, 362), (second, 362)):
        body.insert(0, _line(x, 36, x, end))
    return _picture("Two functions change one row: the later COMMIT fails with 40001 and its function runs again", 740, 376, body)


PICTURES = {"flights.svg": flights, "conflict.svg": conflict}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (Path(__file__).parent / name).write_text(draw(), encoding="utf-8")
