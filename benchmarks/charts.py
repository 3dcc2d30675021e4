"""Charts as SVG text: bars. Legible on light and dark pages; no library is needed.

Knows coordinates and colours only. A chart carries its own style sheet, which follows the reader's colour scheme.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

_WIDTH = 760
_STYLE = (
    "<style>text{font:13px system-ui,sans-serif;fill:#1f2328} .title{font-weight:600;font-size:15px} .page{fill:#ffffff} "
    ".f0{fill:#0969da} .f1{fill:#d1242f} @media (prefers-color-scheme: dark){text{fill:#e6edf3} .page{fill:#0d1117} "
    ".f0{fill:#58a6ff} .f1{fill:#ff7b72}}</style>"
)


def _text(x: float, y: float, said: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


def bars(title: str, groups: Mapping[str, Mapping[str, float]], *, unit: str) -> str:
    """Horizontal bars in groups, longest value to the right edge, each with its number."""
    series = list(next(iter(groups.values())))
    most = max(value for group in groups.values() for value in group.values())
    left = 16 + 7.4 * max(len(name) for name in groups)
    room = _WIDTH - left - 110
    body = []
    y = 44.0
    if len(series) > 1:
        x = 16.0
        for index, name in enumerate(series):
            body.append(f'<rect class="f{index}" x="{x:.1f}" y="40" width="14" height="12" rx="2"/>')
            body.append(_text(x + 20, 51, name))
            x += 44 + 7.3 * len(name)
        y = 66.0
    for name, group in groups.items():
        body.append(_text(left - 8, y + 9 * len(series) + 4, name, "end"))
        for index, each in enumerate(series):
            width = max(room * group[each] / most, 1.5)
            body.append(f'<rect class="f{index}" x="{left:.1f}" y="{y:.1f}" width="{width:.1f}" height="15" rx="2"/>')
            body.append(_text(left + width + 6, y + 12, f"{_short(round(group[each], 2))} {unit}"))
            y += 18
        y += 10
    size = f'width="{_WIDTH}" height="{y + 6:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title, quote=True)}">{_STYLE}'
    page = f'<rect class="page" {size} rx="6"/><text class="title" x="16" y="26">{escape(title)}</text>'
    return "\n".join((head, page, *body, "</svg>\n"))
