"""What happens to a transaction: every row of the table of endings, on real PostgreSQL through the local DSQL."""

from contextlib import suppress

import pytest

from dsql_lambda import (
    CommitOutcomeUnknown,
    DatabaseError,
    DeadlineExceeded,
    OCCRetryConfig,
    OCCRetryExhausted,
    OCCType,
    TransactionError,
)

ADD = "UPDATE accounts SET balance = balance + :amount WHERE id = :id"


def add_one(tx):
    """Read, then write: a function that a conflict makes run again."""
    balance = tx.value("SELECT balance FROM accounts WHERE id = 1")
    tx.run("UPDATE accounts SET balance = :balance WHERE id = 1", balance=balance + 1)
    return tx.attempt


def defer_one(tx):
    """A write that leaves with the COMMIT."""
    tx.defer(ADD, amount=1, id=1)
    return tx.attempt


class Swallowed(Exception):
    """What a function makes of a database error."""


# Committed


def test_committed_returns_the_functions_value(stage):
    """COMMIT answered with the tag COMMIT: applied once, the connection idle."""
    assert stage.run(add_one) == 1
    assert stage.balances() == [101, 100, 100]
    assert stage.flights() == [("BEGIN", "SELECT"), ("UPDATE",), ("COMMIT",)]
    assert stage.logger.records == []
    assert stage.backends() == []


# Conflict


@pytest.mark.parametrize("function", [add_one, defer_one])
@pytest.mark.parametrize("code", ["OC000", "OC001"])
def test_a_conflict_at_commit_runs_the_function_again(stage, function, code):
    """On the same connection, after a delay, with a record that names its type; applied once."""
    stage.dsql.conflict_next(2, code)
    assert stage.run(function) == 3
    assert stage.balances() == [101, 100, 100]
    assert stage.events("startup") == 1
    assert [round(each * 1000) for each in stage.slept] == [1, 2]
    occ_type = {"OC000": "data", "OC001": "schema"}[code]
    assert [(level, message) for level, message, _ in stage.logger.records] == [("INFO", "OCC conflict, retrying")] * 2
    for attempt, (_, _, fields) in enumerate(stage.logger.records, 1):
        assert (fields["occ_type"], fields["occ_code"], fields["sqlstate"]) == (occ_type, code, "40001")
        assert (fields["attempt"], fields["max_attempts"], fields["function_name"]) == (attempt, 3, "here")
        assert fields["delay_ms"] == pytest.approx(stage.slept[attempt - 1] * 1000, abs=0.001)


def test_a_concurrent_commit_makes_the_function_run_again(stage):
    """A real write-write conflict: both increments are in the end there."""
    once = iter([None])

    def with_a_concurrent_write(tx):
        balance = tx.value("SELECT balance FROM accounts WHERE id = 1")
        for _ in once:
            stage.dsql.execute("UPDATE accounts SET balance = balance + 10 WHERE id = 1")
        tx.run("UPDATE accounts SET balance = :balance WHERE id = 1", balance=balance + 1)
        return tx.attempt

    assert stage.run(with_a_concurrent_write) == 2
    assert stage.balances()[0] == 111
    assert [fields["occ_code"] for _, _, fields in stage.logger.records] == ["OC000"]


@pytest.mark.parametrize("swallow", [lambda error: None, lambda error: Swallowed("mine")])
def test_a_conflict_in_a_statement_counts_whatever_the_function_makes_of_it(stage, swallow):
    """Also one whose error the function swallowed, or replaced by its own: ROLLBACK, and again. OC001 surfaces at reads too."""
    stage.dsql.conflict_next(code="OC001", at="statement")

    def conflicting(tx):
        try:
            tx.run("SELECT 1")
        except DatabaseError as error:
            if replacement := swallow(error):
                raise replacement from error
        tx.defer(ADD, amount=1, id=1)
        return tx.attempt

    assert stage.run(conflicting) == 2
    assert stage.balances()[0] == 101
    assert stage.flights() == [("BEGIN", "SELECT"), ("ROLLBACK",), ("BEGIN", "SELECT"), ("UPDATE", "COMMIT")]
    assert [fields["occ_type"] for _, _, fields in stage.logger.records] == ["schema"]


