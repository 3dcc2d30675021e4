"""Faults on demand: by method, by SQL comment, by words; where each takes effect, and that the table of them is complete."""

import inspect
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import psycopg
import pytest

from dsql_local import LocalDsql
from dsql_local.faults.commands import InvalidFaultCommand, extract_commands, parse_command
from dsql_local.faults.kinds import CutPoint
from dsql_local.faults.plan import FaultPlan
from dsql_local.faults.requests import FaultRequests
from dsql_local.faults.table import COMMANDS
from dsql_local.protocol.messages import SYNC, Message, bind, error_fields, execute, parse, query

EXAMPLES = [(f"{spec.word} {arguments}".rstrip(), *rest) for spec in COMMANDS.values() for arguments, *rest in spec.examples]
ROOT = Path(__file__).parents[2]
OPENING = ["on-connect", "after-tls", "after-startup", "after-password", "before-ready"]


def lost(action):
    """How the link ends in what `action` does."""
    with pytest.raises(Exception) as ended:
        action()
    assert type(ended.value).__name__ == "Lost" or isinstance(ended.value, OSError | AssertionError), ended.value
    return ended.value


def kinds(dsql, kind):
    return [event for event in dsql.log if event.kind == kind]


# --- The table ---


@pytest.mark.parametrize("words", [words for words, *_ in EXAMPLES])
def test_the_words_of_a_row_are_a_call(words):
    """The method is one of `LocalDsql`, and takes these arguments."""
    command = parse_command(words)
    inspect.signature(getattr(LocalDsql, command.method)).bind(None, **command.arguments)


def page():
    text = (ROOT / "docs" / "local-dsql.md").read_text()
    return text.split("## Faults on demand", 1)[1].split("\n## ", 1)[0]


def test_every_fault_and_every_point_is_documented():
    """No word and no point of the protocol is missing from the page."""
    assert {words.split()[0] for words, *_ in EXAMPLES} == COMMANDS.keys() - {"clear"}
    assert [point for point in get_args(CutPoint) if f"`{point}`" not in page() and f" {point}`" not in page()] == []


def test_the_page_has_the_tables():
    """Words and methods, then words and effects, row by row."""
    methods = [f"| `{spec.word}` | `{spec.method}({', '.join(spec.parameters)})` |" for spec in COMMANDS.values()]
    effects = [f"| `{words}` | {sees} | {work} |".replace("|  |", "| |") for words, sees, work in EXAMPLES]
    assert re.findall(r"^\| `.*$", page(), re.MULTILINE) == methods + effects


@pytest.mark.parametrize(
    "words", ["", "conflct", "cut at=nowhere=1 x=2", "conflict n=many", "expire-tokens now", "cut at-parse at-parse=1"]
)
def test_words_that_nobody_understands_are_an_error(words):
    """What there is is named."""
    with pytest.raises(InvalidFaultCommand, match=r"there is no fault|takes|cannot be"):
        parse_command(words)


@pytest.mark.parametrize(
    "words", ["cut nowhere", "conflict OC009", "conflict n=0", "conflict-rate 2", "delay -1", "refuse nobody", "cut"]
)
def test_a_fault_that_could_never_take_effect_is_an_error(dsql, words):
    """A test that asks for it does not pass for nothing."""
    with pytest.raises(InvalidFaultCommand):
        dsql.order(words)
    assert dsql.faults_waiting == []


# --- Comments ---


@pytest.mark.parametrize(
    ("sql", "rest", "orders"),
    [
        ("SELECT 1", "SELECT 1", []),
        ("SELECT 1 /* dsql: conflict OC000 */", "SELECT 1  ", ["conflict OC000"]),
        ("/*dsql:delay 5*/SELECT/* dsql: cut at-bind */1", " SELECT 1", ["delay 5", "cut at-bind"]),
        ("SELECT '/* dsql: cut */', $$/* dsql: cut */$$", "SELECT '/* dsql: cut */', $$/* dsql: cut */$$", []),
        ("SELECT 1 -- /* dsql: cut */\n+ 1 /* said dsql: no */", "SELECT 1 -- /* dsql: cut */\n+ 1 /* said dsql: no */", []),
    ],
)
def test_a_comment_is_taken_out_and_nothing_else(sql, rest, orders):
    """Strings and other comments stay as they are."""
    assert extract_commands(sql) == (rest, orders)


