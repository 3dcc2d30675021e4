"""Conflicts as DSQL has them: no waiting for locks, the earliest COMMIT wins, the loser's COMMIT answers OC000.

Each case by itself; `test_interleavings` has them in any order.
"""

import random
import threading
import time

import pytest

from dsql_local.protocol.messages import SYNC, Message, bind, execute, parse

FLUSH = Message(b"H")

OC000 = "40001 change conflicts with another transaction (OC000)"
OC001 = "40001 schema has been updated by another transaction (OC001)"
ONE = "UPDATE accounts SET balance = balance + {} WHERE id = {}"


def balances(dsql):
    return [int(balance) for (balance,) in dsql.execute("SELECT balance FROM accounts ORDER BY id")]


def reasons(dsql):
    return [event.reason for event in dsql.log if event.kind == "conflict"]


@pytest.fixture
def pair(connect):
    return connect(), connect()


def add(client, amount, account=1):
    client.run(ONE.format(amount, account))


def begin(*clients):
    """Open transactions whose snapshots are taken now."""
    for client in clients:
        client.run("BEGIN")
        client.run("SELECT 1 FROM accounts")


# --- The other transaction has not committed yet ---


@pytest.mark.parametrize("winner", [0, 1], ids=["the first writer commits first", "the second writer commits first"])
def test_two_writers_of_one_row(dsql, pair, winner):
    """Both statements answer; whoever commits first wins, whoever wrote first; the other one's COMMIT fails."""
    begin(*pair)
    add(pair[0], 1)
    add(pair[1], 10)
    pair[winner].run("COMMIT")
    assert pair[1 - winner].error("COMMIT") == OC000
    assert pair[1 - winner].status == b"I"
    assert balances(dsql)[0] == 100 + (1, 10)[winner]


def test_one_of_many_writers_wins(dsql, connect):
    """Of six writers of one row exactly the first to commit wins."""
    clients = [connect() for _ in range(6)]
    begin(*clients)
    for number, client in enumerate(clients):
        add(client, 10**number)
    clients[3].run("COMMIT")
    assert [client.error("COMMIT") for client in clients if client is not clients[3]] == [OC000] * 5
    assert balances(dsql)[0] == 1100


def test_no_statement_waits_for_a_lock(pair):
    """A statement that meets the lock of an open transaction answers in a fraction of a second."""
    begin(*pair)
    add(pair[0], 1)
    started = time.monotonic()
    add(pair[1], 10)
    assert time.monotonic() - started < 1.0  # PostgreSQL alone would wait for ever


def test_a_suspended_transaction_notices_nothing(dsql, pair):
    """Whoever was moved out of the way goes on with its own snapshot and its own writes, and commits when it is first."""
    first, second = pair
    begin(first, second)
    add(first, 1)
    add(second, 10)
    assert first.run("SELECT balance FROM accounts ORDER BY id") == [["101"], ["100"], ["100"]]
    add(first, 1, account=2)
    second.run("ROLLBACK")
    first.run("COMMIT")
    assert (balances(dsql), reasons(dsql)) == ([101, 101, 100], [])


def test_a_second_begin_changes_nothing(dsql, pair):
    """BEGIN inside a transaction is PostgreSQL's warning; what was written before it still steps aside and still commits."""
    begin(pair[0])
    add(pair[0], 1)
    pair[0].run("BEGIN")
    add(pair[0], 1, account=2)
    begin(pair[1])
    add(pair[1], 10)
    pair[1].run("ROLLBACK")
    pair[0].run("COMMIT")
    assert balances(dsql) == [101, 101, 100]


def test_a_chained_commit_begins_anew(dsql, pair):
    """After COMMIT AND CHAIN the next transaction is suspended and executed again by itself."""
    begin(pair[0])
    add(pair[0], 1)
    pair[0].run("COMMIT AND CHAIN")
    add(pair[0], 1)
    begin(pair[1])
    add(pair[1], 10)
    pair[0].run("COMMIT")
    assert pair[1].error("COMMIT") == OC000
    assert balances(dsql)[0] == 102


