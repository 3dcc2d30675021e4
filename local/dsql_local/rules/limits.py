"""DSQL's limits, as one frozen value; a test may lower any of them."""

from dataclasses import dataclass

from .rulebook import LIMITS

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """DSQL's limits. Times are seconds of the cluster's clock, sizes are bytes."""

    rows: int = LIMITS["rows"]  # modified in one transaction: 54000 at the statement
    size: int = LIMITS["size"]  # modified in one transaction: 54000 at COMMIT
    age: float = LIMITS["age"]  # of a transaction: 54000 at the next statement or COMMIT
    key: int = LIMITS["key"]  # of the values in a key of a row: 54000 at the statement
    connection_age: float = LIMITS["connection_age"]  # the connection is closed without an error
    connections: int = LIMITS["connections"]  # open at once: FATAL 53300
    connection_rate: float = LIMITS["connection_rate"]  # new ones a second: FATAL 53400
    connection_burst: int = LIMITS["connection_burst"]  # new ones at once, after a pause
    flight: int = LIMITS["flight"]  # of a client's messages before its Sync, and of its prepared statements: FATAL 54000
    message: int = LIMITS["message"]  # of one message from a client: FATAL 08P01

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0, not {getattr(self, name)!r}")
