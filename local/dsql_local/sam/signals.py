"""Ctrl-C and terminations: they end a command by unwinding it once, and not while a process is being started.

Whatever is started must be noted where it is ended. A signal between the two would leave it behind: hence `held_back`.
"""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

__all__ = ["deferred", "exit_on_signals"]

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def exit_on_signals() -> None:
    """From now on the first interrupt raises SystemExit; later ones do not disturb the cleaning up."""
    for number in INTERRUPTS:
        signal.signal(number, _unwind)


def _unwind(number: int, _frame: FrameType | None) -> NoReturn:
    for each in INTERRUPTS:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Interrupts that come inside take effect at the end. (Blocking them instead would be inherited by what is started.)"""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _frame: came.append(number)) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
