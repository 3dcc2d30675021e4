"""`Idempotency`: an event is handled once, whatever is delivered twice, fails, conflicts or is lost on the way."""

import threading
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from dsql_lambda import (
    CommitOutcomeUnknown,
    ConfigError,
    DatabaseError,
    Idempotency,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    OCCRetryConfig,
    ResponseError,
    connect,
    run_transaction,
    with_dsql_transaction,
)

ADD = "UPDATE accounts SET balance = balance + :amount WHERE id = 1"
BY_ID = Idempotency(key="id")


@pytest.fixture(autouse=True)
def table(dsql):
    """The migration is one statement, which DSQL accepts."""
    dsql.execute("DROP TABLE IF EXISTS dsql_lambda_idempotency")
    dsql.execute(BY_ID.create_table())


@pytest.fixture
def calls():
    return []


@pytest.fixture(params=["first", "ride"])
def handler(request, options, calls):
    """A handler that adds to an account once for each `id`, by either lookup."""

    @with_dsql_transaction(options=options, idempotency=BY_ID.replace(lookup=request.param))
    def handler(event, context, tx):
        calls.append(tx.attempt)
        tx.defer(ADD, amount=event.get("amount", 1))
        return {"added": event.get("amount", 1)}

    return handler


def balance(dsql):
    return int(dsql.execute("SELECT balance FROM accounts WHERE id = 1")[0][0])


def rows(dsql):
    return [row[0] for row in dsql.execute("SELECT result FROM dsql_lambda_idempotency")]


def flights(dsql):
    found = [tuple(sql.split()[0] for sql in event.statements) for event in dsql.log if event.kind == "flight"]
    dsql.clear_log()
    return found


# Once


def test_a_second_delivery_returns_the_stored_result_and_has_no_effect(dsql, handler, calls):
    """The function is not even called where the key is read first."""
    assert handler({"id": "a", "amount": 5}, None) == {"added": 5}
    assert handler({"id": "a", "amount": 5}, None) == {"added": 5}
    assert handler({"id": "b", "amount": 5}, None) == {"added": 5}
    assert balance(dsql) == 110


def test_the_row_is_written_with_the_work_or_not_at_all(dsql, options):
    """A function that raised leaves no row, and its event can be delivered again; so does one that rolled back."""
    outcomes = iter([ValueError("no"), "rollback", "done"])

    @with_dsql_transaction(options=options, idempotency=BY_ID)
    def handler(event, context, tx):
        tx.defer(ADD, amount=1)
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        if outcome == "rollback":
            tx.rollback()
        return outcome

    with pytest.raises(ValueError, match="no"):
        handler({"id": "a"}, None)
    assert rows(dsql) == []
    assert handler({"id": "a"}, None) == "rollback"
    assert rows(dsql) == []
    assert handler({"id": "a"}, None) == "done"
    assert (rows(dsql), balance(dsql)) == (['"done"'], 101)


def test_a_conflict_runs_the_function_again_and_it_counts_once(dsql, handler, calls):
    """As without a key."""
    dsql.conflict_next(2)
    assert handler({"id": "a"}, None) == {"added": 1}
    assert (calls, balance(dsql)) == ([1, 2, 3], 101)


