"""What goes into CloudWatch, through Powertools' own `Metrics` and `single_metric`: names, units, dimensions, namespaces."""

import json
import logging
import signal
import subprocess
import sys
from contextlib import closing
from typing import Any

import pytest
from aws_lambda_powertools.metrics import EphemeralMetrics
from aws_lambda_powertools.metrics.provider.datadog import DatadogMetrics

from dsql_lambda import (
    CommitOutcomeUnknown,
    OCCRetryConfig,
    OCCRetryExhausted,
    Pool,
    connect,
    retry_on_occ,
    run_transaction,
    with_dsql_transaction,
)
from dsql_lambda.cache import CachedConnection
from dsql_lambda.system import System
from dsql_local.lambda_context import LambdaContext

ADD = "UPDATE accounts SET balance = balance + 1 WHERE id = 1"
QUICK = OCCRetryConfig(max_attempts=3, base_delay_ms=0.1, max_delay_ms=0.2)


@pytest.fixture
def metrics():
    """The user's own, of a class that shares nothing with other tests' (as `Metrics` does with all of its kind)."""
    return EphemeralMetrics(namespace="Bank", service="transfers")


@pytest.fixture
def namespace(monkeypatch):
    """The environment's, as Powertools documents it."""
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Environment")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "payments")


def add(tx):
    tx.defer(ADD)
    return tx.attempt


def emf_in(text):
    """The records of CloudWatch's embedded metric format in what was printed."""
    records = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [record for record in records if "_aws" in record]


def metrics_in(text):
    """By name: the namespace, the unit, the values and the dimensions of each metric that was printed."""
    found: dict[str, list[Any]] = {}
    for record in emf_in(text):
        for directive in record["_aws"]["CloudWatchMetrics"]:
            for each in directive["Metrics"]:
                (names,) = directive["Dimensions"]
                dimensions = {name: record[name] for name in names}
                found.setdefault(each["Name"], []).append(
                    (directive["Namespace"], each["Unit"], record[each["Name"]], dimensions)
                )
    return found


def test_a_handlers_metrics_over_two_conflicts(dsql, options, metrics, capsys):
    """Attempts and duration in the handler's own record, with its own dimensions only; conflicts by type beside it."""
    metrics.set_default_dimensions(environment="test")
    metrics.add_dimension("tenant", "a")

    @metrics.log_metrics
    @with_dsql_transaction(options=options, metrics=metrics, retry=QUICK)
    def handler(event, context, tx):
        add(tx)
        tx.after_commit(metrics.add_metric, "Transfers", "Count", 1)
        return tx.attempt

    dsql.conflict_next(2)
    assert handler({}, LambdaContext()) == 3
    printed = capsys.readouterr().out
    found = metrics_in(printed)
    own = {"environment": "test", "tenant": "a", "service": "transfers"}
    by_type = {"environment": "test", "service": "transfers", "occ_type": "data"}
    opened = {"environment": "test", "service": "transfers", "reason": "first"}
    (duration,) = found.pop("TransactionDuration")
    assert (duration[0], duration[1], duration[3]) == ("Bank", "Milliseconds", own)
    assert 0 < duration[2][0] < 10_000
    assert found == {
        "OccConflict": [("Bank", "Count", [1.0], by_type)] * 2,
        "ConnectionOpened": [("Bank", "Count", [1.0], opened)],
        "TransactionAttempts": [("Bank", "Count", [3.0], own)],
        "Transfers": [("Bank", "Count", [1.0], own)],
    }
    assert len([each for each in emf_in(printed) if "Transfers" in each]) == 1


def test_the_users_own_metrics_get_no_dimension(dsql, source, metrics, capsys):
    """What is in its record before a transaction with conflicts, and nothing else, is in it afterwards."""
    before = (
        dict(metrics.dimension_set),
        list(metrics.dimension_sets),
        dict(metrics.default_dimensions),
        dict(metrics.metadata_set),
    )
    dsql.conflict_next(1, "OC001")
    run_transaction(add, source=source, metrics=metrics, retry=QUICK)
    assert before == (metrics.dimension_set, metrics.dimension_sets, metrics.default_dimensions, metrics.metadata_set)
    assert sorted(metrics.metric_set) == ["TransactionAttempts", "TransactionDuration"]
    assert metrics_in(capsys.readouterr().out)["OccConflict"] == [
        ("Bank", "Count", [1.0], {"service": "transfers", "occ_type": "schema"})
    ]


