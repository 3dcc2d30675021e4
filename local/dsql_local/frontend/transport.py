"""The bytes between one client and the front: the TLS handshake, then messages both ways, then an end of some kind.

It peeks at the first byte, so that direct TLS and SSLRequest meet on one port; it does not know what messages mean.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections import deque
from typing import Literal

from ..faults.plan import Disconnection
from ..protocol.messages import (
    CANCEL_REQUEST,
    GSSENC_REQUEST,
    MAX_LENGTH,
    MAX_STARTUP,
    SSL_REQUEST,
    Message,
    ProtocolError,
    Splitter,
    StartupPacket,
    parse_startup,
)
from .tls import CertificateAuthority

__all__ = ["Disconnected", "HandshakeFailed", "Negotiation", "Plaintext", "Transport"]

Negotiation = Literal["direct", "ssl_request"]
CHUNK = 1 << 16
CLOSING_SECONDS = 1.0
_TLS_RECORD = b"\x16"
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: closing sends a RST


class Disconnected(Exception):
    """The client ended the connection."""


class HandshakeFailed(Exception):
    """TLS did not come about; the message says why."""


class Plaintext(Exception):
    """The client began to speak without TLS."""


class Transport:
    """One accepted socket. `negotiate` first; then `startup`, `receive`, `write`."""

    def __init__(self, accepted: socket.socket, *, longest: int = MAX_LENGTH) -> None:
        self._socket = accepted
        self._reader = asyncio.StreamReader(limit=CHUNK)
        self._writer: asyncio.StreamWriter | None = None
        self._splitter = Splitter(longest)
        self._inbox: deque[Message] = deque()
        self._outbox = bytearray()
        self._open = True
        self._is_handshaking = False  # the socket is asyncio's, which closes it if that is cancelled

    # --- Before TLS: raw bytes, none read beyond what was asked for ---

    async def negotiate(self, authority: CertificateAuthority) -> tuple[Negotiation, str | None] | None:
        """Do the TLS handshake: how it was asked for, and the server name. None for a cancel request without TLS.

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
        spoken = transport.get_extra_info("ssl_object")
        if negotiation == "direct" and spoken.selected_alpn_protocol() != "postgresql":
            raise HandshakeFailed("direct TLS without the ALPN protocol postgresql")
        return negotiation, authority.server_name(spoken)

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
        """The first byte, left where it is."""
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

    # --- After it ---

    async def startup(self) -> StartupPacket:
        """The packet that follows the handshake."""
        try:
            (length,) = struct.unpack("!i", await self._reader.readexactly(4))
            if not 8 <= length <= MAX_STARTUP:
                raise ProtocolError(f"a startup packet of {length} bytes")
            return parse_startup(await self._reader.readexactly(length - 4))
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError) as gone:
            raise Disconnected from gone

    async def receive(self) -> Message:
        """The client's next message. Raises `Gone` at its end."""
        while not self._inbox:
            try:
                data = await self._reader.read(CHUNK)
            except (ConnectionError, ssl.SSLError) as gone:
                raise Disconnected from gone
            if not data:
                raise Disconnected
            self._inbox.extend(self._splitter.feed(data))
        return self._inbox.popleft()

    @property
    def has_more(self) -> bool:
        """Whether a further message has come already."""
        return bool(self._inbox)

    @property
    def is_gone(self) -> bool:
        """Whether the client's end of the link has come."""
        return self._reader.at_eof() or self._reader.exception() is not None

    def write(self, data: bytes) -> None:
        """Take bytes for the client; they wait for `drain`, so that one answer is one piece."""
        self._outbox += data

    async def drain(self) -> None:
        """Let them leave, and wait while the client is slower to read than we are to write."""
        if self._writer is not None and self._open:
            with contextlib.suppress(ConnectionError):
                self._writer.write(bytes(self._outbox))
                self._outbox.clear()
                await self._writer.drain()

    async def flush(self) -> None:
        """Let them leave, down to the last one."""
        if self._writer is not None:
            self._writer.transport.set_write_buffer_limits(high=1)  # 0 would pause it for ever
        await self.drain()

    async def wait_for_end(self) -> None:
        """Hear nothing more of the client until it has gone."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while await (loop.sock_recv(self._socket, CHUNK) if self._writer is None else self._reader.read(CHUNK)):
                pass

    async def refuse_plaintext(self, answer: Message) -> None:
        """Answer a client that speaks without TLS."""
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self._socket, answer.data)

    # --- Its end ---

    async def close(self) -> None:
        """End it after everything written has left."""
        if not self._open:
            return
        if self._writer is None:
            self._open = False
            self._socket.close()
            return
        with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):  # a client that does not say goodbye in TLS is not waited for
                await self.drain()
                self._open = False
                self._writer.close()
                await self._writer.wait_closed()
        self._open = False
        self._writer.transport.abort()

    def cut(self, how: Disconnection) -> None:
        """End it without a word of TLS: the client sees a reset, or a bare end of the stream.

        Whoever cuts it during the handshake cancels `negotiate`, too.
        """
        if not self._open:
            return
        self._open = False
        raw = self._socket if self._writer is None else self._writer.get_extra_info("socket")
        if how == "rst":
            with contextlib.suppress(OSError):  # it is closed already
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        if self._writer is not None:
            self._writer.transport.abort()
        elif not self._is_handshaking:
            raw.close()
