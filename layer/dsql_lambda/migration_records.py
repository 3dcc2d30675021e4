"""What is known of the migrations of a database, and what is done next: `Record`, `next_step`, and the statements on the table.

Knows the table and its states, and decides; runs no migration. DSQL has no advisory locks and no LOCK, and takes no DDL beside
DML. So a record says what is about to be done, in a transaction of its own, before it is done:

    no row        the migration is pending
    applying      `owner` is at work on it. `done` statements are applied. `doing` is the DDL statement that is under way, NULL
                  between two. `before` is a digest of the catalog from just before it
    failed        the server refused the statement behind the first `done`; the next run begins with that one
    applied       all is done. `catalog` has the digests of the catalog's objects at that moment

Two runners read, decide and write in one transaction each: of two that write one row the later COMMIT fails (OC000), runs
again, sees the other's row, and waits. A row whose owner has not renewed it for the lease is taken over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any, Final, NamedTuple

from .migration_files import Migration, MigrationError, is_data
from .transaction import Transaction

TABLE: Final = "dsql_lambda_migrations"
LEASE_SECONDS: Final = 60.0
"""How long a row is its owner's since it was last renewed."""

CREATE_TABLE: Final = f"""CREATE TABLE IF NOT EXISTS {TABLE} (
    version text PRIMARY KEY,
    name text NOT NULL,
    state text NOT NULL,
    checksum text NOT NULL,
    done int NOT NULL,
    done_checksum text NOT NULL,
    doing int,
    before text,
    owner text NOT NULL,
    error text,
    started_at timestamptz NOT NULL,
    renewed_at timestamptz NOT NULL,
    applied_at timestamptz,
    duration_ms bigint NOT NULL,
    catalog text
)"""

_SELECT: Final = (
    f"SELECT version, name, state, checksum, done, done_checksum, doing, before, owner, error, "  # noqa: S608 - a constant
    f"extract(epoch FROM clock_timestamp() - renewed_at)::float8 AS idle_seconds, duration_ms FROM {TABLE} ORDER BY version"
)


class Record(NamedTuple):
    """A row of the table."""

    version: str
    name: str
    state: str
    checksum: str
    done: int
    done_checksum: str
    doing: int | None
    before: str | None
    owner: str
    error: str | None
    idle_seconds: float
    """Since its owner has renewed it, by the server's clock."""
    duration_ms: int


class Kind(Enum):
    """What a step is."""

    DATA = auto()
    """Run a statement on rows together with its record."""
    DDL = auto()
    """Claim, run, record: three transactions."""
    RESUME = auto()
    """A DDL statement was under way when its runner ended: find out whether it was applied."""
    FINISH = auto()
    """Every statement that the file still has is applied."""
    WAIT = auto()
    """Another runner is at work."""


class Step(NamedTuple):
    """What is done next."""

    kind: Kind
    migration: Migration
    number: int
    """Of the statement, from 1."""
    record: Record | None
    """The migration's row, if it has one."""


def has_table(tx: Transaction) -> bool:
    """Has a migration ever been recorded here?"""
    return bool(tx.value(f"SELECT to_regclass('{TABLE}') IS NOT NULL"))


def read_records(tx: Transaction) -> dict[str, Record]:
    """All rows, by their version."""
    return {each["version"]: Record(**each) for each in tx.rows(_SELECT)}


def pending(migrations: Sequence[Migration], records: Mapping[str, Record]) -> list[Migration]:
    """What is not applied in full. Raises `MigrationError` where files and records do not fit together."""
    wrong = mismatches(migrations, records)
    if wrong:
        raise MigrationError("; ".join(wrong))
    return [each for each in migrations if each.version not in records or records[each.version].state != "applied"]


def mismatches(migrations: Sequence[Migration], records: Mapping[str, Record]) -> list[str]:
    """Where the files are not what was applied, a sentence each. Records newer than all files are a later release's."""
    wrong = []
    files = {each.version: each for each in migrations}
    newest = max((each.version for each in records.values()), default="")
    for migration in migrations:
        record = records.get(migration.version)
        if record is None:
            if migration.version < newest:
                wrong.append(f"{migration.path} is not applied, and {newest} is: give it a number above {newest}")
        elif record.name != migration.name:
            wrong.append(f"{migration.path} was applied as {record.name}: give it that name again")
        elif record.state == "applied" and record.checksum != migration.checksum:
            wrong.append(f"{migration.path} was changed after it was applied: restore it, and write a new migration")
        elif record.doing is not None and record.checksum != migration.checksum:
            wrong.append(
                f"{migration.path} was changed while its statement {record.doing} was under way: restore it, and run again"
            )
        elif record.state != "applied" and migration.checksum_of_first(record.done) != record.done_checksum:
            wrong.append(
                f"{migration.path}: one of its first {record.done} statements was changed after it was applied: restore it"
            )
    last = max(files, default="")
    wrong += [
        f"{each.name} was applied and its file is gone"
        for each in records.values()
        if each.version not in files and each.version < last
    ]
    return wrong


