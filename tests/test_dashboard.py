"""docs/dashboard.svg: the picture shows the template's widgets, and the values that the records have."""

import importlib.util
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def dashboard():
    """docs/dashboard.py as a module."""
    spec = importlib.util.spec_from_file_location("dashboard", ROOT / "docs" / "dashboard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["dashboard"] = module
    spec.loader.exec_module(module)
    return module


def record(at, metric, values, **dimensions):
    """An EMF record as Powertools writes it."""
    directive = {"Namespace": "n", "Dimensions": [list(dimensions)], "Metrics": [{"Name": metric, "Unit": "Count"}]}
    return {"_aws": {"Timestamp": at * 1000, "CloudWatchMetrics": [directive]}, **dimensions, metric: values}


def test_the_values_of_records_are_what_is_drawn(dashboard):
    """By the template's expressions: sums of conflicts by type, percentiles of durations."""
    records = [record(at, "OccConflict", [1.0], service="transfer", occ_type="data") for at in range(24)]
    records += [record(23, "TransactionDuration", [1.0, 2.0, 9.0], service="orders"), {"message": "a log record"}]
    points = [point for each in records for point in dashboard.points_of(each)]
    edges = [each * 23 / 24 for each in range(24)]
    by_title = {each["title"]: dashboard.series_of(each, points, edges) for each in dashboard.widgets()}
    [conflicts] = by_title["Conflicts by type"]
    assert (conflicts.label, sum(conflicts.values)) == ("transfer data", 24)
    half, most = by_title["Duration of a transaction in ms: p50 and p99"]
    assert (half.label, half.values[-1], most.label, most.values[-1]) == ("orders p50", 2.0, "orders p99", 9.0)


def test_the_picture_is_of_the_template_s_widgets(dashboard):
    """It is well-formed, and whoever changes a title draws it anew: `make dashboard`."""
    shown = ElementTree.parse(ROOT / "docs" / "dashboard.svg").getroot()
    texts = [each.text for each in shown.iter("{http://www.w3.org/2000/svg}text") if each.get("class") == "title"]
    assert texts == [each["title"] for each in dashboard.widgets()]
