"""A connected socket as a stream with a deadline, and the record of what it was given to send: `Transport`.

Knows sockets, clocks and forks; knows nothing of PostgreSQL's messages or of how the socket was opened.

What a transaction's ending rests on is written down before the act: `may_have_sent` rises before `send` is called, and only
what `send` returns takes it back. Only what the socket itself raises is a lost connection (`ConnectionLost`); an exception
of a signal handler, another thread or the memory allocator passes through unchanged.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import NoReturn

from .server_errors import ConnectionLost, DeadlineReached, InterfaceError
from .system import NEVER

_RECORD = 16_384  # the most that one TLS record carries: the peer can read all of it or nothing
_RECEIVE = 65_536
_LAST_WORDS = 1_048_576  # read at most so much of what the peer said before it closed

_CLOSED = ("connection is closed",)
_AGAIN = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_HAS_POLL = hasattr(select, "poll")  # Windows has none
_forks = 0


def _count_fork() -> None:
    global _forks  # noqa: PLW0603 - one for each process
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


class Transport:
    """A socket as a buffered stream, which is also what pg8000 takes for its file.

    Sending and receiving interleave, so that a flight larger than the socket's buffers can't deadlock. `timeout` (seconds)
    bounds each wait, `deadline_at` (a moment of the monotonic clock, `NEVER` for none) all of them.
    """

    def __init__(
        self, sock: socket.socket, *, timeout: float | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.sock = sock
        self.buffer = b""
        """What has arrived; that before `position` has been read."""
        self.position = 0
        self.failure: ConnectionLost | None = None
        """What ended the connection, once it has ended."""
        self.sent = 0
        """Bytes that the socket took, of all that were ever queued."""
        self.may_have_sent = 0
        """The most that it can have taken: more than `sent` while `send` runs, and for good where it was interrupted."""
        self._timeout = timeout
        self._monotonic = monotonic
        self._outgoing = bytearray()
        self._arrived: list[bytes] = []  # pieces that came in behind the buffer
        self._forks = _forks
        self._deadline_at = NEVER
        self._is_late = False
        self._poll = _poll(sock, select.POLLIN) if _HAS_POLL else None  # kept for `is_readable`, which every reuse asks
        sock.settimeout(0)

    def __del__(self) -> None:
        sock = getattr(self, "sock", None)  # none if an interruption came first: then it is still whose it was
        if sock is not None:
            sock.close()  # an owner that was interrupted may have dropped it

    def makefile(self, mode: str) -> Transport:
        """pg8000 asks its socket for a file: it is the same object."""
        return self

    @property
    def deadline_at(self) -> float:
        """The moment (monotonic seconds) that every wait ends at."""
        return self._deadline_at

    @deadline_at.setter
    def deadline_at(self, moment: float) -> None:
        self._deadline_at = moment
        self._is_late = False

    @property
    def is_inherited(self) -> bool:
        """Does it belong to the process that this one was forked from?"""
        return self._forks != _forks

    @property
    def queued(self) -> int:
        """Bytes that were ever queued: where the next message will begin in the stream."""
        return self.sent + len(self._outgoing)

    @property
    def has_unsent(self) -> bool:
        """Is something queued that was not sent? Between two flights only an interruption leaves it."""
        return bool(self._outgoing)

    @property
    def has_unread(self) -> bool:
        """Has something arrived that nobody has read?"""
        return len(self.buffer) > self.position or bool(self._arrived)

    def write(self, data: bytes | bytearray) -> None:
        """Queue bytes for the next `flush`."""
        self._outgoing += data

    def flush(self) -> None:
        """Send everything that is queued; `may_have_sent` says how far it can have come. Raises `DeadlineReached`.

        A connection that is lost meanwhile is met by the next read, behind what the peer said before it closed.
        """
        try:
            while self._outgoing:
                self._send_some()
        except DeadlineReached:
            raise
        except ConnectionLost:
            self._take_last_words()
        finally:
            self._outgoing.clear()  # it may hold a token

    def fill(self, size: int) -> None:
        """Wait until `size` unread bytes are in the buffer. Raises `ConnectionLost` if the stream ends before."""
        count = len(self.buffer) - self.position
        if count >= size:
            return
        pieces, self._arrived = self._arrived, []
        count += sum(map(len, pieces))
        try:
            while count < size:
                data = self._receive()
                count += len(data)
                pieces.append(data)
        finally:
            self.buffer = b"".join((self.buffer[self.position :], *pieces))
            self.position = 0

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        self.fill(size)
        start, self.position = self.position, self.position + size
        return self.buffer[start : self.position]

    def is_readable(self) -> bool:
        """Has something arrived that nobody asked for? On an idle connection: the peer has closed it. One poll, no wait."""
        return self.has_unread or bool(self._poll.poll(0) if self._poll is not None else _wait(self.sock, 0.0))

    def refuse_if_past_deadline(self) -> None:
        """Raise `DeadlineReached` if the deadline has passed: long work on what has arrived asks between its parts."""
        if self._deadline_at != NEVER and self._monotonic() >= self._deadline_at:
            self._fail(DeadlineReached("the deadline has passed while the answer was being read: network error"))

    def close(self) -> None:
        """Close the socket without a word to the peer. May be called again."""
        self.failure = self.failure or ConnectionLost(*_CLOSED)
        self._outgoing.clear()
        self.sock.close()

    def _send_some(self) -> None:
        self._refuse_if_unusable()
        record = bytes(self._outgoing[:_RECORD])
        self.may_have_sent = self.sent + len(record)
        try:
            count = self.sock.send(record)
        except OSError as error:
            if not _is_of_the_socket(error):
                raise
            self.may_have_sent = self.sent  # the socket refused it
            if isinstance(error, _AGAIN):
                self._wait_to_send()
                return
            self._fail(ConnectionLost(f"network error: {error}"), error)
        self.sent += count
        self.may_have_sent = self.sent
        del self._outgoing[:count]

    def _take_last_words(self) -> None:
        """What the peer sent before it closed, without waiting."""
        pieces, self._arrived = self._arrived, []
        try:
            while sum(map(len, pieces)) < _LAST_WORDS and (data := self.sock.recv(_RECEIVE)):
                pieces.append(data)
        except OSError:  # nothing more, or the end; also TLS's "want read"
            pass
        self.buffer = b"".join((self.buffer[self.position :], *pieces))
        self.position = 0

    def _wait_to_send(self) -> None:
        """The peer reads nothing while nobody reads its answers: take them in, and see that the deadline holds."""
        ready = _wait(self.sock, self._patience(), to_write=True)
        if not ready:
            self._fail(DeadlineReached("nothing could be sent before the deadline: network error"))
        if ready & _READABLE and (data := self._receive_now()) is not None:
            self._arrived.append(data)

    def _receive(self) -> bytes:
        self._refuse_if_unusable()
        while (data := self._receive_now()) is None:
            if not _wait(self.sock, self._patience()):
                self._fail(DeadlineReached("no answer came before the deadline: network error"))
        if self._deadline_at != NEVER and self._monotonic() >= self._deadline_at:
            if self._is_late:
                self._fail(DeadlineReached("the answer was not complete before the deadline: network error"))
            self._is_late = True  # what had arrived by then is read: one buffer, no more
        return data

    def _receive_now(self) -> bytes | None:
        """What has arrived, or None if nothing has. Raises `ConnectionLost` at the stream's end."""
        try:
            data = self.sock.recv(_RECEIVE)
        except OSError as error:
            if not _is_of_the_socket(error):
                raise
            if isinstance(error, _AGAIN):
                return None
            self._fail(ConnectionLost(f"network error: {error}"), error)
        if not data:
            self._fail(ConnectionLost("network error: the server closed the connection"))
        return data

    def _patience(self) -> float | None:
        """Seconds that this operation may wait, or None for ever."""
        if self._deadline_at == NEVER:
            return self._timeout
        remaining = self._deadline_at - self._monotonic()
        if remaining <= 0:
            self._fail(DeadlineReached("the deadline has passed: network error"))
        return remaining if self._timeout is None else min(remaining, self._timeout)

    def _refuse_if_unusable(self) -> None:
        if self._forks != _forks:
            raise InterfaceError(
                "this connection belongs to the process that this one was forked from, so nothing is sent on it: "
                "open another one in the child"
            )
        if self.failure is not None:
            why = "" if self.failure.args == _CLOSED else f": {self.failure}"
            raise ConnectionLost(f"connection is closed{why}") from self.failure

    def _fail(self, failure: ConnectionLost, cause: BaseException | None = None) -> NoReturn:
        self.failure = failure
        raise failure from cause


