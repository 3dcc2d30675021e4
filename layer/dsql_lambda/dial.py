"""How a socket to the cluster is opened: TCP, then verified TLS. `dial`.

Knows addresses, TLS and certificates; knows nothing of PostgreSQL's messages beyond the one that asks for TLS, and nothing
of what follows a failure.

TLS is never optional, the certificate and the name are always verified, SNI is always sent, and nothing secret is sent
before the handshake is done. Direct TLS (ALPN `postgresql`) saves a round trip; where a server declines it, SSLRequest is
used and the choice is remembered. https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL
"""

from __future__ import annotations

import os
import socket
import ssl
from functools import lru_cache
from typing import cast

from .errors import ConfigError, ConnectError
from .options import ConnectOptions, is_pem
from .system import SYSTEM, System, ascii_name, open_tcp
from .transport import Transport, raised_in

_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
_ALPN = "postgresql"
_ROOTS = os.path.join(os.path.dirname(__file__), "roots.pem")  # noqa: PTH118, PTH120 - pathlib is cold start

_declined_direct: set[tuple[str, int]] = set()


def dial(options: ConnectOptions, deadline_at: float, system: System = SYSTEM) -> Transport:
    """Open a TLS connection to the endpoint, by a moment of the monotonic clock.

    Raises `refusal.Unreachable` where trying again can help, else `ConnectError`; `ConfigError` for unusable roots.
    """
    context = tls_context(options.sslrootcert)
    address = options.dial_host, options.port
    transport = None
    if address not in _declined_direct:
        transport = _dial_once(address, options.tls_name, context, deadline_at, system, is_direct=True)
    if transport is None:
        # Only direct TLS can be declined.
        transport = cast("Transport", _dial_once(address, options.tls_name, context, deadline_at, system, is_direct=False))
        _declined_direct.add(address)
    return transport


def _dial_once(
    address: tuple[str, int],
    server_name: str,
    context: ssl.SSLContext,
    deadline_at: float,
    system: System,
    *,
    is_direct: bool,
) -> Transport | None:
    """A connection; None where the server closed, reset, or answered without ALPN: perhaps it knows no direct TLS."""
    sock: socket.socket | None = None
    try:
        sock = system.opener(address, timeout=_left(deadline_at, system.monotonic()))
        _set_options(sock)
        if not is_direct:
            _ask_for_tls(sock, address, _left(deadline_at, system.monotonic()))
        sock.settimeout(_left(deadline_at, system.monotonic()))
        sock = secured = context.wrap_socket(sock, server_hostname=ascii_name(server_name))
        if is_direct and secured.selected_alpn_protocol() != _ALPN:
            secured.close()
            return None
        return Transport(secured, monotonic=system.monotonic)
    except BaseException as error:
        if sock is not None:
            sock.close()
        is_of_the_network = system.opener is not open_tcp or raised_in(error, "socket", "ssl", open_tcp.__module__, __name__)
        if isinstance(error, OSError) and is_of_the_network:  # else a signal handler raised it
            explained = _explained(error, address, server_name, has_connected=sock is not None, is_direct=is_direct)
            if explained is None:
                return None
            raise explained from error
        raise


def _set_options(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)  # NAT and PrivateLink forget a flow after 350 s


def _ask_for_tls(sock: socket.socket, address: tuple[str, int], seconds: float) -> None:
    sock.settimeout(seconds)
    sock.sendall(_SSL_REQUEST)
    answer = sock.recv(1)
    if not answer:
        raise ConnectionResetError("the server closed the connection")
    if answer != b"S":
        raise ConnectError(
            f"{address[0]}:{address[1]} declines TLS, so no token was sent: check that DSQL_HOST, DSQL_HOSTADDR and DSQL_PORT "
            "name the cluster and not another server"
        )


def _explained(
    error: OSError, address: tuple[str, int], server_name: str, *, has_connected: bool, is_direct: bool
) -> Exception | None:
    """What a failure of the network or of TLS means; None where the server declined direct TLS by it."""
    from . import refusal  # noqa: PLC0415 - most connections succeed

    if not has_connected:
        return refusal.unreachable(address, error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return refusal.untrusted(server_name, error)
    if isinstance(error, TimeoutError):
        return refusal.no_handshake(server_name)
    return None if is_direct else refusal.failed_handshake(server_name, error)


@lru_cache(maxsize=8)
def tls_context(sslrootcert: str) -> ssl.SSLContext:
    """TLS 1.2 or newer, certificate and name verified against the given roots: a path, `system`, PEM text, or Amazon's own.

    The bundled roots are a handful of certificates, which load in a tenth of the time of a system's full set.
    """
    try:
        if is_pem(sslrootcert):
            context = ssl.create_default_context(cadata=sslrootcert.replace("\\n", "\n"))
        elif sslrootcert == "":
            context = ssl.create_default_context(cafile=_ROOTS)
        elif sslrootcert == "system":
            context = ssl.create_default_context()
        elif os.path.isfile(sslrootcert):  # noqa: PTH113 - pathlib is cold start
            context = ssl.create_default_context(cafile=sslrootcert)
        else:
            raise ConfigError(f"sslrootcert names no file: {sslrootcert!r}; it must be a path, 'system' or PEM text")
    except (ssl.SSLError, OSError) as error:
        what = "the PEM text" if is_pem(sslrootcert) else repr(sslrootcert)
        raise ConfigError(f"sslrootcert can't be used: {what} holds no readable certificate ({error})") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([_ALPN])
    return context


def _left(deadline_at: float, now: float) -> float:
    """Seconds left, as a socket takes them: never 0 (that would mean "do not wait"), and an hour at the most."""
    return min(max(deadline_at - now, 0.001), 3600.0)
