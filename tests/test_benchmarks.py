"""The benchmarks' simulations give the same numbers everywhere, and the layer's own numbers win in them as the page says."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # `benchmarks` is a folder of the repository, not installed

from benchmarks import charts, cold_start, contention, init_phase, instructions, report, storm  # noqa: E402
from benchmarks.optimistic import Scenario, simulate  # noqa: E402

from dsql_lambda import OCCRetryConfig  # noqa: E402
from dsql_lambda.cache import max_age  # noqa: E402

DOCS = ROOT / "docs"
PAGE = DOCS / "benchmarks.md"


def test_the_contention_simulation_is_deterministic_by_seed():
    """Equal seeds, equal numbers; other seeds, others."""
    scenario = Scenario(workers=8, rows=1, round_trip_ms=2)
    first, again, other = (simulate(scenario, OCCRetryConfig.for_lambda(), seed=seed, seconds=5) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_lone_worker_never_conflicts():
    """One attempt a commit, whatever the policy."""
    scenario = Scenario(workers=1, rows=1, round_trip_ms=0)
    for retry in contention.POLICIES.values():
        result = simulate(scenario, retry, seconds=2)
        assert (result.failed, result.attempts_per_commit) == (0, 1.0)


def test_the_connectors_defaults_fail_handlers_on_one_row():
    """What the policy for Lambda is for: more than two of three at 16 workers, as was recorded elsewhere."""
    scenario = Scenario(workers=16, rows=1, round_trip_ms=2)
    assert simulate(scenario, contention.POLICIES[contention.CONNECTORS], seconds=5).failed_share > 0.66


def test_the_policy_for_lambda_keeps_what_the_page_says_of_it():
    """No failure, 85 % of the most commits, and on one row a third of the connectors' attempts: where it is most crowded."""
    crowded = [*contention.scenarios(workers=(4, 16, 64), rows=(1,)), *contention.scenarios(workers=(64,), rows=(10,))]
    found = contention.bounds(contention.measure(crowded))
    assert found.failed == 0
    assert found.least_goodput >= 0.85
    assert found.attempts[1] <= 1 / 3


@pytest.mark.parametrize("deadline", [3, 30])
@pytest.mark.parametrize("change", [{"workers": 256}, {"work_ms": 50}, {"pause_ms": 100}, {"is_every_fourth_far": True}])
def test_the_policy_for_lambda_fails_fewest_elsewhere_too(change, deadline):
    """With other handlers than those that its numbers were chosen by, it fails fewer than either of the others."""
    scenario = replace(contention.HARDEST, deadline=deadline, **change)
    (results,) = contention.measure([scenario], seconds=10).values()
    assert min(results, key=lambda name: results[name].failed_share) == contention.OURS


def test_a_burst_ends_with_every_handler_heard():
    """Each worker has one handler; who starts anew is nobody."""
    scenario = Scenario(workers=50, rows=1, round_trip_ms=2, is_burst=True)
    result = simulate(scenario, OCCRetryConfig.for_lambda())
    assert (result.commits, result.failed) == (50, 0)


def test_a_storm_of_cold_starts_connects_near_the_buckets_floor():
    """5,000 within a tenth of it, and none fails that has the time."""
    result, connected_at = storm.connect_all(storm.cold_starts(5000, 5000), storm.ours, patience=60)
    assert result.handlers_failed == 0
    assert result.above_floor <= 0.1
    assert len(connected_at) == 5000
    assert storm.connect_all(storm.cold_starts(5000, 5000), storm.ours, patience=60)[0] == result


def test_the_front_admits_no_more_than_its_bucket_holds():
    """The burst at once, then a hundred a second; and no more than there may be connections."""
    _, connected_at = storm.connect_all([0.0] * 1500, storm.ours, patience=60)
    assert sum(moment < 0.1 for moment in connected_at) in range(1000, 1010)
    assert max(connected_at) >= 5
    result, _ = storm.connect_all([0.0] * 3, storm.none, patience=60)
    assert (result.handlers_failed, result.tries) == (0, 3)


