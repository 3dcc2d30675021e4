"""Lambda's process around a function: AWS's own runtime interface client, and a stand-in for the Runtime API that feeds it.

Knows how Lambda starts Python and what its Runtime API says; knows nothing of databases.
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

_MAIN = "import sys\nfrom awslambdaric.__main__ import main\nmain(sys.argv)"
_DEADLINE_SECONDS = 300  # under valgrind a cold start takes a minute
_VARIABLES = {
    "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
    "AWS_LAMBDA_FUNCTION_NAME": "benchmark",
    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
    "HOME": tempfile.gettempdir(),
    "LANG": "en_US.UTF-8",
    "PATH": os.environ.get("PATH", os.defpath),
    "TZ": ":UTC",
    "_HANDLER": "app.lambda_handler",
}


class Function(NamedTuple):
    """A function as it is deployed (the folder of its `app.py`, those of its packages, its variables), and what it is sent."""

    code: Path
    packages: Sequence[Path]
    environment: Mapping[str, str]
    event: Mapping[str, Any]


class Run(NamedTuple):
    """One execution environment, from its start to its last response. Seconds."""

    init: float
    """From the process's start to its question for the first event."""
    invocations: list[float]
    """From each event to its response."""
    cpu: float
    """User and system, of the whole process."""
    errors: str
    """What it wrote to standard error."""


def run(function: Function, *, events: int = 1, under: Sequence[str] = ()) -> Run:
    """Start the function's process (`under` another program), send it its event so many times, and end it when it asks again.

    Raises `RuntimeError` for a function that fails, or that a process ends with.
    """
    interpreter = getattr(sys, "_base_executable", sys.executable)
    with _RuntimeApi(function.event, events) as api, tempfile.TemporaryFile("w+") as errors:
        started_at = time.perf_counter()
        process = subprocess.Popen(
            [*under, interpreter, "-S", "-B", "-c", _MAIN, _VARIABLES["_HANDLER"]],
            cwd=function.code,
            env={
                **_VARIABLES,
                "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{api.server_port}",
                "PYTHONPATH": os.pathsep.join(map(str, function.packages)),
                **function.environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        cpu = api.wait_for(process)
        errors.seek(0)
        said = errors.read()
    if api.failure or len(api.answered_at) != events:
        raise RuntimeError(api.failure or f"the process ended:\n{said}")
    times = [answered - sent for sent, answered in zip(api.sent_at, api.answered_at, strict=True)]
    return Run(api.sent_at[0] - started_at, times, cpu, said)


class _RuntimeApi(ThreadingHTTPServer):
    """Gives out events, takes responses, and notes when."""

    def __init__(self, event: Mapping[str, Any], events: int) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.event = json.dumps(event).encode()
        self.events = events
        self.sent_at: list[float] = []
        self.answered_at: list[float] = []
        self.failure = ""
        self.is_done = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def wait_for(self, process: subprocess.Popen[bytes]) -> float:
        """End the process when its last response is there, or wait until it has ended; its CPU seconds."""
        look = (os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        until = time.monotonic() + _DEADLINE_SECONDS
        while not self.is_done.wait(0.02) and os.waitid(*look) is None and time.monotonic() < until:
            pass
        os.kill(process.pid, signal.SIGTERM)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.shutdown()
        return usage.ru_utime + usage.ru_stime


class _Request(BaseHTTPRequestHandler):
    """What the runtime interface client asks for: the next event, or to take the response to it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _RuntimeApi

    def do_GET(self) -> None:
        api = self.server
        if len(api.sent_at) == api.events:
            api.is_done.set()
            threading.Event().wait()  # for good: the process is ended meanwhile
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(api.event)))
        self.send_header("Lambda-Runtime-Aws-Request-Id", f"request-{len(api.sent_at)}")
        self.send_header("Lambda-Runtime-Deadline-Ms", str(int((time.time() + _DEADLINE_SECONDS) * 1000)))
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:benchmark")
        self.end_headers()
        api.sent_at.append(time.perf_counter())
        self.wfile.write(api.event)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/response"):
            self.server.answered_at.append(time.perf_counter())
        else:
            self.server.failure = body.decode()
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""