def test_nobody_else_sees_the_comment(dsql, connect):
    """Neither the log's statements nor PostgreSQL: it is gone from both protocols."""
    client = connect()
    client.run("SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid() /* dsql: delay 0 */")
    seen = client.run("/* dsql: delay 0 */ SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()")
    assert "dsql:" not in str(seen)
    client.flight("SELECT 1 /* dsql: delay 0 */")
    assert not [sql for event in kinds(dsql, "flight") for sql in event.statements if "dsql:" in sql]
    assert len(kinds(dsql, "fault")) == 3


def test_a_comment_applies_to_its_own_transaction(dsql, connect):
    """Inside a transaction its COMMIT; another connection's goes through."""
    one, two = connect(), connect()
    for client in (one, two):
        client.run("BEGIN")
    one.run("UPDATE accounts SET balance = 1 WHERE id = 1 /* dsql: conflict OC001 */")
    two.run("UPDATE accounts SET balance = 2 WHERE id = 2")
    assert two.run("COMMIT") == []
    assert one.error("COMMIT") == "40001 schema has been updated by another transaction (OC001)"
    assert dsql.execute("SELECT balance FROM accounts ORDER BY id") == [["100"], ["2"], ["100"]]


def test_a_comment_outside_a_transaction_applies_to_its_statement(dsql, connect):
    """There is no COMMIT that could: the statement conflicts, once."""
    client = connect()
    assert client.error("UPDATE accounts SET balance = 1 /* dsql: conflict OC000 */").startswith("40001")
    assert client.flight("UPDATE accounts SET balance = 1 /* dsql: conflict */") == ["40001"]
    assert client.flight("UPDATE accounts SET balance = 1") == ["UPDATE 3"]


def test_a_comment_that_nobody_understands_ends_the_connection(connect):
    """With a sentence that names what there is."""
    client = connect()
    client.send(query("SELECT 1 /* dsql: conflct */"))
    fields = error_fields(client.receive())
    assert (fields["S"], fields["C"]) == ("FATAL", "42601")
    assert "there is no fault 'conflct'; there are conflict, " in fields["M"]
    assert str(lost(client.receive)) == "fin"


def test_a_comment_can_inject_a_fault_of_the_whole_server(dsql, connect):
    """The next connection is refused, the one that asked goes on."""
    client = connect()
    assert client.run("SELECT 1 /* dsql: refuse connections */") == [["1"]]
    with pytest.raises(Exception, match="53300"):
        connect()
    assert client.run("SELECT 1") == [["1"]]


# --- Where the link is cut ---


@pytest.mark.parametrize("how", ["rst", "fin"])
@pytest.mark.parametrize("at", OPENING)
def test_a_link_can_be_cut_while_it_is_opened(dsql, connect, at, how):
    """At each step of it, once; the next connection comes in."""
    dsql.cut(at, how=how)
    lost(connect)
    assert [(event.at, event.how) for event in kinds(dsql, "cut")] == [(at, how)]
    assert connect().run("SELECT 1") == [["1"]]


@pytest.mark.parametrize("at", ["on-connect", "after-startup"])
def test_silence_while_it_is_opened_lasts_until_the_client_has_gone(dsql, at):
    """Nothing is answered, and nothing is refused."""
    dsql.cut(at, how="silence")
    with socket.create_connection((dsql.host, dsql.port)) as link:
        link.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")
        link.settimeout(0.2)
        if at == "on-connect":
            with pytest.raises(TimeoutError):
                link.recv(1)
        else:
            assert link.recv(1) == b"S"


STEPS = {
    "at-parse": parse("", "UPDATE accounts SET balance = 0"),
    "at-bind": bind("", ""),
    "at-describe": Message(b"D", b"P\0"),
    "at-execute": execute(""),
    "at-close": Message(b"C", b"P\0"),
    "at-sync": SYNC,
}


@pytest.mark.parametrize("at", [*STEPS, "at-flush", "at-query"])
def test_a_link_can_be_cut_when_a_message_comes(dsql, connect, at):
    """Nothing of its flight is executed."""
    client = connect()
    dsql.cut(at)
    messages = {"at-flush": [*list(STEPS.values())[:-1], Message(b"H")], "at-query": [query("UPDATE accounts SET balance = 0")]}
    client.send(*messages.get(at, STEPS.values()))
    assert str(lost(client.replies)) == "rst"
    assert dsql.execute("SELECT count(*) FROM accounts WHERE balance = 0") == [["0"]]


