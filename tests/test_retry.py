"""`OCCRetryConfig`: its defaults, bounds and delays, and the policy for Lambda."""

import pytest

from dsql_lambda import ConfigError, DeadlineExceeded, OCCConflict, OCCRetryConfig, OCCRetryExhausted, OCCType
from dsql_lambda.attempt import Ending, Outcome
from dsql_lambda.runner import Loop
from dsql_lambda.system import NEVER, System


def test_the_defaults_are_the_connectors():
    """The defaults are three attempts, delays that double from 1 ms to 100 ms, and up to 25 % of jitter."""
    config = OCCRetryConfig()
    assert (config.max_attempts, config.base_delay_ms, config.max_delay_ms, config.jitter_factor) == (3, 1.0, 100.0, 0.25)
    assert (config.jitter, config.immediate_schema_retry, config.backoff) == ("additive", False, "exponential")


@pytest.mark.parametrize(
    ("attempt", "random", "expected_ms"),
    [
        (1, 0.0, 1.0),
        (1, 1.0, 1.25),
        (2, 0.0, 2.0),
        (2, 0.5, 2.25),
        (7, 0.0, 64.0),
        (8, 0.0, 100.0),
        (8, 1.0, 125.0),
        (99, 0.0, 100.0),
    ],
)
def test_the_delay_doubles_up_to_its_cap_and_jitter_comes_on_top(attempt, random, expected_ms):
    """The delay is min(base * 2^(attempt - 1), max), plus 0 to `jitter_factor` times that, as in AWS's connectors."""
    assert OCCRetryConfig().delay(attempt, OCCType.DATA, lambda: random) * 1000 == pytest.approx(expected_ms)


def test_a_delay_is_not_cut_to_whole_milliseconds():
    """Delays of 1 ms differ by their jitter: ten random numbers give ten delays."""
    draws = iter([each / 10 for each in range(10)])
    delays = {OCCRetryConfig().delay(1, OCCType.DATA, lambda: next(draws)) for _ in range(10)}
    assert len(delays) == 10
    assert all(0.001 <= delay <= 0.00125 for delay in delays)


def test_full_jitter_draws_from_zero_to_the_capped_delay():
    """With full jitter the random number is the share of the capped delay."""
    config = OCCRetryConfig(base_delay_ms=10, max_delay_ms=40, jitter="full")
    assert [config.delay(attempt, OCCType.DATA, lambda: 0.5) for attempt in (1, 2, 3, 4)] == [0.005, 0.01, 0.02, 0.02]
    assert config.delay(1, OCCType.DATA, lambda: 0.0) == 0.0


def test_the_first_schema_conflict_can_be_retried_at_once():
    """The first retry after an OC001 has no delay, since the session then knows the new schema; the second has one."""
    config = OCCRetryConfig(immediate_schema_retry=True)
    assert config.delay(1, OCCType.SCHEMA, lambda: 0.0) == 0.0
    assert config.delay(2, OCCType.SCHEMA, lambda: 0.0) == 0.002
    assert config.delay(1, OCCType.DATA, lambda: 0.0) == 0.001


@pytest.mark.parametrize(
    ("elapsed", "lasted", "remaining", "expected_ms"),
    [
        (0.080, 0.080, 10.0, 10.0),  # an eighth of the time taken so far
        (4.000, 0.012, 10.0, 60.0),  # at most five times the last attempt
        (4.000, 0.012, 3.0, 50.0),  # and a sixtieth of the time left
        (0.002, 0.002, 10.0, 1.0),  # at least `base_delay_ms`
        (4.000, 0.012, 0.006, 1.0),
        (800.0, 30.00, 90.0, 1400.0),  # at most `max_delay_ms`
        (0.080, float("inf"), float("inf"), 10.0),
    ],
)
@pytest.mark.parametrize("attempt", [1, 2, 50, 1000])
def test_a_proportional_delay_follows_from_the_transactions_own_time(attempt, elapsed, lasted, remaining, expected_ms):
    """The delay does not depend on the number of the attempt; the jitter is added to it."""
    config = OCCRetryConfig(backoff="proportional", max_delay_ms=1400, jitter_factor=0.5)
    draws = [0.0, 0.5, 1.0]
    random = iter(draws).__next__
    delays = [config.delay(attempt, OCCType.DATA, random, elapsed=elapsed, lasted=lasted, remaining=remaining) for _ in draws]
    assert [delay * 1000 for delay in delays] == pytest.approx([expected_ms, expected_ms * 1.25, expected_ms * 1.5])