@pytest.mark.usefixtures("namespace")
def test_without_metrics_conflicts_and_bad_endings_are_counted(dsql, options, capsys):
    """By `single_metric`, in the environment's namespace and service. Attempts, durations and connections are not."""

    @with_dsql_transaction(options=options, retry=QUICK)
    def handler(event, context, tx):
        return add(tx)

    assert handler({}, LambdaContext()) == 1
    assert capsys.readouterr().out == ""
    dsql.conflict_next(3)
    with pytest.raises(OCCRetryExhausted):
        handler({}, LambdaContext())
    dsql.cut("after-commit-sent")
    with pytest.raises(CommitOutcomeUnknown):
        handler({}, LambdaContext())
    own = {"service": "payments"}
    assert metrics_in(capsys.readouterr().out) == {
        "OccConflict": [("Environment", "Count", [1.0], {"occ_type": "data", **own})] * 3,
        "OccRetryExhausted": [("Environment", "Count", [1.0], own)],
        "CommitOutcomeUnknown": [("Environment", "Count", [1.0], own)],
    }


def test_bad_endings_go_into_the_metrics_that_were_given(dsql, options, metrics, capsys):
    """They need no dimension of their own; `log_metrics` writes them although the handler raises."""

    @metrics.log_metrics
    @with_dsql_transaction(options=options, retry=QUICK, metrics=metrics)
    def handler(event, context, tx):
        return add(tx)

    dsql.conflict_next(3)
    with pytest.raises(OCCRetryExhausted):
        handler({}, LambdaContext())
    dsql.cut("after-commit-sent")
    with pytest.raises(CommitOutcomeUnknown):
        handler({}, LambdaContext())
    found = metrics_in(capsys.readouterr().out)
    assert found["OccRetryExhausted"] == found["CommitOutcomeUnknown"] == [("Bank", "Count", [1.0], {"service": "transfers"})]
    assert [each[2] for each in found["TransactionAttempts"]] == [[3.0], [1.0]]


def test_a_deadline_that_comes_after_a_conflict_counts_that_conflict_once(dsql, source, metrics, capsys):
    """Not again when the time is over, whichever way the last attempt ended."""
    dsql.conflict_next(1)

    def slow(tx):
        if tx.attempt > 1:
            tx.run("SELECT pg_sleep(5)")
        tx.defer(ADD)

    with pytest.raises(OCCRetryExhausted, match="the deadline came"):
        run_transaction(slow, source=source, metrics=metrics, timeout=0.5)
    assert len(metrics_in(capsys.readouterr().out)["OccConflict"]) == 1
    assert metrics.metric_set["OccRetryExhausted"]["Value"] == [1.0]
    assert 400 < metrics.metric_set["TransactionDuration"]["Value"][0] < 5000


