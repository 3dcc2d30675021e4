"""Lets containers of the local Docker engine reach one port of this machine's loopback interface as `host.docker.internal`.

`sam local` gives a durable function's container that name for the runner of durable executions, and takes no other address. On
Linux it is the bridge's own address, where nothing listens: so this process listens there, on that address alone, and forwards to
the loopback. Docker Desktop forwards the name itself.
"""

import asyncio
import contextlib
import ipaddress
import sys
import threading
from collections.abc import Iterator
from typing import Any

from .docker_relay import end_tasks, forward

__all__ = ["bridge_port"]


@contextlib.contextmanager
def bridge_port(engine: Any, port: int) -> Iterator[None]:
    """Inside the block containers reach 127.0.0.1:`port` at `host.docker.internal:port`."""
    if sys.platform != "linux" or engine.info().get("OperatingSystem") == "Docker Desktop":
        yield
        return
    settings = engine.networks.get("bridge").attrs["IPAM"]["Config"][0]
    gateway = settings.get("Gateway") or str(ipaddress.ip_network(settings["Subnet"])[1])  # older engines do not say it
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="dsql-bridge", daemon=True)
    thread.start()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await forward(reader, writer, *await asyncio.open_connection("127.0.0.1", port))

    server: asyncio.Server | None = None
    try:
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(accept, gateway, port), loop).result()
        yield
    finally:
        if server is not None:
            loop.call_soon_threadsafe(server.close)
        asyncio.run_coroutine_threadsafe(end_tasks(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
