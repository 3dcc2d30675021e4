"""One running PostgreSQL: a copy of the template in a temporary folder, on a unix socket that nobody else reaches.

It starts the reaper, which starts PostgreSQL, and waits until connections are answered. To stop it is to close the reaper's
standard input; the same happens when this process dies, so there is one way to clean up and it always runs.
"""

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ..protocol.messages import Splitter, error_fields, startup
from .binaries import PostgresError
from .template import SUPERUSER, Account, Template

__all__ = ["Postgres"]

START_SECONDS = 30.0
_SOCKET_LIMIT = 69  # of its folder's path: a unix socket's own must be shorter than some 100 bytes


class Postgres:
    """A PostgreSQL that runs from `start` to `stop`. `start` raises `PostgresError` if it does not come up."""

    def __init__(self, template: Template | None = None) -> None:
        self._template = template
        self._reaper: subprocess.Popen[bytes] | None = None
        self.folder = Path()
        self.version = ""

    @property
    def socket(self) -> Path:
        """The unix socket it listens on."""
        return self.folder / ".s.PGSQL.5432"

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return int((self.folder / "data" / "postmaster.pid").read_text().split("\n", 1)[0])

    def start(self) -> None:
        """Start it and wait until it answers."""
        template = self._template or Template.ready()
        self.folder = _temporary_folder(template.account)
        try:
            self._begin(template)
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def _begin(self, template: Template) -> None:
        """The reaper first, so that the folder is its to delete from now on; then the data, then its go-ahead."""
        account, data = template.account, self.folder / "data"
        self.version = template.name
        identity = ["-", "-"] if account.uid is None else [str(account.uid), str(account.gid)]
        server = [str(template.programs / "postgres"), "-D", str(data), "-k", str(self.folder)]
        script = str(Path(__file__).with_name("supervisor.py"))
        with (self.folder / "log").open("wb") as log:
            self._reaper = subprocess.Popen(
                [sys.executable, "-I", "-S", script, str(self.folder), *identity, *server],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
        account.own(self.folder)
        template.copy(data)
        self._tell_reaper(b"+")

    def _tell_reaper(self, byte: bytes) -> None:
        if self._reaper is not None and self._reaper.stdin is not None:
            with contextlib.suppress(OSError):  # it has ended already
                self._reaper.stdin.write(byte)
                self._reaper.stdin.flush()

    def stop(self) -> None:
        """End it and delete its folder; returns when both are done. Harmless when it does not run."""
        if self._reaper is None:
            if self.folder != Path():
                shutil.rmtree(self.folder, ignore_errors=True)
            return
        self._tell_reaper(b"-")  # a forked child may still hold the pipe open: say it, do not only close
        if self._reaper.stdin is not None:
            with contextlib.suppress(OSError):
                self._reaper.stdin.close()
        self._reaper.wait()
        self._reaper = None

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            reason = self._why_not_ready()
            if reason is None:
                return
            if (self._reaper is not None and self._reaper.poll() is not None) or time.monotonic() > deadline:
                raise PostgresError(f"PostgreSQL did not start ({reason}). {self._log()}")
            time.sleep(0.003)

    def _why_not_ready(self) -> str | None:
        """Try to open a connection: None if PostgreSQL takes it."""
        with socket.socket(socket.AF_UNIX) as link:
            try:
                link.connect(str(self.socket))
                link.sendall(startup({"user": SUPERUSER, "database": "postgres"}))
                messages = list(Splitter().feed(link.recv(65536)))
            except OSError as refused:
                return str(refused)
        if not messages:
            return "it closed the connection"
        return error_fields(messages[0]).get("M", "error") if messages[0].kind == b"E" else None

    def _log(self) -> str:
        try:
            return (self.folder / "log").read_text(errors="replace").strip()[-2000:]
        except OSError:
            return ""


def _temporary_folder(account: Account) -> Path:
    """A new folder for one server, closed to others. Raises `PostgresError` if its user can reach none."""
    for place in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108 - the folder made in it is ours alone
        if len(str(place)) <= _SOCKET_LIMIT and account.enters(place):
            return Path(tempfile.mkdtemp(prefix="dsql-local-", dir=place))
    raise PostgresError(
        f"PostgreSQL does not run as root, and the user who runs it cannot enter {tempfile.gettempdir()}, nor /tmp: "
        "let TMPDIR name a folder that others can enter (chmod o+x it and what is above it)."
    )
