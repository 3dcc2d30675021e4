"""A program of somebody else's, in a session of its own: Ctrl-C reaches it through us alone, and it ends with the block."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from .signals import deferred

__all__ = ["running"]

END_SECONDS = 2.0  # SAM would wait for its container, which is removed anyway


@contextlib.contextmanager
def running(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], *, stdout: IO[str], stderr: IO[str] | int
) -> Iterator[subprocess.Popen[str]]:
    """Start the command; leaving the block ends what is left of it."""
    process: subprocess.Popen[str] | None = None
    try:
        with deferred():
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        yield process
    finally:
        if process is not None:
            with process:  # closes its pipes and reaps it
                if process.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGINT)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(END_SECONDS)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
