"""What runs after COMMIT: the functions that `tx.after_commit` was given. Loaded by those who gave some.

Knows functions and what they raise; the transaction is over.
"""

from __future__ import annotations

from typing import Any

from .errors import TransactionError
from .telemetry import Telemetry


class AfterCommitError(TransactionError):
    """The transaction is committed, and then a function of `tx.after_commit` raised: its error is the `__cause__`."""

    _tells_outcome = True

    def __init__(self, message: str, *, value: object = None, errors: tuple[Exception, ...] = ()) -> None:
        super().__init__(message)
        self.value = value
        """What the decorated function returned."""
        self.errors = errors
        """What the functions raised, in their order. None of them kept the others from running."""


def call_after_commit(functions: list[Any], value: Any, telemetry: Telemetry | None) -> None:
    """Call what `tx.after_commit` was given, each once and in order. Raises `AfterCommitError` when all were called."""
    errors = []
    for function, arguments in functions:
        try:
            function(*arguments)
        except Exception as error:  # noqa: BLE001 - the others are called too, and all are raised together
            errors.append(error)
            (telemetry or Telemetry()).after_commit_failed(error, function)
    if errors:
        raise AfterCommitError(
            f"the transaction is committed, and then {len(errors)} of {len(functions)} functions of tx.after_commit raised: "
            f"{type(errors[0]).__name__}: {errors[0]}",
            value=value,
            errors=tuple(errors),
        ) from errors[0]
