"""The checker of histories finds what it is there to find, in forged ones."""

import pytest
from tests.history import Change, faults_in

START = {1: 100, 2: 100}
GOOD = [
    Change("a", 1, 0, 100, 90),
    Change("a", 2, 0, 100, 110),
    Change("b", 1, 1, 90, 80),
    Change("b", 2, 1, 110, 120),
]
END = {1: (2, 80), 2: (2, 120)}


def test_a_good_history_has_no_faults():
    """In whatever order its answers came."""
    assert faults_in(GOOD, START, END) == []
    assert faults_in(reversed(GOOD), START, END) == []
    assert faults_in([], START, {1: (0, 100), 2: (0, 100)}) == []


@pytest.mark.parametrize(
    ("forged", "end", "fault"),
    [
        ([*GOOD, Change("c", 1, 1, 90, 85)], END, "version 1 was read and written twice, by .: a lost update"),
        ([*GOOD, Change("a", 1, 0, 100, 90)], END, "version 0 was read and written twice"),  # applied twice, seen twice
        (GOOD, {**END, 1: (3, 70)}, r"it ends as \(3, 70\), and its history as \(2, 80\)"),  # applied twice, or by nobody
        (GOOD[:2], END, "it ends as"),  # answers that nobody got
        (GOOD[2:], END, "nobody wrote version 1, which b follows: a lost answer"),
        (
            [*GOOD[:2], Change("b", 1, 1, 95, 80), GOOD[3]],
            END,
            "b read 95 where 90 was written",
        ),  # a read of nothing that was committed
        (GOOD, {**END, 1: (2, 81)}, r"it ends as \(2, 81\)"),
        (GOOD, {1: (2, 80)}, "account 2: it ends as None"),
    ],
)
def test_a_bad_history_is_found(forged, end, fault):
    """Lost updates, doubled and lost transfers, reads out of nowhere."""
    found = faults_in(forged, START, end)
    with pytest.raises(AssertionError, match=fault):
        assert not found, found[0]