def test_a_long_transaction_steps_aside(dsql, pair):
    """Hundreds of statements are no obstacle to being suspended, executed again and committed."""
    begin(*pair)
    for number in range(300):
        pair[0].run(f"INSERT INTO accounts VALUES ({number + 10}, 1)")
    add(pair[0], 1)
    add(pair[1], 10)
    pair[0].run("COMMIT")
    assert pair[1].error("COMMIT") == OC000
    assert (len(balances(dsql)), balances(dsql)[0]) == (303, 101)


@pytest.mark.parametrize("winner", [0, 1])
def test_a_role_that_may_not_read(dsql, connect, winner):
    """A role that may insert and not read steps aside and loses like any other, only that it cannot be given a shadow."""
    dsql.execute("CREATE ROLE writer WITH LOGIN; GRANT INSERT ON accounts TO writer")
    dsql.execute(f"AWS IAM GRANT writer TO '{dsql.principal}'")
    pair = connect("writer"), connect()
    for client in pair:
        client.run("BEGIN")
        client.run("INSERT INTO accounts VALUES (9, 9)")
    pair[winner].run("COMMIT")
    assert pair[1 - winner].error("COMMIT") == OC000
    dsql.execute("REVOKE ALL ON accounts FROM writer")
    dsql.execute(f"AWS IAM REVOKE writer FROM '{dsql.principal}'; DROP ROLE writer")


def test_a_role_that_may_not_read_loses_at_its_statement(dsql, connect):
    """Without a shadow the loss is told at the statement: the documented exception."""
    dsql.execute("CREATE ROLE writer WITH LOGIN; GRANT INSERT ON accounts TO writer")
    dsql.execute(f"AWS IAM GRANT writer TO '{dsql.principal}'")
    dsql.execute("CREATE TABLE entries (account int REFERENCES accounts (id)); GRANT INSERT ON entries TO writer")
    client = connect("writer")
    client.run("BEGIN")
    client.run("INSERT INTO accounts VALUES (9, 9)")
    dsql.execute("DELETE FROM accounts WHERE id = 3")
    assert client.error("INSERT INTO entries VALUES (3)") == OC000
    assert client.flight("COMMIT") == ["ROLLBACK"]
    dsql.execute("DROP TABLE entries; REVOKE ALL ON accounts FROM writer")
    dsql.execute(f"AWS IAM REVOKE writer FROM '{dsql.principal}'; DROP ROLE writer")


def test_writers_in_opposite_order(dsql, pair):
    """Two transactions that take two rows crosswise do not deadlock: one of them commits."""
    first, second = pair
    begin(first, second)
    add(first, 1, account=1)
    add(second, 10, account=2)
    add(first, 1, account=2)
    add(second, 10, account=1)
    second.run("COMMIT")
    assert first.error("COMMIT") == OC000
    assert balances(dsql) == [110, 110, 100]


def test_a_failed_transaction_holds_no_locks(dsql, pair):
    """A transaction that has failed and is not rolled back yet is in nobody's way."""
    begin(pair[0])
    add(pair[0], 1)
    assert pair[0].error("SELECT 1 / 0").startswith("22012")
    add(pair[1], 10)
    assert pair[0].error("SELECT 1").startswith("25P02")
    assert pair[0].flight("COMMIT") == ["ROLLBACK"]
    assert balances(dsql)[0] == 110


def test_rows_in_another_order_are_the_same_answer(dsql, pair):
    """Rows that nobody has ordered may be found in another order when they are read again: that is no loss."""
    first, second = pair
    begin(first, second)
    first.run("UPDATE accounts SET balance = balance + 1")
    dsql.execute("INSERT INTO accounts VALUES (0, 0)")
    before = first.run("DELETE FROM accounts WHERE balance > 1 RETURNING id")
    add(second, 10)
    second.run("ROLLBACK")
    assert (len(before), first.flight("COMMIT"), balances(dsql)) == (3, ["COMMIT"], [0])


def test_disjoint_writes_do_not_conflict(dsql, pair):
    """Different rows of one table are nobody's conflict."""
    begin(*pair)
    add(pair[0], 1, account=1)
    add(pair[1], 10, account=2)
    assert [client.flight("COMMIT") for client in pair] == [["COMMIT"]] * 2
    assert (balances(dsql), reasons(dsql)) == ([101, 110, 100], [])


