"""`Transaction`: what its methods answer, what travels together, and what it refuses."""

import datetime
import decimal
import gc
import io
import uuid
import weakref

import pytest
from pg8000.exceptions import InterfaceError

from dsql_lambda import DatabaseError, TransactionError

SELECT = "SELECT id, balance FROM accounts ORDER BY id"
ADD = "UPDATE accounts SET balance = balance + :amount WHERE id = :id"


def test_rows_in_every_form(stage):
    """Lists, dicts, one dict or None, one value."""

    def read(tx):
        assert tx.run(SELECT) == [[1, 100], [2, 100], [3, 100]]
        assert tx.rows(SELECT)[0] == {"id": 1, "balance": 100}
        assert tx.row("SELECT balance FROM accounts WHERE id = :id", id=2) == {"balance": 100}
        assert tx.row("SELECT balance FROM accounts WHERE id = :id", id=9) is None
        assert tx.value("SELECT count(*) FROM accounts") == 3
        assert tx.value("SELECT NULL") is None
        assert tx.run(ADD, amount=1, id=1) == []
        assert tx.run(ADD + " RETURNING balance", amount=1, id=1) == [[102]]
        return list(tx.stream(SELECT))

    assert stage.run(read) == [{"id": 1, "balance": 102}, {"id": 2, "balance": 100}, {"id": 3, "balance": 100}]


def test_a_value_that_is_not_there_is_an_error(stage):
    """No row is not NULL."""
    with pytest.raises(TransactionError, match=r"no row where tx.value\(\) wants one: SELECT balance FROM accounts WHERE id = 9"):
        stage.run(lambda tx: tx.value("SELECT balance FROM accounts WHERE id = 9"))


def test_values_of_all_kinds_go_there_and_back(stage):
    """As pg8000 converts them."""
    values = {
        "i": 7,
        "t": "Ünïcode ' \" \\ :x",
        "n": decimal.Decimal("1.50"),
        "u": uuid.uuid4(),
        "d": datetime.date(2026, 1, 2),
        "b": True,
        "f": 1.5,
        "z": None,
        "y": b"\x00\xff",
    }
    sql = "SELECT :i::int, :t::text, :n::numeric, :u::uuid, :d::date, :b::bool, :f::float8, :z::text, :y::bytea"
    assert stage.run(lambda tx: tx.run(sql, **values)) == [list(values.values())]


def test_a_placeholder_may_be_used_twice(stage):
    """One value, one parameter."""
    assert stage.run(lambda tx: tx.value("SELECT :x::int + :x::int", x=2)) == 4


def test_a_placeholder_without_a_value_is_an_error_and_sends_nothing(stage):
    """The sentence names it; a parameter without a placeholder, and a text that ends in a colon, are refused as clearly."""
    with pytest.raises(InterfaceError, match="the placeholder :id has no parameter: pass id="):
        stage.run(lambda tx: tx.run("SELECT :id, :x", x=1))
    with pytest.raises(InterfaceError, match="no placeholder for the parameter id: leave it out"):
        stage.run(lambda tx: tx.run("SELECT :x", x=1, id=1))
    with pytest.raises(InterfaceError, match="ends in a colon without a name"):
        stage.run(lambda tx: tx.run("SELECT :x :", x=1))
    assert stage.flights() == []


def test_a_text_without_parameters_is_sent_as_it_is(stage):
    """What a colon means in it is PostgreSQL's to say: `:id` without a value is its syntax error."""
    assert stage.run(lambda tx: tx.value("SELECT (ARRAY[1, 2, 3])[2:3]")) == [2, 3]
    for sql in ("SELECT :id", "SELECT 1 :"):
        with pytest.raises(DatabaseError) as caught:
            stage.run(lambda tx, sql=sql: tx.run(sql))
        assert caught.value.sqlstate == "42601"