@pytest.mark.parametrize("at", ["commit", "statement"])
def test_an_unmarked_serialization_failure_is_a_conflict_of_unknown_type(stage, at):
    """A bare 40001 is retried, and called unknown."""
    stage.dsql.conflict_next(code="40001", at=at)
    assert stage.run(add_one) == 2
    assert [(fields["occ_type"], fields["occ_code"]) for _, _, fields in stage.logger.records] == [("unknown", "40001")]


def test_conflicts_on_every_attempt_exhaust_the_retry(stage):
    """`OCCRetryExhausted`, with the last conflict as its cause; nothing committed; an ERROR record."""
    stage.dsql.conflict_next(5)
    with pytest.raises(OCCRetryExhausted, match="each of 3 attempts met a conflict.*OC000") as caught:
        stage.run(add_one)
    error = caught.value
    assert (error.attempts, error.occ_type, error.occ_code, error.reason) == (3, OCCType.DATA, "OC000", "attempts")
    assert error.elapsed > 0
    assert isinstance(error.__cause__, DatabaseError)
    assert error.__cause__.sqlstate == "40001"
    level, message, fields = stage.logger.records[-1]
    assert (level, message, fields["reason"], fields["attempt"]) == ("ERROR", "OCC retry exhausted", "attempts", 3)
    assert fields["elapsed_ms"] == pytest.approx(error.elapsed * 1000, abs=0.001)
    stage.dsql.clear_faults()
    assert stage.balances() == [100, 100, 100]
    assert stage.backends() == []
    assert stage.run(add_one) == 1


def test_one_attempt_is_no_retry(stage):
    """`OCCRetryConfig(max_attempts=1)` turns it off."""
    stage.dsql.conflict_next()
    with pytest.raises(OCCRetryExhausted):
        stage.run(add_one, retry=OCCRetryConfig(max_attempts=1))
    assert stage.slept == []


# Failed


def test_a_failed_statement_is_rolled_back_and_raised(stage):
    """The error as it was, with its SQLSTATE and the statement's text, and the writes before it undone."""

    def overdraw(tx):
        tx.run(ADD, amount=1, id=2)
        tx.run(ADD, amount=-1000, id=1)

    with pytest.raises(DatabaseError) as caught:
        stage.run(overdraw)
    assert (caught.value.sqlstate, caught.value.constraint_name) == ("23514", "accounts_balance_check")
    assert caught.value.statement == ADD
    assert caught.value.__notes__ == [f"The statement: {ADD}"]
    assert stage.balances() == [100, 100, 100]
    assert stage.flights()[-1] == ("ROLLBACK",)
    assert stage.run(add_one) == 1
    assert stage.events("startup") == 0


def test_a_failed_statement_whose_error_was_swallowed_is_never_a_success(stage):
    """The function returned although a statement had failed: that statement's error is raised."""

    def careless(tx):
        tx.run(ADD, amount=1, id=2)
        try:
            tx.run(ADD, amount=-1000, id=1)
        except DatabaseError:
            return "all is well"

    with pytest.raises(DatabaseError, match="accounts_balance_check"):
        stage.run(careless)
    assert stage.balances() == [100, 100, 100]


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_connection_lost_after_a_failed_statement_does_not_hide_it(stage, how):
    """The failed statement's error is raised, and nothing is tried again: the loss is only what came after it."""

    def careless(tx):
        with suppress(DatabaseError):
            tx.run(ADD, amount=-1000, id=1)
        stage.dsql.close_connections(how)
        tx.run(ADD, amount=1, id=2)

    with pytest.raises(DatabaseError, match="accounts_balance_check"):
        stage.run(careless)
    assert stage.balances() == [100, 100, 100]
    assert stage.run(add_one) == 1


def test_a_deferred_statement_that_fails_commits_nothing(stage):
    """COMMIT is skipped with it: one flight, one ROLLBACK; the error names its SQL and never its values."""

    def overdraw(tx):
        tx.defer(ADD, amount=1, id=2)
        tx.defer(ADD, amount=-4711, id=1)
        tx.defer(ADD, amount=1, id=3)

    with pytest.raises(DatabaseError) as caught:
        stage.run(overdraw)
    assert caught.value.statement == ADD
    assert "4711" not in f"{caught.value} {caught.value.__notes__}"
    assert stage.flights() == [("BEGIN", "UPDATE", "UPDATE", "UPDATE", "COMMIT"), ("ROLLBACK",)]
    assert stage.balances() == [100, 100, 100]