@pytest.mark.parametrize("lookup", ["first", "ride"])
def test_two_at_once_are_one(dsql, options, lookup):
    """The other one's COMMIT conflicts, and its retry finds the row."""
    both = threading.Barrier(2, timeout=20)
    met = []

    def deliver(answers):
        with connect(options) as connection:

            @with_dsql_transaction(
                source=connection,
                retry=OCCRetryConfig(max_attempts=9),
                idempotency=Idempotency(key="id", lookup=lookup, scope="both"),
            )
            def handler(event, context, tx):
                tx.run("SELECT 1")
                if tx.attempt == 1:
                    met.append(both.wait())
                tx.defer(ADD, amount=1)
                return {"by": threading.current_thread().name}

            answers.append(handler({"id": "a"}, None))

    answers: list[Any] = []
    threads = [threading.Thread(target=deliver, args=(answers,)) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (len(met), len(answers), balance(dsql)) == (2, 2, 101)
    assert answers[0] == answers[1]


# What it costs


@pytest.mark.parametrize(
    ("lookup", "first", "again"),
    [
        ("first", [("BEGIN", "SELECT"), ("UPDATE", "INSERT", "COMMIT")], [("BEGIN", "SELECT"), ("ROLLBACK",)]),
        (
            "ride",
            [("BEGIN", "UPDATE", "INSERT", "COMMIT")],
            [("BEGIN", "UPDATE", "INSERT", "COMMIT"), ("ROLLBACK",), ("BEGIN", "SELECT"), ("ROLLBACK",)],
        ),
    ],
)
def test_first_costs_one_flight_and_ride_none(dsql, options, lookup, first, again):
    """The key is read with BEGIN, or written with COMMIT. Without a key it is one flight."""

    def add(event, tx):
        tx.defer(ADD, amount=1)

    plain = with_dsql_transaction(options=options)(add)
    once = with_dsql_transaction(options=options, idempotency=BY_ID.replace(lookup=lookup))(add)
    plain({"id": "a"})
    dsql.clear_log()
    plain({"id": "a"})
    assert flights(dsql) == [("BEGIN", "UPDATE", "COMMIT")]
    once({"id": "a"})
    assert flights(dsql) == first
    once({"id": "a"})
    assert flights(dsql) == again


# The key


@pytest.mark.parametrize("event", [{}, {"id": None}, {"id": ""}, {"id": []}])
def test_a_missing_key_is_an_error(dsql, handler, calls, event):
    """Nothing was done."""
    with pytest.raises(IdempotencyKeyMissing, match=r"no idempotency key \(id\)"):
        handler(event, None)
    assert calls == []


def test_the_same_key_with_another_payload_is_an_error(dsql, handler):
    """Nothing was done."""
    handler({"id": "a", "amount": 5}, None)
    with pytest.raises(IdempotencyKeyReused):
        handler({"id": "a", "amount": 6}, None)
    assert balance(dsql) == 105


@pytest.mark.parametrize(
    ("event", "again"),
    [
        (
            {"requestContext": {"requestId": "1", "http": {"method": "POST"}}, "rawPath": "/a", "body": "x"},
            {"requestContext": {"requestId": "2", "http": {"method": "POST"}}, "rawPath": "/a", "body": "x"},
        ),
        (
            {"raw_path": "/a", "method": "POST", "headers": {"date": "1"}, "body": "x"},
            {"raw_path": "/a", "method": "POST", "headers": {"date": "2"}, "body": "x"},
        ),
        (
            {"requestContext": {"timeEpoch": "1"}, "method": "POST", "path": "/a", "body": "x"},
            {"requestContext": {"timeEpoch": "2"}, "method": "POST", "path": "/a", "body": "x"},
        ),
        (
            {"messageId": "1", "receiptHandle": "1", "body": "x", "attributes": {"ApproximateReceiveCount": "1"}},
            {"messageId": "1", "receiptHandle": "2", "body": "x", "attributes": {"ApproximateReceiveCount": "2"}},
        ),
        ({"id": "1", "detail-type": "paid", "detail": {"x": 1}}, {"id": "2", "detail-type": "paid", "detail": {"x": 1}}),
    ],
)
def test_what_differs_in_each_delivery_is_no_payload(options, event, again):
    """Of HTTP requests, SQS records and events of EventBridge; what was asked for counts."""

    @with_dsql_transaction(options=options, idempotency=Idempotency(key=lambda event: "k"))
    def handler(event, tx):
        return 1

    assert handler(event) == handler(again) == 1
    with pytest.raises(IdempotencyKeyReused):
        handler({**again, "body": "y", "detail": {}})
    if "method" in event:
        with pytest.raises(IdempotencyKeyReused):
            handler({**again, "method": "PUT"})


def test_keys_belong_to_a_function_and_to_a_caller_if_asked(dsql, options):
    """Neither gets the other's result."""

    @with_dsql_transaction(options=options, idempotency=Idempotency(key="id", payload="id", caller="who"))
    def one(event, tx):
        return event["who"]

    @with_dsql_transaction(options=options, idempotency=BY_ID)
    def other(event, tx):
        return "other"

    assert one({"id": 1, "who": "a"}) == "a"
    assert one({"id": 1, "who": "b"}) == "b"
    assert one({"id": 1, "who": "a"}) == "a"
    assert other({"id": 1, "who": "a"}) == "other"
    with pytest.raises(IdempotencyKeyMissing, match=r"no caller \(who\)"):
        one({"id": 1})


def test_a_key_is_taken_by_jmespath_with_powertools_functions_or_by_a_callable(dsql, options):
    """Out of a header, out of JSON in a body, or by whatever the function finds; of any length."""
    keys: list[Any] = [
        'headers."idempotency-key"',
        "powertools_json(body).id",
        lambda event: event["headers"]["idempotency-key"] * 5000,
    ]
    for number, key in enumerate(keys):

        @with_dsql_transaction(options=options, idempotency=Idempotency(key=key, scope=str(number)))
        def handler(event, context, tx):
            tx.defer(ADD, amount=1)
            return 1

        event = {"headers": {"idempotency-key": "k"}, "body": '{"id": "x"}'}
        handler(event, None)
        handler(event, None)
    assert balance(dsql) == 103


def test_a_method_and_a_function_without_event(dsql, options):
    """The event is the argument `event`, or the first one."""

    class Service:
        @with_dsql_transaction(options=options, idempotency=Idempotency(key="@"))
        def pay(self, order, tx):
            tx.defer(ADD, amount=1)
            return order

    for _ in range(2):
        assert Service().pay("o-1") == "o-1"
        assert Service().pay(order="o-1") == "o-1"
    assert balance(dsql) == 101


def test_run_transaction_takes_the_event(dsql, options):
    """For work that is no handler."""

    def add(tx):
        tx.defer(ADD, amount=1)
        return "x"

    with connect(options) as connection:
        for _ in range(2):
            assert run_transaction(add, source=connection, idempotency=Idempotency(key="@"), event="monday") == "x"
    assert balance(dsql) == 101


def test_a_joined_function_keeps_its_key_in_the_transaction_it_joined(dsql, options):
    """A batch in one transaction: each record once."""

    @with_dsql_transaction(options=options, idempotency=BY_ID)
    def one(record, tx):
        tx.defer(ADD, amount=1)
        return record["id"]

    @with_dsql_transaction(options=options)
    def all_of(event, tx):
        return [one(record, tx=tx) for record in event]

    assert all_of([{"id": 1}, {"id": 2}, {"id": 1}]) == [1, 2, 1]
    assert all_of([{"id": 2}, {"id": 3}]) == [2, 3]
    assert balance(dsql) == 103


# The result


def test_a_result_is_stored_as_powertools_stores_it(options):
    """Decimal as text, keys sorted; the first delivery gets the function's own value."""

    @with_dsql_transaction(options=options, idempotency=BY_ID)
    def handler(event, tx):
        return {"b": Decimal("1.10"), "a": [1, None, "é"]}

    assert handler({"id": 1}) == {"b": Decimal("1.10"), "a": [1, None, "é"]}
    assert handler({"id": 1}) == {"b": "1.10", "a": [1, None, "é"]}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"body": {"id": UUID(int=1)}}, r"body\.id: UUID"),
        ({"x": "y" * 1024 * 1024}, "at most 1048576 can be stored"),
    ],
)
def test_a_result_that_cant_be_stored_fails_before_commit(dsql, options, result, message):
    """It says which part; nothing is applied, and no row is left."""

    @with_dsql_transaction(options=options, idempotency=BY_ID)
    def handler(event, tx):
        tx.defer(ADD, amount=1)
        return result

    with pytest.raises(ResponseError, match=message):
        handler({"id": 1})
    assert (balance(dsql), rows(dsql)) == (100, [])