@pytest.mark.parametrize("name", ["stream", "types", "expect_rows"])
def test_reserved_names_are_refused_with_their_list(stage, name):
    """They are arguments of pg8000's, or ours."""
    method = "run" if name == "expect_rows" else "defer"
    with pytest.raises(TransactionError, match="reserved are expect_rows, stream, types"):
        stage.run(lambda tx: getattr(tx, method)(f"SELECT :{name}", **{name: 1}))


@pytest.mark.parametrize(
    "sql",
    [
        "BEGIN",
        "begin transaction",
        "START TRANSACTION",
        "COMMIT",
        " commit;",
        "END",
        "ROLLBACK",
        "ABORT",
        "PREPARE TRANSACTION 'x'",
        "-- a comment\nCOMMIT",
        "/* a\ncomment */ /**/ ROLLBACK",
        ";;COMMIT",
    ],
)
@pytest.mark.parametrize("method", ["run", "defer", "rows", "stream"])
def test_what_ends_a_transaction_is_refused(stage, sql, method):
    """Behind comments too, by every method; nothing is sent."""
    with pytest.raises(TransactionError, match="is not for tx"):
        stage.run(lambda tx: getattr(tx, method)(sql))
    assert stage.flights() == []


def test_two_statements_in_one_call_are_refused_by_the_server(stage):
    """The extended protocol takes one: "UPDATE ...; COMMIT; UPDATE ..." can't slip through."""
    with pytest.raises(DatabaseError, match="multiple commands"):
        stage.run(lambda tx: tx.run("UPDATE accounts SET balance = 0; COMMIT"))
    assert stage.balances() == [100, 100, 100]


def test_rollback_undoes_and_the_functions_value_is_returned(stage):
    """Deferred statements are dropped, nothing is retried, and `tx` has ended."""

    def undo(tx):
        tx.run(ADD, amount=1, id=1)
        tx.defer(ADD, amount=1, id=2)
        tx.rollback()
        with pytest.raises(TransactionError, match="has ended"):
            tx.run(SELECT)
        return "undone"

    assert stage.run(undo) == "undone"
    assert stage.balances() == [100, 100, 100]
    assert stage.flights() == [("BEGIN", "UPDATE"), ("ROLLBACK",)]


@pytest.mark.parametrize("use", ["run", "rows", "row", "value", "defer", "rollback"])
def test_tx_is_of_no_use_after_its_end(stage, use):
    """It says where it may be used."""
    kept = stage.run(lambda tx: tx)
    with pytest.raises(TransactionError, match="use tx only inside the function"):
        kept.rollback() if use == "rollback" else getattr(kept, use)("SELECT 1")


def test_an_iterator_of_rows_taken_out_of_the_function_is_of_no_use(stage):
    """Its transaction has ended."""
    stream = stage.run(lambda tx: tx.stream(SELECT))
    with pytest.raises(TransactionError, match="has ended"):
        list(stream)
    assert stage.run(lambda tx: tx.value("SELECT 1")) == 1


# Flights


def test_an_empty_transaction_sends_nothing(stage):
    """No BEGIN, no COMMIT: 0 round trips."""
    assert stage.run(lambda tx: 7) == 7
    assert stage.flights() == []


def test_writes_only_travel_in_one_flight(stage):
    """BEGIN, all of them, COMMIT."""

    def write(tx):
        tx.defer(ADD, amount=1, id=1)
        tx.defer(ADD, amount=2, id=2)

    stage.run(write)
    assert stage.flights() == [("BEGIN", "UPDATE", "UPDATE", "COMMIT")]
    assert stage.balances() == [101, 102, 100]


def test_deferred_statements_leave_with_the_next_one_in_their_order(stage):
    """The next statement sees what they did."""

    def write(tx):
        tx.defer(ADD, amount=1, id=1)
        seen = tx.value("SELECT balance FROM accounts WHERE id = 1")
        tx.defer(ADD, amount=1, id=1)
        return seen

    assert stage.run(write) == 101
    assert stage.flights() == [("BEGIN", "UPDATE", "SELECT"), ("UPDATE", "COMMIT")]
    assert stage.balances()[0] == 102


