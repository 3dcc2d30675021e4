"""Migrations: `apply_migrations`, `pending_migrations`, `check_migrations`, and `python -m dsql_lambda.migrate`.

python -m dsql_lambda.migrate migrations                apply what is not applied yet
python -m dsql_lambda.migrate migrations --dry-run      print what would be applied
python -m dsql_lambda.migrate migrations --check        say where files, records and catalog differ
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from . import catalog as catalogs
from . import migration_records
from .cache import CachedConnection, source_for
from .claim import ConnectionSource
from .connection import connect
from .errors import ConfigError, DsqlError
from .migration_files import Migration, read_migrations
from .migration_records import LEASE_SECONDS, TABLE
from .migration_run import RETRY, MigrationRun
from .options import ConnectOptions
from .role_mappings import map_roles, parse_mapping
from .runner import run_in_transaction
from .server_errors import DatabaseError
from .system import SYSTEM, System
from .transaction import Transaction

T = TypeVar("T")


def apply_migrations(
    folder: Path | str,
    *,
    source: ConnectionSource | None = None,
    timeout: float | None = None,
    lease_seconds: float = LEASE_SECONDS,
    say: Callable[[str], None] = lambda _: None,
    system: System = SYSTEM,
) -> list[str]:
    """Apply the migrations of a folder that are not applied yet; returns the names of those that this call has completed.

    `source` is a `Connection` or a `Pool`, None is the cached connection; its role must own the schema. `timeout` is in seconds.
    A row of another runner that was not renewed for `lease_seconds` is taken over. `say` is told each step.

    Raises `MigrationError` at the first statement that fails, or where files and records do not fit together. What was applied
    until then stays applied and recorded, and the next call goes on behind it.
    """
    migrations = read_migrations(folder)
    run = MigrationRun(
        migrations,
        source_for(None) if source is None else source,
        timeout=timeout,
        lease_seconds=lease_seconds,
        say=say,
        system=system,
    )
    return run.run()


def pending_migrations(folder: Path | str, *, source: ConnectionSource | None = None) -> list[tuple[Migration, int]]:
    """What `apply_migrations` would apply, each with the number of its first statement. Changes nothing; raises the same."""
    migrations = read_migrations(folder)

    def look(tx: Transaction) -> list[tuple[Migration, int]]:
        records = migration_records.read_records(tx) if migration_records.has_table(tx) else {}
        pending = migration_records.pending(migrations, records)
        return [(each, records[each.version].done + 1 if each.version in records else 1) for each in pending]

    return _read(look, source)


def check_migrations(folder: Path | str, *, source: ConnectionSource | None = None) -> list[str]:
    """What keeps the database from being what the migrations made of it, a sentence each; empty if nothing does.

    Files are compared with the records by checksum, and the catalog with what it was after the last migration. What was changed
    by other means since, and what it is, shows; what was changed before the first migration does not. Changes nothing.
    """
    migrations = read_migrations(folder)

    def look(tx: Transaction) -> list[str]:
        if not migration_records.has_table(tx):
            return [f"{each.path} is not applied" for each in migrations]
        records = migration_records.read_records(tx)
        found = migration_records.mismatches(migrations, records)
        for each in migrations:
            record = records.get(each.version)
            if record is None:
                found.append(f"{each.path} is not applied")
            elif record.state != "applied":
                why = f": {record.error}" if record.error else ""
                found.append(
                    f"{each.path}: {record.done} of its {len(each.statements)} statements are applied, {record.state}{why}"
                )
        found += [f"index {each}: is not valid" for each in catalogs.invalid_indexes(tx)]
        if all(each.state == "applied" for each in records.values()) and (last := migration_records.applied_catalog(tx)):
            found += [f"{each} since {last[0]}" for each in _drift(tx, json.loads(last[1]))]
        return found

    return _read(look, source)


def _read(look: Callable[[Transaction], T], source: ConnectionSource | None) -> T:
    return run_in_transaction(look, source_for(None) if source is None else source, retry=RETRY, read_only=True)


def _drift(tx: Transaction, before: dict[str, str]) -> list[str]:
    now = catalogs.read_catalog(tx, ledger=TABLE)
    if "" in before:  # it had too many objects to be kept one by one
        return [] if before[""] == catalogs.digest(now) else ["the catalog: has changed"]
    return catalogs.differences(before, now)


def main(arguments: Sequence[str]) -> int:
    """Run the command; 0 only if the database is what the files say."""
    given = _parse(arguments)
    try:
        options = ConnectOptions.from_url(given.url) if given.url else ConnectOptions.from_env()
        source = CachedConnection(options)
        if given.dry_run:
            return _print_pending(given.folder, source)
        if given.check:
            return _print_differences(given.folder, source)
        if given.role:
            pending_migrations(given.folder, source=source)  # what is wrong with them is said before anything is done
            with connect(options) as connection:
                map_roles(connection, given.role, say=_say)
        applied = apply_migrations(given.folder, source=source, timeout=given.timeout, say=_say)
    except DatabaseError as error:
        print(f"dsql_lambda.migrate: the cluster refused a statement: {error}", file=sys.stderr)
        return 1
    except (DsqlError, OSError) as error:
        print(f"dsql_lambda.migrate: {error}", file=sys.stderr)
        return 1
    _say(f"applied: {', '.join(applied)}" if applied else "nothing to apply")
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dsql_lambda.migrate",
        description="Apply the migrations of a folder to an Aurora DSQL cluster. DSQL_HOST and the other variables name it.",
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("migrations"), help="of NNNN_name.sql files (default: migrations)"
    )
    parser.add_argument("--url", help="the cluster, as postgres://admin@<endpoint>, instead of the variables")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="give up after that; what was applied stays")
    parser.add_argument(
        "--role",
        type=_mapping,
        action="append",
        default=[],
        metavar="ROLE=ARN",
        help="first create this database role, and map it",
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--dry-run", action="store_true", help="print what would be applied, and change nothing")
    only.add_argument("--check", action="store_true", help="say where files, records and catalog differ; 1 if they do")
    given = parser.parse_args(arguments)
    if given.role and (given.dry_run or given.check):
        parser.error("--role changes the cluster: leave it out beside --dry-run and --check")
    return given


def _mapping(text: str) -> object:
    try:
        return parse_mapping(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _print_pending(folder: Path, source: ConnectionSource) -> int:
    for migration, first in pending_migrations(folder, source=source):
        for number in range(first, len(migration.statements) + 1):
            print(f"-- {migration.place(number)}: statement {number} of {len(migration.statements)}")
            print(f"{migration.statements[number - 1].text};\n")
    return 0


def _print_differences(folder: Path, source: ConnectionSource) -> int:
    found = check_migrations(folder, source=source)
    for each in found:
        print(each)
    return 1 if found else 0


def _say(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
