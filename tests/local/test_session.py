"""A session: what passes through unchanged, and the faults that were asked for."""

import pytest

from dsql_local import SqlError
from dsql_local.protocol.messages import SYNC, Message, bind, execute, parse, query

FLUSH = Message(b"H")

OC000 = "40001 change conflicts with another transaction (OC000)"


def balances(dsql):
    return [int(balance) for (balance,) in dsql.execute("SELECT balance FROM accounts ORDER BY id")]


def flights(dsql):
    return [event.statements for event in dsql.log if event.kind == "flight"]


# --- What passes through ---


def test_one_flight_is_one_transaction(dsql, connect):
    """BEGIN, statements and COMMIT under one Sync are executed in order, and logged as one flight."""
    client = connect()
    statements = ("BEGIN", "UPDATE accounts SET balance = 7 WHERE id = 1", "COMMIT")
    assert client.flight(*statements) == ["BEGIN", "UPDATE 1", "COMMIT"]
    assert (client.status, balances(dsql), flights(dsql)) == (b"I", [7, 100, 100], [statements])


@pytest.mark.parametrize("begin", [(), ("BEGIN",)], ids=["implicit", "explicit"])
def test_an_error_skips_the_rest_of_its_flight(dsql, connect, begin):
    """What follows an error up to the Sync is not executed, COMMIT included, and nothing of it stays."""
    client = connect()
    outcomes = client.flight(*begin, "UPDATE accounts SET balance = 7", "SELECT 1/0", "UPDATE accounts SET balance = 8", "COMMIT")
    assert outcomes == [*begin, "UPDATE 3", "22012"]
    assert client.status == (b"E" if begin else b"I")
    assert balances(dsql) == [100, 100, 100]


def test_a_failed_transaction_ends_with_rollback(connect):
    """After an error 25P02 until the end, and COMMIT answers ROLLBACK without an error."""
    client = connect()
    assert client.flight("BEGIN", "SELECT 1/0") == ["BEGIN", "22012"]
    assert client.flight("SELECT 1") == ["25P02"]
    assert (client.flight("COMMIT"), client.status) == (["ROLLBACK"], b"I")


def test_several_statements_in_one_query(dsql, connect):
    """A script in one simple Query is answered once, statement by statement."""
    client = connect()
    client.send(query("BEGIN; UPDATE accounts SET balance = 1 WHERE id = 1; COMMIT; SELECT 2"))
    assert client.outcomes() == ["BEGIN", "UPDATE 1", "COMMIT", "SELECT 1"]
    assert (client.inbox, balances(dsql)) == ([], [1, 100, 100])


def test_an_implicit_transaction_is_atomic(dsql, connect):
    """Statements in one Query without BEGIN stand or fall together."""
    client = connect()
    client.send(query("UPDATE accounts SET balance = 1; SELECT 1/0"))
    assert client.outcomes() == ["UPDATE 3", "22012"]
    assert balances(dsql) == [100, 100, 100]


def test_an_empty_query_is_answered(connect):
    """An empty Query and a lone Sync are answered by ReadyForQuery."""
    client = connect()
    client.send(query(""))
    assert [message.kind for message in client.replies()] == [b"I"]
    client.send(SYNC)
    assert (client.replies(), client.status) == ([], b"I")


def test_many_flights_may_be_under_way(connect):
    """Flights sent without waiting are answered in their order."""
    client = connect()
    for number in range(20):
        client.send(parse("", f"SELECT {number}"), bind("", ""), execute(""), SYNC)
    assert [client.rows(client.replies()) for _ in range(20)] == [[[str(number)]] for number in range(20)]


@pytest.mark.parametrize("begin", [False, True], ids=["outside", "inside"])
def test_a_flush_brings_the_answers_before_the_sync(connect, begin):
    """Parse, Bind and a part of the rows are each answered on Flush, and the portal stays for the rest."""
    client = connect()
    if begin:
        client.run("BEGIN")
    client.send(parse("", "SELECT generate_series(1, 3)"), bind("", ""), FLUSH)
    assert [client.receive().kind for _ in range(2)] == [b"1", b"2"]
    client.send(Message(b"E", b"\0\0\0\0\2"), FLUSH)
    assert [client.receive().kind for _ in range(3)] == [b"D", b"D", b"s"]
    client.send(execute(""), SYNC)
    assert [message.kind for message in client.replies()] == [b"D", b"C"]
    assert client.status == (b"T" if begin else b"I")


