"""What AWS X-Ray gets through a Powertools `Tracer`: a subsegment a transaction, below it one an attempt."""

import json
import os
import socket
import subprocess
import sys

import pytest
from aws_lambda_powertools import Tracer
from aws_xray_sdk import global_sdk_config
from aws_xray_sdk.core import AWSXRayRecorder, xray_recorder
from aws_xray_sdk.core.context import Context

from dsql_lambda import CommitOutcomeUnknown, DatabaseError, OCCRetryConfig, run_transaction, with_dsql_transaction
from dsql_local.lambda_context import LambdaContext

ADD = "UPDATE accounts SET balance = balance + 1 WHERE id = 1"
QUICK = OCCRetryConfig(max_attempts=3, base_delay_ms=0.1, max_delay_ms=0.2)


def add(tx):
    tx.defer(ADD)
    return tx.attempt


def secret(tx):
    """A failing statement with a value of somebody's in its error."""
    tx.run("SELECT CAST(:text AS int)", text="s3cr3t")


class Memory:
    """An emitter that keeps what would go to the daemon, as the daemon would get it."""

    def __init__(self):
        self.documents = []

    def send_entity(self, entity):
        self.documents.append(json.loads(entity.serialize()))


@pytest.fixture(scope="session", autouse=True)
def socket_of_the_sdk():
    """The SDK opens one for its own recorder when it is imported, and never closes it."""
    yield
    xray_recorder.emitter._socket.close()


@pytest.fixture
def xray(monkeypatch):
    """A recorder of X-Ray's SDK of its own, inside a segment, with an emitter that keeps."""
    was_enabled = global_sdk_config.sdk_enabled()
    monkeypatch.setattr(Tracer, "_config", dict(Tracer._default_config))
    global_sdk_config.set_sdk_enabled(True)
    recorder = AWSXRayRecorder()
    recorder.emitter._socket.close()
    recorder.configure(service="test", sampling=False, emitter=Memory(), context=Context(), streaming_threshold=1000)
    recorder.begin_segment("test")
    yield recorder
    global_sdk_config.set_sdk_enabled(was_enabled)


@pytest.fixture
def tracer(xray):
    return Tracer(provider=xray, auto_patch=False, disabled=False, service="transfers")


def documents(xray):
    """The transactions' subsegments in the finished segment."""
    xray.end_segment()
    (segment,) = xray.emitter.documents
    return segment.get("subsegments", [])


def annotated(subsegment, *names):
    return tuple(subsegment["annotations"].get(name) for name in names)


def test_a_transaction_is_a_subsegment_and_each_attempt_one_below_it(dsql, options, xray, tracer):
    """Under the handler's; annotated with the conflict's type, the attempts and whether the connection was reused."""

    @tracer.capture_lambda_handler
    @with_dsql_transaction(options=options, tracer=tracer, retry=QUICK)
    def handler(event, context, tx):
        add(tx)
        tracer.put_annotation("mine", tx.attempt)
        return tx.attempt

    dsql.conflict_next(2)
    assert handler({}, LambdaContext()) == 3
    assert handler({}, LambdaContext()) == 1
    first, second = documents(xray)
    assert first["name"] == second["name"] == "## handler"
    (transaction,) = first["subsegments"]
    assert transaction["name"] == "DSQL transaction"
    names = ("attempts", "ending", "occ_type", "connection_reused", "error")
    assert annotated(transaction, *names) == (3, "committed", "data", True, None)
    assert transaction["annotations"]["function"].startswith(f"{__name__}.")
    assert "fault" not in transaction
    attempts = transaction["subsegments"]
    assert [each["name"] for each in attempts] == ["DSQL attempt"] * 3
    of_attempt = ("attempt", "ending", "occ_type", "occ_code", "connection_reused", "connection_opened_for", "error", "mine")
    assert [annotated(each, *of_attempt) for each in attempts] == [
        (1, "conflict", "data", "OC000", False, "first", "40001", 1),
        (2, "conflict", "data", "OC000", True, None, "40001", 2),
        (3, "committed", None, None, True, None, None, 3),
    ]
    assert [(each.get("error"), each.get("fault")) for each in attempts] == [(True, None), (True, None), (None, None)]
    (transaction,) = second["subsegments"]
    assert annotated(transaction, "attempts", "occ_type", "connection_reused") == (1, None, True)


def test_a_failed_transaction_is_a_fault_with_its_name_and_no_text(source, xray, tracer):
    """A SQLSTATE, or the class of what the function raised: the text may hold values."""

    def rolls_back(tx):
        tx.run(ADD)
        tx.rollback()

    def raises(tx):
        raise ValueError("s3cr3t")

    with pytest.raises(DatabaseError, match="s3cr3t"):
        run_transaction(secret, source=source, tracer=tracer)
    with pytest.raises(ValueError, match="s3cr3t"):
        run_transaction(raises, source=source, tracer=tracer)
    run_transaction(rolls_back, source=source, tracer=tracer)
    found = documents(xray)
    assert [annotated(each, "ending", "error") for each in found] == [
        ("failed", "22P02"),
        ("failed", "ValueError"),
        ("rolled_back", None),
    ]
    assert [each.get("fault") for each in found] == [True, True, None]
    assert "s3cr3t" not in json.dumps(found)


