"""What OpenTelemetry's own SDK gets of transactions, and that nothing is loaded where nobody looks."""

import os
import subprocess
import sys
import threading

import pytest

from dsql_lambda import (
    CommitOutcomeUnknown,
    DatabaseError,
    OCCRetryConfig,
    OCCRetryExhausted,
    Pool,
    connect,
    retry_on_occ,
    run_transaction,
)
from dsql_lambda.version import __version__

ADD = "UPDATE accounts SET balance = balance + 1 WHERE id = 1"
QUICK = OCCRetryConfig(max_attempts=3, base_delay_ms=0.1, max_delay_ms=0.2)


def add(tx):
    tx.defer(ADD)
    return tx.attempt


def secret(tx):
    """A failing statement with a value of somebody's in its error."""
    tx.run("SELECT CAST(:text AS int)", text="s3cr3t")


def roll_back(tx):
    tx.run("SELECT 1")
    tx.rollback()


LOADED = "opentelemetry.trace"


class Sdk:
    """OpenTelemetry's SDK, set up as an application does it, with its exporter for tests."""

    def __init__(self):
        from opentelemetry import context, trace
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.trace, self.context, self.exporter = trace, context, InMemorySpanExporter()
        self.failure: BaseException | None = None
        outer = self

        class Failing(SpanProcessor):
            """Raises what a test has set, when a span begins or ends."""

            def on_start(self, span, parent_context=None):
                if outer.failure is not None:
                    raise outer.failure

            on_end = on_start

        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        provider.add_span_processor(Failing())
        trace.set_tracer_provider(provider)

    def span(self, name):
        """The user's own span, as a block."""
        return self.trace.get_tracer("test").start_as_current_span(name)

    def finished(self):
        """The spans that have ended since the last call, in the order in which they began."""
        found = sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
        self.exporter.clear()
        return found


@pytest.fixture(scope="module")
def loaded_sdk():
    """Loaded by the first test that wants it, and then taken out of sight: other tests' transactions have no spans."""
    sdk = Sdk()
    del sys.modules[LOADED]
    return sdk


@pytest.fixture
def sdk(loaded_sdk, monkeypatch):
    """In sight for the length of a test."""
    monkeypatch.setitem(sys.modules, LOADED, loaded_sdk.trace)
    loaded_sdk.finished()
    yield loaded_sdk
    loaded_sdk.failure = None


def test_spans_follow_the_database_conventions(dsql, options, sdk, source):
    """Transaction, attempts and their COMMITs, each with the stable attributes, of kind CLIENT, and below each other."""
    dsql.conflict_next(1)
    with sdk.span("handler"):
        assert run_transaction(add, source=source, retry=QUICK) == 2
    handler, transaction, lost, lost_commit, won, commit = sdk.finished()
    of_database = {
        "db.system.name": "postgresql",
        "db.namespace": "postgres",
        "server.address": options.host,
        "server.port": options.port,
    }
    names = ["transaction postgres", "attempt postgres", "COMMIT postgres", "attempt postgres", "COMMIT postgres"]
    ours = [transaction, lost, lost_commit, won, commit]
    assert [span.name for span in ours] == names
    for span in ours:
        assert span.kind is sdk.trace.SpanKind.CLIENT
        assert {name: span.attributes[name] for name in of_database} == of_database
        assert span.attributes["db.operation.name"] == span.name.partition(" ")[0]
        assert span.events == ()
    assert [span.parent.span_id for span in ours] == [
        each.context.span_id for each in (handler, transaction, lost, transaction, won)
    ]
    for span in (lost, lost_commit):
        assert span.status.status_code is sdk.trace.StatusCode.ERROR
        assert span.attributes["db.response.status_code"] == span.attributes["error.type"] == "40001"
    for span in (transaction, won, commit):  # what was retried is no error of the whole
        assert span.status.status_code is sdk.trace.StatusCode.UNSET
        assert "error.type" not in span.attributes
    assert (transaction.attributes["dsql_lambda.attempts"], transaction.attributes["dsql_lambda.occ_type"]) == (2, "data")
    assert transaction.attributes["code.function.name"] == f"{__name__}.add"
    assert [span.attributes["dsql_lambda.attempt"] for span in (lost, won)] == [1, 2]
    assert [span.attributes["dsql_lambda.connection.reused"] for span in (lost, won)] == [False, True]
    assert [span.attributes["dsql_lambda.ending"] for span in (transaction, lost, won)] == ["committed", "conflict", "committed"]
    assert lost.attributes["dsql_lambda.occ_code"] == "OC000"
    scope = transaction.instrumentation_scope
    assert (scope.name, scope.version, scope.schema_url) == (
        "dsql_lambda",
        __version__,
        "https://opentelemetry.io/schemas/1.33.0",
    )


def test_spans_cover_what_they_are_named_after(dsql, source, sdk):
    """COMMIT lies in its attempt, an attempt in its transaction; COMMIT takes as long as the server does."""
    run_transaction(add, source=source)
    sdk.finished()
    dsql.delay(100)
    run_transaction(add, source=source)
    transaction, attempt, commit = sdk.finished()
    assert transaction.start_time <= attempt.start_time <= commit.start_time
    assert commit.end_time <= attempt.end_time <= transaction.end_time
    assert commit.end_time - commit.start_time >= 100e6


def test_a_transaction_without_statements_has_no_commit(source, sdk):
    """Nor has one that was rolled back."""
    run_transaction(lambda tx: None, source=source)
    run_transaction(roll_back, source=source)
    assert [span.name.split()[0] for span in sdk.finished()] == ["transaction", "attempt"] * 2


