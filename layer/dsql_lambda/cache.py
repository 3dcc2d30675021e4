"""The connection that an execution environment keeps from one invocation to the next: `CachedConnection`, `cached_connection`.

Knows why a kept connection is used again or replaced. Whether to keep one is decided without a round trip; ages are judged
by wall clock, since the monotonic one may stop in a frozen environment (reasoned; not confirmed by AWS). Knows nothing of
handlers' signatures or of retries.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from .claim import Claim, Place
from .connection import Connection
from .connector import MAX_AGE_SECONDS, ConnectionFactory, as_options
from .errors import TransactionError
from .lambda_runtime import INIT_SECONDS, connects_at_init
from .options import ConnectOptions
from .session import Session
from .system import NEVER, SYSTEM, System

_AGE_JITTER_SECONDS = 600.0  # so many that 50,000 environments of one age stay below 100 new connections a second


class CachedConnection:
    """The one connection that an environment keeps for one set of options; a source of connections for the loop."""

    def __init__(self, options: ConnectOptions, *, system: System = SYSTEM) -> None:
        self.options = options
        self.opened_for = ""
        """Why the present one was opened: `init`, `first`, a reason of `Session.reason_to_replace`, or an ending's name."""
        self._factory = ConnectionFactory(options, system=system)
        self._system = system
        self._place = Place()
        self._next_reason = "first"
        self._untold = ""  # why it was opened outside a transaction: the next one tells

    def get(self, deadline_at: float = NEVER) -> Connection:
        """The kept connection, or a new one in its place, for the caller's own statements."""
        claim = Claim(sys._getframe())
        try:
            session = self._checkout(claim, deadline_at)
            connection: Connection = session.connection
            self._untold = claim.opened_for
        finally:
            if claim.place is not None:
                claim.place.release(claim)
        return connection

    def open_at_init(self, deadline_at: float) -> None:
        """Open it before there is a transaction."""
        self.get(deadline_at)
        if self._untold:
            self.opened_for = self._untold = "init"

    def close(self) -> None:
        """Close what is kept. The next use opens a new one."""
        if self._place.session is not None:
            self._place.session.close()

    def _checkout(self, claim: Claim, deadline_at: float) -> Session:
        """The kept connection, or a new one in its place."""
        place = self._place
        if not place.take(claim):
            holder = place.holder
            if holder is not None and holder.is_alive():
                raise TransactionError(
                    "a transaction is running on the cached connection: use its tx, or a Pool where there are several threads"
                )
            place.give_up()  # what an interruption left
            place = Place()
            place.take(claim)
            self._place = place
        session = place.session
        if session is not None:
            reason = session.reason_to_replace(place.expires_at)
            if not reason:
                if self._untold:
                    claim.opened_for, self._untold = self._untold, ""
                return session
            self._next_reason = reason
            place.session = None
            if reason == "fork":
                session.abandon()  # the session is the parent's: not a byte may go out on it
            else:
                session.close()
        session = self._factory.open(Connection, deadline_at, place=place)._session
        place.expires_at = session.opened_at + max_age(self._system.random())
        self.opened_for = claim.opened_for = self._next_reason
        self._next_reason, self._untold = "first", ""
        return session

    def _checkin(self, claim: Claim, reason: str) -> None:
        """Take it back: closed if it can't be used again, and then replaced at the next use."""
        place = claim.place
        if place is None or place.holder is not claim:
            return
        session = place.session
        if session is not None and (not session.is_clean or place is not self._place):
            self._next_reason = reason or "closed"
            place.give_up()
        place.release(claim)


def max_age(random: float) -> float:
    """The age in seconds to replace a connection at, given a number from 0 to 1."""
    return MAX_AGE_SECONDS - _AGE_JITTER_SECONDS * random


_cached: dict[ConnectOptions, CachedConnection] = {}
_from_environment: list[ConnectOptions] = []  # at most one: the environment's options are read once


def cached_connection(target: ConnectOptions | str | None = None, **overrides: Any) -> Connection:
    """The connection that this execution environment keeps for these options, opened or replaced if need be.

    For statements outside a transaction. It is for one thread at a time; a `Pool` is for several.
    """
    return source_for(as_options(target, overrides) if target is not None or overrides else None).get()


def source_for(options: ConnectOptions | None) -> CachedConnection:
    """The environment's cached connection for these options (None: those of the environment's variables)."""
    if options is None:
        if not _from_environment:
            _from_environment.append(ConnectOptions.from_env())
        options = _from_environment[0]
    return _cached.get(options) or _cached.setdefault(options, CachedConnection(options))


def open_at_init(options: ConnectOptions | None) -> None:
    """Open the cached connection while a Lambda function's module is imported: one try of at most 3 s that never raises."""
    if not connects_at_init():
        return
    try:
        source_for(options).open_at_init(time.monotonic() + INIT_SECONDS)
    except Exception as error:  # noqa: BLE001 - the first invocation meets it again, and raises it
        print(f"dsql_lambda: not connected at init: {error}", file=sys.stderr)
