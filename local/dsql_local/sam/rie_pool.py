"""A Runtime Interface Emulator for each function of an application, started at its first invocation.

It builds the application first, once for all processes that share a file.
"""

import contextlib
import fcntl
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from . import sam_cli
from .rie import Invocation, RuntimeInterfaceEmulator
from .template import read_function

__all__ = ["RiePool"]


class RiePool:
    """Invokes functions: call it with an event and a logical id. Leaving the block stops all emulators.

    `built` is a file that says, by being there, that the application was built, and holds the built template's path.
    """

    def __init__(self, project: Path, environment: Mapping[str, str], *, built: Path) -> None:
        self._project = project
        self._environment = environment
        self._built = built
        self._stack = contextlib.ExitStack()
        self._emulators: dict[str, RuntimeInterfaceEmulator] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, event: object, function: str, environment: Mapping[str, str] | None = None) -> Invocation:
        """Invoke a function by its logical id in template.yaml. `environment` adds variables when its emulator starts."""
        emulator = self._emulators.get(function)
        if emulator is None:
            found = read_function(self._build(), function)
            emulator = RuntimeInterfaceEmulator(found, {**self._environment, **(environment or {})})
            self._emulators[function] = self._stack.enter_context(emulator)
        return emulator.invoke(event)

    def _build(self) -> Path:
        """The built template."""
        with self._built.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # otherwise several processes would build into one folder
            if not self._built.exists():
                self._built.write_text(str(sam_cli.build(self._project)), encoding="utf-8")
            return Path(self._built.read_text(encoding="utf-8"))