def test_an_interrupted_commit_counts_as_unknown(dsql, source, metrics, caplog):
    """A foreign exception during COMMIT is raised as `CommitOutcomeUnknown`, so it is logged and counted as one."""

    class Timeout(Exception):
        pass

    def ring(*_):
        raise Timeout

    run_transaction(add, source=source)
    dsql.delay(1000)
    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(CommitOutcomeUnknown) as caught:
            run_transaction(add, source=source, metrics=metrics, logger=logging.getLogger("some"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert isinstance(caught.value.__cause__, Timeout)
    assert metrics.metric_set["CommitOutcomeUnknown"]["Value"] == [1.0]
    assert [record.msg.split(" attempt")[0] for record in caplog.records] == ["COMMIT outcome unknown"]


def test_connections_are_counted_by_the_reason_that_they_were_opened_for(dsql, options, wall_clock, metrics, capsys):
    """One kept by nobody, one that had aged, one that the server had closed; a kept one is no metric."""

    def age():
        wall_clock.ahead_by = 3400.0

    with closing(CachedConnection(options, system=System(clock=wall_clock.time))) as source:
        for prepare in (lambda: None, lambda: None, age, dsql.close_connections):
            prepare()
            run_transaction(add, source=source, metrics=metrics)
    reasons = [each[3]["reason"] for each in metrics_in(capsys.readouterr().out)["ConnectionOpened"]]
    assert reasons == ["first", "age", "closed"]


def test_a_pools_connections_are_counted_too(dsql, options, metrics, capsys):
    """By the same reasons. A connection that the user opened himself is not counted."""
    with Pool(options, max_size=1) as pool:
        for _ in range(2):
            run_transaction(add, source=pool, metrics=metrics)
        dsql.close_connections()
        run_transaction(add, source=pool, metrics=metrics)
    with connect(options) as connection:
        run_transaction(add, source=connection, metrics=metrics)
    reasons = [each[3]["reason"] for each in metrics_in(capsys.readouterr().out)["ConnectionOpened"]]
    assert reasons == ["first", "closed"]


def test_what_was_opened_outside_a_transaction_is_counted_by_the_next_one(dsql, source, metrics, capsys):
    """In the init phase, or by `cached_connection()`: once."""
    source.open_at_init(1e12)
    source.get()
    for _ in range(2):
        run_transaction(add, source=source, metrics=metrics)
    assert [each[3]["reason"] for each in metrics_in(capsys.readouterr().out)["ConnectionOpened"]] == ["init"]


def test_retry_on_occ_counts_as_a_transaction_does(dsql, options, metrics, capsys):
    """Of any driver: conflicts by type, attempts, duration."""
    connection = connect(options)

    def own():
        connection.run("BEGIN")
        connection.run(ADD)
        try:
            connection.run("COMMIT")
        except Exception:
            connection.run("ROLLBACK")
            raise

    dsql.conflict_next(1)
    retry_on_occ(own, QUICK, metrics=metrics)
    connection.close()
    assert metrics.metric_set["TransactionAttempts"]["Value"] == [2.0]
    assert [each[3]["occ_type"] for each in metrics_in(capsys.readouterr().out)["OccConflict"]] == ["data"]


@pytest.mark.parametrize("variable", ["POWERTOOLS_METRICS_DISABLED", "POWERTOOLS_DEV"])
@pytest.mark.usefixtures("namespace")
def test_metrics_that_are_turned_off_are_not_written(dsql, source, metrics, monkeypatch, capsys, variable):
    """By the variables that Powertools documents, which its `single_metric` does not look at."""
    monkeypatch.setenv(variable, "true")
    dsql.conflict_next(1)
    run_transaction(add, source=source, metrics=metrics, retry=QUICK)
    dsql.conflict_next(1)
    run_transaction(add, source=source, retry=QUICK)
    assert emf_in(capsys.readouterr().out) == []
    assert metrics.metric_set == {}


class Full:
    """A `Metrics` that can't take more."""

    namespace = "Bank"
    default_dimensions = None

    def add_metric(self, name, unit, value):
        raise OSError("no space left")

    def add_dimension(self, name, value):
        raise AssertionError("never called")

    @property
    def service(self):
        raise OSError("no space left")


def test_metrics_that_fail_do_not_fail_the_transaction(dsql, source):
    """Whatever they raise, with a conflict and without one; the work is done once."""
    for conflicts in (0, 1):
        dsql.conflict_next(conflicts) if conflicts else None
        assert run_transaction(add, source=source, metrics=Full(), retry=QUICK) == 1 + conflicts
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["102"]]


def test_an_interruption_by_metrics_reaches_the_caller_with_a_note(dsql, source, metrics):
    """It is no `Exception`: Ctrl-C while a metric is added, after COMMIT."""

    class Interrupted(Full):
        def add_metric(self, name, unit, value):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        run_transaction(add, source=source, metrics=Interrupted())
    assert any("COMMIT was sent" in note for note in caught.value.__notes__)
    assert run_transaction(add, source=source) == 1
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["102"]]


@pytest.mark.parametrize("wrong", ["Bank", 7, object(), DatadogMetrics(namespace="Bank")])
def test_something_else_as_metrics_is_refused_at_decoration(wrong):
    """The error says what is wanted."""
    with pytest.raises(TypeError, match="it must be Powertools' Metrics"):
        with_dsql_transaction(metrics=wrong)(lambda event, context, tx: None)
    with pytest.raises(TypeError, match="it must be Powertools' Metrics"):
        run_transaction(add, metrics=wrong)


WITHOUT_NAMESPACE = """
import os, sys
from aws_lambda_powertools import Logger, Metrics
from dsql_lambda import OCCRetryConfig, run_transaction
from dsql_lambda.telemetry import Telemetry
from dsql_lambda.occ import OCCConflict, OCCType
logger = Logger(service="x")
metrics = Metrics() if "given" in sys.argv else None

@(metrics.log_metrics if metrics else lambda f: f)
def handler(event, context):
    for _ in range(2):
        telemetry = Telemetry(handler, logger=logger, metrics=metrics)
        telemetry.retrying(
            conflict=OCCConflict(OCCType.DATA, "OC000"), what="OCC conflict", attempt=1, max_attempts=3, delay=0.0, remaining=9.0
        )
    return "ok"

if metrics:
    import warnings; warnings.simplefilter("ignore")
assert handler({}, None) == "ok"
"""


@pytest.mark.parametrize("given", ["given", "none"])
def test_a_missing_namespace_is_logged_once(given):
    """And nothing else happens: `single_metric` would print `null`, and a `Metrics` without one would fail the handler."""
    script = f"import sys\nsys.path[:] = {sys.path!r}\n{WITHOUT_NAMESPACE}"
    done = subprocess.run([sys.executable, "-c", script, given], capture_output=True, text=True, check=True, env={})
    records = [json.loads(line) for line in done.stdout.splitlines()]
    said = [record["message"] for record in records]
    assert said == [
        "OCC conflict, retrying",
        "no metrics: set POWERTOOLS_METRICS_NAMESPACE, or give metrics= a Metrics with a namespace",
        "OCC conflict, retrying",
    ]
    assert records[1]["level"] == "INFO"
