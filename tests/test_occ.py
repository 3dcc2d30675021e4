"""Classifying errors: which are conflicts, and of which type, for the error classes of every driver."""

import pickle

import pytest

from dsql_lambda import DatabaseError, OCCConflict, OCCType, classify_occ, is_occ_error

DATA = "change conflicts with another transaction, please retry: (OC000)"
SCHEMA = "schema has been updated by another transaction, please retry: (OC001)"


class PsycopgLike(Exception):
    """An error with `sqlstate`, as psycopg 3 and asyncpg have it."""

    def __init__(self, sqlstate, message):
        super().__init__(message)
        self.sqlstate = sqlstate


class Psycopg2Like(Exception):
    """An error with `pgcode`, as psycopg2 has it."""

    def __init__(self, sqlstate, message):
        super().__init__(message)
        self.pgcode = sqlstate


class SqlAlchemyLike(Exception):
    """An error that wraps the driver's as `orig`, as SQLAlchemy does."""

    def __init__(self, orig):
        super().__init__("(wrapped)")
        self.orig = orig


def pg8000_error(sqlstate, message):
    return DatabaseError({"S": "ERROR", "C": sqlstate, "M": message})


SHAPES = [pg8000_error, PsycopgLike, Psycopg2Like, lambda *args: SqlAlchemyLike(pg8000_error(*args))]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("sqlstate", "message", "expected"),
    [
        ("40001", DATA, (OCCType.DATA, "OC000")),
        ("40001", SCHEMA, (OCCType.SCHEMA, "OC001")),
        ("40001", "could not serialize access", (OCCType.UNKNOWN, "40001")),
        ("40001", "OC000 without its marker", (OCCType.UNKNOWN, "40001")),
        ("OC000", "", (OCCType.DATA, "OC000")),
        ("OC001", "", (OCCType.SCHEMA, "OC001")),
        ("23505", "duplicate key (OC000)", None),
        ("40P01", "deadlock detected", None),
        ("XX000", "server unavailable", None),
    ],
)
def test_a_conflict_is_known_by_its_sqlstate_and_marker(shape, sqlstate, message, expected):
    """OC000 is a data conflict, OC001 a schema conflict, a bare 40001 an unknown one; no other SQLSTATE is a conflict."""
    error = shape(sqlstate, message)
    assert classify_occ(error) == (OCCConflict(*expected) if expected else None)
    assert is_occ_error(error) is (expected is not None)


@pytest.mark.parametrize("error", [None, ValueError("40001 (OC000)"), ValueError({}), Exception(), KeyError("C")])
def test_an_error_without_a_sqlstate_is_no_conflict(error):
    """An exception without a SQLSTATE is not a conflict, whatever its text says."""
    assert classify_occ(error) is None
    assert not is_occ_error(error)


def test_a_conflicts_type_is_text_for_logs():
    """The types print as `data`, `schema` and `unknown`, the values of `occ_type` in the log."""
    assert [str(each) for each in OCCType] == ["data", "schema", "unknown"]


def test_an_error_of_the_server_survives_pickling():
    """A pickled `DatabaseError` keeps its fields."""
    error = pickle.loads(pickle.dumps(pg8000_error("40001", DATA)))
    assert (error.sqlstate, error.message) == ("40001", DATA)
    assert classify_occ(error) == OCCConflict(OCCType.DATA, "OC000")
