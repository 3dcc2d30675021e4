"""What is said, through which logger, and that saying it never fails."""

import logging
import subprocess
import sys
from typing import Any

import pytest

from dsql_lambda import OCCConflict, OCCRetryExhausted, OCCType
from dsql_lambda.telemetry import Telemetry


def here():
    """What the records name as their function."""


CONFLICT = OCCConflict(OCCType.DATA, "OC000")
SAID: dict[str, Any] = {"attempt": 1, "max_attempts": 3, "remaining": float("inf")}


def test_the_standard_library_is_told_where_powertools_is_not(caplog):
    """The fields stand in the text, and on the record."""
    telemetry = Telemetry(here, logger=logging.getLogger("some"))
    with caplog.at_level(logging.INFO):
        telemetry.retrying(conflict=CONFLICT, what="OCC conflict", delay=0.0015, **SAID)
    (record,) = caplog.records
    assert record.getMessage() == (
        "OCC conflict, retrying occ_type=data occ_code=OC000 sqlstate=40001 attempt=1 max_attempts=3 delay_ms=1.5 "
        "function_name=here"
    )
    assert record.occ_type == "data"


def test_attempts_that_are_not_counted_have_no_bound_in_the_record(caplog):
    """`max_attempts=None` is left out: the deadline alone bounds them."""
    telemetry = Telemetry(here, logger=logging.getLogger("some"))
    with caplog.at_level(logging.INFO):
        telemetry.outcome_unknown(attempt=7, max_attempts=None, remaining=1.5)
    assert caplog.records[0].getMessage() == "COMMIT outcome unknown attempt=7 remaining_ms=1500 function_name=here"


def test_without_powertools_the_layer_logs_by_logging():
    """In a process that has none."""
    script = (
        "import sys; sys.modules['aws_lambda_powertools'] = None\n"
        "import logging; logging.basicConfig(level='INFO', format='%(name)s %(message)s', stream=sys.stdout)\n"
        "from dsql_lambda.telemetry import Telemetry\n"
        "def f(): pass\n"
        "Telemetry(f).outcome_unknown(attempt=1, max_attempts=3, remaining=1.5)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "dsql_lambda COMMIT outcome unknown attempt=1 max_attempts=3 remaining_ms=1500 function_name=f\n"


class Broken:
    """A logger that fails."""

    def info(self, *args, **kwargs):
        raise RuntimeError("disk full")

    error = info


@pytest.mark.parametrize("logger", [Broken(), object(), 7])
def test_a_logger_that_fails_does_not_fail_the_transaction(logger):
    """Whatever it is."""
    telemetry = Telemetry(logger=logger)
    telemetry.retrying(conflict=CONFLICT, what="OCC conflict", delay=0.0, **SAID)
    telemetry.exhausted(error=OCCRetryExhausted("", attempts=3), **SAID)
    telemetry.outcome_unknown(**SAID)


def test_the_location_of_a_record_is_the_users_function(caplog):
    """Not a line of this package: who reads the record looks there."""
    telemetry = Telemetry(here, logger=logging.getLogger("some"))
    with caplog.at_level(logging.INFO):
        telemetry.retrying(conflict=CONFLICT, what="OCC conflict", delay=0.0, **SAID)
    (record,) = caplog.records
    assert (record.pathname, record.funcName, record.lineno) == (__file__, "here", here.__code__.co_firstlineno)


def test_the_functions_name_is_lambdas_where_there_is_one(monkeypatch, caplog):
    """AWS_LAMBDA_FUNCTION_NAME."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "transfer")
    with caplog.at_level(logging.INFO):
        Telemetry(here, logger=logging.getLogger("some")).outcome_unknown(**SAID)
    assert caplog.records[0].function_name == "transfer"
