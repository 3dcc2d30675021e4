"""TPC-B and a hot row with and without keys, a short round of each: `make reliability` runs long ones."""

from typing import Any

import pytest
from tests.campaigns import figures_of
from tests.contention import MODES, WORKLOADS
from tests.contention import figures_of as judged


def test_no_handler_fails_within_its_deadline_however_crowded_the_rows_are():
    """Eight processes, ten seconds a handler; nothing lost, nothing doubled, and TPC-B's sums are equal."""
    found = figures_of("tests.contention --workers 8 --handlers 12")
    print(*found, sep="\n")
    assert [(each["workload"], each["mode"]) for each in found] == [(one, mode) for one in WORKLOADS for mode in MODES]
    for each in found:
        assert each["handlers"] == 96
        assert (each["failed"], each["lost"], each["doubled"]) == (0, 0, 0)


class Answers:
    """A database that says this."""

    def __init__(self, *rows):
        self.rows = list(rows)

    def execute(self, sql):
        return self.rows.pop(0)


GOOD = [{"attempts": [1, 2], "seconds": [0.1, 0.2], "errors": {}}]


@pytest.mark.parametrize(
    ("workload", "rows", "said", "fault"),
    [
        ("hot row", [[["2"]]], GOOD, ""),
        ("hot row", [[["1"]]], GOOD, "2 were answered, 1 applied"),
        ("hot row", [[["3"]]], GOOD, "2 were answered, 3 applied"),
        ("hot row", [[["2"]]], [{**GOOD[0], "errors": {"DeadlineExceeded": 1}}], "1 times DeadlineExceeded"),
        ("tpc-b", [[["2", "2"]], [["5", "5", "5", "5"]]], GOOD, ""),
        ("tpc-b", [[["2", "1"]], [["5", "5", "5", "5"]]], GOOD, "1 times doubled"),
        ("tpc-b", [[["2", "2"]], [["5", "4", "5", "5"]]], GOOD, "the sums of branches, tellers, accounts and history are"),
    ],
)
def test_what_the_database_does_not_have_is_found(workload, rows, said, fault):
    """In forged answers."""
    answers: Any = Answers(*rows)
    _, faults = judged(answers, workload, "first", said, 1.0)
    assert [fault] == [each.partition(": ")[2][: len(fault)] for each in faults] if fault else faults == []