def test_lambda_has_its_own_policy_bounded_by_the_deadline():
    """The policy for Lambda: proportional delays, 100 % of jitter, an immediate retry of OC001, attempts until the deadline."""
    assert OCCRetryConfig.for_lambda() == OCCRetryConfig(
        max_attempts=None,
        max_delay_ms=1000,
        jitter_factor=1,
        immediate_schema_retry=True,
        backoff="proportional",
    )


def test_attempts_are_bounded_by_their_number_or_by_the_deadline_alone():
    """`max_attempts=None` allows attempts until the deadline, and 100 where there is none."""
    assert [OCCRetryConfig(max_attempts=3).allows_another(attempt, 9.0) for attempt in (1, 2, 3)] == [True, True, False]
    assert OCCRetryConfig(max_attempts=None).allows_another(100_000, 0.1)
    assert [OCCRetryConfig(max_attempts=None).allows_another(attempt) for attempt in (1, 99, 100)] == [True, True, False]


class Clock:
    """A simulated clock, and attempts that take simulated time."""

    def __init__(self):
        self.now = 100.0
        self.delays = []

    def sleep(self, seconds):
        self.delays.append(seconds)
        self.now += seconds

    def run(self, outcome, *, lasts, deadline_at):
        """Run attempts that all end with `outcome`, by the policy for Lambda without its jitter."""
        system = System(monotonic=lambda: self.now, sleep=self.sleep, random=lambda: 0.0)
        loop = Loop(OCCRetryConfig.for_lambda(), deadline_at, None, system)
        while True:
            self.now += lasts
            loop.go_on_after(outcome)


CONFLICT = Outcome(Ending.CONFLICT, conflict=OCCConflict(OCCType.DATA, "OC000"))


def test_the_loop_measures_what_the_delays_follow_from():
    """The delay is an eighth of the time since the first attempt began, and at most five times an attempt's 8 ms."""
    clock = Clock()
    with pytest.raises(OCCRetryExhausted):
        clock.run(CONFLICT, lasts=0.008, deadline_at=110)
    assert clock.delays[:3] == pytest.approx([0.001, 0.017 / 8, (0.017 + 0.017 / 8 + 0.008) / 8])
    assert max(clock.delays) == pytest.approx(0.04)


def test_with_a_deadline_attempts_follow_each_other_until_it_comes():
    """More than a hundred attempts are made, with shorter delays towards the deadline."""
    clock = Clock()
    with pytest.raises(OCCRetryExhausted) as raised:
        clock.run(CONFLICT, lasts=0.008, deadline_at=110)
    assert raised.value.reason == "deadline"
    assert raised.value.attempts == len(clock.delays) + 1 > 200
    assert clock.now == pytest.approx(110, abs=0.01)
    assert clock.delays[-1] < clock.delays[-10] < clock.delays[-40]


def test_without_a_deadline_a_hundred_attempts_are_made():
    """Without a deadline the loop ends after 100 attempts."""
    clock = Clock()
    with pytest.raises(OCCRetryExhausted) as raised:
        clock.run(CONFLICT, lasts=0.008, deadline_at=NEVER)
    assert (raised.value.reason, raised.value.attempts) == ("attempts", 100)


def test_a_lost_connection_is_tried_less_and_less_often():
    """After a lost connection the delays grow up to `max_delay_ms`, however short the attempts were."""
    clock = Clock()
    with pytest.raises(DeadlineExceeded):
        clock.run(Outcome(Ending.BROKEN, error=OSError()), lasts=0.0001, deadline_at=110)
    assert clock.delays == sorted(clock.delays)
    assert clock.delays[-1] == 1.0
    assert len(clock.delays) < 100


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_attempts", 0),
        ("max_attempts", 101),
        ("max_attempts", 2.5),
        ("max_attempts", True),
        ("base_delay_ms", 0),
        ("base_delay_ms", -1),
        ("base_delay_ms", 5001),
        ("base_delay_ms", "1"),
        ("max_delay_ms", 5001),
        ("max_delay_ms", float("nan")),
        ("jitter_factor", -0.1),
        ("jitter_factor", 1.1),
        ("jitter", "none"),
        ("backoff", "linear"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(field, value):
    """The error names the field."""
    with pytest.raises(ConfigError, match=field):
        OCCRetryConfig(**{field: value})


def test_bounds_are_checked_on_the_resolved_values():
    """A `base_delay_ms` above the default `max_delay_ms` is refused although `max_delay_ms` was not given."""
    with pytest.raises(ConfigError, match="max_delay_ms"):
        OCCRetryConfig(base_delay_ms=5000)
