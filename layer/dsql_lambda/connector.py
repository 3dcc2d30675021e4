"""How a connection is opened, for every source of connections: `open_connection`.

Knows what follows a refusal (wait, sign again, give up); what a refusal means is module `refusal`'s. Knows nothing of who
keeps connections.
"""

from __future__ import annotations

import weakref
from typing import Any, TypeVar

from .claim import Place
from .dial import dial
from .errors import ConnectError, DeadlineExceeded
from .lambda_runtime import before_snapshot
from .options import ConnectOptions, signer_for
from .pg8000_adapter import PipelinedConnection, Secret
from .server_errors import DatabaseError, InterfaceError
from .session import Session
from .system import NEVER, SYSTEM, System

C = TypeVar("C", bound=PipelinedConnection)

MAX_AGE_SECONDS = 3300.0
"""55 minutes: DSQL cuts a connection after 60, without an error code."""

_open: weakref.WeakSet[PipelinedConnection] = weakref.WeakSet()


def close_all() -> None:
    """Close every connection of this process, as before a snapshot: none may survive one."""
    for each in list(_open):
        each._session.close()


class ConnectionFactory:
    """Opens connections for one set of options, for every source of them. `keeps_token` uses a token while it is fresh."""

    def __init__(self, options: ConnectOptions, *, keeps_token: bool = True, system: System = SYSTEM) -> None:
        self.options = options
        self.system = system
        self.signer = signer_for(options, clock=system.clock)
        self._keeps_token = keeps_token

    def open(self, kind: type[C], deadline_at: float = NEVER, *, place: Place | None = None) -> C:
        """Open a connection of a kind (pg8000's native one or its DB-API one), and keep it in `place`.

        Each try takes the options' `connect_timeout` at most. A cluster that is busy or away is tried again, with jitter,
        until `deadline_at` (monotonic seconds), or for `connect_timeout` in all where there is none. Raises `ConnectError`, or
        `DeadlineExceeded` in the phase `connect` when it was the deadline that came first. No traceback holds the token.
        """
        monotonic = self.system.monotonic
        timeout = self.options.connect_timeout
        give_up_at = deadline_at if deadline_at != NEVER else monotonic() + timeout
        tries = 0
        was_expired = False
        while True:
            try:
                return self._open_once(kind, min(give_up_at, monotonic() + timeout), deadline_at, place)
            except (ConnectError, DatabaseError, InterfaceError) as failure:
                _forget_frames(failure)
                error = failure
            except BaseException as interruption:
                _forget_frames(interruption)
                raise
            from . import refusal  # noqa: PLC0415 - most connections are not refused

            meaning = refusal.refusal_of(error)
            tries += 1
            wait = 0.0
            if meaning is refusal.Refusal.EXPIRED and not was_expired:
                was_expired = True
                self.signer.forget()
            elif meaning in refusal.PASSING:
                wait = refusal.wait_before(meaning, tries, self.system.random)
            else:
                raise refusal.refused(error, self.options) from _cause_of(error)
            if monotonic() + wait >= give_up_at:
                if monotonic() + wait >= deadline_at:
                    raise DeadlineExceeded(
                        "no time was left before the deadline (connect); nothing was committed", phase="connect"
                    ) from error
                raise refusal.refused(error, self.options) from _cause_of(error)
            self.system.sleep(wait)

    def _open_once(self, kind: type[C], try_until: float, deadline_at: float, place: Place | None) -> C:
        options = self.options
        token = self.signer.token() if self._keeps_token else self.signer.sign()
        transport = dial(options, try_until, self.system)
        try:
            transport.deadline_at = try_until
            connection = kind(
                options.user,
                host=options.host,
                database=options.database,
                password=Secret(token.value),
                application_name=options.resolved_application_name,
                startup_params=options.startup_params,
                sock=transport,
                clock=self.system.clock,
            )
            connection._options = options
            session: Session = connection._session
            session.pipeline = options.pipeline
            session.probe_after_secs = options.probe_after_secs
            session.configure = options.configure
            transport.deadline_at = deadline_at
            if options.configure is not None:
                options.configure(connection)
                session.has_settings = False  # what it has SET stays set
            transport.deadline_at = NEVER
            _open.add(connection)
            before_snapshot(close_all)
            if place is not None:
                place.session = session
        except BaseException:
            transport.close()
            raise
        return connection


def as_options(target: ConnectOptions | str | None, overrides: dict[str, Any]) -> ConnectOptions:
    """The options that a target and keywords mean."""
    if isinstance(target, ConnectOptions):
        return target.replace(**overrides) if overrides else target
    return ConnectOptions.from_env(**overrides) if target is None else ConnectOptions.from_url(target, **overrides)


def _forget_frames(error: BaseException | None) -> None:
    """Take the frames off an error and what led to it: pg8000's, TLS's and the signer's hold the token."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _cause_of(error: Exception) -> BaseException | None:
    """What led to a refusal: the driver's or the network's error, not our own sentence about it."""
    return error.__cause__ if isinstance(error, ConnectError) else error