def test_reads_do_not_conflict(dsql, pair):
    """A transaction that only read commits after everything that it read was changed, and saw one snapshot throughout."""
    reader, writer = pair
    begin(reader)
    add(writer, 1)
    assert reader.run("SELECT sum(balance) FROM accounts") == [["300"]]
    reader.run("COMMIT")
    assert balances(dsql)[0] == 101


def test_a_statement_without_begin_wins_at_once(dsql, pair):
    """An autocommitted write commits before the open transaction that wrote the same row."""
    begin(pair[0])
    add(pair[0], 1)
    add(pair[1], 10)
    assert pair[0].error("COMMIT") == OC000
    assert balances(dsql)[0] == 110


def test_execute_takes_part(dsql, pair):
    """What runs past the front conflicts like a client's statement."""
    begin(pair[0])
    add(pair[0], 1)
    dsql.execute(ONE.format(10, 1))
    assert pair[0].error("COMMIT") == OC000


def test_ddl_does_not_wait_for_an_open_transaction(dsql, pair):
    """A change of a table that an open transaction has written does not wait for it: the writer loses, with OC001 at COMMIT."""
    begin(pair[0])
    add(pair[0], 1)
    pair[1].run("ALTER TABLE accounts ADD COLUMN note text")
    assert pair[0].error("COMMIT") == OC001
    assert dsql.execute("SELECT balance, note FROM accounts WHERE id = 1") == [["100", None]]


def test_two_inserts_of_one_key(dsql, pair):
    """Both inserts answer; the second COMMIT fails."""
    begin(*pair)
    for client in pair:
        client.run("INSERT INTO accounts VALUES (9, 9)")
    pair[1].run("COMMIT")
    assert pair[0].error("COMMIT") == OC000


# --- The other transaction has committed ---


def test_the_loser_goes_on_as_if_alone(dsql, pair):
    """After the other's COMMIT, the loser's statements answer from its own snapshot and writes, until its own COMMIT fails."""
    loser, winner = pair
    begin(loser)
    loser.run("INSERT INTO accounts VALUES (4, 400)")
    add(loser, 5, account=2)
    add(winner, 1)
    assert loser.run("UPDATE accounts SET balance = balance + 10 WHERE id = 1 RETURNING balance") == [["110"]]
    assert loser.run("UPDATE accounts SET balance = balance + 10 WHERE id = 1 RETURNING balance") == [["120"]]
    assert loser.run("SELECT * FROM accounts ORDER BY id") == [["1", "120"], ["2", "105"], ["3", "100"], ["4", "400"]]
    assert loser.error("COMMIT") == OC000
    assert loser.run("SELECT * FROM accounts ORDER BY id") == [["1", "101"], ["2", "100"], ["3", "100"]]
    assert reasons(dsql) == ["another transaction committed first"]


def test_a_loser_holds_no_locks(dsql, connect):
    """Whoever has lost blocks nobody: others write its rows and commit at once."""
    loser, winner, third = connect(), connect(), connect()
    begin(loser)
    add(loser, 1, account=2)
    add(winner, 1)
    add(loser, 1)
    add(third, 7, account=2)
    assert loser.error("COMMIT") == OC000
    assert balances(dsql) == [101, 107, 100]


def test_a_loser_may_roll_back(dsql, pair):
    """ROLLBACK of a lost transaction answers as ever, and its session goes on."""
    begin(pair[0])
    add(pair[1], 1)
    add(pair[0], 10)
    assert pair[0].flight("ROLLBACK") == ["ROLLBACK"]
    add(pair[0], 10)
    assert balances(dsql)[0] == 111


def test_a_whole_flight_may_lose(dsql, pair):
    """Statements and COMMIT under one Sync: the statements answer, COMMIT fails, the rest is skipped."""
    begin(pair[0])
    add(pair[1], 1)
    assert pair[0].flight(ONE.format(10, 1), "COMMIT", "SELECT 1") == ["UPDATE 1", "40001"]
    assert pair[0].status == b"I"


def test_prepared_statements_follow_to_the_shadow(dsql, pair):
    """A statement prepared before the loss answers after it, too."""
    loser, winner = pair
    loser.send(parse("s", ONE.format(10, 1) + " RETURNING balance"), SYNC)
    loser.replies()
    for _ in range(2):
        begin(loser)
        before = balances(dsql)[0]
        add(winner, 1)
        loser.send(bind("", "s"), execute(""), SYNC)
        assert loser.rows(loser.replies()) == [[str(before + 10)]]
        assert loser.error("COMMIT") == OC000


