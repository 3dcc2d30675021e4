"""The execution environment: the connections it keeps from one invocation to the next, and the transactions on them.

Knows why a kept connection is used again or replaced, and what Lambda does to a process: the init phase, freezing, forking,
SnapStart, deadlines. Knows nothing of handlers' signatures. Whether to keep one is decided without a round trip; ages are
judged by wall clock, for the monotonic one may stand still in a frozen environment (reasoned; not confirmed by AWS).
"""

from __future__ import annotations

import os
import sys
import time
from _thread import LockType, allocate_lock  # `threading.Lock`, without the rest of it
from collections.abc import Callable
from functools import partial

from .attempt import ConnectionSource, random_number, run_in_transaction
from .checks import check_number
from .connection import MAX_AGE_SECONDS, Connection, as_options, max_age, open_connection, reason_to_replace
from .errors import TransactionError
from .link import NEVER, Opener, open_tcp
from .options import ConnectOptions, signer_for
from .retry import OCCRetryConfig
from .telemetry import Telemetry
from .transaction import Transaction
from .wire import IDLE, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    T = TypeVar("T")

_INIT_SECONDS = 3.0
_RESERVE_SECONDS = 0.5  # of a Lambda deadline: for the ROLLBACK, the log line and the answer
_RESERVE_SHARE = 0.1


class CachedConnection:
    """The one connection that an environment keeps for one set of options; a source of connections for the loop."""

    def __init__(
        self,
        options: ConnectOptions,
        *,
        opener: Opener = open_tcp,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = random_number,
        getpid: Callable[[], int] = os.getpid,
    ) -> None:
        self.options = options
        self.opened_for = ""
        """Why the present connection was opened: a reason of `reason_to_replace`, or `stale`, `broken`, ... from the loop."""
        self._open_one = partial(
            open_connection,
            Connection,
            options,
            signer_for(options, clock=clock),
            keep_token=True,
            opener=opener,
            clock=clock,
            monotonic=monotonic,
            sleep=sleep,
            random=random,
        )
        self._clock = clock
        self._random = random
        self._getpid = getpid
        self._connection: Connection | None = None
        self._pid = 0
        self._max_age = MAX_AGE_SECONDS
        self._is_restored = False
        self._next_reason = "first"
        self._lock, self._lock_pid = allocate_lock(), getpid()

    def checkout(self, deadline_at: float) -> Connection:
        """The kept connection, or a new one in its place; claimed for one transaction."""
        pid = self._getpid()
        with self._held(pid):
            kept = self._connection
            if kept is not None and self._pid == pid:
                kept.claim()  # raises if a transaction is running on it; what is claimed nobody else can take
                reason = self._reason_to_replace(kept)
                if not reason:
                    return kept
                kept.release()
                self._discard(kept, reason)
            elif kept is not None:
                self._discard(kept, "fork")
            self._connection = connection = self._open(deadline_at)
            connection.claim()
            return connection

    def checkin(self, connection: Wire, reason: str) -> None:
        """Take it back: closed if it is not clean, and then replaced at the next use."""
        if connection.is_clean:
            connection.release()
            return
        with self._held(self._getpid()):
            connection.release()
            if not connection.is_closed:
                connection.close()
            if self._connection is connection:
                self._next_reason = reason or "in-transaction"
                self._connection = None

    def get(self, deadline_at: float = NEVER) -> Connection:
        """The kept connection, or a new one in its place, for the caller's own statements."""
        pid = self._getpid()
        with self._held(pid):
            kept = self._connection
            if kept is not None:
                is_foreign = self._pid != pid
                if kept.is_claimed and not is_foreign:
                    raise TransactionError("a transaction is running on the cached connection: use its tx")
                reason = "fork" if is_foreign else self._reason_to_replace(kept)
                if not reason:
                    return kept
                self._discard(kept, reason)
            self._connection = self._open(deadline_at)
            return self._connection

    def _held(self, pid: int) -> LockType:
        """Threads take turns. In a forked child the lock may be held by a thread that is not there: it gets its own."""
        if self._lock_pid != pid:
            self._lock, self._lock_pid = allocate_lock(), pid
        return self._lock

    def close(self) -> None:
        """Close what is kept, as before a snapshot: no connection survives one. The next use opens a new one."""
        if self._connection is not None and not self._connection.is_closed:
            self._connection.close()

    def resume(self) -> None:
        """After a restore: what was kept belongs to the snapshot."""
        self._is_restored = True

    def _open(self, deadline_at: float) -> Connection:
        connection = self._open_one(deadline_at)
        self._pid = self._getpid()
        self._max_age = max_age(self._random())
        self._is_restored = False
        self.opened_for, self._next_reason = self._next_reason, "first"
        return connection

    def _reason_to_replace(self, kept: Connection) -> str:
        is_open = not kept.is_broken
        return reason_to_replace(
            is_open=is_open,
            is_restored=self._is_restored,
            age=self._clock() - kept.opened_at,
            max_age=self._max_age,
            is_idle=kept.transaction_status == IDLE,
            is_readable=is_open and kept.link.is_readable(),
        )

    def _discard(self, kept: Connection, reason: str) -> None:
        self._next_reason = reason if reason != "first" else "closed"
        if not kept.is_closed:
            if reason in {"fork", "restore"}:
                kept.abandon()  # the session is still the parent's: not a byte may go out on it
            else:
                kept.close()
        self._connection = None


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