def raised_in(error: BaseException, *modules: str) -> bool:
    """Was it raised by code of these modules, or by what they call in C? A signal handler's frame would be the last one."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__") in modules


def _is_of_the_socket(error: OSError) -> bool:
    """Did the socket raise it? A signal handler can raise an OSError too, in the middle of `send`, after it has sent."""
    return raised_in(error, __name__, "ssl") and bool(error.args)


_LONGEST_WAIT = 1_000_000.0  # what poll takes as milliseconds, in a C int
_READABLE = 1
_WRITABLE = 2


def _poll(sock: socket.socket, events: int) -> select.poll:
    poll = select.poll()
    poll.register(sock, events)
    return poll


def _wait(sock: socket.socket, seconds: float | None, *, to_write: bool = False) -> int:
    """Wait until the socket is readable (or writable): which of them it is, 0 when the time is over."""
    if not _HAS_POLL:
        readable, writable, _ = select.select([sock], [sock] if to_write else [], [], seconds)
        return (_READABLE if readable else 0) | (_WRITABLE if writable else 0)
    poll = _poll(sock, select.POLLIN | (select.POLLOUT if to_write else 0))
    # Rounded up: a wait that ends a moment early would spin.
    events = poll.poll(None if seconds is None else int(min(seconds, _LONGEST_WAIT) * 1000) + (seconds > 0))
    return sum(
        (_READABLE if event & ~select.POLLOUT else 0) | (_WRITABLE if event & select.POLLOUT else 0) for _, event in events
    )