def next_step(
    migrations: Sequence[Migration], records: Mapping[str, Record], *, owner: str, lease_seconds: float = LEASE_SECONDS
) -> Step | None:
    """What this runner does next; None if all is applied. Raises `MigrationError` as `pending` does."""
    for migration in pending(migrations, records):
        record = records.get(migration.version)
        if record is None:
            return Step(_kind(migration, 1), migration, 1, None)
        if record.state == "applying" and record.owner != owner and record.idle_seconds < lease_seconds:
            return Step(Kind.WAIT, migration, record.done + 1, record)
        if record.doing is not None:
            return Step(Kind.RESUME, migration, record.doing, record)
        if record.done == len(migration.statements):  # the statement that was refused has been taken out
            return Step(Kind.FINISH, migration, record.done, record)
        return Step(_kind(migration, record.done + 1), migration, record.done + 1, record)
    return None


def _kind(migration: Migration, number: int) -> Kind:
    return Kind.DATA if is_data(migration.statements[number - 1]) else Kind.DDL


def claim(tx: Transaction, step: Step, *, owner: str, before: str | None) -> None:
    """Write down that this runner is at work on the step's migration; `before` is None for a statement on rows."""
    migration = step.migration
    values: dict[str, Any] = {
        "version": migration.version,
        "checksum": migration.checksum,
        "owner": owner,
        "doing": None if before is None else step.number,
        "before": before,
    }
    if step.record is None:
        tx.run(
            f"INSERT INTO {TABLE} (version, name, state, checksum, done, done_checksum, doing, before, owner, "  # noqa: S608
            "started_at, renewed_at, duration_ms) VALUES (:version, :name, 'applying', :checksum, 0, :done_checksum, :doing, "
            ":before, :owner, clock_timestamp(), clock_timestamp(), 0)",
            name=migration.name,
            done_checksum=migration.checksum_of_first(0),
            **values,
        )
        return
    tx.run(
        f"UPDATE {TABLE} SET state = 'applying', checksum = :checksum, doing = :doing, before = :before, "  # noqa: S608
        "owner = :owner, error = NULL, renewed_at = clock_timestamp() WHERE version = :version",
        **values,
    )


def record_done(tx: Transaction, step: Step, *, owner: str, seconds: float) -> None:
    """Write down that the step's statement is applied."""
    _update(
        tx,
        "done = :done, done_checksum = :done_checksum, doing = NULL, before = NULL, duration_ms = duration_ms + :ms",
        step,
        owner,
        done=step.number,
        done_checksum=step.migration.checksum_of_first(step.number),
        ms=round(seconds * 1000),
    )


def record_applied(tx: Transaction, step: Step, *, owner: str, catalog: str) -> None:
    """Write down that the whole migration is applied, and what the catalog then had (JSON)."""
    _update(tx, "state = 'applied', applied_at = clock_timestamp(), catalog = :catalog", step, owner, catalog=catalog)


def record_failed(tx: Transaction, step: Step, *, owner: str, error: str) -> None:
    """Write down that the step's statement was refused, and so is not applied."""
    _update(tx, "state = 'failed', doing = NULL, before = NULL, error = :error", step, owner, error=error[:2000])


def renew(tx: Transaction, step: Step, *, owner: str) -> None:
    """Say that the owner is still at work."""
    _update(tx, "error = NULL", step, owner)


def release(tx: Transaction, step: Step, *, owner: str) -> None:
    """Let the next runner have the row at once."""
    tx.run(
        f"UPDATE {TABLE} SET renewed_at = 'epoch' WHERE version = :version AND owner = :owner AND state = 'applying'",  # noqa: S608
        version=step.migration.version,
        owner=owner,
    )


def applied_catalog(tx: Transaction) -> tuple[str, Any] | None:
    """The name of the last applied migration, and what the catalog had then."""
    row = tx.row(f"SELECT name, catalog FROM {TABLE} WHERE state = 'applied' ORDER BY version DESC LIMIT 1")  # noqa: S608
    return None if row is None else (row["name"], row["catalog"])


def _update(tx: Transaction, assignments: str, step: Step, owner: str, **values: Any) -> None:
    """Change the row, if it is still this runner's. Raises `MigrationError` if another one has taken it over."""
    found = tx.run(
        f"UPDATE {TABLE} SET {assignments}, renewed_at = clock_timestamp() "  # noqa: S608 - the assignments are above
        "WHERE version = :version AND owner = :owner AND state = 'applying' RETURNING 1",
        version=step.migration.version,
        owner=owner,
        **values,
    )
    if not found:
        raise MigrationError(
            f"{step.migration.name}: another runner has taken it over, since this one was silent for too long: it goes on there"
        )
