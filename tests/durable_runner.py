"""Runs a durable handler by the SDK's own testing package, and kills it at chosen checkpoints: `run`.

Knows the SDK, which lives in a folder of its own (`.venv/durable`, or DURABLE_SDK) and may not be there; knows nothing of
databases.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SDK = os.environ.get("DURABLE_SDK", str(Path(sys.prefix) / "durable"))
if SDK not in sys.path:
    sys.path.append(SDK)
IS_THERE = importlib.util.find_spec("aws_durable_execution_sdk_python_testing") is not None

BEFORE, AFTER = "before", "after"
"""When a function dies: before its checkpoint was recorded, or just after."""


class Service:
    """The service of checkpoints, with the runs of a function that die at one of them, by its number."""

    def __init__(self, inner: Any, kills: Mapping[int, str]) -> None:
        self.count = 0
        self._inner = inner
        self._kills = kills

    def get_execution_state(self, *args: Any, **keywords: Any) -> Any:
        """The service's."""
        return self._inner.get_execution_state(*args, **keywords)

    def checkpoint(self, *args: Any, **keywords: Any) -> Any:
        """The service's, or the end of the run."""
        from aws_durable_execution_sdk_python.exceptions import CheckpointError

        self.count += 1
        dies = self._kills.get(self.count, "")
        if dies == BEFORE:
            raise CheckpointError("killed")
        answer = self._inner.checkpoint(*args, **keywords)
        if dies:
            raise CheckpointError("killed")
        return answer


def run(
    handler: Callable[..., Any], event: Any, kills: Mapping[int, str] | None = None, seconds: int = 60
) -> tuple[str, Any, int]:
    """Execute a durable handler to its end: its status, its result, and the number of checkpoints."""
    from aws_durable_execution_sdk_python_testing import DurableFunctionTestRunner

    with DurableFunctionTestRunner(handler=handler, poll_interval=0.005) as runner:
        runner._executor.RETRY_BACKOFF_SECONDS = 0
        runner._executor.MAX_CONSECUTIVE_FAILED_ATTEMPTS = 10**6
        service = runner._invoker.service_client = Service(runner._service_client, kills or {})
        done = runner.run(input=json.dumps(event), execution_timeout=seconds)
    return done.status.value, json.loads(done.result) if done.result else done.error, service.count
