"""The stream: sends and receives that can't deadlock, deadlines that end every wait, and the record of what was sent."""

import os
import socket
import ssl
import struct
import threading
import time
from contextlib import closing

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from dsql_lambda import InterfaceError
from dsql_lambda.server_errors import ConnectionLost, DeadlineReached
from dsql_lambda.transport import Transport


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    transport = Transport(ours)
    yield transport, theirs
    transport.close()
    theirs.close()


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1), st.data())
def test_what_came_in_is_read_whatever_the_pieces(pieces, data):
    """`fill` and `read`, over pieces of any size."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        for piece in pieces:
            theirs.send(piece)
    stream, read = b"".join(pieces), b""
    with closing(Transport(ours)) as transport:
        while len(read) < len(stream):
            size = data.draw(st.integers(1, len(stream) - len(read)))
            transport.fill(size)
            read += transport.read(size)
        assert read == stream
        with pytest.raises(ConnectionLost):
            transport.fill(1)


def test_reads_are_exact_and_never_short(pair):
    """At the stream's end they fail, and what arrived before it is still there."""
    transport, peer = pair
    peer.sendall(b"abcdef")
    assert (transport.read(2), transport.read(3)) == (b"ab", b"cde")
    peer.close()
    with pytest.raises(ConnectionLost, match="the server closed the connection"):
        transport.read(5)
    assert transport.is_readable()
    assert transport.read(1) == b"f"
    with pytest.raises(ConnectionLost, match="connection is closed: network error: the server closed the connection"):
        transport.read(1)


