"""The public `Connection`, and how one is opened: `connect`.

Knows how DSQL refuses a connection and what follows (wait, sign again, give up with a sentence that says what to check),
and why a kept one is replaced. Knows nothing of who keeps connections: pools and the environment stand above.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any, NamedTuple, Self, TypeVar

from .attempt import Ending, ending_of, outcome_unknown, random_number, run_in_transaction
from .errors import ConnectError, DeadlineExceeded, TransactionError
from .link import NEVER, Opener, dial, open_tcp
from .options import ConnectOptions
from .retry import OCCRetryConfig
from .telemetry import Telemetry
from .token import Signer
from .transaction import Transaction
from .wire import DatabaseError, Flights, InterfaceError, Wire

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

    @contextmanager
    def transaction(self, *, read_only: bool = False) -> Iterator[Transaction]:
        """A transaction without retry: COMMIT when the block ends, ROLLBACK when it raises; every error as it is.

        Raises `CommitOutcomeUnknown` when COMMIT was sent and no answer came.
        """
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
                    if outcome.ending is Ending.UNKNOWN:
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
    return open_connection(Connection, options, Signer(options))


def as_options(target: ConnectOptions | str | None, overrides: dict[str, Any]) -> ConnectOptions:
    """The options that a target and keywords mean."""
    if isinstance(target, ConnectOptions):
        return target.replace(**overrides) if overrides else target
    return ConnectOptions.from_env(**overrides) if target is None else ConnectOptions.from_url(target, **overrides)


class Condition(NamedTuple):
    """What is known of a kept connection before it is used again, without asking the server."""

    is_open: bool
    is_forked: bool = False
    is_restored: bool = False
    age: float = 0.0
    max_age: float = MAX_AGE_SECONDS
    is_idle: bool = True
    is_readable: bool = False


def reason_to_replace(condition: Condition) -> str:
    """Why a kept connection can't be used again; empty if it can. The first reason that holds, in this order."""
    if not condition.is_open:
        return "first"
    if condition.is_forked:
        return "fork"
    if condition.is_restored:
        return "restore"
    if condition.age >= condition.max_age or condition.age < 0:
        return "age"
    if not condition.is_idle:
        return "in-transaction"
    if condition.is_readable:
        return "closed"
    return ""


def max_age(random: float) -> float:
    """The age in seconds to replace a connection at, given a number from 0 to 1."""
    return MAX_AGE_SECONDS - _AGE_JITTER_SECONDS * random


class Refusal(Enum):
    """What a FATAL at connecting means for the next try."""

    BUSY = auto()
    """53300 or 53400: too many connections, or too many new ones a second. Wait with jitter."""
    WAKING = auto()
    """The cluster wakes up. Wait longer."""
    EXPIRED = auto()
    """The token is too old. Once more, with a fresh one."""
    FINAL = auto()
    """Nothing that trying again could mend."""


_FIRST_WAIT_SECONDS = {Refusal.BUSY: 0.1, Refusal.WAKING: 0.5}
_LONGEST_WAIT_SECONDS = 2.0  # benchmarks/storm.py: thousands that wait longer leave a part of what the cluster admits unused


def wait_before(refusal: Refusal, tries: int, random: Callable[[], float]) -> float:
    """Seconds to wait after so many refused tries, given a number from 0 to 1: it doubles up to 2 s, and is spread by half."""
    return (0.5 + random()) * min(_FIRST_WAIT_SECONDS[refusal] * 2.0 ** min(tries - 1, 31), _LONGEST_WAIT_SECONDS)


def refusal_of(error: DatabaseError) -> Refusal:
    """Tell what a refusal means, by its SQLSTATE and words. DSQL's wording changes: case and the rest don't count."""
    said = f"{error.message} {error.hint}".lower()
    if error.sqlstate in {"53300", "53400"}:
        return Refusal.BUSY
    if "waking up" in said:
        return Refusal.WAKING
    if "signature expired" in said:
        return Refusal.EXPIRED
    return Refusal.FINAL


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
        except DatabaseError as refused:
            error = refused.with_traceback(None)  # pg8000's frames hold the token
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
        refusal = refusal_of(error) if isinstance(error, DatabaseError) else Refusal.FINAL
        tries += 1
        wait = 0.0
        if refusal is Refusal.EXPIRED and not was_expired:
            was_expired = True
            signer.forget()
        elif refusal in _FIRST_WAIT_SECONDS:
            wait = wait_before(refusal, tries, random)
        else:
            give_up_at = -NEVER
        if monotonic() + wait >= give_up_at:
            if monotonic() + wait >= deadline_at:
                raise _too_late() from error
            raise _refused(error, options) from error
        sleep(wait)


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("no time was left before the deadline (connect); nothing was committed", phase="connect")


def _refused(error: Exception, options: ConnectOptions) -> ConnectError:
    """The sentence that says what to check, by DSQL's own reason."""
    if isinstance(error, TimeoutError):
        return ConnectError(
            f"{options.host} did not answer within connect_timeout ({options.connect_timeout:g} s) while the connection was "
            "being opened: raise it, or check the network path"
        )
    if not isinstance(error, DatabaseError):
        return ConnectError(
            f"{options.host} closed the connection while it was being opened ({error}): check that DSQL_HOST, DSQL_HOSTADDR and "
            "DSQL_PORT name the cluster"
        )
    said = f"{error.message} {error.hint}".lower()
    action = f"dsql:{options.action}"
    if refusal_of(error) is Refusal.BUSY:
        check = "the cluster takes no more connections just now: lower the function's concurrency, or raise connect_timeout"
    elif refusal_of(error) is Refusal.WAKING:
        check = "the cluster is waking up: try again, or raise connect_timeout"
    elif "signature expired" in said or "not yet" in said:
        check = "check this machine's clock: a token that was signed just now is out of its time"
    elif "wrong user to action" in said:
        check = f"check the token's type: the user {options.user!r} takes a token for {action}"
    elif "not authorized" in said:
        check = f"check the IAM policy: the role must be allowed {action} on the cluster's ARN"
    elif error.sqlstate in {"28000", "28P01"} or "role" in said:
        check = f"check the role mapping: AWS IAM GRANT {options.user} TO '<the execution role's ARN>', as admin"
    else:
        check = (
            f"check the IAM policy ({action}), the role mapping (AWS IAM GRANT {options.user} TO the role's ARN), this "
            "machine's clock, and the token's type (DbConnectAdmin is for admin alone)"
        )
    hint = f": {error.hint}" if error.hint else ""
    return ConnectError(
        f"the cluster refused the connection: {error.message}{hint} (SQLSTATE {error.sqlstate}); {check}",
        sqlstate=error.sqlstate,
        hint=error.hint,
    )


def _name_of(function: object) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
