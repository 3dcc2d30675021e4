"""The order of flights, the start of jobs, and random numbers; with a seed, all of them are deterministic.

With a seed, flights are executed one at a time in the order of their arrival; a job starts after a number of flights instead of a
delay; ids, and PostgreSQL's random(), are drawn from the seed. So one thread that uses several connections sees the same results
in every run.
"""

import asyncio
import base64
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..postgres.backend import Backend
from ..protocol.client import Client
from ..protocol.messages import Message

__all__ = ["Scheduler"]

MAX_FLIGHTS_UNTIL_JOB = 5


class Scheduler:
    """The scheduler of one server; not deterministic if `seed` is None."""

    def __init__(self, seed: int | None = None) -> None:
        self.is_seeded = seed is not None
        self._random = random.Random(seed) if self.is_seeded else random.SystemRandom()  # noqa: S311 - seeded on purpose
        self._turn = asyncio.Lock()

    def new_job_id(self) -> str:
        """128 random bits as 26 characters of base 32, as on a cluster."""
        return base64.b32encode(self._random.getrandbits(128).to_bytes(16)).decode().rstrip("=").lower()

    def flights_until_job(self) -> int:
        """The number of flights after which a job starts."""
        return self._random.randint(1, MAX_FLIGHTS_UNTIL_JOB)

    async def seed_session(self, backend: Backend) -> None:
        """Seed PostgreSQL's random() in a new session, if there is a seed."""
        if self.is_seeded:
            await backend.run(f"SELECT setseed({self._random.uniform(-1, 1)})")

    @asynccontextmanager
    async def turn(self, client: Client) -> AsyncIterator[Client]:
        """Execute a flight inside the block, with a seed only one at a time. Yields the client to use."""
        if not self.is_seeded:
            yield client
            return
        waiting = _YieldingClient(client, self._turn)
        await self._turn.acquire()
        try:
            yield waiting
        finally:
            if waiting.has_turn:
                self._turn.release()


class _YieldingClient:
    """A client that gives up its turn while it waits for the data of a COPY FROM STDIN, since its thread may do other work."""

    def __init__(self, client: Client, turn: asyncio.Lock) -> None:
        self._client = client
        self._turn = turn
        self.has_turn = True

    def write(self, data: bytes) -> None:
        """Buffer bytes for the client."""
        self._client.write(data)

    async def drain(self) -> None:
        """Send what is buffered."""
        await self._client.drain()

    async def receive(self) -> Message:
        """The client's next message."""
        self._turn.release()
        self.has_turn = False
        message = await self._client.receive()
        await self._turn.acquire()
        self.has_turn = True
        return message