def test_a_flight_larger_than_the_sockets_buffers_does_not_deadlock(pair):
    """The peer answers while it is being written to: 10 MiB each way, by one thread at either side."""
    transport, peer = pair
    size = 10 * 1024 * 1024

    def echo() -> None:
        left = size
        while left:
            data = peer.recv(65_536)
            peer.sendall(data)
            left -= len(data)

    thread = threading.Thread(target=echo)
    thread.start()
    sent = bytes(range(256)) * (size // 256)
    transport.write(sent)
    transport.flush()
    assert transport.read(size) == sent
    thread.join()
    assert transport.sent == transport.may_have_sent == transport.queued == size


def test_a_deadline_ends_every_wait():
    """Reading from a silent peer, and writing to one that does not read."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        silent = Transport(ours, monotonic=lambda: 0.0)
        silent.deadline_at = 0.01
        with pytest.raises(DeadlineReached):
            silent.read(1)
        assert isinstance(silent.failure, DeadlineReached)

    ours, theirs = socket.socketpair()
    with ours, theirs:
        full = Transport(ours, timeout=0.01)
        full.write(b"x" * 10_000_000)
        with pytest.raises(DeadlineReached):
            full.flush()
        assert 0 < full.sent < 10_000_000
        assert full.queued == full.may_have_sent == full.sent


def test_a_deadline_that_has_passed_ends_a_peer_that_never_stops(pair):
    """What had arrived by then is read: one buffer, no more."""
    transport, peer = pair
    transport.deadline_at = time.monotonic() - 1
    peer.sendall(b"x" * 100_000)
    with pytest.raises(DeadlineReached, match="not complete before the deadline"):
        transport.read(100_000)
    assert 0 < len(transport.buffer) <= 65_536


def test_an_idle_transport_is_readable_when_the_peer_has_gone(pair):
    """One poll tells, without waiting."""
    transport, peer = pair
    assert not transport.is_readable()
    peer.close()
    assert transport.is_readable()


def test_what_the_peer_said_before_it_closed_is_read(pair):
    """Also where the sending failed: the loss stands behind its last words."""
    transport, peer = pair
    peer.sendall(b"too long")
    peer.close()
    transport.write(b"x" * 1_000_000)
    transport.flush()
    assert isinstance(transport.failure, ConnectionLost)
    assert transport.read(8) == b"too long"
    with pytest.raises(ConnectionLost, match="network error"):
        transport.read(1)


def test_a_lost_connection_keeps_no_token_in_its_buffers(pair):
    """What was to be sent is dropped."""
    transport, peer = pair
    peer.close()
    transport.write(b"password" * 100_000)
    transport.flush()
    assert isinstance(transport.failure.__cause__, BrokenPipeError)
    assert b"password" not in bytes(transport._outgoing)
    assert not transport.has_unsent


# What a socket raises is a lost connection; each is remembered, so that the ending is known whatever the function makes of it.


def reset() -> Transport:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
    return Transport(ours)


def unanswered() -> Transport:
    """The peer's window stays shut for longer than the operating system waits."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 50)
    transport = Transport(ours)
    transport.write(b"x" * 20_000_000)
    with theirs:
        transport.flush()
    return transport


def secured(last: bytes) -> Transport:
    """TLS whose peer ends the stream with these bytes, and without close_notify."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("name").configure_cert(context)
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with context.wrap_socket(theirs, server_side=True) as served:
            served.sendall(b"welcome")
            with socket.socket(fileno=served.detach()) as plain:
                plain.sendall(last)

    thread = threading.Thread(target=serve)
    thread.start()
    trusting = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    transport = Transport(trusting.wrap_socket(ours, server_hostname="name"))
    assert transport.read(7) == b"welcome"
    thread.join()
    return transport


@pytest.mark.parametrize(
    ("lost", "cause"),
    [
        (reset, ConnectionResetError),
        pytest.param(
            unanswered,
            TimeoutError,
            marks=pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux can shorten its own patience"),
        ),
        (lambda: secured(b""), (type(None), BrokenPipeError)),  # an end of the stream; OpenSSL 3.6 raises the latter
        (lambda: secured(b"\x17\x03\x03\x00\x04none"), ssl.SSLError),
    ],
)
def test_what_a_socket_raises_is_a_lost_connection(lost, cause):
    """pg8000's InterfaceError, with what the socket raised as its cause; and not the transport's own deadline."""
    with closing(lost()) as transport:
        with pytest.raises(InterfaceError, match="network error"):
            transport.read(1)
        assert type(transport.failure) is ConnectionLost
        assert isinstance(transport.failure.__cause__, cause)


@pytest.mark.parametrize("kind", [TimeoutError, BlockingIOError, ssl.SSLWantReadError])
def test_what_is_raised_around_a_socket_passes_through(pair, kind):
    """A signal handler can raise an OSError too: it is the caller's, the connection is not lost, and nothing is sent again."""
    transport, peer = pair

    class Interrupted(socket.socket):
        def recv(self, *args):
            super().recv(*args)
            raise kind("the handler's own")

        def send(self, *args):
            super().send(*args)
            raise kind("the handler's own")

    transport.sock = Interrupted(fileno=transport.sock.detach())
    transport.sock.settimeout(0)
    peer.send(b"x")
    with pytest.raises(kind, match="the handler's own"):
        transport.read(1)
    transport.write(b"once")
    with pytest.raises(kind, match="the handler's own"):
        transport.flush()
    assert transport.failure is None
    assert peer.recv(100) == b"once"


def test_what_send_did_not_return_may_have_been_sent(pair):
    """The most that the socket can have taken is written down before it is asked, and only its answer takes that back."""
    transport, peer = pair

    class Interrupted(socket.socket):
        def send(self, data, *flags):
            super().send(data, *flags)
            raise ZeroDivisionError

    transport.sock = Interrupted(fileno=transport.sock.detach())
    transport.sock.settimeout(0)
    transport.write(b"COMMIT")
    with pytest.raises(ZeroDivisionError):
        transport.flush()
    assert (transport.sent, transport.may_have_sent) == (0, 6)
    assert peer.recv(100) == b"COMMIT"


def test_a_forked_child_sends_nothing(pair):
    """The sentence says why; the parent's connection goes on."""
    transport, peer = pair
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = "nothing"
        try:
            assert transport.is_inherited
            transport.write(b"from the child")
            transport.flush()
        except InterfaceError as error:
            said = str(error)
        finally:
            os.write(writer, said.encode())
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        assert "belongs to the process that this one was forked from" in pipe.read()
    assert not transport.is_inherited
    transport.write(b"from the parent")
    transport.flush()
    assert peer.recv(100) == b"from the parent"
