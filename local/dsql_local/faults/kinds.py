"""The kinds of faults, as values: what each does, and at which point of the protocol.

Each validates its fields, so that a fault that could never be injected is an error where it is asked for.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

from ..rules.error_responses import CONFLICTS, ConflictCode, RefusalReason

__all__ = [
    "Conflict",
    "Cut",
    "CutPoint",
    "Delay",
    "Disconnection",
    "Fault",
    "FaultTarget",
    "FlightSummary",
    "Refuse",
    "Unavailable",
    "one_of",
]

CutPoint = Literal[
    "on-connect",  # while a connection opens
    "after-tls",
    "after-startup",
    "after-password",
    "before-ready",
    "at-parse",  # when a message of this type arrives
    "at-bind",
    "at-describe",
    "at-execute",
    "at-close",
    "at-flush",
    "at-sync",
    "at-query",
    "at-copy-data",
    "at-copy-done",
    "before-first-flight",  # when a whole flight has arrived; see `Cut.matches`
    "before-commit",
    "after-commit-sent",
    "mid-reply",
    "after-reply",
]
Disconnection = Literal["rst", "fin", "silence"]
FaultTarget = Literal["commit", "statement"]


def one_of(name: str, value: str, allowed: Collection[str]) -> None:
    """Raise ValueError unless the value is one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


@dataclass(frozen=True, slots=True)
class FlightSummary:
    """What faults need to know about a flight."""

    in_transaction: bool  # it arrived inside an open transaction
    begins: bool
    commits: bool
    has_work: bool  # it executes a statement that neither begins nor ends a transaction


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection is cut at this point."""

    at: CutPoint
    how: Disconnection
    applied: bool

    def __post_init__(self) -> None:
        one_of("at", self.at, get_args(CutPoint))
        one_of("how", self.how, get_args(Disconnection))

    def matches(self, flight: FlightSummary) -> bool:
        """Whether this flight is the one at which the connection is cut."""
        if self.at in ("mid-reply", "after-reply"):
            return True
        if self.at == "before-first-flight":
            return not flight.in_transaction
        if self.at == "before-commit":
            return not flight.commits and (flight.in_transaction or (flight.begins and flight.has_work))
        return self.at == "after-commit-sent" and flight.commits


@dataclass(frozen=True, slots=True)
class Conflict:
    """A COMMIT, or a statement, fails with 40001."""

    code: ConflictCode
    at: FaultTarget = "commit"

    def __post_init__(self) -> None:
        one_of("code", self.code, CONFLICTS)
        one_of("at", self.at, get_args(FaultTarget))


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A COMMIT, or a statement, fails with XX000."""

    at: FaultTarget
    applied: bool

    def __post_init__(self) -> None:
        one_of("at", self.at, get_args(FaultTarget))


@dataclass(frozen=True, slots=True)
class Refuse:
    """A connection is refused."""

    reason: RefusalReason


@dataclass(frozen=True, slots=True)
class Delay:
    """A flight is delayed."""

    ms: float

    def __post_init__(self) -> None:
        if self.ms < 0:
            raise ValueError(f"ms must not be negative, but is {self.ms}")


Fault = Cut | Conflict | Unavailable | Refuse | Delay
