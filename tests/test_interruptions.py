"""An exception at any bytecode breaks no promise: `tests.interruptions` raises one at each.

All positions of the commit path (a warm handler that writes), some of every other path. `make interruptions` goes through all.
"""

import contextlib

import pytest
from tests.campaigns import figures_of
from tests.interruptions import KINDS, Stepper
from tests.promises import PATHS, Alarm, shows_token


def test_every_bytecode_of_the_commit_path():
    """Each position of two processes' halves, with each kind of exception: nothing doubled, false, lost, foreign or left open."""
    halves = figures_of("tests.interruptions write --every 2 --first 1", "tests.interruptions write --every 2 --first 2")
    positions = [half["positions"] for half in halves]  # they differ by a wait, where an answer was not there at once
    assert min(positions) > 1000
    runs = [len(KINDS) * len(range(first, number + 1, 2)) for first, number in enumerate(positions, 1)]
    assert [half["runs"] for half in halves] == runs
    assert sum(half["interrupted"] for half in halves) > 0.9 * sum(runs)
    # COMMIT is called unknown from `send` on and not before: else "unknown" would be an excuse.
    unknown, applied = (sum(half[name] for half in halves) for name in ("unknown", "applied"))
    assert 0 <= unknown - applied < 0.02 * sum(runs)


def test_some_bytecodes_of_every_path():
    """Connecting, a read, a conflict and its retry, an error, a rollback, a stream left early, and the sources."""
    names = [name for name in PATHS if name != "write"]
    found = figures_of(*(f"tests.interruptions {' '.join(half)} --every 151 --first 76" for half in (names[::2], names[1::2])))
    assert sorted(each["path"] for each in found) == sorted(names)
    assert all(each["interrupted"] > 0 for each in found)


def test_the_end_of_a_settled_transaction():
    """Where a lost COMMIT turned out to have landed, an interruption on the way to the caller says so."""
    (found,) = figures_of("tests.interruptions settled --first 10300 --every 8")
    assert found["interrupted"] > 200


def test_a_fork_at_some_bytecodes():
    """The child unwinds and ends; the parent neither loses its session nor anything that it commits."""
    found = figures_of(*(f"tests.interruptions {names} --kind fork --every 199" for names in ("write cold", "read pool")))
    assert all(each["runs"] > 10 for each in found)


@pytest.mark.parametrize("kind", KINDS.values())
def test_the_stepper_raises_once_at_each_position(kind):
    """Of the standard library's code too; what it counts is the same each time."""
    done: list[int] = []

    def work(run):
        with contextlib.suppress(LookupError), contextlib.ExitStack() as stack:
            stack.callback(done.append, run)
        return run

    with Stepper() as stepper:
        counts = []
        for _ in range(4):
            stepper.at(0, Alarm)
            assert stepper.call(work, 1) == 1
            counts.append(stepper.passed)
        assert counts[1:] == [counts[-1]] * 3
        for position in range(1, counts[-1] + 1):
            stepper.at(position, kind)
            with pytest.raises(kind) as caught:
                stepper.call(work, 2)
            assert caught.value is stepper.raised
        stepper.at(counts[-1] + 1, kind)
        assert stepper.call(work, 3) == 3
        assert stepper.raised is None


def test_a_token_in_a_frame_is_seen():
    """In a local variable of any frame of the traceback, or of those of a cause's."""

    def sign(is_shown):
        token = "cluster?X-Amz-Signature=0" if is_shown else "none"
        raise ValueError(len(token))

    def connect(is_shown):
        try:
            sign(is_shown)
        except ValueError as error:
            raise OSError from error

    for is_shown in (True, False):
        with pytest.raises(OSError) as caught:
            connect(is_shown)
        assert shows_token(caught.value) is is_shown