def run_transaction(
    function: Callable[[Transaction], T],
    *,
    source: ConnectionSource | None = None,
    retry: OCCRetryConfig | None = None,
    timeout: float | None = None,
    read_only: bool = False,
) -> T:
    """Run `function(tx)` in a transaction and return its value; run it again when DSQL reports a conflict.

    The function may run several times: it must have no effect outside `tx`. `source` is a `Connection` or a `Pool`, None is
    the cached connection. `timeout` is in seconds. Raises `OCCRetryExhausted`, `DeadlineExceeded`, `CommitOutcomeUnknown`,
    `ConnectError`, the `DatabaseError` of a failed statement, or what the function raised.
    """
    return transact(
        function,
        source=source,
        retry=retry,
        deadline_at=deadline_after(timeout),
        read_only=read_only,
        telemetry=Telemetry(function_name=getattr(function, "__qualname__", "")),
    )


def transact(
    function: Callable[[Transaction], T],
    *,
    source: ConnectionSource | None,
    options: ConnectOptions | None = None,
    retry: OCCRetryConfig | None,
    deadline_at: float,
    read_only: bool,
    telemetry: Telemetry,
) -> T:
    """`run_transaction` with the deadline as a moment and the logger as it was given."""
    check_arguments(source, retry)
    return run_in_transaction(
        function,
        source_for(options) if source is None else source,
        retry=retry,
        deadline_at=deadline_at,
        read_only=read_only,
        telemetry=telemetry,
    )


def check_arguments(source: object, retry: object) -> None:
    """Raise `TypeError` for a source that gives no connections, or a retry that is no `OCCRetryConfig`."""
    if source is not None and not hasattr(source, "checkout"):
        kind = type(source).__name__
        raise TypeError(f"source is a {kind}: it must be a Connection or a Pool, or None for the cached connection")
    if retry is not None and not isinstance(retry, OCCRetryConfig):
        raise TypeError(f"retry is a {type(retry).__name__}: it must be an OCCRetryConfig, or None for the default")


def deadline_after(
    timeout: float | None, remaining_ms: float | None = None, *, now: Callable[[], float] = time.monotonic
) -> float:
    """The moment to be done by: `timeout` seconds from now, or a Lambda context's remaining time less a reserve.

    The reserve, half a second or a tenth of what remains if that is less, is for the ROLLBACK, the log line and the answer.
    The sooner of the two counts. Raises `ConfigError` for a timeout that is not above 0.
    """
    if timeout is not None:
        check_number("timeout", timeout, 0, 86_400, above=True)
    seconds = NEVER if timeout is None else timeout
    if remaining_ms is not None:
        remaining = remaining_ms / 1000
        seconds = min(seconds, remaining - min(_RESERVE_SECONDS, remaining * _RESERVE_SHARE))
    return NEVER if seconds == NEVER else now() + seconds


def open_at_init(options: ConnectOptions | None) -> None:
    """Open the cached connection while a Lambda function's module is imported: one try of at most 3 s that never raises.

    The init phase has a full CPU. Only on demand: provisioned environments wait long for their first invocation, and a
    snapshot must hold no connection. `DSQL_CONNECT_AT_INIT=0` turns it off.
    """
    kind = os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE")
    if kind == "snap-start":
        _register_snapshot_hooks()
    if (
        kind != "on-demand"
        or not os.environ.get("AWS_LAMBDA_RUNTIME_API")
        or os.environ.get("DSQL_CONNECT_AT_INIT", "").lower() in {"0", "off", "false", "no"}
    ):
        return
    try:
        source_for(options).get(time.monotonic() + _INIT_SECONDS)
    except Exception as error:  # noqa: BLE001 - the first invocation meets it again, and raises it
        print(f"dsql_lambda: not connected at init: {error}", file=sys.stderr)


_hooks: list[str] = []


def _register_snapshot_hooks() -> None:
    """Close before the snapshot and open anew after the restore. https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html"""
    if _hooks:
        return
    _hooks.append("snap-start")
    try:
        from snapshot_restore_py import (  # noqa: PLC0415 - the runtime has it where SnapStart is
            register_after_restore,
            register_before_snapshot,
        )
    except ImportError:
        return

    def close_all() -> None:
        for each in _cached.values():
            each.close()

    def resume_all() -> None:
        for each in _cached.values():
            each.resume()

    register_before_snapshot(close_all)
    register_after_restore(resume_all)
