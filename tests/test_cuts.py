"""A link that ends at any byte of any phase, or a server that freezes, under any deadline. `make cuts` cuts 2,400."""

from tests.campaigns import figures_of
from tests.cuts import DEADLINES_MS, LATE_SECONDS


def test_cuts_at_random_bytes_of_every_phase():
    """By FIN, RST, silence and SIGSTOP, before and after the server has seen it; deadlines of 0 ms to 2 s hold."""
    assert DEADLINES_MS == (0, 1, 5, 50, 2_000)
    found = figures_of("tests.cuts --count 200 --seed 1", "tests.cuts --count 200 --seed 2")
    assert sum(each["runs"] for each in found) == 400
    assert sum(each["interrupted"] for each in found) > 200
    assert max(each["latest_seconds"] for each in found) < LATE_SECONDS
