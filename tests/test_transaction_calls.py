"""The smaller promises of `tx`'s calls: types of parameters, streams, counts of rows, and the settings of a session."""

import pytest
from pg8000 import exceptions

from dsql_lambda import ConnectOptions, TransactionError, run_transaction, with_dsql_transaction

INTEGER, TEXT = 23, 25


def test_types_say_what_a_placeholder_is(stage):
    """By OID, for one call; the others keep the type that their value says."""
    sql = "SELECT pg_typeof(:a)::text, pg_typeof(:b)::text"
    assert stage.run(lambda tx: tx.run(sql, types={"a": TEXT}, a="1", b=2)) == [["text", "integer"]]
    assert stage.run(lambda tx: tx.value("SELECT :a > :b", types={"a": INTEGER, "b": INTEGER}, a="10", b="9")) is True


def test_a_type_for_no_placeholder_is_refused(stage):
    """The sentence names it, and nothing is sent."""
    with pytest.raises(TransactionError, match="types names 'c', which is no placeholder of the statement"):
        stage.run(lambda tx: tx.run("SELECT :a::int", types={"c": INTEGER}, a=1))
    assert stage.flights() == []


def test_a_stream_is_sent_at_once(stage):
    """Its statement runs, though nobody takes a row."""
    stage.run(lambda tx: tx.stream("UPDATE accounts SET balance = 7 WHERE id = 1 RETURNING id") and None)
    assert stage.balances()[0] == 7


def test_a_stream_that_a_loop_has_left_is_over(stage):
    """The next statement of the transaction runs."""

    def first_of_many(tx):
        for row in tx.stream("SELECT g FROM generate_series(1, 1000) AS g"):
            found = row["g"]
            break
        return found, tx.value("SELECT 2")

    assert stage.run(first_of_many) == (1, 2)


@pytest.mark.parametrize("rows", [0, 2])
@pytest.mark.parametrize("call", [lambda tx, sql: tx.rows(sql), lambda tx, sql: list(tx.stream(sql))])
def test_two_columns_of_one_name_are_refused_with_and_without_rows(stage, call, rows):
    """A value would be lost, whether there is one today or not."""
    with pytest.raises(TransactionError, match="two columns have one name.*name them with AS"):
        stage.run(lambda tx: call(tx, f"SELECT 1 AS a, 2 AS a FROM generate_series(1, {rows})"))


def test_a_statement_that_counts_no_rows_has_none_to_expect(stage):
    """The sentence says so, and nothing is committed."""

    def create(tx):
        tx.defer("CREATE TABLE counted (id int PRIMARY KEY)", expect_rows=1)

    with pytest.raises(TransactionError, match="expect_rows is for statements that count rows, and CREATE TABLE does not"):
        stage.run(create)
    assert stage.dsql.execute("SELECT to_regclass('counted')") == [[None]]


def test_settings_are_taken_back_without_a_trip(stage):
    """RESET ALL leaves with BEGIN, and only after something was SET."""
    stage.run(lambda tx: tx.run("SET timezone = 'Asia/Tokyo'"))
    stage.flights()
    assert stage.run(lambda tx: tx.value("SHOW timezone")) == "UTC"
    assert stage.flights() == [("BEGIN", "RESET", "SHOW"), ("COMMIT",)]
    assert stage.run(lambda tx: tx.value("SHOW timezone")) == "UTC"
    assert stage.flights() == [("BEGIN", "SHOW"), ("COMMIT",)]


def test_settings_of_a_transaction_that_was_rolled_back_are_taken_back_again(stage):
    """A rollback brings back what RESET ALL has taken."""
    stage.run(lambda tx: tx.run("SET timezone = 'Asia/Tokyo'"))
    with pytest.raises(ZeroDivisionError):
        stage.run(lambda tx: [tx.run("SELECT 1"), 1 / 0])
    assert stage.run(lambda tx: tx.value("SHOW timezone")) == "UTC"


def test_what_configure_sets_stays_set(stage):
    """Also after another setting was taken back, on the cached connection."""
    stage.new_source(configure=lambda connection: connection.run("SET timezone = 'Europe/Berlin'"))
    assert stage.run(lambda tx: tx.value("SHOW timezone")) == "Europe/Berlin"
    stage.run(lambda tx: tx.run("SET timezone = 'Asia/Tokyo'"))
    assert stage.run(lambda tx: tx.value("SHOW timezone")) == "Europe/Berlin"
    assert stage.events("startup") == 1


def test_a_transaction_with_other_options_is_nested_too(dsql, options):
    """DSQL has no savepoints, and the outer function may run again: it is refused, and the outer one goes on."""
    other: ConnectOptions = options.replace(application_name="other")

    @with_dsql_transaction(options=other)
    def inner(tx):
        return tx.value("SELECT 1")

    @with_dsql_transaction(options=options)
    def outer(tx):
        with pytest.raises(TransactionError, match="DSQL has no savepoints"):
            inner()
        return tx.value("SELECT 2")

    assert outer() == 2
    assert inner() == 1


def test_a_text_that_holds_a_zero_character_is_refused(stage):
    """It would end the message in its middle. The sentence says what to do, and nothing is sent."""
    with pytest.raises(exceptions.InterfaceError, match="take it out"):
        stage.run(lambda tx: tx.run("SELECT 1 \0"))
    assert stage.flights() == []


def test_a_swallowed_interruption_of_a_statement_is_no_success(stage):
    """What a statement was interrupted by, somebody caught: nothing is committed."""

    class Interruption(Exception):
        pass

    def interrupt(_text):
        raise Interruption

    def careless(tx):
        tx.defer("UPDATE accounts SET balance = 1 WHERE id = 1")
        tx.connection.register_in_adapter(TEXT, interrupt)
        try:
            tx.run("SELECT 'a'::text")
        except Interruption:
            return "ok"

    with pytest.raises(Interruption):
        stage.run(careless)
    assert stage.balances()[0] == 100
    assert run_transaction(lambda tx: tx.value("SELECT 1"), source=stage.source) == 1
