"""The methods that ask for faults. `LocalDsql` has them for the server, `FaultInjector` uses them for one connection."""

from ..rules.error_responses import REASONS, ConflictCode, RefusalCode, RefusalReason
from .kinds import Conflict, Cut, CutPoint, Delay, Disconnection, FaultTarget, Refuse, Unavailable, one_of
from .plan import FaultPlan

__all__ = ["FaultRequests"]


class FaultRequests:
    """Adds faults to a plan. Each is injected at the first moments that match, `n` times. The methods raise ValueError."""

    def __init__(self, faults: FaultPlan) -> None:
        self._faults = faults

    def conflict_next(self, n: int = 1, code: ConflictCode = "OC000", *, at: FaultTarget = "commit") -> None:
        """Fail the next `n` COMMITs of open transactions, or the next `n` statements, with 40001 and the message of `code`.

        A failed COMMIT rolls back; a failed statement leaves its transaction in the failed state, as OC001 does at a read. The
        message of the code "40001" contains no OC code.
        """
        self._faults.add(Conflict(code, at), n)

    def conflict_rate(self, p: float, seed: int | None = None, code: ConflictCode = "OC000") -> None:
        """Fail each COMMIT of an open transaction with probability `p`. `p=0` stops it.

        The same seed fails the same COMMITs; the default is the server's seed, or 0.
        """
        self._faults.set_conflict_rate(p, seed, Conflict(code))

    def cut(self, at: CutPoint, n: int = 1, *, applied: bool = True, how: Disconnection = "rst") -> None:
        """Cut the connection the next `n` times that it reaches this point of the protocol.

        While it opens: "on-connect", "after-tls", "after-startup", "after-password", "before-ready".

        When a message arrives: "at-parse", "at-bind", "at-describe", "at-execute", "at-close", "at-flush", "at-sync", "at-query",
        "at-copy-data", "at-copy-done". Its flight is not executed.

        When a flight has arrived (a flight is what a client sends before it waits for an answer):

        - "before-first-flight": one outside a transaction; it is not executed.
        - "before-commit": one without a COMMIT that arrives in a transaction, or that begins one and executes a statement in it;
          it is not executed.
        - "after-commit-sent": one with a COMMIT; it is executed if `applied`, else rolled back.
        - "mid-reply" and "after-reply": any; it is executed, and half or all of its answer is sent.

        The client sees a reset ("rst"), the end of the stream ("fin"), or no answer and no end ("silence"). An open transaction
        is rolled back before the client sees it.
        """
        self._faults.add(Cut(at, how, applied), n)

    def delay(self, ms: float, n: int | None = None) -> None:
        """Delay the next `n` flights, or all until `clear_faults()`, by this many milliseconds."""
        self._faults.add(Delay(ms), n)

    def unavailable(self, n: int = 1, *, at: FaultTarget = "commit", applied: bool = False) -> None:
        """Answer XX000 `server unavailable` to the next `n` COMMITs (executed if `applied`) or statements (not executed)."""
        self._faults.add(Unavailable(at, applied), n)

    def refuse_connections(self, n: int = 1, reason: RefusalReason | RefusalCode = "rate") -> None:
        """Refuse the next `n` connections.

        The reason is "rate" (too many new connections), "connections" (too many open ones), "waking" (the cluster wakes up) or
        "access" (IAM denies access); or a SQLSTATE: "53400" for rate, "53300" for connections, "08006" for access.
        """
        one_of("reason", reason, REASONS)
        self._faults.add(Refuse(REASONS[reason]), n)
