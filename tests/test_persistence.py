"""`DsqlPersistenceLayer`: Powertools' idempotency contract on DSQL, through Powertools' own decorators."""

import time
import warnings
from typing import Any

import pytest
from aws_lambda_powertools.utilities.idempotency import IdempotencyConfig, idempotent, idempotent_function
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyAlreadyInProgressError,
    IdempotencyItemAlreadyExistsError,
    IdempotencyItemNotFoundError,
    IdempotencyKeyError,
    IdempotencyValidationError,
)
from aws_lambda_powertools.utilities.idempotency.persistence.datarecord import DataRecord

from dsql_lambda import (
    AfterCommitError,
    CommitOutcomeUnknown,
    ConfigError,
    DsqlPersistenceLayer,
    Pool,
    connect,
    with_dsql_transaction,
)
from dsql_local.lambda_context import LambdaContext as LocalContext

ADD = "UPDATE accounts SET balance = balance + 1 WHERE id = 1"
LambdaContext: Any = LocalContext  # Powertools types a context as its own class


class Now:
    ahead_by = 0.0

    def __call__(self):
        return time.time() + self.ahead_by


@pytest.fixture
def now():
    return Now()


@pytest.fixture
def new_store(dsql, options, now):
    """Makes stores on one table, each with a configuration of its own, as execution environments have them."""
    dsql.execute("DROP TABLE IF EXISTS dsql_lambda_powertools")
    dsql.execute(DsqlPersistenceLayer().create_table())
    with connect(options) as connection:
        yield lambda: DsqlPersistenceLayer(source=connection, clock=now)


def handler_of(store, calls, value="done", **config):
    @idempotent(persistence_store=store, config=IdempotencyConfig(**config), key_prefix="handler")
    def handler(event, context):
        calls.append(event)
        if isinstance(value, Exception):
            raise value
        return value

    return handler


def status(dsql):
    return [row[0] for row in dsql.execute("SELECT status FROM dsql_lambda_powertools")]


def test_a_second_call_gets_the_stored_result(dsql, new_store):
    """Also in another environment."""
    calls: list[Any] = []
    for _ in range(2):
        handler = handler_of(new_store(), calls, {"n": [1, None]}, event_key_jmespath="id")
        assert handler({"id": 1, "x": len(calls)}, LambdaContext()) == {"n": [1, None]}
    assert (len(calls), status(dsql)) == (1, ["COMPLETED"])
    handler({"id": 2}, LambdaContext())
    assert len(calls) == 2


def test_a_function_that_raised_is_forgotten(dsql, new_store):
    """The event can be delivered again."""
    calls: list[Any] = []
    handler = handler_of(new_store(), calls, ValueError("no"))
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            handler({"id": 1}, LambdaContext())
    assert (len(calls), status(dsql)) == (2, [])


def test_an_event_in_progress_is_refused(dsql, new_store):
    """Until its function can't be running any more."""
    store = new_store()
    calls: list[Any] = []
    handler_of(new_store(), calls)({"id": 1}, LambdaContext())
    dsql.execute("UPDATE dsql_lambda_powertools SET status = 'INPROGRESS', in_progress_expires_at = 9999999999999")
    with pytest.raises(IdempotencyAlreadyInProgressError):
        handler_of(store, calls)({"id": 1}, LambdaContext())
    dsql.execute("UPDATE dsql_lambda_powertools SET in_progress_expires_at = 1")
    assert handler_of(store, calls)({"id": 1}, LambdaContext()) == "done"
    assert (len(calls), status(dsql)) == (2, ["COMPLETED"])


def test_the_record_has_the_invocations_remaining_time(dsql, new_store, now):
    """In milliseconds since the epoch, while the function runs."""
    seen = []

    @idempotent(persistence_store=new_store(), key_prefix="handler")
    def handler(event, context):
        seen.extend(dsql.execute("SELECT status, in_progress_expires_at, expires_at FROM dsql_lambda_powertools"))

    handler({"id": 1}, LambdaContext(timeout=20))
    ((state, ends_at, expires_at),) = seen
    assert state == "INPROGRESS"
    assert int(ends_at) / 1000 == pytest.approx(now() + 20, abs=5)
    assert int(expires_at) == pytest.approx(now() + 3600, abs=5)


def test_an_expired_record_is_written_over(dsql, new_store, now):
    """By the record's own expiry."""
    calls: list[Any] = []
    handler = handler_of(new_store(), calls, expires_after_seconds=60)
    handler({"id": 1}, LambdaContext())
    dsql.execute("UPDATE dsql_lambda_powertools SET expires_at = 1")
    handler({"id": 1}, LambdaContext())
    handler({"id": 1}, LambdaContext())
    assert (len(calls), status(dsql)) == (2, ["COMPLETED"])


def test_a_payload_that_differs_is_refused(new_store):
    """Where payload validation was asked for, in the same environment and in another one."""
    config = {"event_key_jmespath": "id", "payload_validation_jmespath": "amount"}
    calls: list[Any] = []
    handler = handler_of(new_store(), calls, **config)
    assert handler({"id": 1, "amount": 5}, LambdaContext()) == handler({"id": 1, "amount": 5}, LambdaContext()) == "done"
    for again in (handler, handler_of(new_store(), calls, **config)):
        with pytest.raises(IdempotencyValidationError):
            again({"id": 1, "amount": 6}, LambdaContext())
    assert len(calls) == 1


