"""Lets containers of the local Docker engine reach one port of this machine's loopback, and nobody else.

`sam local invoke --docker-network host` has no effect (SAM puts its container on the bridge whatever it is told), and what
listens on the loopback cannot be dialled from there. So a second container listens on the bridge and passes bytes through a unix
socket to this process, which passes them on: no port is opened on the machine. TLS goes through it untouched.

Run as a script, this file is the container's half: standard library only. That half keeps one link to the socket open and ends
when it breaks, so the container goes when this process does, in whatever way.
"""

import asyncio
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Self

__all__ = ["DockerRelay", "RelayError"]

PORT = 5432
READY_SECONDS = 30.0


class RelayError(Exception):
    """The container's half did not start."""


class DockerRelay:
    """From `__enter__` to `__exit__`, containers on the bridge reach `127.0.0.1:port` at `host` and `PORT`.

    `engine` is a docker-py client and `image` one that is there and has Python at /var/lang/bin, as Lambda's have.
    """

    def __init__(self, engine: Any, image: str, port: int) -> None:
        self._engine, self._image, self._target = engine, image, port
        self._folder = tempfile.TemporaryDirectory(prefix="dsql-relay-")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dsql-relay", daemon=True)
        self._ready = threading.Event()
        self._lifeline: asyncio.StreamWriter | None = None
        self._container: Any = None
        self.host = ""

    def __enter__(self) -> Self:
        from .signals import deferred  # noqa: PLC0415 - not in the container

        self._thread.start()
        try:
            listening = asyncio.start_unix_server(self._accept, Path(self._folder.name) / "socket")
            asyncio.run_coroutine_threadsafe(listening, self._loop).result()
            with deferred():
                self._container = self._engine.containers.run(
                    self._image,
                    entrypoint=["/var/lang/bin/python3.13"],
                    command=["-c", Path(__file__).read_text(encoding="utf-8"), "/relay/socket"],
                    volumes={self._folder.name: {"bind": "/relay", "mode": "rw"}},
                    working_dir="/",
                    security_opt=["label=disable"],
                    auto_remove=True,
                    detach=True,
                )
            if not self._ready.wait(READY_SECONDS):
                raise RelayError(f"no answer from the relay's container within {READY_SECONDS:.0f} s")
            self._container.reload()
            networks = self._container.attrs["NetworkSettings"]["Networks"]
            self.host = next(iter(networks.values()))["IPAddress"]
        except BaseException as error:
            self.close()
            if isinstance(error, sys.modules["docker"].errors.DockerException):
                raise RelayError(f"the Docker engine could not run {self._image} ({error}); try VIA=rie") from error
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End both halves; returns when the container is gone."""
        if self._container is not None:
            errors = sys.modules["docker"].errors
            try:
                self._container.remove(force=True)
            except errors.APIError as error:
                if error.status_code not in {404, 409}:  # it is gone, or going
                    raise
            self._container = None
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(_end_tasks(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
        self._folder.cleanup()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._lifeline is None:  # the first link comes when the container's half listens
            self._lifeline = writer
            self._ready.set()
            return
        await join(reader, writer, *await asyncio.open_connection("127.0.0.1", self._target))


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def join(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, far_reader: asyncio.StreamReader, far_writer: asyncio.StreamWriter
) -> None:
    """Pass bytes both ways until one side ends, then end the other."""

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass  # a link that breaks has ended
        finally:
            sink.close()

    await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))


async def serve_container(path: str) -> None:
    """The container's half: listen on the bridge until the lifeline breaks."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await join(reader, writer, *await asyncio.open_unix_connection(path))

    async with await asyncio.start_server(accept, "0.0.0.0", PORT):  # noqa: S104 - the container's own address
        lifeline, _writer = await asyncio.open_unix_connection(path)
        await lifeline.read()


if __name__ == "__main__":
    asyncio.run(serve_container(sys.argv[1]))