def test_without_pipeline_every_statement_is_a_flight(stage):
    """`pipeline=False`, for a server that minds."""
    stage.new_source(pipeline=False)

    def write(tx):
        tx.defer(ADD, amount=1, id=1)
        tx.run("SELECT 1")
        tx.defer(ADD, amount=1, id=2)

    stage.run(write)
    assert stage.flights() == [("BEGIN",), ("UPDATE",), ("SELECT",), ("UPDATE",), ("COMMIT",)]
    assert stage.balances() == [101, 101, 100]


def test_expected_rows_are_counted_before_commit_may_leave(stage):
    """Such writes leave one flight ahead of COMMIT."""
    stage.run(lambda tx: tx.defer(ADD, expect_rows=1, amount=1, id=1))
    assert stage.flights() == [("BEGIN", "UPDATE"), ("COMMIT",)]
    assert stage.balances()[0] == 101


def test_another_number_of_rows_than_expected_commits_nothing(stage):
    """`TransactionError` with both numbers and the SQL."""

    def write(tx):
        tx.defer(ADD, amount=1, id=1)
        tx.defer(ADD, expect_rows=1, amount=1, id=9)

    with pytest.raises(TransactionError, match="0 rows where 1 were expected, so nothing is committed: UPDATE accounts"):
        stage.run(write)
    assert stage.balances() == [100, 100, 100]
    assert stage.flights()[-1] == ("ROLLBACK",)


@pytest.mark.parametrize("expected", [-1, True, "1", 1.0])
def test_an_expectation_that_is_no_number_of_rows_is_refused(stage, expected):
    """By its value."""
    with pytest.raises(TransactionError, match="expect_rows is"):
        stage.run(lambda tx: tx.defer(ADD, expect_rows=expected, amount=1, id=1))


def test_a_stream_can_be_left_early(stage):
    """Its rest is read away: the next statement and the COMMIT find the connection in order."""

    def read(tx):
        for row in tx.stream("SELECT g FROM generate_series(1, 5000) AS g"):
            if row["g"] == 3:
                break
        tx.defer(ADD, amount=1, id=1)
        return row

    assert stage.run(read) == {"g": 3}
    assert stage.balances()[0] == 101
    assert stage.events("startup") == 1


def test_a_statement_while_a_stream_is_open_is_refused(stage):
    """One answer at a time."""

    def read(tx):
        stream = tx.stream("SELECT g FROM generate_series(1, 5000) AS g")
        next(stream)
        with pytest.raises(InterfaceError, match="still unread"):
            tx.run("SELECT 1")
        stream.close()
        return tx.value("SELECT 1")

    assert stage.run(read) == 1


def test_a_stream_that_fails_midway_is_a_failed_statement(stage):
    """Its error is raised where the rows are taken, and decides the ending."""
    with pytest.raises(DatabaseError, match="division by zero"):
        stage.run(lambda tx: list(tx.stream("SELECT 10 / (3 - g) FROM generate_series(1, 5) AS g")))
    assert stage.flights()[-1] == ("ROLLBACK",)


