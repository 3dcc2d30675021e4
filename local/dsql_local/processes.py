"""Processes of this machine, as /proc tells of them: whose children they are, which session they belong to, and how to end one.

Linux only, and it knows nothing of what the processes are.
"""

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = ["children", "end_sessions"]

END_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the table of processes."""

    pid: int
    state: str
    parent: int
    session: int

    @classmethod
    def all(cls) -> list[Self]:
        """Every process that is there; one that ends meanwhile may be missing."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    # The name in parentheses may hold anything; what follows the last one is regular.
                    state, parent, _group, session, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
                    found.append(cls(int(entry.name), state, int(parent), int(session)))
        return found


def children(parent: int) -> set[int]:
    """The process ids of a process's children."""
    return {process.pid for process in Process.all() if process.parent == parent}


def end_sessions(sessions: set[int]) -> None:
    """Kill what runs in these sessions, and return when it is gone; what only waits to be reaped by its parent counts as gone."""
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        left = [process for process in Process.all() if process.session in sessions and process.state != "Z"]
        if not left:
            return
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.005)