def test_the_local_cache_answers_without_a_query(dsql, new_store):
    """For results that this environment has seen."""
    calls: list[Any] = []
    handler = handler_of(new_store(), calls, use_local_cache=True)
    handler({"id": 1}, LambdaContext())
    dsql.clear_log()
    assert handler({"id": 1}, LambdaContext()) == "done"
    assert [event for event in dsql.log if event.kind == "flight"] == []
    other = handler_of(new_store(), calls, use_local_cache=True)
    assert other({"id": 1}, LambdaContext()) == other({"id": 1}, LambdaContext()) == "done"
    assert len(calls) == 1


def test_a_missing_key_is_a_warning_or_an_error(new_store):
    """As Powertools has it."""
    calls: list[Any] = []
    with pytest.raises(IdempotencyKeyError):
        handler_of(new_store(), calls, event_key_jmespath="id", raise_on_no_idempotency_key=True)({}, LambdaContext())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert handler_of(new_store(), calls, event_key_jmespath="id")({}, LambdaContext()) == "done"
    assert "No idempotency key" in str(said[0].message)


def test_idempotent_function_too(new_store):
    """By one of its arguments."""
    calls = []

    @idempotent_function(
        data_keyword_argument="order", persistence_store=new_store(), config=IdempotencyConfig(lambda_context=LambdaContext())
    )
    def pay(order):
        calls.append(order)
        return {"paid": order}

    assert pay(order="a") == pay(order="a") == {"paid": "a"}
    assert calls == ["a"]


def test_the_contracts_four_operations(new_store, now):
    """What `_put_record` and the others promise to Powertools."""
    store = new_store()
    store.configure(IdempotencyConfig())
    record = DataRecord("k", status="INPROGRESS", expiry_timestamp=int(now()) + 60, in_progress_expiry_timestamp=None)
    with pytest.raises(IdempotencyItemNotFoundError):
        store._get_record("k")
    store._put_record(record)
    with pytest.raises(IdempotencyItemAlreadyExistsError) as caught:
        store._put_record(record)
    assert caught.value.old_data_record is not None
    assert caught.value.old_data_record.status == "INPROGRESS"
    store._update_record(DataRecord("k", status="COMPLETED", expiry_timestamp=int(now()) + 60, response_data='"x"'))
    found = store._get_record("k")
    assert (found.status, found.response_json_as_dict()) == ("COMPLETED", "x")
    now.ahead_by = 120
    store._put_record(record)
    store._delete_record(record)
    store._delete_record(record)
    with pytest.raises(IdempotencyItemNotFoundError):
        store._get_record("k")


@pytest.mark.parametrize("applied", [True, False])
def test_an_operation_whose_commit_is_lost_is_repeated(dsql, new_store, options, applied):
    """Each writes the same the second time."""
    calls: list[Any] = []
    new_store()
    with Pool(options) as pool:
        handler = handler_of(DsqlPersistenceLayer(source=pool), calls)
        dsql.cut("after-commit-sent", applied=applied)
        assert handler({"id": 1}, LambdaContext()) == "done"
        dsql.cut("after-commit-sent", applied=applied)
        assert handler({"id": 2}, LambdaContext()) == handler({"id": 2}, LambdaContext()) == "done"
    assert (len(calls), status(dsql)) == (2, ["COMPLETED", "COMPLETED"])


def above_a_transaction(store, options, after=None):
    @idempotent(persistence_store=store, config=IdempotencyConfig(event_key_jmespath="id"), key_prefix="handler")
    @with_dsql_transaction(options=options)
    def handler(event, context, tx):
        tx.defer(ADD)
        if after is not None:
            tx.after_commit(after)
        return "added"

    return handler


def test_the_record_is_kept_where_the_outcome_is_unknown(dsql, options, new_store):
    """Powertools' stores delete it, and Lambda's retry applies twice. Here nobody runs it again before somebody has looked."""
    calls = []

    @idempotent(persistence_store=new_store(), config=IdempotencyConfig(event_key_jmespath="id"), key_prefix="handler")
    @with_dsql_transaction(options=options)
    def unlucky(event, context, tx):
        calls.append(1)
        dsql.cut("after-commit-sent")
        tx.defer(ADD)
        return "added"

    with pytest.raises(CommitOutcomeUnknown):
        unlucky({"id": 1}, LambdaContext())
    assert dsql.execute("SELECT status, in_progress_expires_at FROM dsql_lambda_powertools") == [["INPROGRESS", None]]
    for _ in range(2):
        with pytest.raises(IdempotencyAlreadyInProgressError):
            unlucky({"id": 1}, LambdaContext())
    assert len(calls) == 1
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["101"]]


def test_the_result_is_stored_where_only_what_follows_commit_failed(dsql, options, new_store):
    """The work is committed: a second delivery must not do it again."""
    handler = above_a_transaction(new_store(), options, after=lambda: 1 / 0)
    with pytest.raises(AfterCommitError):
        handler({"id": 1}, LambdaContext())
    assert handler({"id": 1}, LambdaContext()) == "added"
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["101"]]


def test_expired_records_are_removed(dsql, options, new_store):
    """By the statement that is documented."""
    calls: list[Any] = []
    handler_of(new_store(), calls)({"id": 1}, LambdaContext())
    handler_of(new_store(), calls)({"id": 2}, LambdaContext())
    dsql.execute("UPDATE dsql_lambda_powertools SET expires_at = 1 WHERE id = (SELECT min(id) FROM dsql_lambda_powertools)")
    dsql.execute(new_store().delete_expired())
    assert len(status(dsql)) == 1


@pytest.mark.parametrize("table", ["a b", "", "A", "a.b.c", "x" * 64, None, "a;--"])
def test_a_table_is_named_plainly(table):
    """The name becomes part of statements."""
    with pytest.raises(ConfigError, match="table is"):
        DsqlPersistenceLayer(table=table)