@pytest.mark.parametrize("begin", [False, True], ids=["outside", "inside"])
def test_an_error_before_a_flush_skips_to_the_sync(connect, begin):
    """After an error what follows is ignored until the Sync, which is answered."""
    client = connect()
    if begin:
        client.run("BEGIN")
    client.send(parse("", "nonsense"), FLUSH)
    assert client.receive().kind == b"E"
    client.send(bind("", ""), execute(""), FLUSH, SYNC)
    assert client.replies() == []
    assert client.status == (b"E" if begin else b"I")
    if not begin:
        assert client.run("SELECT 1") == [["1"]]


def test_prepared_statements_last(connect):
    """A named statement prepared in one transaction is executed in another."""
    client = connect()
    client.run("BEGIN")
    client.send(parse("s", "SELECT 5"), SYNC)
    client.replies()
    client.run("ROLLBACK")
    client.send(bind("", "s"), execute(""), SYNC)
    assert client.rows(client.replies()) == [["5"]]


@pytest.mark.parametrize("begin", [False, True], ids=["outside", "inside"])
@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
def test_copy_in_and_out(dsql, connect, begin, extended):
    """COPY works both ways by both protocols."""
    client = connect()
    if begin:
        client.run("BEGIN")
    copy = "COPY accounts FROM STDIN"
    client.send(*((parse("", copy), bind("", ""), execute(""), SYNC) if extended else (query(copy),)))
    while client.receive().kind != b"G":
        pass
    client.send(Message(b"d", b"8\t80\n"), Message(b"d", b"9\t90\n"), Message(b"c"), *((SYNC,) if extended else ()))
    assert client.outcomes() == ["COPY 2"]
    client.send(query("COPY accounts TO STDOUT"))
    assert b"".join(message.body for message in client.replies() if message.kind == b"d").endswith(b"8\t80\n9\t90\n")
    if begin:
        client.run("COMMIT")
    assert balances(dsql) == [100, 100, 100, 80, 90]


@pytest.mark.parametrize("begin", [False, True], ids=["outside", "inside"])
def test_copy_in_by_a_client_that_flushes(dsql, connect, begin):
    """After a Flush the data comes, and its answer, before there is a Sync; outside a transaction that one commits."""
    client = connect()
    if begin:
        client.run("BEGIN")
    client.send(parse("", "COPY accounts FROM STDIN"), bind("", ""), execute(""), FLUSH)
    while client.receive().kind != b"G":
        pass
    client.send(Message(b"d", b"8\t80\n"), FLUSH, Message(b"c"), FLUSH)
    assert client.receive().texts(1) == ["COPY 1"]
    assert balances(dsql) == [100, 100, 100]
    client.send(SYNC)
    assert (client.outcomes(), client.status) == ([], b"T" if begin else b"I")
    if begin:
        client.run("COMMIT")
    assert balances(dsql) == [100, 100, 100, 80]


def test_a_copy_that_fails_before_its_sync(dsql, connect):
    """Its error comes when the data has ended; nothing of it stays, and the connection goes on."""
    client = connect()
    client.send(parse("", "COPY accounts FROM STDIN"), bind("", ""), execute(""), FLUSH)
    while client.receive().kind != b"G":
        pass
    client.send(Message(b"d", b"8\t80\nnonsense\n"), Message(b"c"), SYNC)
    assert (client.outcomes(), client.status) == (["22P02"], b"I")
    assert balances(dsql) == [100, 100, 100]


