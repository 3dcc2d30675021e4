"""The transport of one client connection: TLS negotiation, then messages in both directions, then its end.

It peeks at the first byte to accept direct TLS and SSLRequest on one port. It does not know what messages mean.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections import deque
from typing import Literal

from ..faults.kinds import Disconnection
from ..protocol.decoder import MessageDecoder
from ..protocol.messages import (
    CANCEL_REQUEST,
    GSSENC_REQUEST,
    MAX_LENGTH,
    MAX_STARTUP,
    SSL_REQUEST,
    Message,
    ProtocolError,
    StartupPacket,
    parse_startup,
)
from .tls import CertificateAuthority

__all__ = ["Disconnected", "HandshakeFailed", "Negotiation", "Plaintext", "Transport"]

Negotiation = Literal["direct", "ssl_request"]
_READ_BYTES = 1 << 16
CLOSING_SECONDS = 1.0
_TLS_RECORD = b"\x16"
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with 0 s: close() sends a RST


class Disconnected(Exception):
    """The client closed the connection."""


class HandshakeFailed(Exception):
    """The TLS handshake failed; the message says why."""


class Plaintext(Exception):
    """The client sent a startup packet without TLS."""


class Transport:
    """One accepted socket: call `negotiate`, then `startup`, then `receive` and `write`."""

    def __init__(self, accepted: socket.socket, *, max_message_bytes: int = MAX_LENGTH) -> None:
        self._socket = accepted
        self._reader = asyncio.StreamReader(limit=_READ_BYTES)
        self._writer: asyncio.StreamWriter | None = None
        self._decoder = MessageDecoder(max_message_bytes)
        self._inbox: deque[Message] = deque()
        self._outbox = bytearray()
        self._open = True
        self._is_handshaking = False  # then asyncio owns the socket, and closes it when it is cancelled

    # --- Before TLS: reads no byte more than it needs, so that the rest is left for TLS ---

    async def negotiate(self, authority: CertificateAuthority) -> tuple[Negotiation, str | None] | None:
        """Negotiate TLS; returns how the client asked for it, and the SNI. Returns None for a cancel request without TLS.

        Raises `Disconnected`, `Plaintext` and `HandshakeFailed`.
        """
        negotiation: Negotiation = "direct"
        try:
            if await self._peek() != _TLS_RECORD:
                negotiation = "ssl_request"
                if not await self._wait_for_ssl_request():
                    return None
        except ConnectionError as gone:
            raise Disconnected from gone
        loop = asyncio.get_running_loop()
        protocol = asyncio.StreamReaderProtocol(self._reader)
        self._is_handshaking = True
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, self._socket, ssl=authority.context, ssl_handshake_timeout=30.0
            )
        except (ssl.SSLError, OSError) as failed:
            raise HandshakeFailed(str(failed)) from failed
        self._is_handshaking = False
        self._writer = asyncio.StreamWriter(transport, protocol, self._reader, loop)
        tls = transport.get_extra_info("ssl_object")
        if negotiation == "direct" and tls.selected_alpn_protocol() != "postgresql":
            raise HandshakeFailed("direct TLS needs the ALPN protocol postgresql")
        return negotiation, authority.server_name(tls)

    async def _wait_for_ssl_request(self) -> bool:
        loop = asyncio.get_running_loop()
        while True:
            code = (await self._packet()).code
            if code == SSL_REQUEST:
                await loop.sock_sendall(self._socket, b"S")
                return True
            if code == CANCEL_REQUEST:
                return False
            if code != GSSENC_REQUEST:
                raise Plaintext
            await loop.sock_sendall(self._socket, b"N")

    async def _packet(self) -> StartupPacket:
        (length,) = struct.unpack("!i", await self._exactly(4))
        if not 8 <= length <= MAX_STARTUP:
            raise ProtocolError(f"a startup packet of {length} bytes")
        return parse_startup(await self._exactly(length - 4))

    async def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = await asyncio.get_running_loop().sock_recv(self._socket, count - len(data))
            if not more:
                raise Disconnected
            data += more
        return data

    async def _peek(self) -> bytes:
        """The first byte, which stays unread."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._socket, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._socket)
        first = self._socket.recv(1, socket.MSG_PEEK)
        if not first:
            raise Disconnected
        return first

    # --- With TLS ---

    async def startup(self) -> StartupPacket:
        """The startup packet. Raises `Disconnected`, `ProtocolError`."""
        try:
            (length,) = struct.unpack("!i", await self._reader.readexactly(4))
            if not 8 <= length <= MAX_STARTUP:
                raise ProtocolError(f"a startup packet of {length} bytes")
            return parse_startup(await self._reader.readexactly(length - 4))
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError) as gone:
            raise Disconnected from gone

    async def receive(self) -> Message:
        """The client's next message. Raises `Disconnected`, `ProtocolError`."""
        while not self._inbox:
            try:
                data = await self._reader.read(_READ_BYTES)
            except (ConnectionError, ssl.SSLError) as gone:
                raise Disconnected from gone
            if not data:
                raise Disconnected
            self._inbox.extend(self._decoder.feed(data))
        return self._inbox.popleft()

    @property
    def has_more(self) -> bool:
        """Whether another message has already arrived."""
        return bool(self._inbox)

    @property
    def is_disconnected(self) -> bool:
        """Whether the client has closed the connection."""
        return self._reader.at_eof() or self._reader.exception() is not None

    def write(self, data: bytes) -> None:
        """Buffer bytes for the client until `drain`, so that an answer is sent in one piece."""
        self._outbox += data

    async def drain(self) -> None:
        """Send what is buffered, and wait while the client reads more slowly than we write."""
        if self._writer is not None and self._open:
            with contextlib.suppress(ConnectionError):
                self._writer.write(bytes(self._outbox))
                self._outbox.clear()
                await self._writer.drain()

    async def flush(self) -> None:
        """Send what is buffered, down to the last byte."""
        if self._writer is not None:
            self._writer.transport.set_write_buffer_limits(high=1)  # with 0, drain() would never return
        await self.drain()

    async def wait_for_end(self) -> None:
        """Discard what the client sends until it closes the connection."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while await (loop.sock_recv(self._socket, _READ_BYTES) if self._writer is None else self._reader.read(_READ_BYTES)):
                pass

    async def refuse_plaintext(self, answer: Message) -> None:
        """Send an error to a client without TLS."""
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self._socket, answer.data)

    # --- The end ---

    async def close(self) -> None:
        """Send what is buffered, and close the connection."""
        if not self._open:
            return
        if self._writer is None:
            self._open = False
            self._socket.close()
            return
        with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):  # do not wait longer for a client that does not answer close_notify
                await self.drain()
                self._open = False
                self._writer.close()
                await self._writer.wait_closed()
        self._open = False
        self._writer.transport.abort()

    def cut(self, how: Disconnection) -> None:
        """End the connection without close_notify: the client sees a reset, or a bare end of the stream.

        During the handshake, the caller must also cancel `negotiate`.
        """
        if not self._open:
            return
        self._open = False
        raw = self._socket if self._writer is None else self._writer.get_extra_info("socket")
        if how == "rst" and raw is not None:  # asyncio forgets the socket of a connection that the client has ended
            with contextlib.suppress(OSError):  # it is already closed
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        if self._writer is not None:
            self._writer.transport.abort()
        elif not self._is_handshaking:
            raw.close()
