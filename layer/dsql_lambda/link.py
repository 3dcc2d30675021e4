"""The socket under a connection: `Link`, and how one is dialled: TCP, then verified TLS.

Knows sockets, TLS and deadlines; knows nothing of PostgreSQL's messages beyond the one that asks for TLS. A deadline is a
moment of the monotonic clock, `NEVER` where there is none: inside one invocation that clock runs.

TLS is never optional, the certificate and the name are always verified, SNI is always sent, and nothing secret passes here
before the handshake is done. Direct TLS (ALPN `postgresql`) saves a round trip; where a server declines it, SSLRequest is
used and the choice is remembered. https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from functools import lru_cache

from .errors import ConfigError, ConnectError
from .options import ConnectOptions, is_pem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol
else:
    Protocol = object

NEVER = float("inf")
_RECORD = 16_384  # the most that one TLS record carries: a send of it is handed over whole, or not at all
_RECEIVE = 65_536
_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
_ALPN = "postgresql"
_ROOTS = os.path.join(os.path.dirname(__file__), "roots.pem")  # noqa: PTH118, PTH120 - pathlib is cold start

_declined_direct: set[tuple[str, int]] = set()


class Opener(Protocol):
    """What opens a TCP connection: `open_tcp`, or a test's stand-in."""

    def __call__(self, address: tuple[str, int], timeout: float) -> socket.socket: ...


class DeadlineReached(TimeoutError):
    """The link's own deadline came while it waited; the operating system's time-outs are plain `TimeoutError`s."""