def test_a_commit_that_is_answered_with_rollback_is_no_success(stage):
    """A transaction that failed past `tx` and was never noticed: COMMIT's tag tells."""

    def past_tx(tx):
        tx.run(ADD, amount=1, id=2)
        connection = tx.connection
        connection.run("ROLLBACK")
        connection.run("BEGIN")
        connection.run("SELECT 1")

    assert stage.run(past_tx) is None
    assert stage.balances() == [100, 100, 100]

    def ended_past_tx(tx):
        tx.run(ADD, amount=1, id=2)
        tx.connection.run("COMMIT")

    with pytest.raises(TransactionError, match="ended past tx"):
        stage.run(ended_past_tx)


def test_the_functions_own_error_is_raised_as_it_was(stage):
    """After ROLLBACK; the connection is used again."""

    def refuse(tx):
        tx.run(ADD, amount=1, id=1)
        raise Swallowed("short of funds")

    with pytest.raises(Swallowed, match="short of funds"):
        stage.run(refuse)
    assert stage.balances() == [100, 100, 100]
    assert stage.flights() == [("BEGIN", "UPDATE"), ("ROLLBACK",)]
    assert stage.run(add_one) == 1
    assert stage.events("startup") == 0


def test_an_error_before_any_statement_sends_nothing(stage):
    """No BEGIN, so no ROLLBACK."""
    stage.run(add_one)
    stage.flights()
    with pytest.raises(ZeroDivisionError):
        stage.run(lambda tx: 1 / 0)
    assert stage.flights() == []


def test_a_failing_rollback_does_not_hide_the_error(stage):
    """The link is cut at ROLLBACK: the function's error is raised, the connection replaced."""

    def refuse(tx):
        tx.run(ADD, amount=1, id=1)
        stage.dsql.cut("before-commit")
        raise Swallowed("short of funds")

    with pytest.raises(Swallowed):
        stage.run(refuse)
    stage.dsql.clear_faults()
    assert stage.run(add_one) == 1
    assert stage.balances() == [101, 100, 100]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_leaves_nothing_open(stage, interruption):
    """It is raised as it was, after ROLLBACK."""

    def interrupted(tx):
        tx.run(ADD, amount=1, id=1)
        raise interruption

    with pytest.raises(interruption):
        stage.run(interrupted)
    assert stage.backends() == []
    assert stage.run(add_one) == 1
    assert stage.balances() == [101, 100, 100]


def test_a_rollback_that_meets_a_lost_link_is_a_rollback(stage):
    """The server undoes what a dead link leaves: the function's value is returned, nothing is run again."""

    def undo(tx):
        tx.run(ADD, amount=1, id=1)
        stage.dsql.cut("before-commit")
        tx.rollback()
        return tx.attempt

    assert stage.run(undo) == 1
    assert stage.balances() == [100, 100, 100]
    assert stage.run(add_one) == 1


def test_a_rollback_of_the_functions_own_before_it_raises_a_conflict_is_a_conflict(stage):
    """`except DatabaseError: tx.rollback(); raise` does not keep it from being retried."""
    stage.dsql.conflict_next(code="OC001", at="statement")

    def careful(tx):
        try:
            tx.run(ADD, amount=1, id=1)
        except DatabaseError:
            tx.rollback()
            raise
        return tx.attempt

    assert stage.run(careful) == 2
    assert stage.balances()[0] == 101


# Stale


def test_a_link_that_is_silent_when_begin_wants_its_answer_is_not_waited_for_long(stage):
    """A flow that NAT has forgotten: after three seconds a new connection takes its place, within the same attempt."""
    stage.run(add_one)
    stage.wall_clock.ahead_by += 61
    stage.dsql.cut("before-first-flight", how="silence")
    assert stage.run(add_one, deadline_at=stage.monotonic() + 60) == 1
    assert stage.source.opened_for == "stale"


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_a_link_found_dead_by_begin_is_replaced_within_the_same_attempt(stage, how):
    """Idle for over a minute, BEGIN goes alone; the function has not run, and nobody notices."""
    stage.run(add_one)
    stage.wall_clock.ahead_by += 61
    stage.dsql.cut("before-first-flight", how=how)
    assert stage.run(add_one) == 1
    assert stage.source.opened_for == "stale"
    assert stage.balances()[0] == 102
    assert stage.logger.records == []


