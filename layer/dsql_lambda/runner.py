"""The loop: attempts at a transaction until one ends for good. `run_in_transaction`.

The only loop that retries (`retry_on_occ` borrows it). Knows attempts and deadlines; connections come from a `ConnectionSource`
and go back to it. What a failed attempt's ending is called, and what follows it, is decided in `failure`, which is loaded with
the first one. Clock, sleep and random are injected.

An exception of somebody else's (a signal handler, another thread, no memory) can come between any two bytecodes. It is never
a reason to try again. Where COMMIT may have been sent it becomes `CommitOutcomeUnknown`, or carries a note that says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from . import claim as claims
from .attempt import Ending, Evidence, Outcome, outcome_unknown
from .claim import Claim, ConnectionSource
from .errors import CommitOutcomeUnknown, DeadlineExceeded, OCCRetryExhausted, TransactionError
from .server_errors import ConnectionLost
from .session import Session
from .system import NEVER, SYSTEM, System
from .telemetry import Telemetry
from .transaction import Transaction

if TYPE_CHECKING:
    from .observation import Observation
    from .once import Once
    from .retry import OCCRetryConfig

T = TypeVar("T")

_PROBE_SECONDS = 3.0  # a flow that NAT has forgotten may stay silent: BEGIN, sent alone, is not waited for much longer


def run_in_transaction(
    function: Callable[..., T],
    source: ConnectionSource,
    *,
    retry: OCCRetryConfig | None = None,
    deadline_at: float = NEVER,
    read_only: bool = False,
    telemetry: Telemetry | None = None,
    system: System = SYSTEM,
    by_keyword: bool = False,
    check: Callable[[Any], None] | None = None,
    once: Once | None = None,
) -> T:
    """`function(tx)` (or `function(tx=tx)`) in a transaction on a connection of `source`, attempted until it ends for good.

    `check` raises for a value that must not be committed. `once` reads and writes the row of an idempotency key.
    """
    claim = Claim(sys._getframe(), deadline_at=deadline_at)
    claims.begin(claim)
    retry = retry or getattr(source, "retry", None)
    loop = Loop(retry, deadline_at, telemetry, system, read_only=read_only, by_keyword=by_keyword, check=check, once=once)
    try:
        try:
            observation = loop.observation = telemetry.observe(source, system) if telemetry is not None else None
            while True:
                loop.begin_attempt(claim)
                try:
                    outcome = _attempt(function, source, claim, loop)
                except DeadlineExceeded as late:
                    outcome = Outcome(Ending.OUT_OF_TIME, error=late.__cause__, phase=late.phase)
                if observation is not None:
                    observation.end_attempt(outcome.ending.value, conflict=outcome.conflict, error=outcome.error)
                judged = outcome if once is None else once.judge(outcome, claim.evidence)
                if judged is None:
                    loop.go_on(was_run=outcome.ending is not Ending.COMMITTED)
                elif judged.ending is Ending.COMMITTED or judged.ending is Ending.ROLLED_BACK:
                    claims.end()
                    if observation is not None:
                        observation.end(judged.ending.value)
                        loop.observation = None
                    if judged.after and judged.ending is Ending.COMMITTED:
                        from .after_commit import call_after_commit  # noqa: PLC0415 - for those who asked for it

                        call_after_commit(judged.after, judged.value, telemetry)
                    value: T = judged.value
                    return value
                else:
                    loop.go_on_after(judged)
        except BaseException as error:
            loop.say_failed(error, is_in_doubt=_is_in_doubt(claim, once) and not read_only)
            raise
    except BaseException as error:  # also what interrupts the lines above
        claim.abandon()
        claims.end()
        if _is_in_doubt(claim, once) and not read_only:
            raise_in_doubt(error, loop.attempt, has_key=once is not None)
        raise


def _is_in_doubt(claim: Claim, once: Once | None) -> bool:
    """May a COMMIT that was not answered have landed, or land later?"""
    return claim.evidence.may_have_committed or (once is not None and once.is_in_doubt)


def raise_in_doubt(error: BaseException, attempt: int, *, has_key: bool = False) -> None:
    """COMMIT may have been sent: say so, unless the error does already."""
    if _tells_outcome(error):
        return
    if isinstance(error, Exception):
        raise outcome_unknown(attempt, has_key=has_key) from error
    error.add_note("COMMIT was sent before this interruption: the transaction may be committed or not")


def _tells_outcome(error: BaseException) -> bool:
    return isinstance(error, TransactionError) and error._tells_outcome


class Loop:
    """What one call of the loop has seen so far, and what follows each attempt."""

    def __init__(
        self,
        retry: OCCRetryConfig | None,
        deadline_at: float,
        telemetry: Telemetry | None,
        system: System = SYSTEM,
        *,
        read_only: bool = False,
        by_keyword: bool = False,
        check: Callable[[Any], None] | None = None,
        once: Once | None = None,
    ) -> None:
        self.attempt = 1
        self.deadline_at = deadline_at
        self.read_only = read_only
        self.by_keyword = by_keyword
        self.check = check
        self.once = once
        self.observation: Observation | None = None
        """Who is told of the transaction from its begin to its end; None, as usual, if nobody is."""
        self.monotonic = system.monotonic
        self._retry = retry
        self._telemetry = telemetry
        self._system = system
        self._started_at = self._began_at = system.monotonic()
        self._was_stale = False
        self._last_conflict: Outcome | None = None

    def go_on_after(self, outcome: Outcome) -> None:
        """Wait for the next attempt. Raises the error that the transaction ends with if there is none."""
        if outcome.ending is Ending.FAILED and outcome.error is not None:
            raise outcome.error
        if outcome.ending is Ending.STALE and not self._was_stale:
            self._was_stale = True  # a second one in the same attempt counts as a lost connection, so that the loop ends
            return
        self._was_stale = False
        if outcome.ending is Ending.CONFLICT:
            self._last_conflict = outcome
        from .failure import RETRIED, Step, next_step  # noqa: PLC0415 - loaded by whoever found the failure

        retry = self._retry = self._retry or _default_retry()
        telemetry = self._telemetry = self._telemetry or Telemetry()
        now = self.monotonic()
        step = next_step(
            outcome,
            self._last_conflict,
            attempt=self.attempt,
            retry=retry,
            remaining=self.deadline_at - now,
            elapsed=now - self._started_at,
            lasted=now - self._began_at,
            is_repeatable=self.read_only or (self.once is not None and self.once.settles),
            random=self._system.random,
        )
        if step.error is not None and self.once is not None and self.once.was_in_doubt:
            step = Step(error=outcome_unknown(self.attempt, has_key=True), cause=step.cause or step.error)
        said: dict[str, Any] = {
            "attempt": self.attempt,
            "max_attempts": retry.max_attempts,
            "remaining": self.deadline_at - now,
        }
        if step.error is not None:
            if isinstance(step.error, OCCRetryExhausted):
                telemetry.exhausted(error=step.error, conflict=outcome.conflict, **said)
            elif isinstance(step.error, CommitOutcomeUnknown):
                telemetry.outcome_unknown(**said)
            raise step.error from step.cause
        telemetry.retrying(conflict=outcome.conflict, what=RETRIED[outcome.ending], delay=step.delay, **said)
        if step.delay > 0:
            self._system.sleep(step.delay)
        self.go_on()

    def begin_attempt(self, claim: Claim) -> None:
        """What the attempt before was judged by is put away."""
        claim.evidence = Evidence()
        claim.opened_for = ""
        if self.observation is not None:
            self.observation.begin_attempt(self.attempt)

    def say_failed(self, error: BaseException, *, is_in_doubt: bool) -> None:
        """The transaction ends with an error. It becomes `CommitOutcomeUnknown` where COMMIT `is_in_doubt`."""
        if is_in_doubt and isinstance(error, Exception) and not _tells_outcome(error):
            retry, telemetry = self._retry or _default_retry(), self._telemetry or Telemetry()
            remaining = self.deadline_at - self.monotonic()
            telemetry.outcome_unknown(attempt=self.attempt, max_attempts=retry.max_attempts, remaining=remaining)
        if self.observation is not None:
            self.observation.end(error=error, is_in_doubt=is_in_doubt)

    def go_on(self, *, was_run: bool = True) -> None:
        """Another attempt begins. One that did not run the function does not count."""
        self.attempt += was_run
        self._began_at = self.monotonic()


def _attempt(function: Callable[..., T], source: ConnectionSource, claim: Claim, loop: Loop) -> Outcome:
    """Run the function once in a transaction on a connection of the source, and say how that ended."""
    reason = ""
    session: Session | None = None
    tx: Transaction | None = None
    try:
        session = source._checkout(claim, loop.deadline_at)
        session.transport.deadline_at = loop.deadline_at
        if loop.observation is not None:
            loop.observation.connected(claim.opened_for)
        tx = Transaction(session, evidence=claim.evidence, attempt=loop.attempt, read_only=loop.read_only)
        claim.tx = tx
        outcome = _probe(tx, session, claim.evidence, loop)
        if outcome is None:
            outcome = _run_and_commit(function, tx, session, claim.evidence, loop)
        reason = outcome.ending.value
        return outcome
    finally:
        if tx is not None:
            tx.end()
        if session is not None:
            session.transport.deadline_at = NEVER
            source._checkin(claim, reason)


def _probe(tx: Transaction, session: Session, evidence: Evidence, loop: Loop) -> Outcome | None:
    """On a connection that was idle for long: send BEGIN alone, since a dead one often shows only when it is used."""
    is_long_idle = session.clock() - session.used_at >= session.probe_after_secs
    restores = session.has_settings and session.configure is not None
    if not is_long_idle and not restores:
        return None
    session.transport.deadline_at = min(loop.deadline_at, loop.monotonic() + _PROBE_SECONDS)
    try:
        if restores:
            session.restore_settings()
        if is_long_idle:
            tx.begin()
    except Exception as error:  # noqa: BLE001 - whatever it is, its ending is named
        outcome = _failed(evidence, error, session.transport.failure, "begin")
        is_silent = outcome.ending is Ending.OUT_OF_TIME and loop.monotonic() < loop.deadline_at
        return Outcome(Ending.STALE, error=error) if is_silent or outcome.ending is Ending.BROKEN else outcome
    session.transport.deadline_at = loop.deadline_at
    return None


def _run_and_commit(function: Callable[..., T], tx: Transaction, session: Session, evidence: Evidence, loop: Loop) -> Outcome:
    value: Any = None
    raised: Exception | None = None
    once = loop.once
    try:
        if once is None or once.begin(tx):
            value = function(tx=tx) if loop.by_keyword else function(tx)
            if loop.check is not None and not tx.has_ended:
                loop.check(value)
            if once is not None:
                once.end(tx, value)
        else:
            value = once.value
    except Exception as error:  # noqa: BLE001 - it is raised again, or explained by what the server said before
        raised = error
    lost = session.transport.failure
    if tx.has_ended:
        if raised is None:
            return Outcome(Ending.ROLLED_BACK, value=value)
        return _failed_after_rollback(evidence, raised)
    if raised is not None or evidence.failure is not None or evidence.interruption is not None or lost is not None:
        return _failed(evidence, raised, lost, "statement")
    if loop.monotonic() >= loop.deadline_at:
        return Outcome(Ending.OUT_OF_TIME, phase="function")
    return _commit(value, tx, session, evidence, loop)


def _commit(value: Any, tx: Transaction, session: Session, evidence: Evidence, loop: Loop) -> Outcome:
    if tx.after:
        from . import after_commit  # noqa: F401, PLC0415 - an import that fails must fail before COMMIT
    observation = loop.observation
    if observation is not None:
        observation.begin_commit(evidence)
    try:
        tx.commit()
    except Exception as error:  # noqa: BLE001
        outcome = _failed(evidence, error, session.transport.failure, "commit")
        outcome.value, outcome.after = value, tx.after
    else:
        outcome = Outcome(Ending.COMMITTED, value=value, after=tx.after)
    if observation is not None:
        observation.end_commit()
    return outcome


# What only a failure needs is loaded with the first one. If that import fails, the evidence decides what the caller is told.


def _failed(evidence: Evidence, raised: Exception | None, lost: ConnectionLost | None, phase: str) -> Outcome:
    from .failure import outcome_of  # noqa: PLC0415

    return outcome_of(evidence, raised, lost, phase)


def _failed_after_rollback(evidence: Evidence, raised: Exception) -> Outcome:
    from .failure import outcome_of_rolled_back  # noqa: PLC0415

    return outcome_of_rolled_back(evidence, raised)


def _default_retry() -> OCCRetryConfig:
    from .retry import default_retry  # noqa: PLC0415

    return default_retry()