@pytest.mark.parametrize("at", ["at-copy-data", "at-copy-done"])
def test_a_link_can_be_cut_in_the_middle_of_a_copy(dsql, connect, at):
    """The COPY is rolled back with it."""
    client = connect()
    dsql.cut(at, how="fin")
    client.send(query("COPY accounts FROM STDIN"))
    assert client.receive().kind == b"G"
    client.send(Message(b"d", b"4\t100\n"), Message(b"c"))
    assert str(lost(client.replies)) == "fin"
    assert dsql.execute("SELECT count(*) FROM accounts") == [["3"]]


def test_a_link_can_be_cut_in_the_middle_of_an_answer(dsql, connect):
    """Half of the bytes come; what was executed outside a transaction is committed."""
    client = connect()
    dsql.cut("mid-reply", how="fin")
    client.send(query("UPDATE accounts SET balance = 5 WHERE id = 1 RETURNING id, repeat('x', 1000)"))
    assert client.receive().kind == b"T"
    assert str(lost(client.replies)) == "fin"
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["5"]]


def test_a_link_can_be_cut_after_an_answer(dsql, connect):
    """All of it comes, then the end."""
    client = connect()
    dsql.cut("after-reply", how="fin")
    assert client.run("SELECT 1") == [["1"]]
    assert str(lost(client.receive)) == "fin"


# --- The rest ---


def outcomes_at_rate(dsql, client, seed):
    dsql.conflict_rate(0.5, seed=seed)
    found = []
    for _ in range(20):
        client.run("BEGIN")
        client.run("SELECT 1")
        client.send(query("COMMIT"))
        found += client.outcomes()
    dsql.conflict_rate(0)
    return found


