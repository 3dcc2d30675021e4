"""The errors of this package. Knows nothing and imports nothing, so that every other module may raise from here.

    DsqlError
    ├── ConfigError (also a ValueError)     an option is missing, malformed or contradicts another
    ├── TokenError                          no credentials, or none that can sign
    ├── ConnectError                        no connection: name, network, TLS or a refusal; says what to check
    ├── MigrationError                      a migration that can't be applied, or is not what was applied (`migration_files`)
    └── TransactionError                    a transaction that can't go on, or was used wrongly
        ├── OCCRetryExhausted               every attempt met a conflict, or the deadline came first
        ├── CommitOutcomeUnknown            COMMIT was sent, no answer came: committed or not
        ├── DeadlineExceeded                no time was left, before any conflict
        ├── WriteInterrupted                `write_in_chunks` stopped: says which rows are committed (`chunks`)
        ├── AfterCommitError                committed, and then a function of `tx.after_commit` raised (`after_commit`)
        ├── ResponseError                   the function's value can't be marshalled or stored (`json_text`)
        ├── IdempotencyKeyMissing           an event without the key that its function is idempotent by (`idempotency`)
        └── IdempotencyKeyReused            the key of an earlier event, with another payload (`idempotency`)

An error that one feature alone raises stands in the feature's module: whoever does not use it does not pay for its import.
What the server says of a statement is a `DatabaseError` (module `server_errors`): pg8000's own, with its SQLSTATE.
All of them can be pickled; none carries a token, a password or a secret.
"""

from __future__ import annotations


class DsqlError(Exception):
    """What every error of this package is, except the server's own word on a statement (`DatabaseError`)."""


class ConfigError(DsqlError, ValueError):
    """An option is missing, malformed or contradicts another. Says which one, what is accepted and what to set."""


class TokenError(DsqlError):
    """No IAM token could be signed: no credentials were found, or those found are not usable."""


class ConnectError(DsqlError):
    """No connection could be opened. The text says what to check; the driver's error is the `__cause__`."""

    def __init__(self, message: str, *, sqlstate: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        """The server's SQLSTATE where it answered at all, as `08006` or `53300`; else empty."""
        self.hint = hint
        """The server's own reason (DSQL puts it in the HINT field); else empty."""


class TransactionError(DsqlError):
    """A transaction was used wrongly, or can't go on. Nothing of it was committed unless a subclass says otherwise."""

    _tells_outcome = False  # of a COMMIT that may have been sent: what is known of it


class OCCRetryExhausted(TransactionError):
    """Conflicts on every attempt, or no time for another one. Nothing was committed; the last conflict is the `__cause__`."""

    def __init__(
        self,
        message: str,
        *,
        attempts: int = 0,
        occ_type: str = "unknown",
        occ_code: str = "40001",
        elapsed: float = 0.0,
        reason: str = "attempts",
    ) -> None:
        super().__init__(message)
        self.attempts = attempts
        """How many attempts were made, the first one counted."""
        self.occ_type = occ_type
        """The last conflict's `OCCType`."""
        self.occ_code = occ_code
        """The last conflict's code: `OC000`, `OC001` or `40001`."""
        self.elapsed = elapsed
        """Seconds from the first attempt's start."""
        self.reason = reason
        """`attempts` (all were used) or `deadline` (no time was left for another)."""


class CommitOutcomeUnknown(TransactionError):
    """COMMIT was handed to the network and no answer came: the transaction may be committed or not.

    It is never retried unasked, since a second run could apply the writes twice. Read the data to find out.
    """

    _tells_outcome = True

    def __init__(self, message: str, *, attempts: int = 0) -> None:
        super().__init__(message)
        self.attempts = attempts


class DeadlineExceeded(TransactionError):
    """No time was left before the deadline. Nothing was committed and nothing is left open."""

    def __init__(self, message: str, *, phase: str = "") -> None:
        super().__init__(message)
        self.phase = phase
        """What was under way: `connect`, `begin`, `statement`, `function`, `commit` or `retry`."""
