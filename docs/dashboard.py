"""Draws the dashboard of template.yaml from a local run, as docs/dashboard.svg: `make dashboard`.

The widgets and their expressions are the template's; the numbers are the EMF records that the functions wrote while they ran in
the Runtime Interface Emulator on a local DSQL with conflicts, and what their first invocations took, which the emulator does not
divide into init phase and handler. Widgets of what only AWS measures (errors, the API, the queue) are left out.
"""

from __future__ import annotations

import json
import math
import re
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from dsql_local import LocalDsql
from dsql_local.cli.database import prepare
from dsql_local.sam.makefile_build import build
from dsql_local.sam.rie import RuntimeInterfaceEmulator
from dsql_local.sam.template import read_function

ROOT = Path(__file__).resolve().parents[1]
FUNCTIONS = ("TransferFunction", "OrdersFunction", "LedgerFunction")
ROUNDS, ENVIRONMENTS = 120, 3
BINS = 24
OURS = re.compile(r'SEARCH|"\$\{MetricsNamespace\}"')
SEARCH = re.compile(r"""MetricName="(\w+)"', '(\w+)'""")
DIMENSION = re.compile(r"\$\{!PROP\('Dim\.(\w+)'\)\}")
WIDTH, HEIGHT, GAP, LEGEND = 340, 190, 14, 16
COLOURS = ("#0969da", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a", "#bf3989", "#1b7c83")
STYLE = (
    "<style>text{font:11px system-ui,sans-serif;fill:#1f2328} .title{font-weight:600;font-size:13px} .page{fill:#ffffff} "
    ".grid{stroke:#d0d7de;stroke-width:1} @media (prefers-color-scheme: dark){text{fill:#e6edf3} .page{fill:#0d1117} "
    ".grid{stroke:#30363d}}</style>"
)


class Point(NamedTuple):
    """One value of a metric, with what it is of."""

    at: float
    metric: str
    value: float
    dimensions: Mapping[str, str]


def points_of(record: Mapping[str, Any]) -> Iterator[Point]:
    """The values of an EMF record; none of another one."""
    if "_aws" not in record:
        return
    [directive] = record["_aws"]["CloudWatchMetrics"]
    dimensions = {name: record[name] for name in directive["Dimensions"][0]}
    for metric in directive["Metrics"]:
        values = record[metric["Name"]]
        for value in values if isinstance(values, list) else [values]:
            yield Point(record["_aws"]["Timestamp"] / 1000, metric["Name"], value, dimensions)


def widgets() -> list[dict[str, Any]]:
    """Those of the template whose metrics are ours."""
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_multi_constructor("!", lambda loader, _, node: getattr(node, "value", None))  # type: ignore[attr-defined]
    template = yaml.load((ROOT / "template.yaml").read_text(encoding="utf-8"), loader)  # noqa: S506 - a safe loader's child
    body = json.loads(template["Resources"]["Dashboard"]["Properties"]["DashboardBody"])
    return [each["properties"] for each in body["widgets"] if OURS.search(json.dumps(each["properties"]["metrics"]))]


class Series(NamedTuple):
    """One line of a widget: a value a bin, on the left scale or the right one."""

    label: str
    values: list[float | None]
    is_right: bool


def series_of(properties: Mapping[str, Any], points: Sequence[Point], edges: Sequence[float]) -> list[Series]:
    """The lines of a widget: its expressions and metrics over the points."""
    found = []
    for metric in properties["metrics"]:
        last = metric[-1]
        matched = SEARCH.search(last.get("expression", ""))
        name, stat = matched.groups() if matched else (metric[1], last["stat"])
        bins: dict[str, list[list[float]]] = defaultdict(lambda: [[] for _ in range(BINS)])
        for point in (each for each in points if each.metric == name):
            label = DIMENSION.sub(partial(dimension_of, point), last["label"]).strip()
            bins[label][min(sum(point.at >= edge for edge in edges[1:]), BINS - 1)].append(point.value)
        is_right = last.get("yAxis") == "right"
        found += [Series(label, [statistic(stat, each) for each in values], is_right) for label, values in sorted(bins.items())]
    return found


def dimension_of(point: Point, name: re.Match[str]) -> str:
    return point.dimensions.get(name[1], "")


def statistic(stat: str, values: list[float]) -> float | None:
    """As CloudWatch has it; of no values a sum is 0 and anything else nothing."""
    if stat in {"Sum", "SampleCount"}:
        return sum(values) if stat == "Sum" else len(values)
    if not values:
        return None
    if stat.startswith("p"):
        return sorted(values)[min(len(values) - 1, math.ceil(len(values) * int(stat[1:]) / 100) - 1)]
    of: Callable[[list[float]], float] = {"Average": lambda each: sum(each) / len(each), "Maximum": max}[stat]
    return of(values)


def panel(x: float, y: float, title: str, series: Sequence[Series], *, stacked: bool) -> list[str]:
    """One widget: bars upon each other, or lines; those of the right scale are dotted."""
    top, bottom, left, right = y + 30, y + HEIGHT - 40, x + 34, x + WIDTH - 36
    columns = [[each.values[i] or 0 for each in series if not each.is_right] for i in range(BINS)]
    most = max((sum(each) if stacked else max(each, default=0) for each in columns), default=0) or 1
    most_right = max((value or 0 for each in series if each.is_right for value in each.values), default=0) or 1
    out = [f'<text class="title" x="{x + 8:.0f}" y="{y + 18:.0f}">{escape(title)}</text>']
    for part in (0, 0.5, 1):
        level = bottom - part * (bottom - top)
        out.append(f'<line class="grid" x1="{left:.0f}" x2="{right:.0f}" y1="{level:.1f}" y2="{level:.1f}"/>')
        out.append(f'<text x="{left - 4:.0f}" y="{level + 4:.1f}" text-anchor="end">{most * part:.3g}</text>')
        if any(each.is_right for each in series):
            out.append(f'<text x="{right + 4:.0f}" y="{level + 4:.1f}">{most_right * part:.3g}</text>')
    step = (right - left) / BINS
    for index, each in enumerate(series):
        colour, scale = COLOURS[index % len(COLOURS)], (bottom - top) / (most_right if each.is_right else most)
        spots = [(left + (i + 0.5) * step, value * scale, i) for i, value in enumerate(each.values) if value is not None]
        if stacked:
            for spot, high, i in spots:
                at = bottom - sum(columns[i][:index]) * scale - high
                out.append(bar(spot - step / 2 + 1, at, step - 2, high, colour) if high else "")
        elif each.is_right:
            out += [f'<circle cx="{spot:.1f}" cy="{bottom - high:.1f}" r="2.5" fill="{colour}"/>' for spot, high, _ in spots]
        else:
            line = " ".join(f"{spot:.1f},{bottom - high:.1f}" for spot, high, _ in spots)
            out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        place = (x + 8 + index % 3 * 110, y + HEIGHT - 22 + index // 3 * LEGEND)
        out.append(bar(place[0], place[1] - 8, 9, 9, colour))
        out.append(f'<text x="{place[0] + 13:.0f}" y="{place[1]:.0f}">{escape(each.label)}</text>')
    return [each for each in out if each]


def bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def draw(points: Sequence[Point]) -> str:
    """The picture."""
    first, last = min(each.at for each in points), max(each.at for each in points)
    edges = [first + (last - first) * i / BINS for i in range(BINS)]
    body, row = [], HEIGHT + GAP + LEGEND
    shown = widgets()
    for index, properties in enumerate(shown):
        x, y = GAP + index % 3 * (WIDTH + GAP), GAP + index // 3 * row
        body += panel(x, y, properties["title"], series_of(properties, points, edges), stacked=properties.get("stacked", False))
    width, height = GAP + 3 * (WIDTH + GAP), GAP + -(-len(shown) // 3) * row
    said = f"{len(points)} values of {last - first:.0f} s, in {BINS} parts"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img" aria-label="{said}">{STYLE}'
    return "\n".join((head, f'<rect class="page" width="{width}" height="{height}" rx="6"/>', *body, "</svg>\n"))


def run() -> list[Point]:
    """What the functions write while they run on a local DSQL that lets one COMMIT in six fail, and closes what is open once."""
    points: list[Point] = []
    with LocalDsql(seed=1) as dsql, tempfile.TemporaryDirectory() as folder:
        built = {name: build(read_function(ROOT / "template.yaml", name), Path(folder)) for name in FUNCTIONS}
        for name in FUNCTIONS:
            prepare(dsql, read_function(ROOT / "template.yaml", name))
        dsql.execute("UPDATE accounts SET balance = 100000000; UPDATE products SET stock = 1000000")
        dsql.conflict_rate(1 / 6)
        for turn in range(ENVIRONMENTS):  # a new environment each, hence cold starts
            emulators = {name: RuntimeInterfaceEmulator(each, dsql.environment) for name, each in built.items()}
            try:
                for emulator in emulators.values():
                    emulator.__enter__()
                for number in range(ROUNDS):
                    if turn == 1 and number == ROUNDS // 2:
                        dsql.close_connections()
                    for name, emulator in emulators.items():
                        done = emulator.invoke(event_of(name, number))
                        assert not done.failed, done  # noqa: S101 - the run is worth nothing then
                        points += [point for record in done.records() for point in points_of(record)]
                        if number == 0:
                            points.append(Point(time.time(), name.replace("Function", "ColdStart"), done.duration_ms or 0, {}))
            finally:
                for emulator in emulators.values():
                    emulator.close()
    return points


def event_of(name: str, number: int) -> Any:
    """A transfer, a batch of one to five orders, or a transfer in the ledger; each with keys of its own."""
    if name == "OrdersFunction":
        [record] = json.loads((ROOT / "events/orders-too-many.json").read_text(encoding="utf-8"))["Records"]
        orders = [str(uuid.uuid4()) for _ in range(1 + number % 5)]
        bodies = [json.dumps({"order": each, "product": "desk", "quantity": 1}) for each in orders]
        return {"Records": [{**record, "messageId": each, "body": body} for each, body in zip(orders, bodies, strict=True)]}
    event = json.loads((ROOT / f"events/{'transfer' if name == 'TransferFunction' else 'ledger-transfer'}.json").read_text())
    return {**event, "headers": {**event["headers"], "idempotency-key": str(uuid.uuid4())}}


def main() -> int:
    """Run, and draw."""
    target = ROOT / "docs" / "dashboard.svg"
    target.write_text(draw(run()), encoding="utf-8")
    print(f"==> {target.relative_to(ROOT)} drawn", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
