"""Decodes a stream of bytes into messages. It does no I/O."""

import struct
from collections.abc import Iterator

from .messages import MAX_LENGTH, Message, MessageBatch, MessageTooLong, ProtocolError

__all__ = ["MessageDecoder"]

_ROWS = frozenset(b"Dd")  # DataRow and CopyData, which a server sends in large numbers
_HEAD = struct.Struct("!Bi")


class MessageDecoder:
    """Decodes a stream of bytes; an incomplete message waits for more bytes. Raises `ProtocolError`."""

    def __init__(self, max_length: int = MAX_LENGTH) -> None:
        self._max_length = max_length
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take more bytes, and yield each message that is now complete."""
        pending = self._pending
        pending += data
        start = 0
        try:
            while (end := self._end(start)) is not None:
                message = Message(bytes(pending[start : start + 1]), bytes(pending[start + 5 : end]))
                start = end
                yield message
        finally:
            del pending[:start]

    def feed_batched(self, data: bytes) -> Iterator[Message | MessageBatch]:
        """The same for a server's bytes, with adjacent rows as one batch."""
        pending = self._pending
        pending += data
        start = 0
        try:
            while (end := self._end(start)) is not None:
                kind = pending[start]
                piece: Message | MessageBatch
                if kind in _ROWS:
                    starts = [0]
                    while end < len(pending) and pending[end] == kind and (following := self._end(end)) is not None:
                        starts.append(end - start)
                        end = following
                    piece = MessageBatch(bytes((kind,)), bytes(pending[start:end]), starts)
                else:
                    piece = Message(bytes((kind,)), bytes(pending[start + 5 : end]))
                start = end
                yield piece
        finally:
            del pending[:start]

    def _end(self, start: int) -> int | None:
        """The end of the message that begins at `start`, None if it is not complete."""
        if len(self._pending) - start < 5:
            return None
        _, length = _HEAD.unpack_from(self._pending, start)
        if not 4 <= length <= MAX_LENGTH:
            raise ProtocolError(f"invalid message length {length}")
        if length > self._max_length:
            raise MessageTooLong(f"a message of {length} bytes")
        end: int = start + 1 + length
        return end if end <= len(self._pending) else None
