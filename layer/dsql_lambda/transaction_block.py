"""A transaction without retry, as a block: `TransactionBlock`, what `Connection.transaction` gives.

Knows one attempt and its ending; every error reaches the caller as it is.
"""

from __future__ import annotations

from types import TracebackType

from .after_commit import call_after_commit
from .attempt import Ending, Evidence, outcome_unknown
from .claim import ConnectionSource
from .failure import outcome_of
from .lease import Lease
from .runner import raise_in_doubt
from .session import Session
from .system import NEVER
from .transaction import Transaction


class TransactionBlock:
    """`with connection.transaction() as tx:`, a transaction without retry."""

    def __init__(self, connection: ConnectionSource, *, read_only: bool) -> None:
        self._connection = connection
        self._read_only = read_only
        self._claim = Lease(self)
        self._claim.evidence = Evidence()
        self._session: Session | None = None
        self._tx: Transaction | None = None

    def __enter__(self) -> Transaction:
        session = self._session = self._connection._checkout(self._claim, NEVER)
        self._tx = Transaction(session, evidence=self._claim.evidence, read_only=self._read_only)
        return self._tx

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        claim, tx = self._claim, self._tx
        if tx is None:
            return
        commits = error is None and not tx.has_ended
        try:
            try:
                if commits:
                    self._commit(tx)
            finally:
                tx.end()
                self._connection._checkin(claim, "")
            if commits and tx.after:
                call_after_commit(tx.after, None, None)
        except BaseException as failure:
            claim.abandon()
            if claim.evidence.may_have_committed and not self._read_only:
                raise_in_doubt(failure, tx.attempt)
            raise

    def _commit(self, tx: Transaction) -> None:
        evidence = self._claim.evidence
        try:
            tx.commit()
        except Exception as error:
            lost = self._session.transport.failure if self._session is not None else None
            outcome = outcome_of(evidence, error, lost, "commit")
            if outcome.ending is Ending.COMMITTED:
                return
            if outcome.ending is Ending.UNKNOWN:
                raise outcome_unknown(tx.attempt) from outcome.error
            raise

    def __del__(self) -> None:
        claim = getattr(self, "_claim", None)  # none if an interruption came first
        if claim is not None:
            claim.abandon()  # an interruption kept `with` from beginning
