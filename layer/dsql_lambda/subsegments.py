"""What AWS X-Ray is told of transactions, through a Powertools `Tracer`: `Subsegments`.

A subsegment a transaction, below it one an attempt, with annotations to filter traces by. Knows the provider that Powertools
documents as its escape hatch, and nothing of X-Ray's SDK, which the layer does not carry. An error's text may hold values, so its
SQLSTATE or its class's name is written.
https://docs.aws.amazon.com/powertools/python/latest/core/tracer/
"""

from __future__ import annotations

from typing import Any, Protocol

from .observation import Attempt, Observation, name_of

TRANSACTION = "DSQL transaction"
ATTEMPT = "DSQL attempt"


class Tracer(Protocol):
    """Powertools' `Tracer`."""

    @property
    def provider(self) -> Any:
        """What has `in_subsegment`."""


def refuse_others(tracer: object) -> None:
    """Raise `TypeError` for what is no `Tracer`."""
    if not hasattr(getattr(tracer, "provider", None), "in_subsegment"):
        raise TypeError(f"tracer is a {type(tracer).__name__}: it must be Powertools' Tracer, or None")


class Subsegments:
    """The subsegments of one transaction."""

    def __init__(self, tracer: Tracer) -> None:
        self._provider = tracer.provider
        self._open: list[tuple[Any, Any]] = []  # blocks that were entered, from the outside in, with what each gave

    def begin(self, seen: Observation) -> None:
        """Below what is open: the handler's."""
        self._enter(TRANSACTION)

    def begin_attempt(self, attempt: Attempt) -> None:
        """Below the transaction's."""
        self._enter(ATTEMPT)

    def end_attempt(self, attempt: Attempt) -> None:
        """Annotate and close it."""
        found: dict[str, Any] = {"attempt": attempt.number, "ending": attempt.ending}
        if attempt.opened_for is not None:
            found["connection_reused"] = not attempt.opened_for
        if attempt.opened_for:
            found["connection_opened_for"] = attempt.opened_for
        if attempt.conflict is not None:
            found |= {"occ_type": str(attempt.conflict.type), "occ_code": attempt.conflict.code}
        self._leave(found, attempt.error, is_conflict=attempt.conflict is not None)

    def end(self, seen: Observation) -> None:
        """The same for the transaction."""
        found: dict[str, Any] = {"attempts": seen.attempts, "ending": seen.ending, "function": seen.function}
        if seen.attempt is not None and seen.attempt.opened_for is not None:
            found["connection_reused"] = not seen.attempt.opened_for
        if seen.conflict is not None:
            found["occ_type"] = str(seen.conflict.type)
        self._leave(found, seen.error, is_conflict=False)

    def _enter(self, name: str) -> None:
        block = self._provider.in_subsegment(name=name)
        self._open.append((block, block.__enter__()))

    def _leave(self, annotations: dict[str, Any], error: BaseException | None, *, is_conflict: bool) -> None:
        block, subsegment = self._open.pop()
        try:
            if subsegment is not None:  # there is no segment, as in a process that is not traced
                for key, value in annotations.items():
                    subsegment.put_annotation(key=key, value=value)
                if error is not None:
                    subsegment.put_annotation(key="error", value=name_of(error))
                    mark = getattr(subsegment, "add_error_flag" if is_conflict else "add_fault_flag", None)
                    if mark is not None:
                        mark()
        finally:
            block.__exit__(None, None, None)