def test_begin_goes_alone_only_on_a_connection_idle_for_a_minute(stage):
    """Less than 60 s: it leaves with the first statement."""
    stage.run(add_one)
    stage.wall_clock.ahead_by += 59
    stage.flights()
    stage.run(add_one)
    assert stage.flights()[0] == ("BEGIN", "SELECT")
    stage.wall_clock.ahead_by += 61
    stage.run(add_one)
    assert stage.flights()[0] == ("BEGIN",)


def test_the_minute_can_be_set(stage):
    """`probe_after_secs=0`: BEGIN always goes alone."""
    stage.new_source(probe_after_secs=0)
    stage.run(add_one)
    assert stage.flights()[0] == ("BEGIN",)


def test_a_link_that_dies_at_every_begin_ends_the_loop(stage):
    """A second stale link in one attempt counts as a lost connection."""
    stage.new_source(probe_after_secs=0)
    stage.dsql.cut("before-first-flight", n=20)
    with pytest.raises(TransactionError, match="lost in each of 3 attempts; nothing was committed"):
        stage.run(add_one)


# Broken


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_a_link_lost_before_commit_runs_the_function_again_on_a_new_connection(stage, how):
    """Nothing was committed: the next attempt; applied once."""
    stage.dsql.cut("before-commit", how=how)
    assert stage.run(add_one) == 2
    assert stage.balances() == [101, 100, 100]
    assert stage.source.opened_for == "broken"
    assert stage.logger.messages == ["connection lost, retrying"]


def test_a_link_lost_in_the_first_flight_runs_the_function_again(stage):
    """BEGIN rode in the first statement's flight, so the function had begun."""
    stage.run(add_one)
    stage.dsql.cut("before-first-flight")
    assert stage.run(add_one) == 2
    assert stage.balances()[0] == 102


def test_a_link_lost_on_every_attempt_says_that_nothing_was_committed(stage):
    """`TransactionError`, with the driver's error as its cause."""
    stage.dsql.cut("before-commit", n=3)
    with pytest.raises(TransactionError, match="lost in each of 3 attempts; nothing was committed") as caught:
        stage.run(add_one)
    assert caught.value.__cause__ is not None
    assert stage.balances() == [100, 100, 100]


def test_a_lost_link_counts_whatever_the_function_makes_of_it(stage):
    """The driver's error was swallowed: it is still known."""
    stage.dsql.cut("before-commit")

    def careless(tx):
        try:
            tx.run(ADD, amount=1, id=1)
        except Exception:
            raise Swallowed from None
        return tx.attempt

    assert stage.run(careless) == 2
    assert stage.balances()[0] == 101


# Unknown


@pytest.mark.parametrize("how", ["rst", "fin"])
@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("function", [add_one, defer_one])
def test_a_link_lost_after_commit_was_sent_is_never_retried(stage, how, applied, function):
    """`CommitOutcomeUnknown`: nothing doubled, and an ERROR record."""
    stage.dsql.cut("after-commit-sent", applied=applied, how=how)
    with pytest.raises(CommitOutcomeUnknown, match="may be committed or not") as caught:
        stage.run(function)
    assert caught.value.attempts == 1
    assert caught.value.__cause__ is not None
    assert stage.balances()[0] == (101 if applied else 100)
    assert stage.logger.messages == ["COMMIT outcome unknown"]
    assert stage.run(function) == 1


@pytest.mark.parametrize("applied", [True, False])
def test_an_internal_error_as_the_answer_to_commit_is_unknown(stage, applied):
    """XX000 "server unavailable": committed or not."""
    stage.dsql.unavailable(applied=applied)
    with pytest.raises(CommitOutcomeUnknown) as caught:
        stage.run(add_one)
    assert isinstance(caught.value.__cause__, DatabaseError)
    assert caught.value.__cause__.sqlstate == "XX000"
    assert stage.balances()[0] == (101 if applied else 100)