def test_a_value_that_can_not_be_converted_leaves_the_connection_in_order(stage):
    """The adapter's error is raised after the answer was read to its end; swallowed, it is no success."""

    def read(tx):
        tx.connection.register_in_adapter(23, lambda text: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tx.run(SELECT)
        tx.connection.register_in_adapter(23, int)
        return tx.value("SELECT 1")

    with pytest.raises(ZeroDivisionError):
        stage.run(read)
    assert stage.run(lambda tx: tx.value("SELECT 2")) == 2
    assert stage.events("startup") == 1


TIME = 1083  # the OID of a type that a test has its own adapter for

BROKEN_VALUES = [
    ("INSERT INTO accounts VALUES (7, 7) RETURNING time '24:00:00'", {}),  # read by `int`
    ("UPDATE accounts SET balance = 0 WHERE :x = 'x'", {"x": "\ud800"}),
]


@pytest.mark.parametrize(("sql", "params"), BROKEN_VALUES)
@pytest.mark.parametrize("deferred", [True, False])
def test_a_statement_that_failed_on_this_side_is_never_a_success(stage, sql, params, deferred):
    """An answer that can't be decoded, a value that can't be encoded: swallowed, nothing is committed or said done."""
    stage.source.get().register_in_adapter(TIME, int)

    def careless(tx):
        if deferred:
            tx.defer(ADD, amount=1, id=1)
        try:
            tx.run(sql, **params)
        except ValueError:
            return "ok"

    with pytest.raises(ValueError):
        stage.run(careless)
    assert stage.balances() == [100, 100, 100]
    assert stage.run(lambda tx: tx.value("SELECT 1")) == 1


def test_a_deferred_answer_that_nobody_gets_can_not_fail_a_commit(stage):
    """COMMIT was answered: it is a success, though a returned value can't be decoded."""
    stage.source.get().register_in_adapter(TIME, int)
    stage.run(lambda tx: tx.defer("UPDATE accounts SET balance = 1 WHERE id = 1 RETURNING time '24:00:00'"))
    assert stage.balances()[0] == 1


def test_what_is_deferred_survives_a_statement_that_was_refused(stage):
    """While a stream is open nothing can be sent, and nothing is dropped."""

    def write(tx):
        stream = tx.stream("SELECT g FROM generate_series(1, 3000) AS g")
        next(stream)
        tx.defer(ADD, amount=1, id=1)
        with pytest.raises(InterfaceError, match="still unread"):
            tx.run("SELECT 1")
        stream.close()

    stage.run(write)
    assert stage.balances()[0] == 101


@pytest.mark.parametrize("code", ["OC000", "OC001"])
def test_the_transactions_own_connection_is_inside_it(stage, code):
    """`tx.connection` first, then a conflict: what it did is undone with the rest, and done once."""
    stage.dsql.conflict_next(code=code)

    def copy(tx):
        tx.connection.run("COPY accounts FROM STDIN", stream=io.StringIO(f"{6 + tx.attempt}\t1\n"))
        return tx.attempt

    assert stage.run(copy) == 2
    assert stage.dsql.execute("SELECT id FROM accounts WHERE id > 3") == [["8"]]


def test_a_conflict_on_the_transactions_own_connection_is_retried(stage):
    """Also one that was swallowed."""
    stage.dsql.conflict_next(code="OC001", at="statement")

    def read(tx):
        try:
            tx.connection.run("SELECT 1")
        except DatabaseError:
            pass
        return tx.attempt

    assert stage.run(read) == 2


def test_a_failure_behind_a_stream_that_was_left_is_known(stage):
    """The rows that nobody took are read away, and their error decides the ending."""

    def read(tx):
        for _ in tx.stream("SELECT 10 / (3000 - g) FROM generate_series(1, 5000) AS g"):
            break
        return "ok"

    with pytest.raises(DatabaseError, match="division by zero"):
        stage.run(read)


def test_two_columns_of_one_name_are_no_dict(stage):
    """One value would be lost: the sentence says what to do."""
    with pytest.raises(TransactionError, match="two columns have one name.*name them with AS"):
        stage.run(lambda tx: tx.rows("SELECT 1 AS a, 2 AS a"))


# One at a time


def test_a_transaction_inside_a_transaction_is_refused(stage):
    """DSQL has no savepoints; the sentence says how to join. The outer one goes on."""

    def outer(tx):
        with pytest.raises(TransactionError, match="DSQL has no savepoints: pass its tx on to join it"):
            stage.run(lambda inner: None)
        with pytest.raises(TransactionError, match="use its tx"):
            stage.source.get()
        tx.defer(ADD, amount=1, id=1)

    stage.run(outer)
    assert stage.balances()[0] == 101
    assert stage.run(lambda tx: 1) == 1


def test_what_a_transaction_read_is_freed_with_its_last_reference(stage):
    """Not by a later run of the garbage collector: the result of one invocation must not lie beside that of the next."""

    class Found:
        pass

    gc.disable()
    try:
        found = stage.run(lambda tx: Found())
        reference = weakref.ref(found)
        del found
        assert reference() is None
    finally:
        gc.enable()
