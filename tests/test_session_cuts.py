"""A writes-only flight (BEGIN, 2 UPDATEs, COMMIT) is cut before, inside and after each of its messages.

In both directions, by FIN, RST and silence; and where the socket itself stops taking bytes. Each time the caller's result
agrees with what the database holds: a value means committed once; `CommitOutcomeUnknown` comes only when the socket had
taken a byte of COMMIT and its tag did not come back; every other error means that nothing was committed.
"""

import select
import socket
import ssl
import struct
import threading
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from types import FunctionType

import pytest

from dsql_lambda import CommitOutcomeUnknown, Connection, DeadlineExceeded, connect
from dsql_lambda.claim import Place
from dsql_lambda.runner import run_in_transaction
from dsql_lambda.system import NEVER, System
from dsql_lambda.telemetry import Telemetry
from dsql_lambda.transport import Transport

ADD = "UPDATE accounts SET balance = balance + :amount WHERE id = :id"
PATIENCE = 0.15
"""Seconds until the deadline, where the cut is a silence."""

OUT, BACK = "out", "back"


@dataclass(frozen=True)
class Cut:
    """After this many bytes of the flight (or of its answer), in this way."""

    direction: str
    at: int
    how: str


class Relay:
    """Stands between a client and the local DSQL, and cuts the next connection that it is armed on.

    `opens_tls`: it speaks TLS to the server and none to the client, so that a byte here is a byte of a message.
    """

    def __init__(self, dsql, *, opens_tls):
        self._dsql = dsql
        self._context = ssl.create_default_context(cadata=dsql.ca_pem) if opens_tls else None
        if self._context is not None:
            self._context.set_alpn_protocols(["postgresql"])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._cut = None
        self.seen = {OUT: b"", BACK: b""}
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def arm(self, cut):
        """From now on bytes are counted; None cuts nothing."""
        self._cut = cut
        self.seen = {OUT: b"", BACK: b""}

    def close(self):
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(client,)))
            self._threads[-1].start()

    def _serve(self, client):
        with ExitStack() as stack:
            stack.enter_context(client)
            stack.enter_context(suppress(OSError))
            server = socket.create_connection((self._dsql.host, self._dsql.port))
            stack.enter_context(closing(server))
            if self._context is not None:
                server = stack.enter_context(self._context.wrap_socket(server, server_hostname=self._dsql.endpoint))
            while not self._over.is_set():
                pending = isinstance(server, ssl.SSLSocket) and server.pending()
                ready = [server] if pending else select.select([client, server], [], [], 0.05)[0]
                for one, other, direction in ((client, server, OUT), (server, client, BACK)):
                    if one in ready and self._pass_on(one, other, client, direction):
                        return

    def _pass_on(self, one, other, client, direction):
        """Hand on what has come; True if that was the end."""
        one.setblocking(False)  # a TLS record need not hold data: the session's tickets do not
        try:
            data = one.recv(65_536)
        except (ssl.SSLWantReadError, BlockingIOError):
            return False
        finally:
            one.setblocking(True)
        if not data:
            return True
        cut = self._cut
        self.seen[direction] += data
        if cut is None or cut.direction != direction or len(self.seen[direction]) < cut.at:
            other.sendall(data)
            return False
        self._cut = None
        other.sendall(data[: len(data) - (len(self.seen[direction]) - cut.at)])
        if cut.how == "rst":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif cut.how == "silence":
            self._over.wait(2 * PATIENCE)
        return True


class Stopping(socket.socket):
    """A socket that takes so many bytes of the flight and then no more."""

    left = None
    how = ""

    def send(self, data, *flags):
        if self.left is None:
            return socket.socket.send(self, data, *flags)
        if not self.left:
            if self.how == "silence":
                time.sleep(0.01)  # it is writable, so waiting for that would spin
                raise BlockingIOError(self.how)
            raise {"rst": ConnectionResetError, "fin": BrokenPipeError}[self.how](self.how)
        count = socket.socket.send(self, data[: self.left], *flags)
        self.left -= count
        return count


# Only what the socket's own code raises is a lost connection, so this code is run as if it stood in the module of TLS's sockets.
Stopping.send = FunctionType(Stopping.send.__code__, {**globals(), "__name__": "ssl"})  # type: ignore[method-assign]


class Plain:
    """A source of connections through a relay; the first is cut, and those of later attempts are not.

    The first is open before anything runs, so that a short deadline is not spent on connecting.
    """

    def __init__(self, relay, options, cut=None, stop=None):
        self._relay = relay
        self._options = options
        self._stop = stop
        self.opened = 0
        self.first = self.open()
        relay.arm(cut)

    def open(self):
        sock = Stopping()
        sock.connect(("127.0.0.1", self._relay.port))
        connection = Connection("admin", sock=Transport(sock), database="postgres", password=self._options.token().value)
        if not self.opened and self._stop is not None:
            sock.left, sock.how = self._stop.at, self._stop.how
        return connection

    def _checkout(self, claim, deadline_at):
        connection = self.open() if self.opened else self.first
        self.opened += 1
        place = Place()
        place.take(claim)
        place.session = connection._session
        return place.session

    def _checkin(self, claim, reason):
        claim.place.session.abandon()
        claim.place.release(claim)