def test_a_result_of_one_mebibyte_is_stored(dsql, options):
    """DSQL's limit for a column."""

    @with_dsql_transaction(options=options, idempotency=BY_ID)
    def handler(event, tx):
        return "y" * (1024 * 1024 - 2)

    assert handler({"id": 1}) == handler({"id": 1})


# Expiry


@pytest.mark.parametrize("lookup", ["first", "ride"])
def test_an_expired_key_is_a_new_one(dsql, options, lookup):
    """Its row is written over."""

    @with_dsql_transaction(options=options, idempotency=BY_ID.replace(lookup=lookup, ttl_seconds=3600))
    def handler(event, tx):
        tx.defer(ADD, amount=1)
        return event["n"]

    assert handler({"id": 1, "n": 1}) == 1
    dsql.execute("UPDATE dsql_lambda_idempotency SET expires_at = now()")
    assert handler({"id": 1, "n": 2}) == 2
    assert handler({"id": 1, "n": 2}) == 2
    assert balance(dsql) == 102


def test_expired_rows_are_removed_a_thousand_at_a_time(dsql, options):
    """Below DSQL's 3,000 rows a transaction; those that count stay."""
    for first in (0, 1000):
        dsql.execute(
            "INSERT INTO dsql_lambda_idempotency SELECT n::text, '', '', '1', now() - interval '1 s' "
            f"FROM generate_series({first + 1}, {first + 1000}) AS n"
        )
    dsql.execute("INSERT INTO dsql_lambda_idempotency VALUES ('kept', '', '', '1', now() + interval '1 h')")
    with connect(options) as connection:
        counts: list[int] = []
        while not counts or counts[-1]:
            connection.run(BY_ID.delete_expired())
            counts.append(connection.row_count)
    assert counts == [1000, 1000, 0]
    assert dsql.execute("SELECT id FROM dsql_lambda_idempotency") == [["kept"]]


