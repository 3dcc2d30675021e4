"""Faults on demand: by method, by SQL comment, by words; where each strikes, and that the table of them is whole."""

import ast
import inspect
import re
import socket
import time
from pathlib import Path
from typing import get_args

import pytest

from dsql_local import LocalDsql
from dsql_local.faults import CutPoint, Faults
from dsql_local.messages import SYNC, Message, bind, error_fields, execute, parse, query
from dsql_local.orders import FAULTS, WORDS, BadOrder, read_order, taken_out

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


def called(text):
    """A method and its arguments, as a row writes the call."""
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call)
    assert isinstance(call.func, ast.Name)
    arguments = [ast.literal_eval(each) for each in call.args]
    bound = inspect.signature(getattr(LocalDsql, call.func.id)).bind(
        None, *arguments, **{each.arg: ast.literal_eval(each.value) for each in call.keywords if each.arg}
    )
    bound.apply_defaults()
    return call.func.id, {name: value for name, value in bound.arguments.items() if name != "self"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.call)
def test_a_row_asks_for_the_same_in_python_and_in_words(fault):
    """The call's method and arguments are those that the words mean."""
    order = read_order(fault.words)
    bound = inspect.signature(getattr(LocalDsql, order.method)).bind(None, **order.arguments)
    bound.apply_defaults()
    assert (order.method, {name: value for name, value in bound.arguments.items() if name != "self"}) == called(fault.call)


def test_every_fault_and_every_point_has_its_row():
    """No word, no method and no point of the protocol is missing from the table."""
    words = {fault.words.split()[0] for fault in FAULTS}
    assert words == WORDS.keys() - {"clear"}
    assert {word.method for word in WORDS.values()} <= set(dir(LocalDsql))
    rows = " ".join(fault.words + fault.sees for fault in FAULTS)
    assert [point for point in get_args(CutPoint) if point not in rows] == []


def test_the_page_has_the_table():
    """docs/local-dsql.md shows it, row by row."""
    page = (ROOT / "docs" / "local-dsql.md").read_text()
    rows = [f"| `{fault.call}` | `{fault.words}` | {fault.sees} | {fault.happens} |" for fault in FAULTS]
    section = page.split("## Faults on demand", 1)[1].split("\n## ", 1)[0]
    assert re.findall(r"^\| `.*$", section, re.MULTILINE) == [row.replace("|  |", "| |") for row in rows]


@pytest.mark.parametrize(
    "words", ["", "conflct", "cut at=nowhere=1 x=2", "conflict n=many", "expire-tokens now", "cut at-parse at-parse=1"]
)
def test_words_that_nobody_understands_are_an_error(words):
    """What there is is named."""
    with pytest.raises(BadOrder, match=r"there is no fault|takes|cannot be"):
        read_order(words)


@pytest.mark.parametrize(
    "words", ["cut nowhere", "conflict OC009", "conflict n=0", "conflict-rate 2", "delay -1", "refuse nobody", "cut"]
)
def test_a_fault_that_could_never_strike_is_an_error(dsql, words):
    """A test that asks for it does not pass for nothing."""
    with pytest.raises(BadOrder):
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
    assert taken_out(sql) == (rest, orders)


def test_nobody_else_sees_the_comment(dsql, connect):
    """Neither the log's statements nor PostgreSQL: it is gone from both protocols."""
    client = connect()
    client.run("SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid() /* dsql: delay 0 */")
    seen = client.run("/* dsql: delay 0 */ SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()")
    assert "dsql:" not in str(seen)
    client.flight("SELECT 1 /* dsql: delay 0 */")
    assert not [sql for event in kinds(dsql, "flight") for sql in event.statements if "dsql:" in sql]
    assert len(kinds(dsql, "fault")) == 3


def test_a_comment_strikes_its_own_transaction(dsql, connect):
    """Inside a transaction its COMMIT; another connection's goes through."""
    one, two = connect(), connect()
    for client in (one, two):
        client.run("BEGIN")
    one.run("UPDATE accounts SET balance = 1 WHERE id = 1 /* dsql: conflict OC001 */")
    two.run("UPDATE accounts SET balance = 2 WHERE id = 2")
    assert two.run("COMMIT") == []
    assert one.error("COMMIT") == "40001 schema has been updated by another transaction (OC001)"
    assert dsql.execute("SELECT balance FROM accounts ORDER BY id") == [["100"], ["2"], ["100"]]


def test_a_comment_outside_a_transaction_strikes_its_statement(dsql, connect):
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


def test_a_comment_can_ask_for_what_strikes_the_whole_server(dsql, connect):
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


def test_a_delayed_flight_comes_later(dsql, connect):
    """It is noted, and it does take that long; every other one if no number was given."""
    client = connect()
    dsql.delay(30, n=1)
    began = time.monotonic()
    client.run("SELECT 1")
    assert time.monotonic() - began >= 0.03
    client.run("SELECT 1")
    assert [event.reason for event in kinds(dsql, "delayed")] == ["30 ms"]
    dsql.delay(0.001)
    client.run("SELECT 1")
    client.run("SELECT 1")
    assert len(kinds(dsql, "delayed")) == 3


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


def test_while_it_is_down_nobody_comes_in(dsql, connect):
    """The port is closed; a second restart ends the waiting of the first."""
    dsql.restart(down=1000)
    with pytest.raises(ConnectionRefusedError):
        connect()
    dsql.restart()
    assert connect().run("SELECT 1") == [["1"]]


def test_what_waits_can_be_read():
    """As text, for `status`."""
    faults = Faults()
    faults.conflict_next(2)
    faults.delay(5)
    faults.conflict_rate(0.5)
    assert [text.split("(")[0] for text in faults.waiting()] == ["Conflict", "Delay", "Conflict"]
    faults.clear()
    assert faults.waiting() == []


def test_the_log_is_bounded():
    """The newest events stay."""
    with LocalDsql(log_events=5) as dsql:
        for n in range(8):
            dsql.order(f"conflict n={n + 1}")
        assert [event.reason for event in dsql.log] == [f"conflict n={n}" for n in range(4, 9)]
