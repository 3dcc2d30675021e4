"""The template: an initialised PostgreSQL data folder in the user's cache, which each server copies.

`Template.ready()` runs initdb once, as an unprivileged user when the caller is root (PostgreSQL refuses to run as root). The
template gets its final name only when it is complete, so that several processes can make it at the same time.
"""

import hashlib
import os
import pwd
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import sys_schema
from .binaries import Binaries, PostgresError, publish, remove_stale

__all__ = ["SUPERUSER", "Account", "Template"]

SUPERUSER = "dsql_control"  # for internal connections; clients cannot use it

SETTINGS = f"""
listen_addresses = ''
unix_socket_permissions = 0700
max_connections = 400
shared_buffers = 32MB
fsync = off
client_connection_check_interval = '100ms'
synchronous_commit = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
min_wal_size = 8MB
jit = off
max_parallel_workers = 0
max_logical_replication_workers = 0
default_transaction_isolation = 'repeatable read'
deadlock_timeout = 30ms        # of two statements that block each other, one soon fails as a conflict
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'
log_min_messages = fatal
log_min_error_statement = panic
{sys_schema.SETTINGS}"""

# Run once by `postgres --single`; paragraphs separate statements. DSQL has one database, so PostgreSQL's template databases are
# dropped: they would be two thirds of what each start copies.
SETUP = f"""
UPDATE pg_database SET datistemplate = false

DROP DATABASE template0

DROP DATABASE template1

CREATE ROLE admin LOGIN CREATEROLE

ALTER DATABASE postgres OWNER TO admin

ALTER SCHEMA public OWNER TO admin

{sys_schema.SETUP.strip()}
"""


@dataclass(frozen=True, slots=True)
class Account:
    """The user who runs PostgreSQL: the caller (None), or an unprivileged user when the caller is root."""

    uid: int | None = None
    gid: int | None = None

    @classmethod
    def suitable(cls) -> "Account":
        """The caller's account; for root, that of `postgres` or `nobody`."""
        if os.geteuid() != 0:
            return cls()
        for name in ("postgres", "nobody"):
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(entry.pw_uid, entry.pw_gid)
        raise PostgresError(
            "PostgreSQL does not run as root, and there is no user postgres or nobody to run it as. Create one of them."
        )

    @property
    def options(self) -> dict[str, Any]:
        """The keywords with which `subprocess` runs a command as this user."""
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def can_enter(self, folder: Path) -> bool:
        """Whether this user may traverse a folder and all its parents."""
        return self.uid is None or all(self._may_traverse(each.stat()) for each in (folder, *folder.resolve().parents))

    def _may_traverse(self, entry: os.stat_result) -> bool:
        owner, group = entry.st_uid == self.uid, entry.st_gid == self.gid
        return bool(entry.st_mode & (stat.S_IXUSR if owner else stat.S_IXGRP if group else stat.S_IXOTH))

    def own(self, folder: Path) -> None:
        """Make this user the owner of a folder."""
        if self.uid is not None and self.gid is not None:
            os.chown(folder, self.uid, self.gid)


@dataclass(frozen=True, slots=True)
class Template:
    """Binaries and a data folder to copy, both complete."""

    programs: Path
    cluster: Path
    account: Account
    name: str = "postgresql"

    @classmethod
    def ready(cls, cache: Path | None = None) -> "Template":
        """The template in the cache folder. Makes it if it is missing, which takes some seconds. Raises `PostgresError`."""
        account = Account.suitable()
        cache = cache or _cache_folder()
        cache.mkdir(parents=True, exist_ok=True)
        remove_stale(cache)
        programs = Binaries.ready(cache)
        digest = hashlib.sha256((SETTINGS + SETUP).encode()).hexdigest()[:12]
        owner = os.geteuid() if account.uid is None else account.uid
        cluster = cache / f"cluster-{programs.name}-{owner}-{digest}"
        if not cluster.exists():
            _initialize(programs.folder, cluster, account)
        return cls(programs.folder, cluster, account, programs.name)

    def copy(self, target: Path) -> None:
        """Copy the data folder to `target`, whose parent belongs to the account."""
        _run(["cp", "-R", str(self.cluster / "data"), str(target)], self.account)


def _cache_folder() -> Path:
    if os.geteuid() == 0:  # the user who runs PostgreSQL cannot enter /root
        return Path("/var/cache/dsql-local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "dsql-local"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dsql-local"


def _initialize(programs: Path, cluster: Path, account: Account) -> None:
    with tempfile.TemporaryDirectory(dir=cluster.parent, prefix="initialising-") as name:
        folder = Path(name) / "cluster"
        folder.mkdir(mode=0o755)
        Path(name).chmod(0o755)
        account.own(folder)
        data = folder / "data"
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions", "--wal-segsize=1"]
        _run([str(programs / "initdb"), "-D", str(data), "-U", SUPERUSER, *options], account)
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(SETTINGS)
        _run([str(programs / "postgres"), "--single", "-j", "-D", str(data), "postgres"], account, SETUP.strip())
        publish(folder, cluster)


def _run(command: list[str], account: Account, text: str | None = None) -> None:
    # With -j, single-user mode ends a statement at a semicolon and an empty line.
    given = None if text is None else "".join(f"{statement};\n\n" for statement in text.split("\n\n"))
    # cwd must be a folder that the account can enter.
    done = subprocess.run(command, input=given, text=True, capture_output=True, cwd="/", check=False, **account.options)
    if done.returncode or "ERROR" in done.stderr:
        program = Path(command[0]).name
        raise PostgresError(f"{program} failed with status {done.returncode}: {(done.stderr or done.stdout).strip()}")