def test_a_failing_copy_ends_well(connect):
    """Bad data fails the COPY, and the connection goes on."""
    client = connect()
    client.send(query("COPY accounts FROM STDIN"))
    assert client.receive().kind == b"G"
    client.send(Message(b"d", b"nonsense\n"), Message(b"c"))
    assert client.outcomes() == ["22P02"]
    assert client.run("SELECT 1") == [["1"]]


@pytest.mark.parametrize("begin", [False, True], ids=["outside", "inside"])
def test_large_answers_pass(connect, begin):
    """An answer of some megabytes arrives whole, held back or not."""
    client = connect()
    if begin:
        client.run("BEGIN")
    rows = client.run("SELECT repeat('x', 1000) FROM generate_series(1, 4000)")
    assert (len(rows), {len(value) for (value,) in rows}) == (4000, {1000})


def test_savepoints_are_refused(connect):
    """DSQL has none: 0A000, and the transaction has failed."""
    client = connect()
    assert client.error("SAVEPOINT a") == "0A000 unsupported transaction statement: SAVEPOINT"
    assert client.flight("BEGIN", "SAVEPOINT a") == ["BEGIN", "0A000"]
    assert client.flight("ROLLBACK TO a") == ["25P02"]
    assert client.flight("ROLLBACK") == ["ROLLBACK"]


# --- Faults ---


@pytest.mark.parametrize("code", ["OC000", "OC001"])
def test_conflicts_on_demand(dsql, connect, code):
    """The next COMMITs fail with the code's text and roll back; the one after succeeds."""
    dsql.conflict_next(2, code)
    client = connect()
    for expected in ("40001", "40001", "COMMIT"):
        assert client.flight("BEGIN", "UPDATE accounts SET balance = balance + 1", "COMMIT")[-1] == expected
        assert client.status == b"I"
    assert balances(dsql) == [101, 101, 101]
    assert [event.code for event in dsql.log if event.kind == "conflict"] == [code, code]


def test_a_conflict_skips_the_rest_of_its_flight(dsql, connect):
    """What follows the failed COMMIT in its flight is not executed."""
    dsql.conflict_next()
    client = connect()
    assert client.flight("BEGIN", "COMMIT", "UPDATE accounts SET balance = 0") == ["BEGIN", "40001"]
    assert balances(dsql) == [100, 100, 100]


def test_a_conflict_waits_for_a_commit_of_something(dsql, connect):
    """A COMMIT of a failed transaction, or of none, does not use it up."""
    dsql.conflict_next()
    client = connect()
    client.flight("COMMIT")
    client.flight("BEGIN", "SELECT 1/0")
    assert client.flight("COMMIT") == ["ROLLBACK"]
    assert client.flight("BEGIN", "COMMIT") == ["BEGIN", "40001"]


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_a_cut_before_the_first_flight(dsql, connect, how):
    """The next flight outside a transaction is not executed, and the client sees the cut."""
    client, other = connect(), connect()
    other.run("BEGIN")
    dsql.cut("before-first-flight", how=how)
    other.run("UPDATE accounts SET balance = 1 WHERE id = 1")
    with pytest.raises(Exception, match=how):
        client.flight("BEGIN", "UPDATE accounts SET balance = 0", "COMMIT")
    other.run("COMMIT")
    assert balances(dsql) == [1, 100, 100]
    (event,) = [event for event in dsql.log if event.kind == "cut"]
    assert (event.at, event.how, event.applied) == ("before-first-flight", how, False)


def test_a_cut_before_the_commit(dsql, connect):
    """The next flight inside a transaction is cut unanswered, and the transaction is rolled back."""
    client = connect()
    client.flight("BEGIN", "UPDATE accounts SET balance = 0")
    dsql.cut("before-commit")
    with pytest.raises(Exception, match="rst"):
        client.flight("UPDATE accounts SET balance = 1")
    assert balances(dsql) == [100, 100, 100]


def test_a_cut_before_the_commit_hits_begin_with_a_statement(dsql, connect):
    """BEGIN alone and a flight with COMMIT pass; BEGIN with a statement is cut."""
    client = connect()
    dsql.cut("before-commit")
    assert client.flight("BEGIN", "SELECT 1", "COMMIT") == ["BEGIN", "SELECT 1", "COMMIT"]
    assert client.flight("BEGIN") == ["BEGIN"]
    assert client.flight("COMMIT") == ["COMMIT"]
    with pytest.raises(Exception, match="rst"):
        client.flight("BEGIN", "SELECT 1")


