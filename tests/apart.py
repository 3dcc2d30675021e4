"""A local DSQL in a process of its own, and what a campaign asks of it: `Apart`, on one line of JSON each way.

A program that is interrupted at any moment shares nothing with the server that it is judged by: no interpreter lock, no signal,
no thread. The process ends with its standard input, so also when whoever started it is killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dsql_lambda import ConnectOptions

ROOT = Path(__file__).parents[1]
SESSIONS = (
    "SELECT count(*), count(*) FILTER (WHERE state <> 'idle') FROM pg_stat_activity WHERE application_name LIKE '%dsql-lambda%'"
)


class Credentials:
    """Access keys as botocore's own class carries them: what `ConnectOptions` takes, whatever the environment holds."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.access_key = environment["AWS_ACCESS_KEY_ID"]
        self.secret_key = environment["AWS_SECRET_ACCESS_KEY"]
        self.token = None


class Apart:
    """The server, from `__enter__` to `__exit__`. Every public method of `LocalDsql` can be called on it by `ask`."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.apart"],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("AWS_LAMBDA_")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is for the campaign alone
        )
        self.pid = self._process.pid
        self.environment: dict[str, str] = self.ask("environment")
        self.endpoint = self.environment["DSQL_HOST"]
        self.host = self.environment["DSQL_HOSTADDR"]
        self.port = int(self.environment["DSQL_PORT"])
        self.ca_pem = self.environment["DSQL_SSLROOTCERT"]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
        self._process.communicate()

    def ask(self, name: str, *arguments: Any, **more: Any) -> Any:
        """What the method (or attribute) of the `LocalDsql` gives. Raises `RuntimeError` with its error's text."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("no pipe to the local DSQL")
        self._process.stdin.write(json.dumps([name, arguments, more]).encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or b'{"error": "the local DSQL has ended"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["answer"]

    def execute(self, sql: str) -> list[list[str | None]]:
        """Rows of the last statement, past the front: no connection of ours, no fault and no log."""
        rows: list[list[str | None]] = self.ask("execute", sql)
        return rows

    def stop_me(self, seconds: float) -> None:
        """Stop the calling process in a moment, by SIGSTOP, and let it go on so many seconds later, as Lambda freezes one."""
        self.ask("stop", seconds)

    def sessions(self) -> tuple[int, int]:
        """How many sessions of the layer are open, and how many of them inside a transaction."""
        ((number, busy),) = self.execute(SESSIONS)
        return int(number or 0), int(busy or 0)

    def options(self, **more: Any) -> ConnectOptions:
        """What connects to it as `admin`."""
        return ConnectOptions.from_env(self.environment, credentials=Credentials(self.environment), **more)


def _serve() -> None:
    from dsql_local import LocalDsql

    with LocalDsql() as dsql:
        for line in sys.stdin:
            name, arguments, more = json.loads(line)
            if name == "stop":
                print(json.dumps({"answer": None}), flush=True)
                os.kill(os.getppid(), signal.SIGSTOP)
                time.sleep(*arguments)
                os.kill(os.getppid(), signal.SIGCONT)
                continue
            try:
                found = getattr(dsql, name)
                answer = {"answer": found(*arguments, **more) if callable(found) else found}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
