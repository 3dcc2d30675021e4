"""Lets containers of the local Docker engine, and nobody else, reach one port of this machine's loopback interface.

`sam local invoke --docker-network host` has no effect: SAM attaches its container to the bridge network, from which the loopback
interface is unreachable. So a second container listens on the bridge, and forwards bytes through a unix socket to this process,
which forwards them to the port. No port is opened on the machine, and TLS passes through unchanged.

The container runs this file as a script, with the standard library only. It keeps one connection to the unix socket open and ends
when that connection breaks, so it never outlives this process.
"""

import asyncio
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Self

__all__ = ["DockerRelay", "RelayError", "end_tasks", "forward"]

PORT = 5432
READY_SECONDS = 30.0


class RelayError(Exception):
    """The relay container did not start."""


class DockerRelay:
    """From `__enter__` to `__exit__`, containers on the bridge reach `127.0.0.1:port` at `host` and `PORT`.

    `engine` is a docker-py client. `image` must be present, and `python` is the path of its interpreter.
    """

    def __init__(self, engine: Any, image: str, port: int, *, python: str) -> None:
        self._engine, self._image, self._target, self._python = engine, image, port, python
        self._folder = tempfile.TemporaryDirectory(prefix="dsql-relay-")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dsql-relay", daemon=True)
        self._ready = threading.Event()
        self._server: asyncio.Server | None = None
        self._lifeline: asyncio.StreamWriter | None = None
        self._container: Any = None
        self.host = ""

    def __enter__(self) -> Self:
        from .signals import deferred  # noqa: PLC0415 - not available in the container

        self._thread.start()
        try:
            listening = asyncio.start_unix_server(self._accept, Path(self._folder.name) / "socket")
            self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result()
            with deferred():
                self._container = self._engine.containers.run(
                    self._image,
                    entrypoint=[self._python],
                    command=["-c", Path(__file__).read_text(encoding="utf-8"), "/relay/socket"],
                    volumes={self._folder.name: {"bind": "/relay", "mode": "rw"}},
                    working_dir="/",
                    security_opt=["label=disable"],
                    auto_remove=True,
                    detach=True,
                )
            if not self._ready.wait(READY_SECONDS):
                raise RelayError(f"the relay container did not connect within {READY_SECONDS:.0f} s; try VIA=rie")
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
        """Stop the relay; returns when the container is removed."""
        if self._container is not None:
            errors = sys.modules["docker"].errors
            try:
                self._container.remove(force=True)
            except errors.APIError as error:
                if error.status_code not in {404, 409}:  # it is removed, or being removed
                    raise
            self._container = None
        if self._thread.is_alive():
            if self._server is not None:
                self._loop.call_soon_threadsafe(self._server.close)
            if self._lifeline is not None:
                self._loop.call_soon_threadsafe(self._lifeline.close)
            asyncio.run_coroutine_threadsafe(end_tasks(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
        self._folder.cleanup()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._lifeline is None:  # the container connects first when it listens
            self._lifeline = writer
            self._ready.set()
            return
        await forward(reader, writer, *await asyncio.open_connection("127.0.0.1", self._target))


async def end_tasks() -> None:
    """Cancel every other task of the running loop."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)  # what they closed is closed by the loop's next turn


async def forward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, far_reader: asyncio.StreamReader, far_writer: asyncio.StreamWriter
) -> None:
    """Forward bytes in both directions until one side closes, then close the other."""

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass  # a broken connection is a closed one
        finally:
            sink.close()

    await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))


async def serve_container(path: str) -> None:
    """In the container: listen on the bridge until the lifeline breaks."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await forward(reader, writer, *await asyncio.open_unix_connection(path))

    async with await asyncio.start_server(accept, "0.0.0.0", PORT):  # noqa: S104 - of the container
        lifeline, _writer = await asyncio.open_unix_connection(path)
        await lifeline.read()


if __name__ == "__main__":
    asyncio.run(serve_container(sys.argv[1]))
