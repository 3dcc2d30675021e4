"""AWS's local runner of durable executions (`dex-local-runner`): checkpoints, waits and retries, without AWS.

It knows the runner's HTTP interface and where the SDK lies. It knows nothing of DSQL, and not how the function is run: the runner
invokes it at an endpoint, an emulator's or that of SAM's container, and the function's SDK calls the runner at `url`.
Waits take no time: the runner moves its clock.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from ..supervisor import SupervisedProcess
from .ports import free_ports
from .signals import deferred

__all__ = ["DurableError", "DurableRunner", "sdk_folder"]

MODULE = "aws_durable_execution_sdk_python_testing"
API = "/2025-12-01/durable-executions"
START_SECONDS = 20.0
POLL_SECONDS = 0.05


class DurableError(Exception):
    """The runner is not there, did not start, or refused a request; the message says what to do."""


class DurableRunner:
    """The runner, on a free port of the loopback, from `__enter__` to `__exit__`."""

    def __init__(self, *, invocation_seconds: int) -> None:
        self._sdk = sdk_folder()
        self._invocation_seconds = invocation_seconds
        self._process: SupervisedProcess | None = None
        self._folder = Path()
        self.port = 0

    @property
    def url(self) -> str:
        """What the function's variable AWS_ENDPOINT_URL_LAMBDA must be."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        try:
            with deferred():  # until the supervisor deletes the folder
                self._folder = Path(tempfile.mkdtemp(prefix="dsql-durable-"))
                [self.port] = free_ports(1)
                command = [
                    *(sys.executable, "-m", f"{MODULE}.cli", "start-server", "--host", "127.0.0.1", "--port", str(self.port)),
                    *("--store-type", "memory", "--skip-time", "--log-level", "ERROR"),
                    *("--invocation-timeout", str(self._invocation_seconds)),
                ]
                path = os.pathsep.join([str(self._sdk), *sys.path])
                credentials = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": "us-east-1"}
                with (self._folder / "errors").open("wb") as errors:
                    self._process = SupervisedProcess(
                        command, self._folder, env={"PATH": os.defpath, "PYTHONPATH": path, **credentials}, stderr=errors
                    )
                    self._process.start()
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the runner. Does nothing when it does not run."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def execute(self, event: object, endpoint: str, *, seconds: float) -> tuple[bool, Any]:
        """Run an execution of the function at `endpoint` to its end: whether it succeeded, and its result or error."""
        arn = self._request(
            "POST",
            "/start-durable-execution",
            {
                "AccountId": "123456789012",
                "FunctionName": "function",  # the one name that the emulator knows
                "FunctionQualifier": "$LATEST",
                "ExecutionName": "local",
                "ExecutionTimeoutSeconds": 604_800,
                "ExecutionRetentionPeriodDays": 1,
                "Input": json.dumps(event),
                "LambdaEndpoint": endpoint,
            },
        )["ExecutionArn"]
        deadline = time.monotonic() + seconds
        while (ended := self.ending(arn)) is None:
            if time.monotonic() > deadline:
                raise DurableError(
                    f"the execution has not ended within {seconds:.0f} s; it waits for something that does not come"
                )
            time.sleep(POLL_SECONDS)
        return ended

    def ending(self, arn: str = "") -> tuple[bool, Any] | None:
        """How an execution ended, by default the newest one; None while it runs."""
        arn = arn or self._request("GET", API)["DurableExecutions"][0]["DurableExecutionArn"]
        found = self._request("GET", f"{API}/{quote(arn, safe='')}")
        if found["Status"] in {"RUNNING", "PENDING"}:
            return None
        if found["Status"] == "SUCCEEDED":
            return True, json.loads(found.get("Result") or "null")
        return False, found.get("Error") or {"errorType": found["Status"]}

    def _wait_until_ready(self) -> None:
        assert self._process is not None  # noqa: S101 - it was just started
        deadline = time.monotonic() + START_SECONDS
        while True:
            errors = self._errors()  # read first: the supervisor deletes the folder when the runner ends
            if self._process.has_ended or time.monotonic() > deadline:
                raise DurableError(f"the local runner of durable executions did not start. {errors}")
            try:
                self._request("GET", "/health")
            except DurableError:
                time.sleep(POLL_SECONDS)
            else:
                return

    def _errors(self) -> str:
        try:
            return (self._folder / "errors").read_text(errors="replace")[-2000:]
        except OSError:
            return ""

    def _request(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise DurableError(f"the local runner of durable executions does not answer: {error!r}. {self._errors()}") from error
        finally:
            connection.close()
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            raise DurableError(f"the local runner of durable executions refused {method} {path}: {text}")
        return json.loads(text)


def sdk_folder() -> Path:
    """Where the SDK and its local runner lie: DURABLE_SDK, or `durable` in the environment. Raises `DurableError`.

    They have a folder of their own, because their boto3 and that of aws-sam-cli exclude each other.
    """
    folder = Path(os.environ.get("DURABLE_SDK") or Path(sys.prefix) / "durable")
    if not (folder / MODULE).is_dir():
        raise DurableError(
            f"the SDK of durable functions is not in {folder}: pip install --no-deps --target {folder} "
            "aws-durable-execution-sdk-python==3.0.0 aws-durable-execution-sdk-python-testing==1.4.0"
        )
    return folder