def test_a_commit_that_was_not_answered_is_called_unknown(dsql, source, xray, tracer):
    """In the attempt and in the transaction."""
    dsql.cut("after-commit-sent")
    with pytest.raises(CommitOutcomeUnknown):
        run_transaction(add, source=source, tracer=tracer)
    (transaction,) = documents(xray)
    assert annotated(transaction, "ending", "error") == ("unknown", "dsql_lambda.errors.CommitOutcomeUnknown")
    assert annotated(transaction["subsegments"][0], "ending") == ("unknown",)


def test_without_a_segment_nothing_is_recorded_and_nothing_fails(source, xray, tracer):
    """As in a process that X-Ray does not trace."""
    xray.clear_trace_entities()
    assert run_transaction(add, source=source, tracer=tracer) == 1
    assert xray.emitter.documents == []


def test_a_disabled_tracer_is_not_asked(source, xray):
    """Powertools disables it outside Lambda."""
    tracer = Tracer(provider=xray, auto_patch=False, disabled=True)
    assert run_transaction(add, source=source, tracer=tracer) == 1
    global_sdk_config.set_sdk_enabled(True)
    assert documents(xray) == []


class Failing:
    """A provider that fails: when it begins, or when something is written."""

    def __init__(self, error, *, at):
        self.error, self.at, self.entered, self.left = error, at, 0, 0

    def in_subsegment(self, name):
        if self.at == "begin":
            raise self.error
        return self

    def __enter__(self):
        self.entered += 1
        return self

    def __exit__(self, *_):
        self.left += 1

    def put_annotation(self, **_):
        raise self.error


class Given:
    """A tracer with that provider."""

    def __init__(self, provider):
        self.provider = provider


@pytest.mark.parametrize("at", ["begin", "annotation"])
def test_a_tracer_that_fails_does_not_fail_the_transaction(dsql, source, at):
    """Whatever it raises; what it began is ended, and the work is done once."""
    provider = Failing(OSError("no daemon"), at=at)
    dsql.conflict_next(1)
    assert run_transaction(add, source=source, tracer=Given(provider), retry=QUICK) == 2
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["101"]]
    assert provider.entered == provider.left == (0 if at == "begin" else 3)


def test_an_interruption_by_a_tracer_reaches_the_caller(dsql, source):
    """It is no `Exception`: before COMMIT nothing is applied; after it a note says that COMMIT was sent."""
    with pytest.raises(KeyboardInterrupt) as caught:
        run_transaction(add, source=source, tracer=Given(Failing(KeyboardInterrupt(), at="begin")))
    assert not hasattr(caught.value, "__notes__")
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["100"]]
    with pytest.raises(KeyboardInterrupt) as caught:
        run_transaction(add, source=source, tracer=Given(Failing(KeyboardInterrupt(), at="annotation")))
    assert any("COMMIT was sent" in note for note in caught.value.__notes__)
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["101"]]
    assert run_transaction(add, source=source) == 1


@pytest.mark.parametrize("wrong", ["tracer", 7, object()])
def test_something_else_as_a_tracer_is_refused_at_decoration(wrong):
    """The error says what is wanted."""
    with pytest.raises(TypeError, match="it must be Powertools' Tracer"):
        with_dsql_transaction(tracer=wrong)(lambda event, context, tx: None)


IN_LAMBDA = """
from aws_lambda_powertools import Tracer
from dsql_lambda import with_dsql_transaction
from dsql_local.lambda_context import LambdaContext
tracer = Tracer(service="transfers")

@tracer.capture_lambda_handler
@with_dsql_transaction(tracer=tracer)
def lambda_handler(event, context, tx):
    return tx.value("SELECT balance FROM accounts WHERE id = 1")

assert lambda_handler({}, LambdaContext()) == 100
"""


def test_the_daemon_gets_the_subsegments_of_an_invocation(dsql):
    """With Powertools' own recorder, as in Lambda's process: UDP datagrams, below the segment that Lambda names."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(5)
        environment = {
            **dsql.environment,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "LAMBDA_TASK_ROOT": "/var/task",
            "_X_AMZN_TRACE_ID": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
            "AWS_XRAY_DAEMON_ADDRESS": f"127.0.0.1:{daemon.getsockname()[1]}",
        }
        done = subprocess.run([sys.executable, "-c", IN_LAMBDA], capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        found = {}
        while "## lambda_handler" not in found:
            header, _, document = daemon.recv(65_536).decode().partition("\n")
            assert json.loads(header) == {"format": "json", "version": 1}
            subsegment = json.loads(document)
            found[subsegment["name"]] = subsegment
    attempt, transaction, handler = (found[name] for name in ("DSQL attempt", "DSQL transaction", "## lambda_handler"))
    assert attempt["parent_id"] == transaction["id"]
    assert transaction["parent_id"] == handler["id"]
    assert handler["parent_id"] == "53995c3f42cd8ad8"
    assert annotated(transaction, "attempts", "ending") == (1, "committed")
