"""Controls a running server from another process of the same user: one line of JSON each way, on a private unix socket.

`ControlServer` runs in the serving process; `running_ports` and `request` are for the others.
"""

import json
import os
import socket
import socketserver
import stat
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..api.local_dsql import LocalDsql
from ..faults.commands import InvalidFaultCommand

__all__ = ["ControlError", "ControlServer", "request", "running_ports"]

ANSWER_SECONDS = 30.0
LONGEST = 1 << 16


class ControlError(Exception):
    """No server answers, or the request failed; the message says why."""


def _socket_folder() -> Path:
    """The folder of the sockets, closed to other users. Raises `ControlError` if it is not."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) / "dsql-local" if runtime else Path(tempfile.gettempdir()) / f"dsql-local-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    seen = folder.lstat()
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.getuid() or seen.st_mode & 0o077:
        raise ControlError(f"{folder} must belong to you and be closed to other users (chmod 700)")
    return folder


class _SocketServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    dsql: LocalDsql


class _Handler(socketserver.StreamRequestHandler):
    server: _SocketServer

    def handle(self) -> None:
        try:
            answer = {"answer": _handle_request(self.server.dsql, json.loads(self.rfile.readline(LONGEST)))}
        except InvalidFaultCommand as wrong:
            answer = {"error": str(wrong)}
        except (ValueError, KeyError, TypeError) as wrong:
            answer = {"error": f"invalid request: {wrong!r}"}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


def _handle_request(dsql: LocalDsql, request: dict[str, Any]) -> object:
    match request["do"]:
        case "status":
            return dsql.status()
        case "fault":
            dsql.order(request["words"])
            return dsql.faults_waiting
        case "libpq":
            return dsql.libpq(request["user"])
    raise ValueError(request["do"])


class ControlServer:
    """Answers requests about one server, from `__enter__` to `__exit__`. Raises `ControlError` and OSError."""

    def __init__(self, dsql: LocalDsql) -> None:
        self._path = _socket_folder() / f"{dsql.port}.sock"
        self._path.unlink(missing_ok=True)  # left by a killed server: the port is ours now
        self._server = _SocketServer(str(self._path), _Handler)
        self._server.dsql = dsql
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="dsql-control", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._path.unlink(missing_ok=True)
        self._thread.join()


def running_ports() -> list[int]:
    """The ports of this user's running servers."""
    found = []
    for path in sorted(_socket_folder().glob("*.sock")):
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(path))
            except OSError:  # a killed server left its socket
                continue
        found.append(int(path.stem))
    return found


def request(port: int | None, do: str, **more: object) -> Any:
    """Send a request to the server on this port, None for the only one that runs. Raises `ControlError`."""
    if port is None:
        ports = running_ports()
        if len(ports) != 1:
            raise ControlError(
                f"several servers run; choose one with --port: {', '.join(map(str, ports))}"
                if ports
                else "no server runs; start one with: python -m dsql_local serve"
            )
        (port,) = ports
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_SECONDS)
        try:
            connection.connect(str(_socket_folder() / f"{port}.sock"))
            connection.sendall(json.dumps({"do": do, **more}).encode() + b"\n")
            with connection.makefile("rb") as answers:
                answer = json.loads(answers.readline())
        except (OSError, ValueError) as failed:
            raise ControlError(f"no local DSQL of yours answers on port {port} ({failed})") from failed
    if "error" in answer:
        raise ControlError(answer["error"])
    return answer["answer"]
