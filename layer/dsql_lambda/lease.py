"""A claim without a frame: `Lease`, of a block or of whoever asked for a connection. Loaded by sources that lend some."""

from __future__ import annotations

import weakref

from .claim import Claim


class Lease(Claim):
    """A user without a frame of its own: a block, or whoever called `Pool.acquire`. It counts while its object lives."""

    def __init__(self, user: object) -> None:
        super().__init__(None)  # a frame would keep the user alive
        self.has_ended = False
        """Was it given back, though perhaps not to the end?"""
        self._user = weakref.ref(user)

    def is_alive(self) -> bool:
        """Is it still out, and has nobody dropped the object that stands for it?"""
        return not self.has_ended and self._user() is not None
