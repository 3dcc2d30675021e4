"""Signals that end a command: they unwind it once, and not while it starts a process, or makes or deletes a folder.

A signal between the start of a process and the assignment that allows stopping it would leave it running, and a folder likewise:
hence `deferred`.
"""

import contextlib
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

__all__ = ["deferred", "exit_on_signals", "temporary_folder"]

END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def exit_on_signals() -> None:
    """From now on the first signal raises SystemExit, and later ones are ignored, so that cleanup completes."""
    for number in END_SIGNALS:
        signal.signal(number, _unwind)


def _unwind(number: int, _frame: FrameType | None) -> NoReturn:
    for each in END_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Deliver signals that arrive inside the block at its end. (A blocked signal mask would be inherited by child processes.)"""
    received: list[int] = []
    previous = {number: signal.signal(number, lambda number, _frame: received.append(number)) for number in END_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder for the length of a block, deleted at its end whenever a signal comes."""
    with contextlib.ExitStack() as stack:
        with deferred():
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix))
        try:
            yield Path(folder)
        finally:
            with deferred():
                stack.close()