@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("how", ["rst", "fin"])
def test_a_cut_after_the_commit_was_sent(dsql, connect, applied, how):
    """The COMMIT is not answered; it was applied, or it was not."""
    client = connect()
    client.flight("BEGIN", "UPDATE accounts SET balance = 0 WHERE id = 1")
    dsql.cut("after-commit-sent", applied=applied, how=how)
    with pytest.raises(Exception, match=how):
        client.flight("UPDATE accounts SET balance = 0 WHERE id = 2", "COMMIT")
    assert balances(dsql) == ([0, 0, 100] if applied else [100, 100, 100])


@pytest.mark.parametrize("applied", [True, False])
def test_unavailable_at_commit(dsql, connect, applied):
    """XX000 answers the COMMIT, which was applied or not; the connection goes on."""
    client = connect()
    dsql.unavailable(1, at="commit", applied=applied)
    client.flight("BEGIN", "UPDATE accounts SET balance = 0")
    assert client.error("COMMIT") == "XX000 server unavailable"
    assert (client.status, balances(dsql)) == (b"I", [0] * 3 if applied else [100] * 3)
    assert client.flight("BEGIN", "COMMIT") == ["BEGIN", "COMMIT"]


def test_unavailable_at_a_statement(dsql, connect):
    """XX000 answers a statement, which was not executed; inside a transaction that has failed it."""
    client = connect()
    dsql.unavailable(2, at="statement")
    assert client.error("UPDATE accounts SET balance = 0") == "XX000 server unavailable"
    assert client.flight("BEGIN", "UPDATE accounts SET balance = 0", "COMMIT") == ["BEGIN", "XX000"]
    assert client.status == b"E"
    assert client.flight("ROLLBACK") == ["ROLLBACK"]
    assert balances(dsql) == [100, 100, 100]


@pytest.mark.parametrize(
    "ask",
    [
        lambda dsql: dsql.conflict_next(0),
        lambda dsql: dsql.conflict_next(1, "OC002"),
        lambda dsql: dsql.cut("sometimes"),
        lambda dsql: dsql.cut("before-commit", how="gently"),
        lambda dsql: dsql.unavailable(at="connect"),
        lambda dsql: dsql.refuse_connections(1, "mood"),
    ],
)
def test_a_fault_that_there_is_not_is_an_error(dsql, ask):
    """A misspelt fault would never take effect: it is refused at once, with the words that exist."""
    with pytest.raises(ValueError, match="must be"):
        ask(dsql)


# --- Past the front ---


def test_execute_runs_scripts(dsql):
    """Each statement is a transaction of its own; the rows of the last one come back as text; errors have their code."""
    assert dsql.execute("CREATE TABLE x (a int, b text); INSERT INTO x VALUES (1, NULL); SELECT * FROM x") == [["1", None]]
    with pytest.raises(SqlError, match="division by zero") as failed:
        dsql.execute("UPDATE x SET a = 2; SELECT 1/0; UPDATE x SET a = 3")
    assert failed.value.sqlstate == "22012"
    assert dsql.execute("SELECT a FROM x; DROP TABLE x") == []


def test_execute_leaves_no_transaction_open(dsql):
    """A script that fails between BEGIN and COMMIT is rolled back."""
    with pytest.raises(SqlError):
        dsql.execute("BEGIN; DELETE FROM accounts; SELECT 1/0; COMMIT")
    assert balances(dsql) == [100, 100, 100]


def test_execute_meets_no_fault(dsql):
    """Faults are for clients: what is run past the front neither meets nor uses them, and is not logged."""
    dsql.conflict_next()
    dsql.execute("BEGIN; UPDATE accounts SET balance = 1; COMMIT")
    assert (balances(dsql), dsql.log) == ([1, 1, 1], [])
