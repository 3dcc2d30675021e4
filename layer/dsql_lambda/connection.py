"""The public `Connection`, and how one is opened: `connect`.

Knows what follows a refusal (wait, sign again, give up) and why a kept connection is replaced; what a refusal means is
module `refusal`'s. Knows nothing of who keeps connections: pools and the environment stand above.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from .attempt import Ending, ending_of, outcome_unknown, random_number, run_in_transaction
from .errors import ConnectError, DeadlineExceeded, TransactionError
from .iam_token import Signer
from .link import NEVER, Opener, dial, open_tcp
from .options import ConnectOptions, signer_for
from .retry import OCCRetryConfig
from .telemetry import Telemetry
from .transaction import Transaction
from .wire import DatabaseError, Flights, InterfaceError, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any, Self, TypeVar

    T = TypeVar("T")
    F = TypeVar("F", bound=Flights)

MAX_AGE_SECONDS = 3300.0  # 55 minutes: DSQL cuts a connection after 60, without an error code
_AGE_JITTER_SECONDS = 600.0  # so many that 50,000 environments of one age stay below 100 new connections a second


class Connection(Wire):
    """A `pg8000.native.Connection` to DSQL, with transactions. `connect` opens one; the constructor takes pg8000's arguments."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.is_closed:  # it may have been given up in the block, whose error must be seen
            self.close()

    def transaction_with_retry(self, function: Callable[[Transaction], T], retry: OCCRetryConfig | None = None) -> T:
        """Run `function(tx)` in a transaction on this connection, again when DSQL reports a conflict.

        The function may run several times: it must have no effect outside `tx`. Raises what `run_transaction` raises.
        """
        return run_in_transaction(function, self, retry=retry, telemetry=Telemetry(function_name=_name_of(function)))

    def transaction(self, *, read_only: bool = False) -> AbstractContextManager[Transaction]:
        """A transaction without retry: COMMIT when the block ends, ROLLBACK when it raises; every error as it is.

        Raises `CommitOutcomeUnknown` when COMMIT was sent and no answer came.
        """
        from contextlib import contextmanager  # noqa: PLC0415 - the decorator and its loop do without

        return contextmanager(self._transaction)(read_only)

    def _transaction(self, read_only: bool) -> Iterator[Transaction]:  # noqa: FBT001
        self.checkout(NEVER)
        tx = Transaction(self, read_only=read_only)
        try:
            yield tx
            if not tx.has_ended:
                if tx.failure is not None:
                    raise tx.failure
                try:
                    tx.commit()
                except Exception as error:
                    outcome = ending_of(tx, error, "commit")
                    if outcome.ending == Ending.UNKNOWN:
                        raise outcome_unknown(tx.attempt) from outcome.error
                    raise
        finally:
            tx.abandon()
            self.checkin(self, "")

    # It is its own source of connections.

    def checkout(self, deadline_at: float) -> Wire:
        """Itself, if it can be used. Raises `TransactionError` if it is closed, broken or busy with another transaction."""
        if self.is_broken:
            raise TransactionError("the connection is closed or was lost: open a new one with connect()") from self.link.failure
        self.claim()
        if not self.is_clean:
            self.release()
            raise TransactionError("the connection is in a transaction that was begun by a statement: end that one first")
        return self

    def checkin(self, connection: Wire, reason: str) -> None:
        """Let the next transaction have it."""
        self.release()


def connect(target: ConnectOptions | str | None = None, **overrides: Any) -> Connection:
    """Open one new connection, with a fresh token.

    `target` is options, a connection string, or None for the environment's; keywords override single options. Raises
    `ConfigError`, `TokenError` or `ConnectError`. The connection lives for at most 60 minutes: DSQL cuts it then.
    """
    options = as_options(target, overrides)
    return open_connection(Connection, options, signer_for(options))


def as_options(target: ConnectOptions | str | None, overrides: dict[str, Any]) -> ConnectOptions:
    """The options that a target and keywords mean."""
    if isinstance(target, ConnectOptions):
        return target.replace(**overrides) if overrides else target
    return ConnectOptions.from_env(**overrides) if target is None else ConnectOptions.from_url(target, **overrides)


def reason_to_replace(
    *,
    is_open: bool,
    is_forked: bool = False,
    is_restored: bool = False,
    age: float = 0.0,
    max_age: float = MAX_AGE_SECONDS,
    is_idle: bool = True,
    is_readable: bool = False,
) -> str:
    """Why a kept connection can't be used again, by what is known of it without asking the server; empty if it can.

    The first reason that holds, in this order.
    """
    if not is_open:
        return "first"
    if is_forked:
        return "fork"
    if is_restored:
        return "restore"
    if age >= max_age or age < 0:
        return "age"
    if not is_idle:
        return "in-transaction"
    if is_readable:
        return "closed"
    return ""


def max_age(random: float) -> float:
    """The age in seconds to replace a connection at, given a number from 0 to 1."""
    return MAX_AGE_SECONDS - _AGE_JITTER_SECONDS * random


def open_connection(
    kind: type[F],
    options: ConnectOptions,
    signer: Signer,
    deadline_at: float = NEVER,
    *,
    keep_token: bool = False,
    opener: Opener = open_tcp,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    random: Callable[[], float] = random_number,
) -> F:
    """Open a connection of a kind (pg8000's native one or its DB-API one).

    Each try takes the options' `connect_timeout` at most. A busy cluster is waited for until `deadline_at` (monotonic
    seconds), or for `connect_timeout` in all where there is none. `keep_token` takes the signer's kept token while it is
    fresh. Raises `ConnectError`, or `DeadlineExceeded` in the phase `connect` when it was the deadline that came first.
    """
    give_up_at = deadline_at if deadline_at != NEVER else monotonic() + options.connect_timeout
    tries = 0
    was_expired = False
    while True:
        token = signer.token() if keep_token else signer.sign()
        error: Exception
        try:
            try_until = min(give_up_at, monotonic() + options.connect_timeout)
            link = dial(options, try_until, opener=opener, monotonic=monotonic)
            link.deadline_at = try_until
            connection = kind(
                options.user,
                host=options.host,
                database=options.database,
                password=token.value,
                application_name=options.resolved_application_name,
                startup_params=options.startup_params,
                sock=link,
                clock=clock,
            )
        except DatabaseError as answer:
            error = answer.with_traceback(None)  # pg8000's frames hold the token
        except ConnectError as unreachable:
            if monotonic() >= deadline_at:
                raise _too_late() from unreachable
            raise
        except (OSError, InterfaceError) as lost:
            error = lost.with_traceback(None)
        else:
            connection.deadline_at = NEVER
            connection.pipeline = options.pipeline
            connection.probe_after_secs = options.probe_after_secs
            return connection
        from .refusal import Refusal, refusal_of, refused, wait_before  # noqa: PLC0415 - most connections are not refused

        refusal = refusal_of(error) if isinstance(error, DatabaseError) else Refusal.FINAL
        tries += 1
        wait = 0.0
        if refusal is Refusal.EXPIRED and not was_expired:
            was_expired = True
            signer.forget()
        elif refusal in {Refusal.BUSY, Refusal.WAKING}:
            wait = wait_before(refusal, tries, random)
        else:
            give_up_at = -NEVER
        if monotonic() + wait >= give_up_at:
            if monotonic() + wait >= deadline_at:
                raise _too_late() from error
            raise refused(error, options) from error
        sleep(wait)


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("no time was left before the deadline (connect); nothing was committed", phase="connect")


def _name_of(function: object) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