@pytest.mark.parametrize("fault", ["cut", "unavailable"])
def test_a_read_only_transaction_of_unknown_outcome_runs_again(stage, fault):
    """It wrote nothing, so nothing can double: BEGIN READ ONLY makes sure."""
    stage.dsql.cut("after-commit-sent") if fault == "cut" else stage.dsql.unavailable()

    def read(tx):
        return tx.attempt, tx.value("SELECT balance FROM accounts WHERE id = 1")

    assert stage.run(read, read_only=True) == (2, 100)


def test_a_read_only_transaction_can_not_write(stage):
    """25006, from the server."""
    with pytest.raises(DatabaseError) as caught:
        stage.run(add_one, read_only=True)
    assert caught.value.sqlstate == "25006"


# Unavailable in a statement


def test_an_unavailable_server_in_a_statement_runs_the_function_again(stage):
    """XX000 before COMMIT: nothing was committed, the same connection is used."""
    stage.dsql.unavailable(at="statement")
    assert stage.run(add_one) == 2
    assert stage.events("startup") == 1
    assert stage.logger.messages == ["server unavailable, retrying"]


def test_a_server_that_stays_unavailable_is_the_error_that_is_raised(stage):
    """As it was, once the attempts are used."""
    stage.dsql.unavailable(n=10, at="statement")
    with pytest.raises(DatabaseError, match="unavailable"):
        stage.run(add_one)


# Out of time


def test_no_time_for_another_attempt_after_a_conflict(stage):
    """`OCCRetryExhausted` with the reason `deadline`."""
    stage.dsql.conflict_next(9)
    slow = OCCRetryConfig(max_attempts=9, base_delay_ms=5000, max_delay_ms=5000)
    with pytest.raises(OCCRetryExhausted, match="the deadline came") as caught:
        stage.run(add_one, retry=slow, deadline_at=stage.monotonic() + 4)
    assert (caught.value.reason, caught.value.attempts) == ("deadline", 1)
    assert stage.logger.records[-1][2]["reason"] == "deadline"
    assert 0 < stage.logger.records[-1][2]["remaining_ms"] <= 4000
    assert stage.backends() == []


def test_a_statement_that_outlasts_the_deadline_is_cut_off(stage):
    """`DeadlineExceeded` in the phase `statement`; the link is closed, so nothing is left open."""
    with pytest.raises(DeadlineExceeded) as caught:
        stage.run(lambda tx: tx.run("SELECT pg_sleep(30)"), deadline_at=stage.monotonic() + 0.3)
    assert caught.value.phase == "statement"
    assert stage.run(add_one) == 1


def test_a_function_that_outlasts_the_deadline_commits_nothing(stage):
    """`DeadlineExceeded` in the phase `function`: the moment is judged before COMMIT is sent."""

    def slow(tx):
        tx.defer(ADD, amount=1, id=1)
        stage.late_by += 10

    with pytest.raises(DeadlineExceeded) as caught:
        stage.run(slow, deadline_at=stage.monotonic() + 5)
    assert caught.value.phase == "function"
    assert stage.balances() == [100, 100, 100]
    assert stage.flights() == []


def test_a_deadline_before_the_connection_is_there(stage):
    """`DeadlineExceeded` in the phase `connect`."""
    stage.dsql.refuse_connections(n=50, reason="rate")
    with pytest.raises(DeadlineExceeded) as caught:
        stage.run(add_one, deadline_at=stage.monotonic() + 0.05)
    assert caught.value.phase == "connect"


@pytest.mark.parametrize("applied", [True, False])
def test_no_answer_to_commit_before_the_deadline_is_unknown(stage, applied):
    """COMMIT was handed over: not `DeadlineExceeded`, for it may be committed."""
    stage.dsql.cut("after-commit-sent", applied=applied, how="silence")
    with pytest.raises(CommitOutcomeUnknown):
        stage.run(defer_one, deadline_at=stage.monotonic() + 1.5)  # time for the server to apply it
    assert stage.balances()[0] == (101 if applied else 100)


def test_no_answer_to_a_statement_before_the_deadline_leaves_nothing_open(stage):
    """`DeadlineExceeded`, and the next transaction has a new connection."""
    stage.dsql.cut("before-commit", how="silence")
    with pytest.raises(DeadlineExceeded) as caught:
        stage.run(add_one, deadline_at=stage.monotonic() + 0.3)
    assert caught.value.phase == "statement"
    assert stage.run(add_one) == 1
