"""A wall clock that several processes read and one sets forward: `SharedClock`. Knows nothing of who reads it, or why."""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

_FORMAT = struct.Struct("dd")


class SharedClock:
    """The clock of everybody who opened the same file."""

    def __init__(self, path: Path) -> None:
        """Open it. The first one makes the file."""
        self.path = path
        if not path.exists():
            path.write_bytes(_FORMAT.pack(0.0, 0.0))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _FORMAT.size)

    def time(self) -> float:
        """Seconds since 1970, as everybody has them."""
        ahead_by: float = _FORMAT.unpack_from(self._memory)[0]
        return time.time() + ahead_by

    @property
    def jumped_at(self) -> float:
        """The moment, by this clock, of the last jump; 0 if there was none."""
        moment: float = _FORMAT.unpack_from(self._memory)[1]
        return moment

    def jump(self, seconds: float) -> None:
        """Set it forward."""
        ahead_by = _FORMAT.unpack_from(self._memory)[0] + seconds
        _FORMAT.pack_into(self._memory, 0, ahead_by, time.time() + ahead_by)