def test_an_insert_of_a_key_that_another_transaction_committed(dsql, pair):
    """A duplicate that the snapshot does not show is a conflict at COMMIT, not a violation at the statement."""
    begin(pair[0])
    pair[1].run("INSERT INTO accounts VALUES (9, 1)")
    assert pair[0].run("INSERT INTO accounts VALUES (9, 2) RETURNING balance") == [["2"]]
    assert pair[0].error("COMMIT") == OC000


def test_a_real_duplicate_is_a_violation(pair):
    """A duplicate that the transaction sees is 23505 at the statement, with the constraint's own name."""
    begin(pair[0])
    assert pair[0].error("INSERT INTO accounts VALUES (1, 2)") == (
        '23505 duplicate key value violates unique constraint "accounts_pkey"'
    )
    assert pair[0].status == b"E"
    assert pair[0].flight("COMMIT") == ["ROLLBACK"]


@pytest.mark.parametrize("removal", ["DELETE FROM accounts WHERE id = 1", "UPDATE accounts SET id = 7 WHERE id = 1"])
@pytest.mark.parametrize(
    ("statement", "outcome"),
    [
        ("INSERT INTO accounts VALUES (1, 5)", ["23505"]),
        ("UPDATE accounts SET id = 1 WHERE id = 2", ["23505"]),
        ("INSERT INTO accounts VALUES (1, 5) ON CONFLICT (id) DO UPDATE SET balance = 5", ["INSERT 0 1"]),
        ("INSERT INTO accounts VALUES (1, 5) ON CONFLICT DO NOTHING", ["INSERT 0 0"]),
    ],
)
def test_a_key_that_another_transaction_removed_is_still_there(dsql, pair, removal, statement, outcome):
    """For a snapshot that shows it: what would be its second row is a violation, or a conflict at COMMIT."""
    begin(pair[0])
    pair[1].run(removal)
    assert pair[0].flight(statement) == outcome
    if outcome == ["23505"]:
        assert pair[0].flight("COMMIT") == ["ROLLBACK"]
    else:
        assert pair[0].run("SELECT count(*) FROM accounts WHERE id = 1") == [["1"]]
        assert pair[0].error("COMMIT") == OC000
    assert dsql.execute("SELECT id FROM accounts WHERE id = 1") == []


def test_a_key_that_another_transaction_removed_counts_when_executed_again(dsql, connect):
    """Also for a transaction that wrote it when it was there, was suspended, and comes back when it is gone."""
    first, second, third = connect(), connect(), connect()
    begin(first, second)
    first.run("INSERT INTO accounts VALUES (1, 5) ON CONFLICT (id) DO UPDATE SET balance = 5")
    add(second, 10)
    third.run("DELETE FROM accounts WHERE id = 1")
    assert first.run("SELECT balance FROM accounts WHERE id = 1") == [["5"]]
    assert [client.error("COMMIT") for client in (first, second)] == [OC000] * 2
    assert len(balances(dsql)) == 2


def test_other_errors_stay_errors(pair):
    """A check violation in a lost transaction is still the statement's error."""
    begin(pair[0])
    add(pair[1], 1)
    assert pair[0].error("UPDATE accounts SET balance = -1 WHERE id = 1").startswith("23514")


def test_a_table_that_is_named_with_its_schema(pair):
    """What no shadow can stand for is refused at the statement: the documented exception."""
    begin(pair[0])
    add(pair[1], 1)
    assert pair[0].error("UPDATE public.accounts SET balance = 0 WHERE id = 1") == OC000
    assert pair[0].flight("COMMIT") == ["ROLLBACK"]


# --- FOR UPDATE, foreign keys, generated values ---