def test_a_rate_of_conflicts_is_seeded(dsql, connect):
    """The same seed gives the same conflicts, another one others; 0 ends it."""
    client = connect()
    first, again, other = (outcomes_at_rate(dsql, client, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert {"COMMIT", "40001"} == set(first)
    client.run("BEGIN")
    assert client.flight("COMMIT") == ["COMMIT"]


def noted(dsql, kind):
    """Wait until the log has an event of this kind."""
    deadline = time.monotonic() + 20
    while not kinds(dsql, kind):
        assert time.monotonic() < deadline


def test_a_delayed_flight_comes_later(dsql, connect):
    """What others send after it overtakes it, their whole round trips; then it is executed and answered as without the delay."""
    late, other = connect(), connect()
    dsql.delay(300, n=1)
    late.send(query("UPDATE accounts SET balance = balance + 1 WHERE id = 1 RETURNING balance"))
    noted(dsql, "delayed")
    assert other.run("UPDATE accounts SET balance = balance * 2 WHERE id = 1 RETURNING balance") == [["200"]]
    assert late.rows(late.replies()) == [["201"]]
    assert [event.reason for event in kinds(dsql, "delayed")] == ["300 ms"]


def test_every_flight_is_delayed_if_no_number_was_given(dsql, connect):
    """Each is noted."""
    client = connect()
    dsql.delay(0.001)
    for _ in range(3):
        client.run("SELECT 1")
    assert len(kinds(dsql, "delayed")) == 3


@pytest.mark.parametrize(
    ("reason", "sqlstate"),
    [
        *(("rate", "53400"), ("connections", "53300"), ("waking", "08006"), ("access", "08006")),
        *(("53400", "53400"), ("53300", "53300"), ("08006", "08006")),
    ],
)
def test_connections_are_refused_by_name_or_by_sqlstate(dsql, connect, reason, sqlstate):
    """So many, each with that SQLSTATE; by SQLSTATE 08006 it is IAM that refuses."""
    dsql.refuse_connections(1, reason)
    dsql.order(f"refuse {reason}")
    for _ in range(2):
        with pytest.raises(Exception, match=f"^{sqlstate} (?i:unable to accept connection)") as refused:
            connect()
        assert ("access denied" in str(refused.value)) is (reason in ("access", "08006"))
    assert connect().run("SELECT 1") == [["1"]]


@pytest.mark.parametrize("reason", ["nobody", "40001", 53400])
def test_an_unknown_refusal_names_those_there_are(dsql, reason):
    """An SQLSTATE that no connection is refused with, or a number."""
    with pytest.raises(ValueError, match="reason must be one of rate, connections, waking, access, 53400, 53300, 08006, not "):
        dsql.refuse_connections(1, reason)


# --- Restarts ---


def test_a_restart_cuts_every_link_and_keeps_what_was_committed(dsql, connect):
    """The same port accepts again; what was open is rolled back."""
    port, client = dsql.port, connect()
    client.run("UPDATE accounts SET balance = 7 WHERE id = 1")
    client.run("BEGIN")
    client.run("UPDATE accounts SET balance = 8 WHERE id = 1")
    dsql.restart()
    assert str(lost(client.receive)) == "rst"
    assert dsql.port == port
    assert connect().run("SELECT balance FROM accounts WHERE id = 1") == [["7"]]


def test_a_commit_that_has_come_and_was_not_executed_is_lost_in_a_restart(dsql, connect):
    """Its client learns nothing; afterwards the transaction is not there, and holds nothing that others wait for."""
    client = connect()
    client.run("BEGIN")
    client.run("UPDATE accounts SET balance = 8 WHERE id = 1")
    dsql.delay(60_000, n=1)
    client.send(query("COMMIT"))
    noted(dsql, "delayed")
    dsql.restart()
    assert str(lost(client.receive)) == "rst"
    assert connect().run("UPDATE accounts SET balance = balance + 1 WHERE id = 1 RETURNING balance") == [["101"]]


def test_a_comment_can_restart_it(dsql, connect):
    """The connection that asks for it is cut with the others."""
    clients = [connect(), connect()]
    clients[0].send(query("SELECT 1 /* dsql: restart */"))
    assert [str(lost(client.receive)) for client in clients] == ["rst", "rst"]
    assert connect().run("SELECT 1") == [["1"]]


def test_restarts_under_load_lose_nothing_that_was_answered(dsql):
    """Sessions that commit in a loop, cut again and again: what was answered is there, each transaction whole or not at all."""
    dsql.execute("CREATE TABLE entries (session int, number int, side int, PRIMARY KEY (session, number, side))")
    answered, cut = list[tuple[str, str]](), list[str]()
    more, stop = threading.Condition(), threading.Event()

    def commit_until_cut(session):
        with psycopg.connect(**dsql.libpq()) as connection:
            while not stop.is_set():
                number = str(len(answered) + len(cut))
                for side in (1, 2):
                    connection.execute("INSERT INTO entries VALUES (%s, %s, %s)", (session, number, side))
                connection.commit()
                with more:
                    answered.append((session, number))
                    more.notify()

    def work(session):
        while not stop.is_set():
            try:
                commit_until_cut(session)
            except psycopg.OperationalError as ended:
                if ended.sqlstate is not None:  # not cut, but an answer
                    raise
                cut.append(session)

    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(work, str(session)) for session in range(4)]
        try:
            for _ in range(20):
                with more:
                    goal = len(answered) + 8
                    while len(answered) < goal:
                        assert more.wait(60)
                dsql.restart()
        finally:
            stop.set()
        assert [each.result() for each in working] == [None] * 4
    rows = dsql.execute("SELECT session, number, count(*) FROM entries GROUP BY session, number")
    assert {count for _, _, count in rows} == {"2"}
    stored = {(session, number) for session, number, _ in rows}
    assert set(answered) <= stored
    assert len(stored) - len(answered) <= len(cut)
    assert len(cut) >= 20
    dsql.execute("DROP TABLE entries")


def test_while_it_is_down_nobody_comes_in(dsql, connect):
    """The port is closed; a second restart ends the waiting of the first."""
    dsql.restart(down=1000)
    with pytest.raises(ConnectionRefusedError):
        connect()
    dsql.restart()
    assert connect().run("SELECT 1") == [["1"]]


def test_what_waits_can_be_read():
    """As text, for `status`."""
    faults = FaultPlan()
    requests = FaultRequests(faults)
    requests.conflict_next(2)
    requests.delay(5)
    requests.conflict_rate(0.5)
    assert [text.split("(")[0] for text in faults.pending()] == ["Conflict", "Delay", "Conflict"]
    faults.clear()
    assert faults.pending() == []


def test_the_log_is_bounded():
    """The newest events stay."""
    with LocalDsql(log_events=5) as dsql:
        for n in range(8):
            dsql.order(f"conflict n={n + 1}")
        assert [event.reason for event in dsql.log] == [f"conflict n={n}" for n in range(4, 9)]