class Secret(Plain):
    """The same, with the client's own TLS through the relay: a byte here is a byte of a TLS record."""

    def open(self):
        return connect(self._options.replace(hostaddr="127.0.0.1", port=self._relay.port))


class Silent:
    def info(self, *args, **kwargs):
        """Says nothing."""

    error = info


def write(tx):
    tx.defer(ADD, amount=1, id=1)
    tx.defer(ADD, amount=2, id=2)
    return tx.attempt


def result_of(source, how=""):
    """The attempt that committed, or the name of the error."""
    deadline_at = time.monotonic() + PATIENCE if how == "silence" else NEVER
    try:
        return run_in_transaction(
            write,
            source,
            telemetry=Telemetry(logger=Silent()),
            system=System(sleep=lambda seconds: None),
            deadline_at=deadline_at,
        )
    except (CommitOutcomeUnknown, DeadlineExceeded) as error:
        return type(error).__name__


def messages(stream):
    """Where each message starts, and what it is."""
    position, found = 0, []
    while position < len(stream):
        length = 1 + int.from_bytes(stream[position + 1 : position + 5], "big")
        found.append((position, stream[position : position + length]))
        position += length
    return found


def cuts_of(stream):
    """Before and inside each message, and after the last."""
    found = messages(stream)
    return sorted({0, len(stream)} | {start for start, _ in found} | {start + 1 + len(each) // 2 for start, each in found})


@pytest.fixture
def bank(dsql):
    """How often the flight was applied since the last call; both writes or none."""
    before = [100, 100]

    def applied():
        now = [int(row[0]) for row in dsql.execute("SELECT balance FROM accounts WHERE id < 3 ORDER BY id")]
        change = [now[0] - before[0], now[1] - before[1]]
        before[:] = now
        assert change[1] == 2 * change[0]
        return change[0]

    return applied


@pytest.fixture
def relay(dsql):
    with closing(Relay(dsql, opens_tls=True)) as relay:
        yield relay


@pytest.fixture
def flight(relay, options, bank):
    """The flight and its answer, as they are when nothing is cut."""
    assert result_of(Plain(relay, options)) == 1
    assert bank() == 1
    return relay.seen[OUT], relay.seen[BACK]


HOW = pytest.mark.parametrize("how", ["fin", "rst", "silence"])


@HOW
def test_the_socket_takes_no_more(relay, options, bank, flight, how):
    """The one place where nothing of COMMIT may have left: then it is another attempt, or no time is left."""
    stream, _ = flight
    commit_at = next(start for start, each in messages(stream) if each[0:1] == b"P" and b"COMMIT" in each)
    endings = set()
    for at in cuts_of(stream)[:-1]:
        result = result_of(Plain(relay, options, stop=Cut(OUT, at, how)), how)
        if at > commit_at:
            assert (at, result, bank()) == (at, "CommitOutcomeUnknown", 0)
        elif how == "silence":
            assert (at, result, bank()) == (at, "DeadlineExceeded", 0)
        else:
            assert (at, result, bank()) == (at, 2, 1)
        endings.add(result)
    assert len(endings) == 2


@HOW
def test_the_flight_is_cut_on_its_way(relay, options, bank, flight, how):
    """The socket took it all: nobody knows how far it came. What came in part is not committed."""
    stream, _ = flight
    for at in cuts_of(stream)[:-1]:
        assert (at, result_of(Plain(relay, options, Cut(OUT, at, how)), how), bank()) == (at, "CommitOutcomeUnknown", 0)


@HOW
def test_the_answer_is_cut_on_its_way(relay, options, bank, flight, how):
    """It is committed each time; from COMMIT's tag on, the caller knows."""
    _, answer = flight
    tag_at = next(start + len(each) for start, each in messages(answer) if each.endswith(b"COMMIT\0"))
    for at in cuts_of(answer):
        result = result_of(Plain(relay, options, Cut(BACK, at, how)), how)
        assert (at, result, bank()) == (at, 1 if at >= tag_at else "CommitOutcomeUnknown", 1)


@HOW
@pytest.mark.parametrize("direction", [OUT, BACK])
def test_tls_records_are_cut_anywhere(dsql, options, bank, direction, how):
    """Under the client's own TLS, at bytes of its records: no shape of a torn record is taken for another ending."""
    with ExitStack() as stack:
        relay = stack.enter_context(closing(Relay(dsql, opens_tls=False)))
        assert result_of(Secret(relay, options)) == 1
        assert bank() == 1
        size = len(relay.seen[direction])
        for at in sorted({0, 1, 5, *range(16, size, 41), size - 1}):
            result = result_of(Secret(relay, options, Cut(direction, at, how)), how)
            assert (at, result, bank()) == (at, "CommitOutcomeUnknown", 1 if direction == BACK else 0)
