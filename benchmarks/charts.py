"""Charts as SVG text: lines over a logarithmic axis, and bars. Legible on light and dark pages; no library is needed.

Knows coordinates and colours only. A chart carries its own style sheet, which follows the reader's colour scheme.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

_WIDTH = 760
_COLOURS = ("#0969da", "#d1242f", "#1a7f37", "#bf8700", "#8250df", "#57606a")
_DARK_COLOURS = ("#58a6ff", "#ff7b72", "#56d364", "#e3b341", "#bc8cff", "#9ea7b3")
_DASHES = ("2 4", "7 4", "", "10 3 2 3", "4 2", "1 3")


def _style() -> str:
    def rules(colours: Sequence[str], ink: str, faint: str, page: str) -> str:
        series = " ".join(f".l{index}{{stroke:{each}}} .f{index}{{fill:{each}}}" for index, each in enumerate(colours))
        return f".page{{fill:{page}}} text{{fill:{ink}}} .grid{{stroke:{faint}}} .axis{{stroke:{ink}}} {series}"

    return (
        "<style>text{font:13px system-ui,sans-serif} .title{font-weight:600;font-size:15px} "
        ".grid{stroke-width:1} .axis{stroke-width:1} .line{fill:none;stroke-width:2.5} "
        + rules(_COLOURS, "#1f2328", "#d1d9e0", "#ffffff")
        + " @media (prefers-color-scheme: dark){"
        + rules(_DARK_COLOURS, "#e6edf3", "#30363d", "#0d1117")
        + "}</style>"
    )


def _svg(height: float, title: str, body: Sequence[str]) -> str:
    return "\n".join(
        (
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}" '
                f'height="{height:.0f}" role="img" aria-label="{escape(title, quote=True)}">'
            ),
            _style(),
            f'<rect class="page" width="{_WIDTH}" height="{height:.0f}" rx="6"/>',
            f'<text class="title" x="16" y="26">{escape(title)}</text>',
            *body,
            "</svg>\n",
        )
    )


def _text(x: float, y: float, said: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


def lines(
    title: str,
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    *,
    x_label: str,
    y_label: str,
    log_y: bool = False,
    top: float | None = None,
) -> str:
    """Panels side by side, each with one line a series over the same axes; x is logarithmic, to the base of 2."""
    series = list(next(iter(panels.values())))
    points = [point for panel in panels.values() for line in panel.values() for point in line]
    xs = sorted({x for x, _ in points})
    low, high = (
        (min(y for _, y in points), top or max(y for _, y in points)) if log_y else (0.0, top or max(y for _, y in points))
    )
    ticks = _log_ticks(low, high) if log_y else _ticks(high)
    low, high = (ticks[0], ticks[-1]) if log_y else (0.0, max(ticks[-1], high))
    left, above, plot_height, gap = 64.0, 84.0, 200.0, 18.0
    panel_width = (_WIDTH - left - 16 - gap * (len(panels) - 1)) / len(panels)

    def at_y(y: float) -> float:
        share = (math.log(max(y, low)) - math.log(low)) / (math.log(high) - math.log(low)) if log_y else y / high
        return above + plot_height * (1 - min(share, 1.0))

    body = []
    x = 16.0
    for index, name in enumerate(series):
        dash = f' stroke-dasharray="{_DASHES[index]}"' if _DASHES[index] else ""
        body.append(f'<line class="line l{index}" x1="{x}" y1="46" x2="{x + 28}" y2="46"{dash}/>')
        body.append(_text(x + 34, 50, name))
        x += 54 + 7.3 * len(name)
    for number, (panel_name, panel) in enumerate(panels.items()):
        start = left + number * (panel_width + gap)

        def at_x(x: float, start: float = start) -> float:
            spread = math.log2(xs[-1]) - math.log2(xs[0])
            return start + 10 + (panel_width - 20) * (math.log2(x) - math.log2(xs[0])) / spread

        body.append(_text(start + panel_width / 2, above - 10, panel_name, "middle"))
        for tick in ticks:
            y = at_y(tick)
            body.append(f'<line class="grid" x1="{start:.1f}" y1="{y:.1f}" x2="{start + panel_width:.1f}" y2="{y:.1f}"/>')
            if number == 0:
                body.append(_text(start - 8, y + 4, _short(tick), "end"))
        bottom = above + plot_height
        body.append(f'<line class="axis" x1="{start:.1f}" y1="{bottom}" x2="{start + panel_width:.1f}" y2="{bottom}"/>')
        body += [_text(at_x(each), bottom + 18, _short(each), "middle") for each in xs]
        for index, name in enumerate(series):
            dash = f' stroke-dasharray="{_DASHES[index]}"' if _DASHES[index] else ""
            path = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in panel[name])
            body.append(f'<polyline class="line l{index}" points="{path}"{dash}/>')
    bottom = above + plot_height
    body.append(_text(left + (_WIDTH - left - 16) / 2, bottom + 38, x_label, "middle"))
    body.append(
        f'<text x="18" y="{above + plot_height / 2:.1f}" text-anchor="middle" '
        f'transform="rotate(-90 18 {above + plot_height / 2:.1f})">{escape(y_label)}</text>'
    )
    return _svg(bottom + 52, title, body)


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
    return _svg(y + 6, title, body)


def _ticks(high: float) -> list[float]:
    step = 10 ** math.floor(math.log10(high / 4 or 1))
    step *= next(each for each in (1, 2, 2.5, 5, 10) if high / (step * each) <= 5)
    return [step * count for count in range(math.ceil(high / step - 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]
