"""The benchmarks: what is simulated is the same everywhere and says what the page says; what is judged is judged rightly."""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import awslambdaric
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # `benchmarks` is a folder of the repository, not installed

from benchmarks import charts, cold_start, contention, init_phase, many_rows, report  # noqa: E402
from benchmarks.__main__ import CHAPTERS  # noqa: E402
from benchmarks.lambda_process import Function, Run, run  # noqa: E402
from benchmarks.local import options_of, served  # noqa: E402

from dsql_lambda import connect  # noqa: E402

DOCS = ROOT / "docs"
PAGE = DOCS / "benchmarks.md"


def test_the_contention_simulation_is_deterministic_by_seed():
    """Equal seeds, equal numbers; other seeds, others."""
    first, again, other = (
        contention.simulate(8, 1, 2, contention.POLICIES[contention.OURS], seed=seed, seconds=5) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_a_lone_worker_never_conflicts():
    """One attempt a commit, whatever the policy."""
    for retry in contention.POLICIES.values():
        result = contention.simulate(1, 1, 0, retry, seconds=2)
        assert (result.failed, result.attempts_per_commit) == (0, 1.0)


def test_the_connectors_defaults_fail_handlers_on_one_row():
    """What the policy for Lambda is for: more than two of three at 16 workers, as was recorded elsewhere."""
    assert contention.simulate(16, 1, 2, contention.POLICIES[contention.CONNECTORS], seconds=5).failed_share > 0.66


def test_the_policy_for_lambda_keeps_what_the_page_says_of_it():
    """No failure, 85 % of the most commits, and on one row a third of the connectors' attempts: where it is most crowded."""
    scenarios = [(64, 1, 2), (64, 1, 10), (64, 10, 10)]
    found = {each: {name: contention.simulate(*each, retry) for name, retry in contention.POLICIES.items()} for each in scenarios}
    table = contention.goals(found)
    assert table.count("| yes |") == 3, table


def test_charts_are_well_formed():
    """XML, with a title for those who do not see them."""
    chart = charts.bars("Title & more", {"here": {"with": 0.5, "without": 2}, "there": {"with": 1200.0, "without": 3}}, unit="ms")
    assert ElementTree.fromstring(chart).attrib["aria-label"] == "Title & more"


def test_valgrinds_count_is_read():
    """The last line of what cachegrind writes without its simulation of a cache; what has none is an error."""
    said = "==7== Cachegrind, a cache and branch-prediction profiler\n==7== \n==7== I   refs:      1,344,452,062\n"
    assert cold_start.read_count(said) == 1_344_452_062
    with pytest.raises(RuntimeError, match="Unrecognised instruction"):
        cold_start.read_count("==7== valgrind: Unrecognised instruction at address 0x4a3b2c.")


def test_the_targets_of_cold_start_are_judged_each_by_its_own_numbers():
    """Ours with bytecode is compared with the connector in both packagings, and with the process that has no transaction."""
    counts = {
        cold_start.Key("transaction", "here", "with bytecode"): 360_000_000,
        cold_start.Key("transaction", "awslambdaric and Powertools", "with bytecode"): 260_000_000,
        cold_start.Key("transaction", "connector, psycopg 3", "with bytecode"): 1_500_000_000,
        cold_start.Key("transaction", "connector, psycopg 3", "without"): 3_000_000_000,
    }
    quarter, tenth, beyond = cold_start.goals(counts).split("\n")[2:]
    assert quarter.endswith("| 0.240 | yes |")
    assert tenth.endswith("| 0.120 | **no** |")
    assert beyond.endswith("| 100.0 million | **no** |")


@pytest.fixture
def function(tmp_path):
    """A function that counts its invocations, and fails at the third."""
    (tmp_path / "app.py").write_text(
        "count = 0\n"
        "def lambda_handler(event, context):\n"
        "    global count\n"
        "    count += 1\n"
        "    if count == event['most']: raise ValueError('it failed')\n"
    )
    return Function(tmp_path, (Path(awslambdaric.__file__).parents[1],), {}, {"most": 3})


def test_a_function_runs_in_lambdas_own_process(function):
    """Its init phase and each invocation are timed, and the process is ended."""
    found = run(function, events=2)
    assert len(found.invocations) == 2
    assert found.init > 0
    assert found.cpu > 0
    assert not found.errors


def test_a_function_that_fails_fails_the_benchmark(function):
    """No number is made of an error."""
    with pytest.raises(RuntimeError, match="it failed"):
        run(function, events=3)


def test_the_init_phases_ratios_are_taken_within_a_round():
    """The first invocation without over the one with, of the same round; and of both phases together."""
    connected = [Run(init=0.1, invocations=[first, 0.02], cpu=0.1, errors="") for first in (0.02, 0.025, 0.03)]
    later = [Run(init=0.06, invocations=[first, 0.02], cpu=0.1, errors="") for first in (0.06, 0.05, 0.12)]
    text = init_phase.text_of({(10, True): connected, (10, False): later})
    row = "| 10 ms, connected at init | 100 ms | 25.0 ms | 20.0 ms | 3.00 (2.00 to 4.00) | 1.00 (0.88 to 1.38) |"
    assert row in text
    assert "| 10 ms, `DSQL_CONNECT_AT_INIT=0` | 60.0 ms | 60.0 ms | 20.0 ms |  |  |" in text


def test_many_rows_are_judged_by_the_loop_of_their_round():
    """Five times its rows a second, in the median of the rounds."""
    found = {many_rows.LOOP: [400.0, 500.0, 100.0], many_rows.CHUNKS: [2400.0, 2500.0, 400.0], many_rows.PARALLEL: [800.0] * 3}
    rows = many_rows.text_of(found).split("\n")[2:]
    assert rows[1] == "| `write_in_chunks` | 2,400/s | 5.00 (4.00 to 6.00) | yes |"
    assert rows[2] == "| `write_in_chunks(parallel=4)` | 800/s | 2.00 (1.60 to 8.00) | **no** |"
    assert rows[0].endswith("| 400/s | 1.00 (1.00 to 1.00) |  |")


@pytest.mark.parametrize(("value", "expected"), [(0.123, "0.12"), (9.94, "9.94"), (12.34, "12.3"), (1234.5, "1,234")])
def test_numbers_have_three_digits(value, expected):
    """As a person would write them."""
    assert report.number(value) == expected


def test_the_page_is_there_with_its_charts():
    """Every chapter, every image that it shows, each peer with its version, and no line that is too long to read."""
    page = PAGE.read_text()
    titles = [title.lower().replace(" ", "-") for title in re.findall(r"^## (.*)$", page, re.MULTILINE)]
    assert titles == list(CHAPTERS)
    images = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page)
    assert images == ["latency.svg", "cold-start.svg"]
    for name in images:
        ElementTree.fromstring((DOCS / name).read_text())
    for peer in ("aurora-dsql-python-connector", "psycopg", "asyncpg", "psycopg2-binary", "pg8000", "boto3"):
        assert re.search(rf"{peer}`? \d+\.\d+", page)
    assert [line for line in page.split("\n") if len(line) > 140 and not line.startswith(("|", "["))] == []


def test_the_local_dsql_is_served_to_the_benchmarks():
    """By its command, in a process of its own: what it prints is read up to its last line."""
    with served() as environment, connect(options_of(environment)) as connection:
        assert connection.run("SELECT 1") == [[1]]
