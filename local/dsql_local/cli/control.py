"""How other processes of one user speak to a server that runs: one JSON line each way, on a socket that is theirs alone.

`Control` answers in the serving process, `running` and `ask` are for the others. What a server says of itself is `status` of
`LocalDsql`; a fault is asked for in the words of `orders`.
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

__all__ = ["Control", "ControlError", "ask", "running"]

ANSWER_SECONDS = 30.0
LONGEST = 1 << 16


class ControlError(Exception):
    """No server answers, or it cannot do what was asked; the sentence says why."""


def _folder() -> Path:
    """The folder of the sockets, closed to everybody else. Raises `ControlError` if it is somebody else's."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) / "dsql-local" if runtime else Path(tempfile.gettempdir()) / f"dsql-local-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    seen = folder.lstat()
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.getuid() or seen.st_mode & 0o077:
        raise ControlError(f"{folder} must be a folder of yours that is closed to others (chmod 700), and is not")
    return folder


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    dsql: LocalDsql


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        try:
            answer = {"answer": _do(self.server.dsql, json.loads(self.rfile.readline(LONGEST)))}
        except InvalidFaultCommand as wrong:
            answer = {"error": str(wrong)}
        except (ValueError, KeyError, TypeError) as wrong:
            answer = {"error": f"not understood: {wrong!r}"}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


def _do(dsql: LocalDsql, request: dict[str, Any]) -> object:
    match request["do"]:
        case "status":
            return dsql.status()
        case "fault":
            dsql.order(request["words"])
            return dsql.faults_waiting
        case "libpq":
            return dsql.libpq(request["user"])
    raise ValueError(request["do"])


class Control:
    """Answers for one server, from `__enter__` to `__exit__`. Raises `ControlError` and OSError."""

    def __init__(self, dsql: LocalDsql) -> None:
        self._path = _folder() / f"{dsql.port}.sock"
        self._path.unlink(missing_ok=True)  # of one that was killed: the port is ours now
        self._server = _Server(str(self._path), _Handler)
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


def running() -> list[int]:
    """The ports of the servers of this user that answer."""
    found = []
    for path in sorted(_folder().glob("*.sock")):
        with socket.socket(socket.AF_UNIX) as link:
            try:
                link.connect(str(path))
            except OSError:  # it was killed, and left its socket
                continue
        found.append(int(path.stem))
    return found


def ask(port: int | None, do: str, **more: object) -> Any:
    """What the server on this port answers, or the only one that runs. Raises `ControlError`."""
    if port is None:
        ports = running()
        if len(ports) != 1:
            which = f"several run: choose one with --port, of {', '.join(map(str, ports))}" if ports else "none runs"
            raise ControlError(f"{which} (start one: python -m dsql_local serve)" if not ports else which)
        (port,) = ports
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(ANSWER_SECONDS)
        try:
            link.connect(str(_folder() / f"{port}.sock"))
            link.sendall(json.dumps({"do": do, **more}).encode() + b"\n")
            with link.makefile("rb") as answers:
                answer = json.loads(answers.readline())
        except (OSError, ValueError) as failed:
            raise ControlError(f"no local DSQL of yours answers for port {port} ({failed})") from failed
    if "error" in answer:
        raise ControlError(answer["error"])
    return answer["answer"]
