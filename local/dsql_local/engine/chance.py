"""What a server leaves to chance: who executes first, when a job begins, what ids and random numbers come out.

From a seed it leaves nothing to it. Flights are executed one at a time, in the order in which they come; a job begins after some
flights instead of some time; ids, and PostgreSQL's random(), are drawn from the seed. So one thread that drives several
connections meets the same each time.
"""

import asyncio
import base64
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..postgres.backend import Backend
from ..protocol.client import Client
from ..protocol.messages import Message

__all__ = ["Chance"]

MOST_FLIGHTS = 5  # from a statement to the beginning of its job


class Chance:
    """One server's; `seed` is None where chance is to be chance."""

    def __init__(self, seed: int | None = None) -> None:
        self.is_seeded = seed is not None
        self._draw = random.Random(seed) if self.is_seeded else random.SystemRandom()  # noqa: S311 - seeded on purpose
        self._turn = asyncio.Lock()

    def new_job_id(self) -> str:
        """128 bits in 26 characters of base 32, as a cluster writes an id."""
        return base64.b32encode(self._draw.getrandbits(128).to_bytes(16)).decode().rstrip("=").lower()

    def flights_until_job(self) -> int:
        """After how many flights a job begins."""
        return self._draw.randint(1, MOST_FLIGHTS)

    async def prepare(self, backend: Backend) -> None:
        """Let a new session draw PostgreSQL's random numbers from the seed."""
        if self.is_seeded:
            await backend.run(f"SELECT setseed({self._draw.uniform(-1, 1)})")

    @asynccontextmanager
    async def turn(self, client: Client) -> AsyncIterator[Client]:
        """While this is entered a flight is executed, and no other one from a seed; gives its client as it is to be used."""
        if not self.is_seeded:
            yield client
            return
        waiting = _Waiting(client, self._turn)
        await self._turn.acquire()
        try:
            yield waiting
        finally:
            if waiting.has_turn:
                self._turn.release()


class _Waiting:
    """A client that gives up its turn while the data of its COPY FROM STDIN is waited for: its thread may do something else."""

    def __init__(self, client: Client, turn: asyncio.Lock) -> None:
        self._client = client
        self._turn = turn
        self.has_turn = True

    def write(self, data: bytes) -> None:
        """Take bytes for the client."""
        self._client.write(data)

    async def drain(self) -> None:
        """Let them leave."""
        await self._client.drain()

    async def receive(self) -> Message:
        """The client's next message."""
        self._turn.release()
        self.has_turn = False
        message = await self._client.receive()
        await self._turn.acquire()
        self.has_turn = True
        return message
