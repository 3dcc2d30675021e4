"""A client in front of the client: it keeps what is answered until it is decided, reads the command tags, and may change one.

It knows what a CommandComplete says of rows, and decides nothing.
"""

import re

from ..protocol.client import Client
from ..protocol.messages import Message, Run, Splitter

__all__ = ["ResponseBuffer"]

_MODIFIED = re.compile(r"(?:INSERT \d+|UPDATE|DELETE|MERGE|COPY) (\d+)")


class ResponseBuffer:
    """Keeps the answers to one unit. `tags`: what a statement's own command tag becomes; None leaves it."""

    def __init__(self, client: Client, tags: tuple[str | None, ...] = ()) -> None:
        self._client = client
        self._tags = list(tags)
        self._splitter = Splitter()
        self._kept = bytearray()
        self.rows = 0  # that the statements have modified, by their tags
        self.received = 0  # bytes of COPY data

    def write(self, data: bytes) -> None:
        """Keep an answer."""
        for message in self._splitter.runs(data):
            self._kept += self._noted(message).data

    def _noted(self, message: Message | Run) -> Message | Run:
        if isinstance(message, Run) or message.kind != b"C":
            return message
        (tag,) = message.texts(1)
        modified = _MODIFIED.fullmatch(tag)
        self.rows += int(modified[1]) if modified is not None else 0
        other = self._tags.pop(0) if self._tags else None
        return message if other is None else Message(b"C", other.encode() + b"\0")

    async def drain(self) -> None:
        """What is kept can be kept no longer."""
        self.give()
        await self._client.drain()

    async def receive(self) -> Message:
        """The client's next message."""
        message = await self._client.receive()
        self.received += len(message.body)
        return message

    def give(self) -> None:
        """Hand over what is kept."""
        self._client.write(bytes(self._kept))
        self._kept.clear()
