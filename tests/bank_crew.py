"""The processes of the workers: `Crew`. It starts, stops, kills and replaces them; what they do is `tests.bank_worker`'s."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

WORKERS = 16
SNAP_START, PROVISIONED = "snap-start", "provisioned-concurrency"
INITIALIZATION = {11: PROVISIONED, 12: PROVISIONED, 13: PROVISIONED, 14: SNAP_START, 15: SNAP_START}
"""What AWS_LAMBDA_INITIALIZATION_TYPE says to a worker; `on-demand` to the others."""


class Crew:
    """The workers, each a process with the ones it forks; one that was killed is started again where it was."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str], folder: Path, log: IO[bytes]) -> None:
        self._arguments, self._environment, self._log = arguments, environment, log
        self.paths = [folder / str(number) for number in range(WORKERS)]
        self.killed: set[int] = set()
        """The process groups of those that were killed."""
        self._until = 0.0
        self.processes = [self._start(number) for number in range(WORKERS)]

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        path = self.paths[number]
        first = max((int(line["key"].partition("-")[2]) - 1 for line in lines_of(path) if "key" in line), default=0)
        mine = ["--number", str(number), "--path", str(path), "--first", str(first)]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.bank_worker", *self._arguments, *mine],
            env={**self._environment, "AWS_LAMBDA_INITIALIZATION_TYPE": INITIALIZATION.get(number, "on-demand")},
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def begin(self, seconds: float) -> float:
        """Let all of them begin, once all are there, and return the moment until which they work."""
        while not all(path.exists() for path in self.paths) and all(process.poll() is None for process in self.processes):
            time.sleep(0.05)
        self._until = time.time() + seconds
        for process in self.processes:
            self._tell(process)
        return self._until

    def _tell(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        with process.stdin as pipe:
            pipe.write(f"{self._until}\n".encode())

    def kill(self, number: int) -> None:
        """End one wherever it is, and start another in its place."""
        process = self.processes[number]
        self.killed.add(process.pid)
        self._signal(process, signal.SIGKILL)
        process.wait()
        self.processes[number] = self._start(number)
        self._tell(self.processes[number])

    def stop(self, *numbers: int) -> None:
        """Freeze some, or all."""
        for number in numbers or range(WORKERS):
            self._signal(self.processes[number], signal.SIGSTOP)

    def go_on(self, *numbers: int) -> None:
        """Let them go on."""
        for number in numbers or range(WORKERS):
            self._signal(self.processes[number], signal.SIGCONT)

    def end(self) -> list[int]:
        """Wait for all, and return their exit codes."""
        return [process.wait(timeout=180) for process in self.processes]

    def kill_all(self) -> None:
        """End whoever is left."""
        for process in self.processes:
            self._signal(process, signal.SIGKILL)
            process.wait()

    @staticmethod
    def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        """To a worker and the processes that it forked."""
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            pass  # it has ended

    def lines(self) -> list[dict[str, Any]]:
        """What all of them wrote."""
        return [line for path in self.paths for line in lines_of(path)]


def lines_of(path: Path) -> Iterator[dict[str, Any]]:
    """What one worker wrote so far."""
    if path.exists():
        for line in path.read_text().splitlines():
            yield json.loads(line)
