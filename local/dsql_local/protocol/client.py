"""Where the answers of a flight go, and where the data of a COPY FROM STDIN comes from. Types only; it does no I/O."""

from typing import Protocol

from .messages import Message

__all__ = ["Client", "NullClient"]


class Client(Protocol):
    """Where replies go, and where the data of a COPY FROM STDIN comes from."""

    def write(self, data: bytes) -> None:
        """Take bytes for the client; they may wait for `drain`."""

    async def drain(self) -> None:
        """Let them leave, and wait while the client is slower to read than we are to write."""

    async def receive(self) -> Message:
        """The client's next message."""


class NullClient:
    """Nobody: for what is executed again while the client knows nothing of it."""

    def write(self, data: bytes) -> None:
        """Drop the reply."""

    async def drain(self) -> None:
        """There is nothing to wait for."""

    async def receive(self) -> Message:
        """It has no data."""
        return Message(b"f", b"nobody\0")