def test_connections_of_one_age_are_replaced_without_a_failure():
    """50,000 of them, by the jitter of their age."""
    wanted = storm.recycled([0.0] * 50_000, max_age)
    result, _ = storm.connect_all(wanted, storm.ours, patience=10, most=50_000)
    assert result.handlers_failed == 0


def test_charts_are_well_formed():
    """XML, with a title for those who do not see them, and colours for light and dark pages."""
    for svg in (
        charts.lines("Title & more", {"a": {"x": [(1, 1.0), (64, 99.0)]}}, x_label="x", y_label="y"),
        charts.bars("Bars", {"here": {"ms": 0.5}, "there": {"ms": 1200.0}}, unit="ms"),
    ):
        root = ElementTree.fromstring(svg)
        assert root.attrib["aria-label"]
        assert "prefers-color-scheme: dark" in svg


def test_valgrinds_count_is_read():
    """The last line of what cachegrind writes without its simulation of a cache; what has none is an error."""
    said = "==7== Cachegrind, a cache and branch-prediction profiler\n==7== \n==7== I   refs:      1,344,452,062\n"
    assert instructions.read_count(said) == 1_344_452_062
    with pytest.raises(RuntimeError, match="Unrecognised instruction"):
        instructions.read_count("==7== valgrind: Unrecognised instruction at address 0x4a3b2c.")


def test_the_targets_of_cold_start_are_judged_by_both_measures():
    """A target that holds by instructions and not by CPU time says so; what was not counted has no column."""
    times = [[9.0, 9.6, 10.3], [18.9, 23.4, 25.4]]
    head, _, first, second = cold_start.targets(times, [11.3, 19.9]).split("\n")
    assert head == "| target | by instructions | holds | by CPU time | holds |"
    assert first.endswith("| 1 to 11.3 | yes | 1 to 9.60 (9.00 to 10.3) | **no** |")
    assert second.endswith("| 1 to 19.9 | **no** | 1 to 23.4 (18.9 to 25.4) | yes |")
    head, _, first, second = cold_start.targets(times, []).split("\n")
    assert head == "| target | by CPU time | holds |"
    assert first.endswith("both with bytecode | 1 to 9.60 (9.00 to 10.3) | **no** |")
    assert second.endswith("without | 1 to 23.4 (18.9 to 25.4) | yes |")


def test_the_init_phases_ratios_are_taken_within_a_round():
    """The first invocation without over the one with, of the same round; and of all that the caller waited for."""
    connected = [init_phase.Durations(init=0.055, first=first, second=0.02, answered=0.12) for first in (0.02, 0.025, 0.03)]
    later = [init_phase.Durations(init=0.015, first=first, second=0.02, answered=0.12) for first in (0.06, 0.05, 0.12)]
    text = init_phase.text_of({(10, True): connected, (10, False): later})
    assert (
        "| 10 ms, connected at init | 55.0 ms | 25.0 ms | 20.0 ms | 120 ms | 3.00 (2.00 to 4.00) | 1.00 (1.00 to 1.00) |" in text
    )
    assert "| 10 ms, `DSQL_CONNECT_AT_INIT=0` | 15.0 ms | 60.0 ms | 20.0 ms | 120 ms |  |  |" in text


@pytest.mark.parametrize(("value", "expected"), [(0.123, "0.12"), (9.94, "9.94"), (12.34, "12.3"), (1234.5, "1,234")])
def test_numbers_have_three_digits(value, expected):
    """As a person would write them."""
    assert report.number(value) == expected


def test_the_page_is_there_with_its_charts():
    """Every chapter, every image that it shows, and each peer with its version."""
    page = PAGE.read_text()
    titles = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert titles == [
        "Round trips",
        "Latency",
        "Cold start",
        "Init phase",
        "Warm path",
        "Pool",
        "Contention",
        "Storms of connections",
    ]
    images = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page)
    assert len(images) == 6
    for name in images:
        ElementTree.fromstring((DOCS / name).read_text())
    for peer in ("aurora-dsql-python-connector", "psycopg", "asyncpg", "psycopg2-binary", "pg8000", "boto3"):
        assert re.search(rf"{peer}`? \d+\.\d+", page)
    assert "make bench" in page
