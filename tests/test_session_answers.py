"""Flights: what travels together, how a dead peer shows at every place of an answer, and what the loop makes of each shape."""

import socket
import struct
import threading

import pytest
from pg8000.exceptions import InterfaceError

from dsql_lambda import Connection, DatabaseError, OCCRetryConfig, TransactionError, connect
from dsql_lambda.claim import Place
from dsql_lambda.flight import Statement
from dsql_lambda.runner import run_in_transaction
from dsql_lambda.session import FAILED, IDLE, IN_TRANSACTION
from dsql_lambda.system import System
from dsql_lambda.telemetry import Telemetry
from dsql_lambda.transport import Transport


def message(kind, payload=b""):
    return kind + struct.pack("!i", len(payload) + 4) + payload


def error(severity, sqlstate, text):
    return message(b"E", f"S{severity}\0V{severity}\0C{sqlstate}\0M{text}\0\0".encode())


READY, READY_IN_TRANSACTION, READY_FAILED = (message(b"Z", status) for status in (b"I", b"T", b"E"))
WELCOME = message(b"R", struct.pack("!i", 0)) + message(b"K", struct.pack("!ii", 4711, 1)) + READY
BEGUN = message(b"1") + message(b"2") + message(b"n") + message(b"C", b"BEGIN\0")
UPDATED = message(b"1") + message(b"2") + message(b"n") + message(b"C", b"UPDATE 1\0")
FATAL = error("FATAL", "57P01", "terminating connection due to administrator command")


class Peer:
    """A server by script: one answer to each flight, and after the last one it hangs up."""

    def __init__(self, *answers, resets=False):
        self._answers = [WELCOME, *answers]
        self._resets = resets
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.connections = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with sock:
                for answer in self._answers:
                    if not sock.recv(65_536):
                        break
                    sock.sendall(answer)
                if self._answers[-1][-6:-1] == READY[:-1]:
                    sock.recv(65_536)  # a whole answer: what hangs up is the next flight
                if self._resets:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def connect(self):
        return Connection("admin", sock=Transport(socket.create_connection(self._listener.getsockname())), database="postgres")

    def _checkout(self, claim, deadline_at):
        place = Place()
        place.take(claim)
        place.session = self.connect()._session
        return place.session

    def _checkin(self, claim, reason):
        claim.place.session.close()
        claim.place.release(claim)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@pytest.fixture
def peer_of():
    peers = []

    def peer_of(*answers, **more):
        peers.append(Peer(*answers, **more))
        return peers[-1]

    yield peer_of
    for peer in peers:
        peer.close()


def run(peer, function, **more):
    system = System(sleep=lambda seconds: None)
    return run_in_transaction(function, peer, telemetry=Telemetry(logger=Silent()), system=system, **more)


class Silent:
    def info(self, *args, **kwargs):
        """Says nothing."""

    error = info


def update(tx):
    tx.run("UPDATE accounts SET balance = 1 WHERE id = :id", id=1)


@pytest.mark.parametrize("resets", [True, False])
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"1",
        message(b"1"),
        BEGUN,
        BEGUN + UPDATED,
        (BEGUN + UPDATED + READY_IN_TRANSACTION)[:-1],
        BEGUN + FATAL,
    ],
)
def test_a_peer_that_dies_anywhere_in_an_answer_is_a_lost_connection(peer_of, answer, resets):
    """Whatever shape pg8000 gives it: before COMMIT nothing is committed, and each attempt has a new connection."""
    peer = peer_of(*([answer] if answer else []), resets=resets)
    with pytest.raises(TransactionError, match="lost in each of 3 attempts"):
        run(peer, update)
    assert peer.connections == 3


def test_a_fatal_keeps_its_words_when_the_stream_ends_after_it(peer_of):
    """pg8000 would say "network error"."""
    for call in (lambda each: each.run("SELECT 1"), lambda each: each.run("SELECT :a", a=1)):
        connection = peer_of(FATAL).connect()
        with pytest.raises(DatabaseError, match="administrator command"):
            call(connection)
        assert connection._session.is_closed
        connection.close()