def test_the_users_own_spans_are_below_the_attempt(source, sdk):
    """And what was current before a transaction is current after it, whichever way it ends."""
    outside = sdk.context.get_current()

    def own(tx):
        with sdk.span("own"):
            tx.run("SELECT 1")

    run_transaction(own, source=source)
    assert sdk.context.get_current() is outside
    with pytest.raises(DatabaseError):
        run_transaction(secret, source=source)
    assert sdk.context.get_current() is outside
    _, attempt, mine = sdk.finished()[:3]
    assert (mine.name, mine.parent.span_id) == ("own", attempt.context.span_id)


def test_errors_have_a_type_and_no_text(dsql, source, sdk):
    """The SQLSTATE, or the class's name; a value in an error's text is in no span."""
    with pytest.raises(DatabaseError, match="s3cr3t"):
        run_transaction(secret, source=source)
    dsql.conflict_next(3)
    with pytest.raises(OCCRetryExhausted):
        run_transaction(add, source=source, retry=QUICK)
    dsql.clear_faults()
    dsql.cut("after-commit-sent")
    with pytest.raises(CommitOutcomeUnknown):
        run_transaction(add, source=source)
    found = sdk.finished()
    assert "s3cr3t" not in "".join(span.to_json() for span in found)
    failed = [span for span in found if span.name.startswith("transaction")]
    assert [(span.attributes["error.type"], span.attributes.get("db.response.status_code")) for span in failed] == [
        ("22P02", "22P02"),
        ("dsql_lambda.errors.OCCRetryExhausted", "40001"),
        ("dsql_lambda.errors.CommitOutcomeUnknown", None),
    ]
    assert [span.attributes["dsql_lambda.ending"] for span in failed] == ["failed", "conflict", "unknown"]
    assert all(span.status.status_code is sdk.trace.StatusCode.ERROR and not span.status.description for span in failed)


def test_a_connection_and_a_function_of_another_driver_have_spans_too(dsql, options, sdk):
    """A `Connection` that `connect` opened knows its cluster; `retry_on_occ` does not."""
    with connect(options) as connection:
        connection.transaction_with_retry(add)
        assert {span.attributes["server.address"] for span in sdk.finished()} == {options.host}
    retry_on_occ(lambda: None)
    transaction, attempt = sdk.finished()
    assert (transaction.name, attempt.name) == ("transaction", "attempt")
    assert transaction.attributes["db.system.name"] == "postgresql"


def test_each_thread_has_its_own_current_span(options, sdk):
    """Transactions of two threads do not end up below each other."""
    barrier = threading.Barrier(2)

    def both(tx):
        tx.run("SELECT 1")
        barrier.wait(10)

    with Pool(options) as pool:
        threads = [threading.Thread(target=run_transaction, args=(both,), kwargs={"source": pool}) for _ in "12"]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    found = sdk.finished()
    transactions = [span for span in found if span.name.startswith("transaction")]
    assert [span.parent for span in transactions] == [None, None]
    attempts = [span for span in found if span.name.startswith("attempt")]
    assert {span.parent.span_id for span in attempts} == {span.context.span_id for span in transactions}


def test_an_interruption_ends_all_spans_and_leaves_none_current(dsql, source, sdk):
    """Ctrl-C in the function: attempt and transaction have ended with it, and nothing was applied."""
    outside = sdk.context.get_current()

    def interrupted(tx):
        tx.run(ADD)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_transaction(interrupted, source=source)
    assert sdk.context.get_current() is outside
    transaction, attempt = sdk.finished()
    assert transaction.attributes["error.type"] == attempt.attributes["error.type"] == "KeyboardInterrupt"
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["100"]]


def test_an_sdk_that_fails_does_not_fail_the_transaction(dsql, source, sdk):
    """What a processor of spans raises is swallowed; what is no `Exception` reaches the caller."""
    outside = sdk.context.get_current()
    sdk.failure = OSError("the collector is away")
    dsql.conflict_next(1)
    assert run_transaction(add, source=source, retry=QUICK) == 2
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["101"]]
    sdk.failure = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run_transaction(add, source=source)
    assert sdk.context.get_current() is outside
    sdk.failure = None
    assert run_transaction(add, source=source) == 1
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["102"]]


# Unused


UNUSED = """
import sys
from dsql_lambda import with_dsql_transaction

@with_dsql_transaction(timeout=30)
def handler(event, context, tx):
    return tx.value("SELECT balance FROM accounts WHERE id = 1")

assert handler({}, None) == 100
print(*sys.modules)
"""


@pytest.mark.parametrize("first", ["", "import aws_lambda_powertools"])
def test_what_nobody_uses_is_not_loaded(dsql, first):
    """No module of metrics or traces, ours or another's, on the way of a handler that uses neither; with Powertools there too."""
    environment = {**dsql.environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    script = f"{first}\n{UNUSED}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    loaded = set(done.stdout.split())
    ours = {f"dsql_lambda.{name}" for name in ("observation", "emf", "subsegments", "spans")}
    assert loaded & ours == set()
    tops = {name.partition(".")[0] for name in loaded}
    assert tops & {"opentelemetry", "aws_xray_sdk"} == set()
    if not first:
        assert "aws_lambda_powertools" not in tops


def test_opentelemetry_that_is_installed_and_not_loaded_stays_so(dsql):
    """Who has it loaded before the transaction begins has spans; nobody else does."""
    environment = {**dsql.environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    script = f"{UNUSED}import opentelemetry.trace\nhandler({{}}, None)\nassert 'dsql_lambda.spans' in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "opentelemetry" not in {name.partition(".")[0] for name in done.stdout.split()}
