"""What a signal in the middle of making or deleting a temporary folder leaves: nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# The signal comes right after a call into the operating system: the profiler is told when it has returned.
PROGRAM = """
import os, signal, sys, tempfile
from pathlib import Path
from dsql_local.sam.rie import RuntimeInterfaceEmulator
from dsql_local.sam.signals import exit_on_signals, temporary_folder
from dsql_local.sam.template import Function

call = getattr(os, sys.argv[1])

def after(frame, event, function):
    if event == "c_return" and function is call:
        sys.setprofile(None)
        signal.raise_signal(signal.SIGTERM)

function = Function(name="F", code=Path("/"), handler="app.handler", layers=(), environment={}, timeout=1, memory=128)
exit_on_signals()
tempfile.gettempdir()  # which tries the folder, with calls of its own
sys.setprofile(after)
"""
FOLDER = """
with temporary_folder("dsql-build-") as folder:
    (folder / "file").touch()
"""
EMULATOR = """
with RuntimeInterfaceEmulator(function):
    raise AssertionError("it is not reached")
"""


@pytest.mark.parametrize(
    ("program", "call"),
    [(FOLDER, "mkdir"), (FOLDER, "open"), (FOLDER, "unlink"), (EMULATOR, "mkdir")],
    ids=["made", "used", "half deleted", "made for the emulator"],
)
def test_a_signal_leaves_no_folder(temporary: Path, program: str, call: str) -> None:
    """Whether it comes when the folder was just made, while it is used, or while it is deleted."""
    environment = {**os.environ, "TMPDIR": str(temporary)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + program, call], env=environment, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "")
    assert list(temporary.iterdir()) == []
