"""The receiver of answers, and the source of COPY FROM STDIN data, as the engine sees it. Types only; no I/O."""

from typing import Protocol

from .messages import Message

__all__ = ["Client", "NullClient"]


class Client(Protocol):
    """Receives answers, and provides the data of a COPY FROM STDIN."""

    def write(self, data: bytes) -> None:
        """Buffer bytes for the client."""

    async def drain(self) -> None:
        """Send what is buffered, and wait while the client reads more slowly than we write."""

    async def receive(self) -> Message:
        """The client's next message."""


class NullClient:
    """Discards answers: for statements that are executed without the client's knowledge."""

    def write(self, data: bytes) -> None:
        """Discard the answer."""

    async def drain(self) -> None:
        """Nothing to send."""

    async def receive(self) -> Message:
        """CopyFail: there is no data."""
        return Message(b"f", b"nobody\0")
