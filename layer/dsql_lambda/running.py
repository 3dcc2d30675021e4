"""The transaction that this code runs in: `dsql_transaction`. For code that its function can't hand `tx` to, such as a route.

Knows who publishes a running transaction (module `claim`); begins and ends none.
"""

from __future__ import annotations

from .claim import published
from .errors import TransactionError
from .transaction import Transaction


def dsql_transaction() -> Transaction:
    """The `tx` of the innermost transaction that this code runs in: a dependency for `Depends`, or to be called.

    That of `DsqlTransactionMiddleware`, of a decorated function or of `run_transaction`, whichever runs, also in a thread or a
    task that was started with its context. After a conflict it is the new attempt's, so ask again in each. Raises
    `TransactionError` where none runs.
    """
    claim = published()
    tx = claim.tx if claim is not None else None
    if not isinstance(tx, Transaction):
        raise TransactionError(
            "no transaction runs here: give the resolver, or the route, DsqlTransactionMiddleware(), or decorate the handler "
            "with @with_dsql_transaction"
        )
    return tx
