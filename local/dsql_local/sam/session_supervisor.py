"""A command in a session of its own that ends, with all that it started, when its caller ends it or is gone.

Run as a script, in isolation, this file is the guard: `processes.py <folder> <command…>`. It runs the command until the command
ends, or something comes or nothing more can come on standard input (the caller says so, or died in whatever way); then it kills
what runs in the command's session and removes the folder. Linux and the standard library only; it imports nothing of ours.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

__all__ = ["guarded"]

END_SECONDS = 10.0


def guarded(
    command: list[str], folder: Path, *, cwd: Path, env: Mapping[str, str], stdout: IO[bytes], stderr: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start a guard with the command; `communicate(b"\\n")` ends both, and returns when nothing of them is left."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(folder), *command],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        env=env,
        start_new_session=True,
    )


def main(folder: str, *command: str) -> None:
    """The guard."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True) as process:
            try:
                select.select([sys.stdin.fileno(), os.pidfd_open(process.pid)], [], [])
            finally:
                end_session(process.pid)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def end_session(session: int) -> None:
    """Kill what runs in the session, and return when it is gone; what only waits to be reaped by its parent counts as gone."""
    deadline = time.monotonic() + END_SECONDS
    while (left := running(session)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def running(session: int) -> list[int]:
    """The processes of a session, whatever their process groups."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it ended meanwhile
                # The name in parentheses may hold anything; what follows the last one is regular.
                state, _parent, _group, its_session, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(its_session) == session and state != "Z":
                    found.append(int(entry.name))
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