def test_for_update_is_a_write(dsql, pair):
    """A row that was locked FOR UPDATE and committed unchanged makes the later writer lose, and the other way round."""
    begin(*pair)
    pair[0].run("SELECT * FROM accounts WHERE id = 1 FOR UPDATE")
    pair[0].run("COMMIT")
    add(pair[1], 10)
    assert pair[1].error("COMMIT") == OC000
    begin(*pair)
    pair[0].run("SELECT * FROM accounts WHERE id = 1 FOR UPDATE")
    add(pair[1], 10)
    pair[1].run("COMMIT")
    assert pair[0].error("COMMIT") == OC000
    assert balances(dsql) == [110, 100, 100]


def test_for_update_of_other_rows_is_no_conflict(dsql, pair):
    """Only the rows that were locked count as written."""
    begin(*pair)
    pair[0].run("SELECT * FROM accounts WHERE id = 2 FOR UPDATE")
    pair[0].run("COMMIT")
    add(pair[1], 10)
    pair[1].run("COMMIT")
    assert balances(dsql) == [110, 100, 100]


@pytest.mark.parametrize("winner", [0, 1], ids=["the share", "the delete"])
@pytest.mark.parametrize("first", [0, 1], ids=["share first", "delete first"])
def test_a_key_that_is_shared_and_deleted(pair, first, winner):
    """FOR KEY SHARE of a row and its deletion: whoever commits later loses, whoever came first."""
    statements = ("SELECT 1 FROM accounts WHERE id = 1 FOR KEY SHARE", "DELETE FROM accounts WHERE id = 1")
    begin(*pair)
    for turn in (first, 1 - first):
        pair[turn].run(statements[turn])
    pair[winner].run("COMMIT")
    assert pair[1 - winner].error("COMMIT") == OC000


def test_a_shared_key_leaves_the_rest_of_its_row_alone(dsql, pair):
    """A change that leaves the key alone does not conflict with FOR KEY SHARE."""
    begin(*pair)
    pair[0].run("SELECT 1 FROM accounts WHERE id = 1 FOR KEY SHARE")
    add(pair[1], 5)
    pair[0].run("COMMIT")
    pair[1].run("COMMIT")
    assert balances(dsql)[0] == 105


def test_a_parent_deleted_under_its_child(dsql, pair):
    """Deleting a row and inserting one that refers to it: the later COMMIT fails."""
    dsql.execute("DROP TABLE IF EXISTS entries; CREATE TABLE entries (account int REFERENCES accounts (id))")
    for winner in (0, 1):
        dsql.execute("DELETE FROM entries; INSERT INTO accounts VALUES (5, 0) ON CONFLICT DO NOTHING")
        begin(*pair)
        pair[0].run("DELETE FROM accounts WHERE id = 5")
        pair[1].run("INSERT INTO entries VALUES (5)")
        pair[winner].run("COMMIT")
        assert pair[1 - winner].error("COMMIT") == OC000
    dsql.execute("DROP TABLE entries")


@pytest.mark.parametrize("statement", ["DELETE FROM accounts WHERE id = 3", "UPDATE accounts SET id = 4 WHERE id = 3"])
def test_a_parent_deleted_after_its_child_has_come(dsql, pair, statement):
    """Of a child that its snapshot does not show a transaction hears at COMMIT; of one that it shows, at the statement."""
    dsql.execute("DROP TABLE IF EXISTS entries; CREATE TABLE entries (account int REFERENCES accounts (id))")
    begin(pair[0])
    pair[1].run("INSERT INTO entries VALUES (3)")
    pair[0].run(statement)
    assert pair[0].error("COMMIT") == OC000
    begin(pair[0])
    assert pair[0].error(statement).startswith("23503")
    assert pair[0].flight("COMMIT") == ["ROLLBACK"]
    assert pair[1].error("INSERT INTO entries VALUES (8)").startswith("23503")
    dsql.execute("DROP TABLE entries")


def test_generated_values_stay_what_they_were(dsql, pair):
    """A value that the client has seen never changes: the transaction that would answer otherwise loses instead."""
    dsql.execute("DROP TABLE IF EXISTS made; CREATE TABLE made (id uuid DEFAULT gen_random_uuid(), n int)")
    first, second = pair
    begin(first, second)
    add(first, 1)
    ((made,),) = first.run("INSERT INTO made (n) VALUES (1) RETURNING id")
    add(second, 10)
    assert first.run("SELECT id FROM made") == [[made]]
    assert first.error("COMMIT") == OC000
    dsql.execute("DROP TABLE made")