class Link:
    """A connected socket as a buffered stream: what pg8000 calls its file, with a deadline and a memory of what was sent.

    Sending and receiving interleave, so that a flight larger than the socket's buffers can't deadlock.
    """

    def __init__(
        self, sock: socket.socket, *, timeout: float | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.sock = sock
        self._timeout = timeout
        self._monotonic = monotonic
        self._outgoing = bytearray()
        self._arrived: list[bytes] = []  # pieces that came in behind the buffer
        self.buffer = b""
        """What has come in; that before `position` has been read."""
        self.position = 0
        self.deadline_at = NEVER
        self.handed = 0
        """Bytes that the socket took, of all that were ever written."""
        self.failure: BaseException | None = None
        """What broke the link, if it is broken."""
        sock.settimeout(0)

    def makefile(self, mode: str) -> Link:
        """pg8000 asks its socket for a file: it is the same object."""
        return self

    @property
    def written(self) -> int:
        """Bytes that were ever written, those still waiting for a flush included."""
        return self.handed + len(self._outgoing)

    def write(self, data: bytes | bytearray) -> None:
        """Add to what the next flush sends."""
        self._outgoing += data

    def flush(self) -> None:
        """Hand everything to the socket. Raises `OSError`; then `handed` says how far it came."""
        try:
            while self._outgoing:
                self._send_some()
        except BaseException:
            self._outgoing.clear()  # it may hold a token, and a broken link sends no more
            raise

    def fill(self, size: int) -> bool:
        """Wait until `size` unread bytes are in the buffer; False if the stream ends before."""
        count = len(self.buffer) - self.position
        if count >= size:
            return True
        pieces, self._arrived = self._arrived, []
        count += sum(map(len, pieces))
        try:
            while count < size:
                data = self._receive()
                if not data:
                    return False
                count += len(data)
                pieces.append(data)
        finally:
            self.buffer = b"".join((self.buffer[self.position :], *pieces))
            self.position = 0
        return True

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, or fewer at the stream's end."""
        self.fill(size)
        start, self.position = self.position, min(self.position + size, len(self.buffer))
        return self.buffer[start : self.position]

    def is_readable(self) -> bool:
        """Is something there that nobody asked for? On an idle link that is the peer's goodbye. One poll, no waiting."""
        return len(self.buffer) > self.position or bool(self._arrived) or bool(_wait(self.sock, 0.0))

    def close(self) -> None:
        """Close the socket; says nothing to the peer. May be called again."""
        self._outgoing.clear()
        self.sock.close()

    def _send_some(self) -> None:
        self._refuse_if_broken()
        try:
            record = bytes(self._outgoing[:_RECORD])
            try:
                count = self.sock.send(record)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                # The peer reads no more while nobody reads its answers: take them in, then go on.
                ready = _wait(self.sock, self._patience(), to_write=True)
                if not ready:
                    raise DeadlineReached("nothing could be sent before the deadline") from None
                if ready & _READABLE and (data := self._receive_now()) is not None:
                    if not data:
                        raise ConnectionResetError("the server closed the connection") from None
                    self._arrived.append(data)
                return
            self.handed += count
            del self._outgoing[:count]
        except BaseException as error:
            self.failure = self.failure or error
            raise

    def _receive(self) -> bytes:
        self._refuse_if_broken()
        try:
            while (data := self._receive_now()) is None:
                if not _wait(self.sock, self._patience()):
                    raise DeadlineReached("no answer before the deadline")
        except BaseException as error:
            self.failure = self.failure or error
            raise
        if not data:
            self.failure = ConnectionResetError("the server closed the connection")
        return data

    def _receive_now(self) -> bytes | None:
        """What has arrived; None if nothing has, and empty at the stream's end."""
        try:
            return self.sock.recv(_RECEIVE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def _patience(self) -> float | None:
        """Seconds that this operation may wait, or None for ever. Raises `DeadlineReached` when there are none."""
        if self.deadline_at == NEVER:
            return self._timeout
        remaining = self.deadline_at - self._monotonic()
        if remaining <= 0:
            raise DeadlineReached("the deadline has passed")
        return remaining if self._timeout is None else min(remaining, self._timeout)

    def _refuse_if_broken(self) -> None:
        if self.failure is not None:
            raise ConnectionError("the link is broken") from self.failure


_LONGEST_WAIT = 1_000_000.0  # what poll takes as milliseconds, in a C int
_READABLE = 1
_WRITABLE = 2


def _wait(sock: socket.socket, seconds: float | None, *, to_write: bool = False) -> int:
    """Wait until the socket is readable (or writable): which of them it is, 0 when the time is over."""
    if not hasattr(select, "poll"):  # Windows
        readable, writable, _ = select.select([sock], [sock] if to_write else [], [], seconds)
        return (_READABLE if readable else 0) | (_WRITABLE if writable else 0)
    poll = select.poll()
    poll.register(sock, select.POLLIN | (select.POLLOUT if to_write else 0))
    # Rounded up: a wait that ends a moment early would spin.
    events = poll.poll(None if seconds is None else int(min(seconds, _LONGEST_WAIT) * 1000) + (seconds > 0))
    return sum(
        (_READABLE if event & ~select.POLLOUT else 0) | (_WRITABLE if event & select.POLLOUT else 0) for _, event in events
    )


def open_tcp(address: tuple[str, int], timeout: float) -> socket.socket:
    """Try the addresses of a name one after the other, `timeout` seconds in all (`socket.create_connection` gives it to each).

    The name goes as bytes, for as text it would load the IDNA codec. Resolving it takes the system's own time.
    """
    end = time.monotonic() + timeout
    last: OSError | None = None
    name: Any = _ascii(address[0])
    for family, kind, protocol, _, target in socket.getaddrinfo(name, address[1], 0, socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_left(end, time.monotonic))
            sock.connect(target)
        except OSError as error:
            sock.close()
            last = error
            if time.monotonic() >= end:
                break
        else:
            return sock
    raise last or OSError(f"{address[0]} has no address")


def dial(
    options: ConnectOptions,
    deadline_at: float,
    *,
    opener: Opener = open_tcp,
    monotonic: Callable[[], float] = time.monotonic,
) -> Link:
    """Open a socket to the endpoint and make it secret and sure. Raises `ConnectError`, or `ConfigError` for the roots."""
    context = tls_context(options.sslrootcert)
    address = options.dial_host, options.port
    if address not in _declined_direct:
        try:
            return _secured(_opened(address, deadline_at, opener, monotonic), context, options.tls_name, deadline_at, monotonic)
        except ConnectionError:
            pass  # a server that knows no direct TLS: it closes, resets, or answers without ALPN
    sock = _opened(address, deadline_at, opener, monotonic)
    try:
        sock.settimeout(_left(deadline_at, monotonic))
        sock.sendall(_SSL_REQUEST)
        answer = sock.recv(1)
    except OSError as error:
        sock.close()
        raise _unreachable(address, error) from error
    if answer != b"S":
        sock.close()
        raise ConnectError(
            f"{address[0]}:{address[1]} declines TLS, so no token was sent: check that DSQL_HOST, DSQL_HOSTADDR and DSQL_PORT "
            "name the cluster and not another server"
        )
    try:
        link = _secured(sock, context, options.tls_name, deadline_at, monotonic, is_direct=False)
    except ConnectionError as error:
        raise ConnectError(f"the TLS handshake with {options.tls_name} failed, so no token was sent: {error}") from error
    _declined_direct.add(address)
    return link


@lru_cache(maxsize=8)
def tls_context(sslrootcert: str) -> ssl.SSLContext:
    """TLS 1.2 or newer, certificate and name verified against the given roots: a path, `system`, PEM text, or Amazon's own.

    Amazon's, which is what none given means, are some five instead of some hundred and fifty, read in a tenth of the time.
    """
    try:
        if is_pem(sslrootcert):
            context = ssl.create_default_context(cadata=sslrootcert.replace("\\n", "\n"))
        elif sslrootcert == "":
            context = ssl.create_default_context(cafile=_ROOTS)
        elif sslrootcert == "system":
            context = ssl.create_default_context()
        elif os.path.isfile(sslrootcert):  # noqa: PTH113 - as above
            context = ssl.create_default_context(cafile=sslrootcert)
        else:
            raise ConfigError(f"sslrootcert names no file: {sslrootcert!r}; it must be a path, 'system' or PEM text")
    except (ssl.SSLError, OSError) as error:
        what = "the PEM text" if is_pem(sslrootcert) else repr(sslrootcert)
        raise ConfigError(f"sslrootcert can't be used: {what} holds no readable certificate ({error})") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([_ALPN])
    return context


def _opened(address: tuple[str, int], deadline_at: float, opener: Opener, monotonic: Callable[[], float]) -> socket.socket:
    try:
        sock = opener(address, timeout=_left(deadline_at, monotonic))
    except OSError as error:
        raise _unreachable(address, error) from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)  # NAT and PrivateLink forget a flow after 350 s
    return sock


def _secured(
    sock: socket.socket,
    context: ssl.SSLContext,
    server_name: str,
    deadline_at: float,
    monotonic: Callable[[], float],
    *,
    is_direct: bool = True,
) -> Link:
    """Shake hands. Raises `ConnectError` for what no second way can mend, `ConnectionError` for a server that speaks no TLS."""
    try:
        sock.settimeout(_left(deadline_at, monotonic))
        secured = context.wrap_socket(sock, server_hostname=_ascii(server_name))
        if is_direct and secured.selected_alpn_protocol() != _ALPN:
            secured.close()
            raise ConnectionError("the server chose no ALPN protocol")
    except ssl.SSLCertVerificationError as error:
        sock.close()
        from .refusal import untrusted  # noqa: PLC0415 - the same

        raise untrusted(server_name, error) from error
    except TimeoutError as error:
        sock.close()
        raise ConnectError(f"no TLS handshake with {server_name} within the time allowed: check the network path") from error
    except ConnectionError:
        sock.close()
        raise
    except OSError as error:  # ssl.SSLError is one
        sock.close()
        raise ConnectionError(str(error)) from error
    return Link(secured, monotonic=monotonic)


def _ascii(name: str) -> str | bytes:
    """The name as bytes where it can be: as text it is encoded by IDNA."""
    return name.encode("ascii") if name.isascii() else name


def _left(deadline_at: float, monotonic: Callable[[], float]) -> float:
    """Seconds left, as a socket takes them: never 0 (that would mean "do not wait"), and an hour at the most."""
    return min(max(deadline_at - monotonic(), 0.001), 3600.0)


def _unreachable(address: tuple[str, int], error: OSError) -> ConnectError:
    from .refusal import unreachable  # noqa: PLC0415 - most connections come about

    return unreachable(address, error)
