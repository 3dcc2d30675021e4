"""One runner at work on the migrations of a database: `MigrationRun`.

Runs the steps that `migration_records` decides on, each in its own transaction by the loop that every transaction here has. So
OC001 and a lost connection are retried there, and a COMMIT of unknown outcome leads back to the record, which says how to go on.
Knows nothing of folders and of command lines.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, NoReturn, TypeVar

from . import catalog as catalogs
from . import jobs, migration_records
from .claim import ConnectionSource
from .dsql_forms import dsql_form
from .errors import CommitOutcomeUnknown, DeadlineExceeded, DsqlError, OCCRetryExhausted
from .lambda_runtime import deadline_after
from .migration_files import Migration, MigrationError
from .migration_records import LEASE_SECONDS, TABLE, Kind, Step
from .retry import OCCRetryConfig
from .runner import run_in_transaction
from .script import shape
from .server_errors import DatabaseError, InterfaceError
from .system import SYSTEM, System
from .telemetry import Telemetry
from .transaction import Transaction

T = TypeVar("T")

RETRY: Final = OCCRetryConfig(max_attempts=20, base_delay_ms=20, max_delay_ms=2000, jitter="full", immediate_schema_retry=True)
_MOST_IN_DOUBT = 5  # COMMITs without an answer, until the run gives up
_WAIT_SECONDS = 0.5
_NOTE_SECONDS = 3.0  # for the record of a failure, whatever the deadline
_FIRST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.05, 5.0
_MOST_CATALOG_BYTES = 900_000  # DSQL's limit for a column is 1 MiB

# What a statement that was applied already is refused with.
_IS_THERE: Final = frozenset({"42P07", "42710", "42701", "42723", "42P06"})
_IS_GONE: Final = frozenset({"42P01", "42703", "42704", "42883", "3F000"})


class MigrationRun:
    """One runner at work on the migrations."""

    def __init__(
        self,
        migrations: Sequence[Migration],
        source: ConnectionSource,
        *,
        timeout: float | None = None,
        lease_seconds: float = LEASE_SECONDS,
        say: Callable[[str], None] = lambda _: None,
        system: System = SYSTEM,
    ) -> None:
        self._migrations = migrations
        self._source = source
        self._lease_seconds = lease_seconds
        self._say = say
        self._system = system
        self._deadline_at = deadline_after(timeout, now=system.monotonic)
        self._owner = os.urandom(8).hex()
        self._waited_for = ""
        self._telemetry = Telemetry(self.run)

    def run(self) -> list[str]:
        """Step by step until all is applied; the names of the migrations that were completed here."""
        self._make_table()
        in_doubt = 0
        while True:
            try:
                step = self._advance()
                if step is None:
                    records = self._read(migration_records.read_records)
                    return [each.name for each in records.values() if each.owner == self._owner]
                if step.kind is Kind.WAIT:
                    self._wait(step)
                elif step.kind in {Kind.DDL, Kind.RESUME}:
                    self._complete(step)
            except CommitOutcomeUnknown:
                in_doubt += 1
                if in_doubt > _MOST_IN_DOUBT:
                    raise
                self._say("COMMIT was not answered: looking at the record")

    def _make_table(self) -> None:
        tries = 0
        while not self._read(migration_records.has_table):
            try:
                self._transaction(lambda tx: tx.run(migration_records.CREATE_TABLE))
            except (DatabaseError, CommitOutcomeUnknown):  # another runner was faster, or nobody answered
                tries += 1
                if tries > _MOST_IN_DOUBT:
                    raise

    def _advance(self) -> Step | None:
        """Decide on a step, and write down that it is begun. A statement on rows is run in the same transaction."""
        steps: list[Step] = []
        seconds = 0.0

        def advance(tx: Transaction) -> Step | None:
            nonlocal seconds
            records = migration_records.read_records(tx)
            step = migration_records.next_step(self._migrations, records, owner=self._owner, lease_seconds=self._lease_seconds)
            steps[:] = [step] if step is not None else []
            if step is None or step.kind is Kind.WAIT:
                return step
            if step.kind is Kind.RESUME and step.record is not None:
                migration_records.claim(tx, step, owner=self._owner, before=step.record.before)
            elif step.kind is Kind.DDL:
                before = catalogs.digest(catalogs.read_catalog(tx, ledger=TABLE))
                migration_records.claim(tx, step, owner=self._owner, before=before)
            else:
                migration_records.claim(tx, step, owner=self._owner, before=None)
                if step.kind is Kind.DATA:
                    began_at = self._system.monotonic()
                    tx.run(_text(step))
                    seconds = self._system.monotonic() - began_at
                self._record(tx, step, seconds)
            return step

        try:
            step = self._transaction(advance)
        except (DatabaseError, OCCRetryExhausted, DeadlineExceeded) as error:
            if isinstance(error, DatabaseError) and error.constraint_name == f"{TABLE}_pkey":
                return self._advance()  # another runner was faster
            if not steps or steps[0].kind is not Kind.DATA:
                raise
            self._fail(steps[0], error)
        if step is not None and step.kind in {Kind.DATA, Kind.FINISH}:
            self._done(step, seconds)
        return step

    def _complete(self, step: Step) -> None:
        """Run a DDL statement that is claimed, wait for its job, and write down that it is applied."""
        began_at = self._system.monotonic()
        text = _text(step)
        try:
            answer = self._transaction(lambda tx: tx.run(text))
        except DatabaseError as error:
            if not (step.kind is Kind.RESUME and self._was_applied(step, error)):
                self._fail(step, error)
            self._say(f"{step.migration.place(step.number)}: it was applied before its runner ended")
            answer = None
        except (OCCRetryExhausted, DeadlineExceeded) as error:  # nothing was committed
            self._fail(step, error)
        job = jobs.job_of(text, answer)
        if job is not None:
            self._await_job(step, job)
        seconds = self._system.monotonic() - began_at
        self._transaction(lambda tx: self._record(tx, step, seconds))
        self._done(step, seconds)

    def _was_applied(self, step: Step, error: DatabaseError) -> bool:
        """Does a refusal say that a statement in doubt was applied? Only if the catalog has changed since just before it."""
        words = shape(_text(step))
        adds, drops = words[0] == "CREATE" or "ADD" in words, words[0] == "DROP" or "DROP" in words or "RENAME" in words
        uses_index = "already associated with a constraint" in error.message  # ADD CONSTRAINT … USING INDEX
        is_there = uses_index or error.sqlstate in _IS_THERE
        if not ((adds and is_there) or (drops and error.sqlstate in _IS_GONE)):
            return False
        now = self._read(lambda tx: catalogs.digest(catalogs.read_catalog(tx, ledger=TABLE)))
        return step.record is not None and now != step.record.before

    def _await_job(self, step: Step, job: jobs.Job) -> None:
        """Poll the job, and renew the row meanwhile. Raises `MigrationError` if it fails, or if no time is left."""
        delay = _FIRST_POLL_SECONDS

        def look(tx: Transaction) -> jobs.JobState:
            migration_records.renew(tx, step, owner=self._owner)
            return jobs.state_of(tx, job)

        self._say(f"{step.migration.place(step.number)}: waiting for the job of the {job.kind} {job.name}")
        while (state := self._transaction(look)).is_running:
            if self._system.monotonic() + delay >= self._deadline_at:
                with suppress(DsqlError, DatabaseError, InterfaceError):
                    self._transaction(
                        lambda tx: migration_records.release(tx, step, owner=self._owner),
                        deadline_at=self._system.monotonic() + _NOTE_SECONDS,
                    )
                raise self._error(step, f"no time was left to wait for its job ({job.job_id}), which goes on: run again")
            self._system.sleep(min(delay, self._lease_seconds / 4))
            delay = min(delay * 1.5, _LONGEST_POLL_SECONDS)
        if state.failure:
            remedy = f"correct the rows, and DROP INDEX {job.name}" if job.kind == "index" else "correct the rows"
            self._fail(step, MigrationError(f"its job failed: {state.failure}; {remedy}"))

    def _wait(self, step: Step) -> None:
        """Give the other runner time."""
        record = step.record
        if record is not None and self._waited_for != (key := f"{record.version} {record.owner}"):
            self._waited_for = key
            self._say(f"{step.migration.name}: another runner is at work on it; waiting")
        if self._system.monotonic() + _WAIT_SECONDS >= self._deadline_at:
            raise MigrationError(
                f"{step.migration.name}: another runner is still at work on it, and no time is left to wait: run again"
            )
        self._system.sleep(_WAIT_SECONDS)

    def _record(self, tx: Transaction, step: Step, seconds: float) -> None:
        """The statement is applied; with the last one, the migration."""
        if step.kind is not Kind.FINISH:
            migration_records.record_done(tx, step, owner=self._owner, seconds=seconds)
        if step.number == len(step.migration.statements):
            now = catalogs.read_catalog(tx, ledger=TABLE)
            kept = json.dumps(now, separators=(",", ":"))
            if len(kept.encode()) > _MOST_CATALOG_BYTES:
                kept = json.dumps({"": catalogs.digest(now)})
            migration_records.record_applied(tx, step, owner=self._owner, catalog=kept)

    def _done(self, step: Step, seconds: float) -> None:
        of = f"statement {step.number} of {len(step.migration.statements)}"
        self._say(f"{step.migration.place(step.number)}: {of} applied in {seconds * 1000:.0f} ms")

    def _fail(self, step: Step, error: Exception) -> NoReturn:
        """Write down that the statement was refused, so that the next run begins with it, and raise."""
        refused = self._error(step, _said(error))
        form = dsql_form(_text(step), error.message) if isinstance(error, DatabaseError) else ""
        lines = [str(refused), *(f"    {each}" for each in _text(step).splitlines())]
        lines += [f"DSQL's form: {form}"] if form else []
        lines.append(
            f"{step.number - 1} of the {len(step.migration.statements)} statements of {step.migration.name} are applied: "
            f"correct statement {step.number}, and run again"
        )

        def note(tx: Transaction) -> None:
            if step.kind is Kind.DATA:  # its claim was rolled back with it
                migration_records.claim(tx, step, owner=self._owner, before=None)
            migration_records.record_failed(tx, step, owner=self._owner, error=_said(error))

        with suppress(DsqlError, DatabaseError, InterfaceError):  # the statement's own error is the one to raise
            self._transaction(note, deadline_at=self._system.monotonic() + _NOTE_SECONDS)
        raise self._error(step, "\n".join(lines), place="") from error

    def _error(self, step: Step, reason: str, *, place: str | None = None) -> MigrationError:
        migration, number = step.migration, step.number
        if place is None:
            reason = f"{migration.place(number)}: statement {number} of {len(migration.statements)}: {reason}"
        statement = migration.statements[number - 1]
        return MigrationError(reason, file=str(migration.path), line=statement.line, number=number, statement=statement.text)

    def _read(self, function: Callable[[Transaction], T]) -> T:
        return self._transaction(function, read_only=True)

    def _transaction(
        self, function: Callable[[Transaction], T], *, deadline_at: float | None = None, read_only: bool = False
    ) -> T:
        return run_in_transaction(
            function,
            self._source,
            retry=RETRY,
            deadline_at=self._deadline_at if deadline_at is None else deadline_at,
            read_only=read_only,
            telemetry=self._telemetry,
            system=self._system,
        )


def _text(step: Step) -> str:
    return step.migration.statements[step.number - 1].text


def _said(error: Exception) -> str:
    return f"refused: {error}" if isinstance(error, DatabaseError) else str(error)
