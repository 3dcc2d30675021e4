"""Real alarms at random moments break no promise: none doubled, none false, no source poisoned. `make alarms` sends 20,000."""

from tests.campaigns import figures_of


def test_alarms_at_random_moments():
    """3,000 calls with a SIGALRM each, by seed; 600 more while connecting, or by another thread's `PyThreadState_SetAsyncExc`."""
    found = figures_of("tests.alarms --count 1500 --seed 1", "tests.alarms --count 1500 --seed 2")
    alarms = [each for each in found if each["path"] == "alarms"]
    assert sum(each["runs"] for each in alarms) == 3000
    assert sum(each["interrupted"] for each in alarms) > 1500
    assert all(each["interrupted"] > 0 for each in found)
