"""A link that is cut at random bytes: `Proxy`. Bytes are TLS's; it opens none of them."""

from __future__ import annotations

import asyncio
import random
import threading

_MOST_BYTES = 400_000
"""How many a connection can pass before it is cut."""


class Proxy:
    """Hands bytes through, and cuts every so often at a random one."""

    def __init__(self, host: str, port: int, seed: int) -> None:
        self.cuts = 0
        self.port = 0
        self._target = host, port
        self._dice = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        try:
            to, back = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        budget = [self._dice.randint(1, _MOST_BYTES)]
        await asyncio.gather(
            self._pump(reader, back, budget, writer), self._pump(to, writer, budget, back), return_exceptions=True
        )
        for each in (writer, back):
            each.close()
        if task is not None:
            self._tasks.discard(task)

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, budget: list[int], other: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await source.read(16_384):
                if budget[0] <= len(data):
                    target.write(data[: max(0, budget[0])])
                    self.cuts += 1
                    break
                budget[0] -= len(data)
                target.write(data)
                await target.drain()
            else:
                target.close()  # the end of the stream, handed on
                other.close()
                return
        except OSError:
            pass
        for each in (target, other):  # a reset, handed on
            each.transport.abort()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        for task in self._tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()