# Unknown outcomes


@pytest.mark.parametrize("applied", [True, False])
def test_a_lost_commit_is_settled(dsql, handler, calls, applied):
    """If it landed, its result is returned; if not, a marker proves it dead, and the function runs again. Applied once."""
    dsql.cut("after-commit-sent", applied=applied)
    assert handler({"id": "a", "amount": 5}, None) == {"added": 5}
    assert balance(dsql) == 105
    assert calls == ([1] if applied else [1, 2])
    assert handler({"id": "a", "amount": 5}, None) == {"added": 5}
    assert rows(dsql) == ['{"added": 5}']


@pytest.mark.parametrize("applied", [True, False])
def test_xx000_at_commit_is_settled(dsql, handler, applied):
    """The server says that it is unavailable: that leaves the outcome open too."""
    dsql.unavailable(applied=applied)
    assert handler({"id": "a"}, None) == {"added": 1}
    assert balance(dsql) == 101


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("second", [True, False])
@pytest.mark.parametrize("third", [True, False])
def test_commits_lost_one_after_the_other_are_settled(dsql, options, first, second, third):
    """Also the marker's, and the second run's."""
    applied = [first, second, third]

    @with_dsql_transaction(options=options, retry=OCCRetryConfig(max_attempts=9), idempotency=BY_ID)
    def handler(event, tx):
        tx.defer(ADD, amount=1)
        return "x"

    for each in applied:
        dsql.cut("after-commit-sent", applied=each)
    assert handler({"id": "a"}) == "x"
    dsql.clear_faults()
    assert balance(dsql) == 101
    assert handler({"id": "a"}) == "x"
    assert balance(dsql) == 101


def test_a_commit_that_lands_late_meets_the_marker(dsql, options):
    """No row yet proves nothing: the marker is committed first, and then the late COMMIT, here another session's, fails."""
    with connect(options) as late:
        late.run("BEGIN")
        late.run(ADD, amount=1)  # it has seen the database without the row

        @with_dsql_transaction(options=options, idempotency=BY_ID)
        def handler(event, tx):
            ((marked,),) = tx.run("SELECT count(*) FROM dsql_lambda_idempotency")
            return marked

        dsql.cut("after-commit-sent", applied=False)
        assert handler({"id": "a"}) == 1
        ((row_id,),) = dsql.execute("SELECT id FROM dsql_lambda_idempotency")
        with pytest.raises(DatabaseError):
            late.run("INSERT INTO dsql_lambda_idempotency VALUES (:id, '', 'late', '1', now() + interval '1 h')", id=row_id)
            late.run("COMMIT")
        late.run("ROLLBACK")
    assert balance(dsql) == 100


def test_what_cant_be_settled_is_unknown_and_never_exhausted(dsql, options):
    """Conflicts on every later attempt, or no server: the error says that it is unknown, and to deliver the event again."""

    @with_dsql_transaction(options=options, retry=OCCRetryConfig(max_attempts=3), idempotency=BY_ID)
    def handler(event, tx):
        tx.defer(ADD, amount=1)
        if tx.attempt > 1:
            dsql.conflict_next(9)
        return "x"

    dsql.cut("after-commit-sent", applied=False)
    with pytest.raises(CommitOutcomeUnknown, match="deliver the event again with its idempotency key"):
        handler({"id": "a"})
    dsql.clear_faults()
    assert (rows(dsql), balance(dsql)) == ([None], 100)
    dsql.cut("after-commit-sent", applied=True)
    dsql.refuse_connections(9, "access")
    with pytest.raises(CommitOutcomeUnknown):
        handler({"id": "b"})
    dsql.clear_faults()
    assert balance(dsql) == 101
    assert handler({"id": "b"}) == "x"
    assert balance(dsql) == 101