def test_a_suspended_copy_is_done_again(dsql, pair):
    """The data of a COPY is kept, and written when the transaction gets its turn."""
    first, second = pair
    begin(first, second)
    first.send(parse("", "COPY accounts FROM STDIN"), bind("", ""), execute(""), SYNC)
    while first.receive().kind != b"G":
        pass
    first.send(Message(b"d", b"8\t80\n"), Message(b"c"), SYNC)
    assert first.outcomes() == ["COPY 1"]
    add(first, 1)
    add(second, 10)
    second.run("ROLLBACK")
    first.run("COMMIT")
    assert balances(dsql) == [101, 100, 100, 80]


# --- Before a Sync ---


def flush(client, sql):
    """Execute a statement, wait for its answer, and keep its implicit transaction open."""
    client.send(parse("", sql), bind("", ""), execute(""), FLUSH)
    while (message := client.receive()).kind not in (b"C", b"E"):
        pass
    return message


def sync(client):
    client.send(SYNC)
    return client.outcomes()


@pytest.mark.parametrize("winner", [0, 1], ids=["the Sync", "the COMMIT"])
def test_an_implicit_transaction_that_waits_for_its_sync(dsql, pair, winner):
    """It steps aside like an explicit one, and the earliest to commit wins; its loss is told at the Sync."""
    begin(pair[1])
    flush(pair[0], ONE.format(1, 1))
    add(pair[1], 10)
    if winner == 0:
        assert (sync(pair[0]), pair[0].status) == ([], b"I")
        assert pair[1].error("COMMIT") == OC000
    else:
        pair[1].run("COMMIT")
        assert (sync(pair[0]), pair[0].status) == (["40001"], b"I")
    assert balances(dsql)[0] == 100 + (1, 10)[winner]


def test_a_begin_before_the_sync_makes_it_an_explicit_one(dsql, pair):
    """What was executed before belongs to it, as in PostgreSQL."""
    flush(pair[0], ONE.format(1, 1))
    assert pair[0].flight("BEGIN") == ["BEGIN"]
    assert pair[0].status == b"T"
    pair[0].run("ROLLBACK")
    flush(pair[0], ONE.format(2, 1))
    assert pair[0].flight("COMMIT") == ["COMMIT"]
    assert balances(dsql)[0] == 102


def test_an_implicit_transaction_that_fails_before_its_sync(dsql, pair):
    """Nothing of it stays, the Sync has no more to say, and the session goes on."""
    flush(pair[0], ONE.format(1, 1))
    assert flush(pair[0], "SELECT 1 / 0").kind == b"E"
    assert (sync(pair[0]), pair[0].status, balances(dsql)[0]) == ([], b"I", 100)
    assert flush(pair[0], ONE.format(1, 1)).kind == b"C"
    assert (sync(pair[0]), balances(dsql)[0]) == ([], 101)


def test_a_change_of_the_catalog_before_a_sync(pair):
    """It is news to everybody else, once it is committed."""
    look = "SELECT count(*) FROM accounts"
    before = pair[1].run(look)
    flush(pair[0], "GRANT SELECT ON accounts TO PUBLIC")
    assert pair[1].run(look) == before
    sync(pair[0])
    assert pair[1].error(look) == OC001
    flush(pair[0], "REVOKE SELECT ON accounts FROM PUBLIC")
    sync(pair[0])


# --- Many at once ---


def test_many_threads_on_few_rows(dsql, connect):
    """Eight clients at once: every statement answers, only COMMITs lose, and each increment that committed is there."""
    outcomes: list[list[str]] = []

    def work(seed):
        client, order = connect(), random.Random(seed)
        for _ in range(8):
            row, other = order.choices((1, 2, 3), k=2)
            outcomes.append(client.flight("BEGIN", ONE.format(1, row)) + client.flight(ONE.format(1, other), "COMMIT"))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {tuple(outcome[:3]) for outcome in outcomes} == {("BEGIN", "UPDATE 1", "UPDATE 1")}
    assert {outcome[3] for outcome in outcomes} <= {"COMMIT", "40001"}
    assert (len(outcomes), sum(balances(dsql))) == (64, 300 + 2 * sum(outcome[3] == "COMMIT" for outcome in outcomes))
