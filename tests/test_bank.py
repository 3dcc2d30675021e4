"""The bank, one minute of it: `make soak` runs ten. `BANK_SECONDS` sets how long."""

import os

import pytest
from tests.bank import survival
from tests.campaigns import figures_of

SECONDS = os.environ.get("BANK_SECONDS", "60")
ENVIRONMENTS = ("thaw", "forked", "provisioned", "restored", "frozen", "overrun", "alarm")


def test_a_bank_in_the_rain_loses_and_doubles_nothing():
    """16 processes, keys, each event delivered 1 to 3 times: 1,000 accounts, then 10; the faults are counted and printed."""
    banks = figures_of(f"tests.bank --seconds {SECONDS} --seed 7")
    print(*banks, sep="\n")
    assert [each["accounts"] for each in banks] == [1000, 10]
    for each in banks:
        assert (each["lost"], each["doubled"], each["answers_that_differ"], each["broken"]) == (0, 0, 0, 0)
        assert each["answers"] >= each["transfers"] > 0
        assert each["faults"] > 10
    for kind in ENVIRONMENTS:
        injected, survived = (sum(each["kinds"].get(kind, [0, 0])[index] for each in banks) for index in (0, 1))
        assert injected >= survived > 0, kind


@pytest.mark.parametrize(
    ("lines", "killed", "kinds", "faults"),
    [
        ([{"group": 1, "injected": ["thaw"]}, {"group": 1, "survived": ["thaw"]}], set(), {"thaw": [1, 1]}, []),
        ([{"group": 1, "injected": ["thaw"]}], set(), {"thaw": [1, 0]}, ["thaw: 1 of 1 gave no answer afterwards"]),
        ([{"group": 1, "injected": ["thaw"]}], {1}, {"thaw": [1, 0]}, []),
        ([{"group": 1, "injected": ["thaw"]}, {"group": 2, "survived": ["thaw"]}], {2}, {"thaw": [1, 0]}, ["thaw: 1 of 1"]),
    ],
)
def test_who_gave_no_answer_after_a_fault_is_found(lines, killed, kinds, faults):
    """Unless it was killed: one worker's answer is not another one's."""
    found, broken = survival(lines, killed)
    assert found == kinds
    assert len(broken) == len(faults)
    assert all(each.startswith(start) for each, start in zip(broken, faults, strict=True))