def test_a_later_delivery_finishes_what_was_left_with_a_marker(dsql, options):
    """The marker keeps nobody out: it has no result."""

    @with_dsql_transaction(options=options, retry=OCCRetryConfig(max_attempts=2), idempotency=BY_ID)
    def handler(event, tx):
        tx.defer(ADD, amount=1)
        if tx.attempt == 2:
            raise ValueError("second run")
        return "x"

    dsql.cut("after-commit-sent", applied=False)
    with pytest.raises(ValueError, match="second run"):  # nothing was applied, and that is proved
        handler({"id": "a"})
    assert rows(dsql) == [None]
    assert handler({"id": "a"}) == "x"
    assert (rows(dsql), balance(dsql)) == (['"x"'], 101)


def test_without_a_key_a_lost_commit_stays_unknown(dsql, options):
    """Nothing tells what became of it."""

    @with_dsql_transaction(options=options)
    def handler(event, tx):
        tx.defer(ADD, amount=1)

    dsql.cut("after-commit-sent")
    with pytest.raises(CommitOutcomeUnknown, match="read the data"):
        handler({})


# A second delivery by `ride` runs the function, on what the first one left


def test_ride_returns_the_stored_result_where_the_second_run_fails(dsql, options):
    """What the first delivery did may be why: a unique row, a check, an answer by rollback."""
    dsql.execute("DROP TABLE IF EXISTS orders; CREATE TABLE orders (id int PRIMARY KEY)")

    @with_dsql_transaction(options=options, idempotency=BY_ID.replace(lookup="ride"))
    def handler(event, tx):
        how = event["how"]
        if how == "raise" and tx.rows("SELECT 1 FROM orders"):
            raise ValueError("ordered already")
        if how == "rollback" and tx.rows("SELECT 1 FROM orders"):
            tx.rollback()
            return "ordered already"
        (tx.run if how == "run" else tx.defer)("INSERT INTO orders VALUES (1)")
        return "ordered"

    for how in ("defer", "run", "raise", "rollback"):
        dsql.execute("DELETE FROM orders")
        assert [handler({"id": how, "how": how}) for _ in range(3)] == ["ordered"] * 3
    with pytest.raises(DatabaseError, match="duplicate key"):
        handler({"id": "other", "how": "run"})
    with pytest.raises(ValueError, match="ordered already"):
        handler({"id": "another", "how": "raise"})
    assert handler({"id": "third", "how": "rollback"}) == "ordered already"
    assert len(rows(dsql)) == 4


# What is refused


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"key": ""}, "key is ''"),
        ({"key": None}, "key is None"),
        ({"key": "a["}, "no JMESPath expression"),
        ({"key": "a", "payload": "["}, "no JMESPath expression"),
        ({"key": "a", "ttl_seconds": 0}, "ttl_seconds is 0"),
        ({"key": "a", "lookup": "last"}, "lookup is 'last'"),
        ({"key": "a", "table": "a; DROP TABLE b"}, "table is"),
        ({"key": "a", "scope": 1}, "scope is 1"),
    ],
)
def test_a_wrong_option_is_said_at_decoration(given, message):
    """With what is accepted."""
    with pytest.raises(ConfigError, match=message):

        @with_dsql_transaction(idempotency=Idempotency(**given))
        def handler(event, tx):
            pass


def test_it_is_not_for_reading_and_not_for_a_nameless_function(options):
    """Neither would mean anything."""
    with pytest.raises(TypeError, match="read_only"):
        with_dsql_transaction(options=options, read_only=True, idempotency=BY_ID)(lambda event, tx: 1)
    with pytest.raises(ConfigError, match="scope"):
        with_dsql_transaction(options=options, idempotency=BY_ID)(lambda event, tx: 1)
    with pytest.raises(TypeError, match="must be an Idempotency"):
        with_dsql_transaction(options=options, idempotency="id")(lambda event, tx: 1)  # type: ignore[call-overload]


def test_without_the_table_the_error_says_how_to_make_it(dsql, handler):
    """By either lookup."""
    dsql.execute("DROP TABLE dsql_lambda_idempotency")
    with pytest.raises(DatabaseError) as caught:
        handler({"id": 1}, None)
    assert "CREATE TABLE IF NOT EXISTS dsql_lambda_idempotency" in caught.value.__notes__[-1]


def test_another_table(dsql, options):
    """With its schema."""
    elsewhere = BY_ID.replace(table="public.keys_of_mine")
    dsql.execute(elsewhere.create_table())
    with_dsql_transaction(options=options, idempotency=elsewhere.replace(scope="x"))(lambda event, tx: 7)({"id": 1})
    assert dsql.execute("SELECT result FROM keys_of_mine") == [["7"]]
