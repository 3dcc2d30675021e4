"""AWS's Runtime Interface Emulator around one function: a Lambda execution environment without Docker.

It knows how Lambda starts Python (variables, `sys.path`, the runtime interface client), and the emulator's HTTP interface. It
knows nothing about DSQL or templates. The emulator runs under a supervisor, which stops it when this process ends.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import platform
import re
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..supervisor import SupervisedProcess
from .ports import free_ports
from .signals import deferred
from .template import Function

__all__ = ["MARKERS", "Invocation", "RieError", "RuntimeInterfaceEmulator", "duration_of", "is_error"]

PATH = "/2015-03-31/functions/function/invocations"
MARKERS = ("START RequestId", "END RequestId", "REPORT RequestId")
START_SECONDS = 10.0
REPORT_SECONDS = 2.0
START_TRIES = 3  # another process may take a free port before the emulator binds it


class RieError(Exception):
    """The emulator did not start, or ended unexpectedly."""


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """The response of one invocation, the lines that it logged, and how long it took as its REPORT line says it."""

    response: Any
    log_lines: tuple[str, ...]
    failed: bool
    duration_ms: float | None = None

    def records(self) -> list[dict[str, Any]]:
        """The log lines that are JSON objects, as Powertools writes them."""
        records = []
        for line in self.log_lines:
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict):
                    records.append(record)
        return records


class RuntimeInterfaceEmulator:
    """One execution environment of a function: the first `invoke` is a cold start, later ones are warm.

    `environment` overrides the template's variables, and must contain the credentials; the caller's environment is not used.
    """

    def __init__(self, function: Function, environment: Mapping[str, str] | None = None) -> None:
        self._function = function
        self._environment = lambda_environment(function, environment or {})
        self._program = _program()
        self._process: SupervisedProcess | None = None
        self._folder = Path()
        self._port = 0
        self._read = 0

    def __enter__(self) -> Self:
        for attempt in range(START_TRIES):
            try:
                self._start()
            except BaseException as error:
                self.close()
                if not isinstance(error, RieError) or attempt == START_TRIES - 1:
                    raise
            else:
                break
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def invoke(self, event: object) -> Invocation:
        """Invoke the function with an event. A function error is a response, too. Raises `RieError`."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._function.timeout + 30)
        try:
            connection.request("POST", PATH, json.dumps(event))
            answer = connection.getresponse()
            status, body = answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise RieError(f"the emulator ended unexpectedly: {error!r}. {self._errors()}") from error
        finally:
            connection.close()
        try:
            response, failed = json.loads(body), status != http.HTTPStatus.OK
        except ValueError:  # such as "Task timed out after 3.00 seconds"
            response, failed = body, True
        failed = failed or is_error(response)
        lines = self._new_lines(complete=status == http.HTTPStatus.OK)
        shown = tuple(line for line in lines if not line.startswith(MARKERS))
        return Invocation(response=response, log_lines=shown, failed=failed, duration_ms=duration_of(lines))

    @property
    def url(self) -> str:
        """Where it answers, for another program that invokes the function."""
        return f"http://127.0.0.1:{self._port}"

    def log_lines(self) -> tuple[str, ...]:
        """What was logged since the last call or `invoke`, by invocations of others."""
        return tuple(line for line in self._new_lines(complete=False) if not line.startswith(MARKERS))

    def close(self) -> None:
        """Stop the emulator and everything that it started. Does nothing when it does not run."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def _start(self) -> None:
        with deferred():  # until the supervisor deletes the folder
            self._folder = Path(tempfile.mkdtemp(prefix="dsql-rie-"))
            self._read = 0
            self._port, runtime_port = free_ports(2)
            with self._log.open("wb") as log, self._error_log.open("wb") as errors:
                # The emulator puts the runtime into another process group, so the supervisor kills the whole session.
                self._process = SupervisedProcess(
                    [
                        *(str(self._program), "--log-level", "warn"),
                        *("--runtime-interface-emulator-address", f"127.0.0.1:{self._port}"),
                        *("--runtime-api-address", f"127.0.0.1:{runtime_port}"),
                        *(sys.executable, "-m", "awslambdaric", self._function.handler),
                    ],
                    self._folder,
                    cwd=self._function.code,
                    env=self._environment,
                    stdout=log,
                    stderr=errors,
                )
                self._process.start()
        deadline = time.monotonic() + START_SECONDS
        while True:
            errors_so_far = self._errors()  # read first: the supervisor deletes the folder when the emulator ends
            if self._process.has_ended:
                raise RieError(f"the emulator did not start. {errors_so_far}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
                return
            if time.monotonic() > deadline:
                raise RieError(f"the emulator did not answer within {START_SECONDS:.0f} s. {errors_so_far}")
            time.sleep(0.005)

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    @property
    def _error_log(self) -> Path:
        return self._folder / "errors"

    def _errors(self) -> str:
        with contextlib.suppress(OSError):
            return self._error_log.read_text(errors="replace")[-2000:]
        return ""

    def _new_lines(self, *, complete: bool) -> tuple[str, ...]:
        """The lines logged since the last call. A runtime that died writes no REPORT line, so there is none to wait for."""
        deadline = time.monotonic() + (REPORT_SECONDS if complete else 0)
        while True:
            with self._log.open("rb") as log:
                log.seek(self._read)
                text = log.read()
            if b"\nREPORT RequestId: " in text or time.monotonic() >= deadline:
                break
            time.sleep(0.005)
        self._read += len(text)
        # The runtime interface client writes the newlines of a traceback as carriage returns.
        lines = text.decode(errors="replace").replace("\r", "\n").split("\n")
        return tuple(line for line in lines if line)


def is_error(response: object) -> bool:
    """Whether a response is the runtime's report of a function error, and not a returned value."""
    return isinstance(response, dict) and {"errorType", "errorMessage"} <= response.keys() <= {
        *("errorType", "errorMessage", "stackTrace", "requestId", "cause"),
    }


def duration_of(lines: Sequence[str]) -> float | None:
    """The milliseconds of the last REPORT line, without the init phase; None if there is none."""
    found = [re.search(r"\bDuration: ([0-9.]+) ms\tBilled", line) for line in lines if line.startswith("REPORT RequestId")]
    return float(found[-1][1]) if found and found[-1] else None


def lambda_environment(function: Function, overrides: Mapping[str, str]) -> dict[str, str]:
    """Lambda's variables, overridden by the function's, overridden by `overrides`."""
    path = [function.code, *(layer / "python" for layer in function.layers)]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{version}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory),
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(function.timeout),
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_REGION": "us-east-1",
        "LAMBDA_TASK_ROOT": str(function.code),
        "LANG": "en_US.UTF-8",
        "PATH": os.defpath,
        "PYTHONDONTWRITEBYTECODE": "1",  # leave the build unchanged
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "TZ": ":UTC",
        **function.environment,
        **overrides,
    }


def _program() -> Path:
    """The emulator's binary, which aws-sam-cli contains."""
    if sys.platform != "linux":
        raise RieError("the Runtime Interface Emulator runs only on Linux; start a Docker engine and use VIA=sam")
    found = importlib.util.find_spec("samcli")
    if found is None or found.origin is None:
        raise RieError("aws-sam-cli, which contains the emulator, is not installed: pip install 'dsql-local[sam]'")
    machine = {"aarch64": "arm64", "amd64": "x86_64"}.get(platform.machine().lower(), platform.machine())
    return Path(found.origin).parent / "local" / "rapid" / f"aws-lambda-rie-{machine}"
