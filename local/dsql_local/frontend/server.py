"""The listener: accepts sockets and runs one `Connection` for each.

It counts connections and can cut all of them. What happens on a connection is in `connection`.
"""

import asyncio
import contextlib
import functools
import socket

from ..faults.kinds import Disconnection
from .connection import Connection
from .context import ConnectionContext
from .transport import Transport

__all__ = ["Frontend"]

_ACCEPT_RETRY_SECONDS = 0.05


class Frontend:
    """Accepts connections and serves them with what `context` holds."""

    def __init__(self, context: ConnectionContext) -> None:
        self._context = context
        self._tasks: dict[Connection, asyncio.Task[None]] = {}
        self._listener: socket.socket | None = None
        self.accepted = 0

    @property
    def connections(self) -> int:
        """The number of connections, including those that are opening or closing."""
        return len(self._tasks)

    def listen(self, listener: socket.socket) -> None:
        """Accept connections on this non-blocking socket, until `stop_listening`."""
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._accept)

    def stop_listening(self) -> None:
        """Accept no more connections, and close the socket."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self) -> None:
        # A callback and not a task: cancelling a task could lose a connection that is already accepted.
        listener, loop = self._listener, asyncio.get_running_loop()
        if listener is None:
            return
        try:
            accepted, _ = listener.accept()
        except (BlockingIOError, ConnectionError):  # the client has already closed it
            return
        except OSError:  # for example, no file descriptors left: try again later instead of spinning
            loop.remove_reader(listener)
            loop.call_later(_ACCEPT_RETRY_SECONDS, self._resume, listener)
            return
        accepted.setblocking(False)  # noqa: FBT003 - its only parameter
        with contextlib.suppress(OSError):
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.accepted += 1
        transport = Transport(accepted, max_message_bytes=self._context.limits.message)
        connection = Connection(self._context, transport, self.accepted)
        task = loop.create_task(connection.serve())
        self._tasks[connection] = task
        task.add_done_callback(functools.partial(self._forget, connection))

    def _resume(self, listener: socket.socket) -> None:
        if self._listener is listener:
            asyncio.get_running_loop().add_reader(listener, self._accept)

    def _forget(self, connection: Connection, _: asyncio.Task[None]) -> None:
        self._tasks.pop(connection, None)

    async def close_connections(self, how: Disconnection) -> None:
        """Cut all connections now, and return when PostgreSQL has rolled back their open transactions."""
        tasks = dict(self._tasks)
        for connection, task in tasks.items():
            if not connection.is_closing:
                connection.cut(how, "server")
                task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
