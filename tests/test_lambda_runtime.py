"""What Lambda does to a process: the deadline of an invocation."""

import pytest

from dsql_lambda import ConfigError
from dsql_lambda.lambda_runtime import deadline_after


def test_a_deadline_keeps_a_reserve_of_what_lambda_leaves():
    """Half a second, or a tenth if that is less; the sooner of both limits counts."""
    assert deadline_after(None) == float("inf")
    assert deadline_after(2.0, now=lambda: 100.0) == 102.0
    assert deadline_after(None, 10_000, now=lambda: 100.0) == 109.5
    assert deadline_after(None, 1_000, now=lambda: 100.0) == 100.9
    assert deadline_after(2.0, 10_000, now=lambda: 100.0) == 102.0
    bad: object
    for bad in (0, -1, "5", True):
        with pytest.raises(ConfigError, match="timeout is"):
            deadline_after(bad)  # type: ignore[arg-type]
