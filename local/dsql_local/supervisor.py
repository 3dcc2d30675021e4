"""Runs a command so that nothing of it outlives its caller.

`SupervisedProcess` runs this file as a script, in a session of its own. The script waits for a byte on standard input, then runs
the command in another session. It stops the command when a second byte or the end of input arrives (the caller asked for it, or
died), or on SIGTERM, or when the command ends by itself. Finally it deletes the folder.

Standard library only: the script imports nothing of this package.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

__all__ = ["SupervisedProcess"]

STOP_SECONDS = 5.0  # PostgreSQL's immediate shutdown takes about 20 ms
KILL_SECONDS = 10.0


class SupervisedProcess:
    """A command that starts with `start`, and ends with `stop` or with the death of this process; then `folder` is deleted.

    `stop_signal` asks the command to stop; without one, or when it does not stop, everything in its session is killed (outside
    Linux: its process group). `user` and `group` are the ids to run it as, None for the caller's own.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        *,
        stop_signal: int = 0,
        user: int | None = None,
        group: int | None = None,
        cwd: Path | str = "/",
        env: Mapping[str, str] | None = None,
        stdout: IO[bytes] | int = subprocess.DEVNULL,
        stderr: IO[bytes] | int = subprocess.DEVNULL,
    ) -> None:
        identity = ["-" if each is None else str(each) for each in (user, group)]
        self._supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(folder), *identity, str(int(stop_signal)), *command],
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )

    def start(self) -> None:
        """Run the command."""
        self._send(b"+")

    @property
    def has_ended(self) -> bool:
        """Whether the command has ended and the folder is deleted."""
        return self._supervisor.poll() is not None

    def stop(self) -> None:
        """Stop the command; returns when it has ended and the folder is deleted."""
        self._send(b"-")  # closing the pipe alone is not enough: a forked child may hold it open
        if self._supervisor.stdin is not None:
            with contextlib.suppress(OSError):
                self._supervisor.stdin.close()
        self._supervisor.wait()

    def _send(self, byte: bytes) -> None:
        if self._supervisor.stdin is not None:
            with contextlib.suppress(OSError):  # the supervisor has ended
                self._supervisor.stdin.write(byte)
                self._supervisor.stdin.flush()


# --- The script ---


def main(folder: str, user: str, group: str, stop_signal: str, *command: str) -> None:
    """Run the command until standard input says otherwise; leave nothing behind."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    wakeup_read, wakeup_write = os.pipe()
    os.set_blocking(wakeup_write, False)
    signal.set_wakeup_fd(wakeup_write)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    identity = {} if user == "-" else {"user": int(user), "group": int(group), "extra_groups": list[int]()}
    try:
        if not os.read(sys.stdin.fileno(), 1):
            return
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **identity)  # type: ignore[call-overload]
        try:
            select.select([sys.stdin.fileno(), wakeup_read], [], [])
        finally:
            _stop(process, int(stop_signal))
    finally:
        _delete(folder)


def _stop(process: "subprocess.Popen[bytes]", stop_signal: int) -> None:
    if stop_signal:
        process.send_signal(stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
            return
    _kill_session(process.pid)
    process.kill()
    process.wait()


def _kill_session(session: int) -> None:
    """Kill every process in the session; returns when all have ended or are zombies."""
    if not sys.platform.startswith("linux"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(session, signal.SIGKILL)
        return
    deadline = time.monotonic() + KILL_SECONDS
    while (processes := _processes_of(session)) and time.monotonic() < deadline:
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def _processes_of(session: int) -> list[int]:
    """The processes of a session, whatever their process groups."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):  # it has ended meanwhile
            # The process name stands in parentheses and may contain anything, spaces and parentheses included.
            state, _parent, _group, its_session, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(its_session) == session and state != "Z":
                found.append(int(entry.name))
    return found


def _delete(folder: str) -> None:
    """Delete the folder. Retry while a `cp` that the caller had started, before it was killed, still writes to it."""
    deadline = time.monotonic() + STOP_SECONDS
    while os.path.lexists(folder) and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
