"""A client that buffers the response of one unit until it is decided whether the client may see it.

It counts modified rows by the command tags, and can replace the tags.
"""

import re

from ..protocol.client import Client
from ..protocol.decoder import MessageDecoder
from ..protocol.messages import Message, MessageBatch

__all__ = ["ResponseBuffer"]

_MODIFIED = re.compile(r"(?:INSERT \d+|UPDATE|DELETE|MERGE|COPY) (\d+)")


class ResponseBuffer:
    """Buffers the response of one unit. `tags` replace the command tags of its statements; None leaves a tag unchanged."""

    def __init__(self, client: Client, tags: tuple[str | None, ...] = ()) -> None:
        self._client = client
        self._tags = list(tags)
        self._decoder = MessageDecoder()
        self._buffer = bytearray()
        self.rows = 0  # modified rows, by the command tags
        self.copied_bytes = 0  # bytes of COPY data

    def write(self, data: bytes) -> None:
        """Buffer an answer."""
        for message in self._decoder.feed_batched(data):
            self._buffer += self._with_tag(message).data

    def _with_tag(self, message: Message | MessageBatch) -> Message | MessageBatch:
        if isinstance(message, MessageBatch) or message.kind != b"C":
            return message
        (tag,) = message.texts(1)
        modified = _MODIFIED.fullmatch(tag)
        self.rows += int(modified[1]) if modified is not None else 0
        replacement = self._tags.pop(0) if self._tags else None
        return message if replacement is None else Message(b"C", replacement.encode() + b"\0")

    async def drain(self) -> None:
        """Send what is buffered: the client is about to be read from, or there is too much of it."""
        self.send()
        await self._client.drain()

    async def receive(self) -> Message:
        """The client's next message."""
        message = await self._client.receive()
        self.copied_bytes += len(message.body)
        return message

    def send(self) -> None:
        """Send what is buffered."""
        self._client.write(bytes(self._buffer))
        self._buffer.clear()
