"""The public `Connection`: a `pg8000.native.Connection` to DSQL, with transactions. `connect` opens one.

Knows what a user may do with a single connection; how it is opened, and what happens in a transaction, is decided below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from . import sql as sql_text
from .claim import Claim, Place
from .connector import ConnectionFactory, as_options
from .driver import native
from .errors import TransactionError
from .flight import Statement
from .options import ConnectOptions
from .pg8000_adapter import PipelinedConnection
from .runner import run_in_transaction
from .session import Session
from .telemetry import Telemetry
from .transaction import Transaction

T = TypeVar("T")

if TYPE_CHECKING:
    from .retry import OCCRetryConfig
    from .transaction_block import TransactionBlock
else:
    OCCRetryConfig = TransactionBlock = Any  # for `typing.get_type_hints`: whoever uses one has loaded it


class Connection(PipelinedConnection, native.Connection):  # type: ignore[misc]
    """A `pg8000.native.Connection` to DSQL, with transactions. `connect` opens one; the constructor takes pg8000's arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._place = Place()
        self._give_back: Callable[[Connection], None] | None = None  # a pool's, while this connection is lent
        super().__init__(*args, **kwargs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._give_back is not None:
            self._give_back(self)
        elif self._usock is not None:  # it may have been given up in the block, whose error must be seen
            self.close()

    def run(self, sql: str, stream: Any = None, types: Mapping[str, int] | None = None, **params: Any) -> Any:
        """Run a statement with `:name` placeholders and return its rows, as `pg8000.native.Connection.run` does.

        Without parameters the text is sent as it is, and may hold several statements.
        """
        if not params and stream is None:
            self._context = self.execute_simple(sql)
        else:
            query, values = sql_text.bind(sql, params)
            oids = tuple(types.get(name) for name in query.names) if types else ()
            statement = Statement(sql, query.text, values, oids, query.names)
            self._context = self._session.fly((statement,), stream)[0]
        return self._context.rows

    def transaction_with_retry(self, function: Callable[[Transaction], T], retry: OCCRetryConfig | None = None) -> T:
        """Run `function(tx)` in a transaction on this connection, again when DSQL reports a conflict.

        The function may run several times: it must have no effect outside `tx`. Raises what `run_transaction` raises.
        """
        return run_in_transaction(function, self, retry=retry, telemetry=Telemetry(function))

    def transaction(self, *, read_only: bool = False) -> TransactionBlock:
        """A transaction without retry: COMMIT when the block ends, ROLLBACK when it raises; every error as it is.

        Raises `CommitOutcomeUnknown` when COMMIT was sent and no answer came.
        """
        from .transaction_block import TransactionBlock  # noqa: PLC0415 - loaded by those who open connections themselves

        return TransactionBlock(self, read_only=read_only)

    # A source of connections: itself.

    def _checkout(self, claim: Claim, deadline_at: float) -> Session:
        """Itself, if it can be used. Raises `TransactionError` if it is closed, broken or busy with another transaction."""
        session: Session = self._session
        if session.is_closed:
            raise TransactionError(
                "the connection is closed or was lost: open a new one with connect()"
            ) from session.transport.failure
        if not self._place.take(claim):
            holder = self._place.holder
            if holder is None or holder.is_alive():
                raise TransactionError(
                    "a transaction is running on this connection, and DSQL has no savepoints: pass its tx on to join it, "
                    "or use another connection (a Pool, for threads)"
                )
            session.abandon()
            raise TransactionError("an interruption left a transaction on this connection, so it was closed: open a new one")
        if not session.is_clean:
            self._place.release(claim)
            raise TransactionError("the connection is in a transaction that was begun by a statement: end that one first")
        self._place.session = session
        return session

    def _checkin(self, claim: Claim, reason: str) -> None:
        """Let the next transaction have it."""
        self._place.release(claim)


def connect(target: ConnectOptions | str | None = None, **overrides: Any) -> Connection:
    """Open one new connection, with a fresh token.

    `target` is options, a connection string, or None for the environment's; keywords override single options. Raises
    `ConfigError`, `TokenError` or `ConnectError`. The connection lives for at most 60 minutes: DSQL cuts it then.
    """
    return ConnectionFactory(as_options(target, overrides), keeps_token=False).open(Connection)
