"""Instructions of a process, counted by valgrind: unlike a time, they do not depend on what else the machine does.

Knows how valgrind is run and what it writes. It counts user mode only: what the kernel does for the process is not in it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence

__all__ = ["can_count", "count", "read_count"]


def can_count() -> bool:
    """Whether valgrind is installed."""
    return shutil.which("valgrind") is not None


def count(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """The instructions of a command. Raises `RuntimeError` if it fails, or valgrind cannot run it."""
    counter = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    seeded = {**environment, "PYTHONHASHSEED": "0"}  # how often the entries of a dict collide is chance otherwise
    done = subprocess.run([*counter, *command], env=seeded, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return read_count(done.stderr)


def read_count(said: str) -> int:
    """The count in what valgrind wrote. Raises `RuntimeError` if there is none."""
    found = re.search(r"I\s+refs:\s+([\d,]+)", said)
    if found is None:
        raise RuntimeError(f"valgrind gave no count: {said}")
    return int(found[1].replace(",", ""))
