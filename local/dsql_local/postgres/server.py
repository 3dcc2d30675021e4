"""One running PostgreSQL: a copy of the template cluster in a temporary folder, on a unix socket that only this user can reach.

It runs under a supervisor (see `supervisor`), which stops PostgreSQL and deletes the folder when `stop` is called or this process
dies.
"""

import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path

from ..protocol.decoder import MessageDecoder
from ..protocol.messages import error_fields, startup
from ..supervisor import SupervisedProcess
from .binaries import PostgresError
from .template import SUPERUSER, Account, Template

__all__ = ["Postgres"]

START_SECONDS = 30.0
_MAX_FOLDER_LENGTH = 69  # a unix socket's path must be shorter than about 100 bytes


class Postgres:
    """A PostgreSQL that runs from `start` to `stop`. `version` names its binaries."""

    def __init__(self, template: Template | None = None) -> None:
        self._template = template
        self._process: SupervisedProcess | None = None
        self.folder = Path()
        self.version = ""

    @property
    def socket(self) -> Path:
        """The unix socket that it listens on."""
        return self.folder / ".s.PGSQL.5432"

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return int((self.folder / "data" / "postmaster.pid").read_text().split("\n", 1)[0])

    def start(self) -> None:
        """Start it, and wait until it accepts connections. Raises `PostgresError`."""
        template = self._template or Template.ready()
        self.folder = _temporary_folder(template.account)
        try:
            self._run_supervised(template)
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def _run_supervised(self, template: Template) -> None:
        """Run the supervisor first, so that the folder is deleted whatever happens; then copy the data and start PostgreSQL."""
        account, data = template.account, self.folder / "data"
        self.version = template.name
        with (self.folder / "log").open("wb") as log:
            self._process = SupervisedProcess(
                [str(template.programs / "postgres"), "-D", str(data), "-k", str(self.folder)],
                self.folder,
                stop_signal=signal.SIGQUIT,  # immediate shutdown: the data is thrown away
                user=account.uid,
                group=account.gid,
                stderr=log,
            )
        account.own(self.folder)
        template.copy(data)
        self._process.start()

    def stop(self) -> None:
        """Stop it and delete its folder; returns when both are done. Does nothing when it does not run."""
        if self._process is not None:
            self._process.stop()
            self._process = None
        elif self.folder != Path():
            shutil.rmtree(self.folder, ignore_errors=True)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            reason = self._why_not_ready()
            if reason is None:
                return
            if (self._process is not None and self._process.has_ended) or time.monotonic() > deadline:
                raise PostgresError(f"PostgreSQL did not start ({reason}). {self._log()}")
            time.sleep(0.003)

    def _why_not_ready(self) -> str | None:
        """Try to connect: None if PostgreSQL accepts."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
                probe.sendall(startup({"user": SUPERUSER, "database": "postgres"}))
                messages = list(MessageDecoder().feed(probe.recv(65536)))
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
    """A new folder for one server, closed to other users. Raises `PostgresError` if PostgreSQL's user cannot enter any."""
    for parent in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108 - mkdtemp makes a folder closed to other users
        if len(str(parent)) <= _MAX_FOLDER_LENGTH and account.can_enter(parent):
            return Path(tempfile.mkdtemp(prefix="dsql-local-", dir=parent))
    raise PostgresError(
        f"PostgreSQL does not run as root, and its user can enter neither {tempfile.gettempdir()} nor /tmp. "
        "Set TMPDIR to a folder that other users can enter (chmod o+x it and its parents)."
    )
