"""`OCCRetryConfig`: the connectors' defaults, bounds and formula, and delays that keep their jitter."""

import pytest

from dsql_lambda import ConfigError, OCCRetryConfig, OCCType


def test_the_defaults_are_the_connectors():
    """Three attempts, 1 to 100 ms, a quarter of additive jitter."""
    config = OCCRetryConfig()
    assert (config.max_attempts, config.base_delay_ms, config.max_delay_ms, config.jitter_factor) == (3, 1.0, 100.0, 0.25)
    assert (config.jitter, config.immediate_schema_retry) == ("additive", False)


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
    """min(base * 2^(attempt - 1), max), plus 0 to `jitter_factor` of it: the connectors' formula."""
    assert OCCRetryConfig().delay(attempt, OCCType.DATA, lambda: random) * 1000 == pytest.approx(expected_ms)


def test_a_delay_is_not_cut_to_whole_milliseconds():
    """At 1 ms the jitter is still there: ten draws give ten delays."""
    draws = iter([each / 10 for each in range(10)])
    delays = {OCCRetryConfig().delay(1, OCCType.DATA, lambda: next(draws)) for _ in range(10)}
    assert len(delays) == 10
    assert all(0.001 <= delay <= 0.00125 for delay in delays)


def test_full_jitter_draws_from_zero_to_the_capped_delay():
    """The draw is the share of the delay that is waited."""
    config = OCCRetryConfig(base_delay_ms=10, max_delay_ms=40, jitter="full")
    assert [config.delay(attempt, OCCType.DATA, lambda: 0.5) for attempt in (1, 2, 3, 4)] == [0.005, 0.01, 0.02, 0.02]
    assert config.delay(1, OCCType.DATA, lambda: 0.0) == 0.0


def test_the_first_schema_conflict_can_be_retried_at_once():
    """The same session's next try clears an OC001; a second one waits."""
    config = OCCRetryConfig(immediate_schema_retry=True)
    assert config.delay(1, OCCType.SCHEMA, lambda: 0.0) == 0.0
    assert config.delay(2, OCCType.SCHEMA, lambda: 0.0) == 0.002
    assert config.delay(1, OCCType.DATA, lambda: 0.0) == 0.001


def test_lambda_has_its_own_policy_bounded_by_the_deadline():
    """Full jitter, an OC001 at once, as many attempts as there may be, and the delays that the benchmark found."""
    config = OCCRetryConfig.for_lambda()
    assert (config.jitter, config.immediate_schema_retry, config.max_attempts) == ("full", True, 100)
    assert (config.base_delay_ms, config.max_delay_ms) == (8.0, 200.0)


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
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(field, value):
    """The sentence names the field and the value."""
    with pytest.raises(ConfigError, match=field):
        OCCRetryConfig(**{field: value})


def test_bounds_are_checked_on_the_resolved_values():
    """A base above the default cap is refused although the cap was not given."""
    with pytest.raises(ConfigError, match="max_delay_ms"):
        OCCRetryConfig(base_delay_ms=5000)
