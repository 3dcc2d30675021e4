"""The error classes: their tree, their attributes, and that they can be pickled."""

import pickle

import pg8000.exceptions
import pytest

from dsql_lambda import (
    AfterCommitError,
    CommitOutcomeUnknown,
    ConfigError,
    ConnectError,
    DatabaseError,
    DeadlineExceeded,
    DsqlError,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    MigrationError,
    OCCRetryExhausted,
    ResponseError,
    TokenError,
    TransactionError,
    WriteInterrupted,
)


def test_the_tree_is_as_it_is_documented():
    """The layer's errors have one base; a server's error is a subclass of pg8000's `DatabaseError`."""
    assert {ConfigError, TokenError, ConnectError, MigrationError, TransactionError} == set(DsqlError.__subclasses__())
    assert {
        OCCRetryExhausted,
        CommitOutcomeUnknown,
        DeadlineExceeded,
        AfterCommitError,
        ResponseError,
        IdempotencyKeyMissing,
        IdempotencyKeyReused,
        WriteInterrupted,
    } == set(TransactionError.__subclasses__())
    assert issubclass(ConfigError, ValueError)
    assert issubclass(DatabaseError, pg8000.exceptions.DatabaseError)
    assert not issubclass(DatabaseError, DsqlError)


@pytest.mark.parametrize(
    "error",
    [
        OCCRetryExhausted("no", attempts=3, occ_type="data", occ_code="OC000", elapsed=0.5, reason="deadline"),
        CommitOutcomeUnknown("no", attempts=2),
        DeadlineExceeded("no", phase="commit"),
        AfterCommitError("no", value={"id": 1}, errors=()),
        WriteInterrupted("no", committed=((0, 3000),), failed=((3000, 6000),), unknown=((6000, 9000),)),
        ConnectError("no", sqlstate="08006", hint="why"),
        ConfigError("no"),
        TokenError("no"),
    ],
)
def test_errors_survive_pickling(error):
    """A pickled error keeps its message and its attributes."""
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_a_server_error_has_its_fields_as_attributes():
    """SQLSTATE, message, detail, hint and constraint are attributes, empty where missing; the text is message and SQLSTATE."""
    fields = {"S": "ERROR", "C": "23505", "M": "duplicate key", "D": "Key (id)=(1) exists.", "n": "accounts_pkey"}
    error = DatabaseError(fields)
    assert (error.sqlstate, error.message, error.hint) == ("23505", "duplicate key", "")
    assert (error.detail, error.constraint_name) == ("Key (id)=(1) exists.", "accounts_pkey")
    assert str(error) == "duplicate key (SQLSTATE 23505)"
    assert error.args == (fields,)