def test_idle_inside_a_transaction_is_an_error(peer_of):
    """A server that left the transaction would let every further write commit by itself."""
    peer = peer_of(BEGUN + UPDATED + READY)
    with pytest.raises(TransactionError, match="the server left the transaction"):
        run(peer, update)


def test_commit_answered_with_the_tag_rollback_is_never_a_success(peer_of):
    """PostgreSQL answers so, without an error, to COMMIT of a failed transaction."""
    rolled_back = message(b"1") + message(b"2") + message(b"n") + message(b"C", b"ROLLBACK\0") + READY
    peer = peer_of(BEGUN + UPDATED + READY_IN_TRANSACTION, rolled_back)
    with pytest.raises(TransactionError, match="COMMIT was answered with ROLLBACK: nothing was committed"):
        run(peer, update)


def test_a_conflict_at_a_statement_needs_a_rollback_and_another_attempt(peer_of):
    """OC001 surfaces at reads too; the transaction is then in the state `E`."""
    conflict = error("ERROR", "40001", "schema has been updated by another transaction (OC001)")
    peer = peer_of(BEGUN + conflict + READY_FAILED, message(b"C", b"ROLLBACK\0") + READY)
    attempts = []

    def noted(tx):
        attempts.append(tx.attempt)
        update(tx)

    with pytest.raises(TransactionError, match="attempts met a conflict.*OC001 .schema."):
        run(peer, noted, retry=OCCRetryConfig(max_attempts=2))
    assert attempts == [1, 2]


# On the real one


@pytest.fixture
def connection(options):
    with connect(options) as connection:
        yield connection


def statements(*texts):
    return [Statement(text, text) for text in texts]


def test_one_sync_makes_a_flight_atomic(dsql, connection):
    """An error in the middle skips the rest, COMMIT included; the statement is named."""
    add = "UPDATE accounts SET balance = balance + 1 WHERE id = 1"
    with pytest.raises(DatabaseError) as caught:
        connection._session.fly(statements("BEGIN", add, "SELECT 1 / 0", add, "COMMIT"))
    assert (caught.value.sqlstate, caught.value.statement) == ("22012", "SELECT 1 / 0")
    assert connection._session.transaction_status == FAILED
    connection._session.fly(statements("ROLLBACK"))
    assert connection._session.transaction_status == IDLE
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["100"]]


def test_a_refused_begin_runs_nothing_behind_it(dsql, connection):
    """With a Sync after each statement the writes would commit one by one."""
    add = "UPDATE accounts SET balance = balance + 1 WHERE id = 1"
    with pytest.raises(DatabaseError):
        connection._session.fly(statements("BEGIN ISOLATION LEVEL NONSENSE", add, "COMMIT"))
    assert connection._session.transaction_status == IDLE
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["100"]]


def test_results_of_a_flight_are_apart(connection):
    """Rows, columns, counts and tags of each."""
    texts = ("BEGIN", "SELECT id FROM accounts ORDER BY id", "UPDATE accounts SET balance = 1")
    begun, rows, none = connection._session.fly(statements(*texts))
    assert (begun.command_tag, begun.rows, rows.rows, rows.column_names) == ("BEGIN", None, [[1], [2], [3]], ["id"])
    assert (none.command_tag, none.row_count) == ("UPDATE 3", 3)
    assert connection._session.transaction_status == IN_TRANSACTION
    connection.run("ROLLBACK")


def test_a_flight_larger_than_the_buffers(connection):
    """10 MiB of parameters and rows at once, in one flight."""
    big = "x" * 5_000_000
    text = "SELECT $1::text"
    results = connection._session.fly([Statement(text, text, (big,)), Statement(text, text, (big,))])
    assert [len(each.rows[0][0]) for each in results if each.rows] == [5_000_000, 5_000_000]


def test_a_closed_connection_says_so(options):
    """As pg8000 does."""
    connection = connect(options)
    connection.close()
    with pytest.raises(InterfaceError, match="connection is closed"):
        connection._session.fly(statements("SELECT 1"))
    assert connection._session.is_closed
