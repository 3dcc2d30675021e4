"""The PostgreSQL behind it: who runs it, who reaches it, and that nothing of it is left behind."""

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dsql_local import LocalDsql, PostgresError, supervisor
from dsql_local.postgres.binaries import remove_stale
from dsql_local.postgres.server import Postgres
from dsql_local.postgres.template import Account, Template

GONE_SECONDS = 20.0

CHILD = """
import sys
from dsql_local.postgres.server import Postgres
postgres = Postgres()
postgres.start()
print(postgres.pid, postgres.folder, flush=True)
sys.stdin.read()
"""


def wait_for_end(pid: int) -> bool:
    """Whether a process ends in time; it is waited on, not polled."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], GONE_SECONDS)[0])
    finally:
        os.close(handle)


def supervisor_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="waits by Linux's pidfd")
def test_nothing_is_left_after_the_caller_was_killed():
    """SIGKILL to the caller: the postmaster, the supervisor and the folder are gone."""
    with subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        pid, folder = child.stdout.readline().split()
        supervising = supervisor_of(int(pid))
        assert Path(folder).is_dir()
        child.kill()
    assert wait_for_end(int(pid))
    assert wait_for_end(supervising)
    assert not Path(folder).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="waits by Linux's pidfd")
def test_nothing_is_left_after_its_end():
    """At the end of the block the postmaster is gone, and so is the folder."""
    postgres = Postgres()
    postgres.start()
    pid, folder = postgres.pid, postgres.folder
    postgres.stop()
    assert not Path(f"/proc/{pid}").exists()
    assert not folder.exists()
    postgres.stop()


def test_an_error_in_the_block_ends_it_too():
    """An exception passes through, and the port is closed."""
    with pytest.raises(ZeroDivisionError), LocalDsql() as dsql:
        port = dsql.port
        1 / 0  # noqa: B018
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_taken_port_is_an_error_and_leaves_nothing():
    """A port that somebody else has is an OSError."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="[Aa]ddress"):
        LocalDsql(port=taken.getsockname()[1]).__enter__()


def test_used_outside_its_block_it_says_so():
    """Before the block there is nothing to talk to."""
    with pytest.raises(RuntimeError, match="with LocalDsql"):
        LocalDsql().execute("SELECT 1")


@pytest.mark.parametrize("cluster", ["short", "A" * 26, "a" * 27, "a-" * 13])
def test_a_cluster_id_has_26_characters(cluster):
    """A cluster id that no cluster could have is refused."""
    with pytest.raises(ValueError, match="26 characters"):
        LocalDsql(cluster_id=cluster)


def test_two_at_once_know_nothing_of_each_other():
    """Two servers with their own ids, regions and ports have their own data."""
    with LocalDsql() as one, LocalDsql(cluster_id="b" * 26, region="eu-central-1") as two:
        assert one.port != two.port
        assert two.endpoint == "b" * 26 + ".dsql.eu-central-1.on.aws"
        one.execute("CREATE TABLE only_here (a int)")
        assert two.execute("SELECT to_regclass('only_here')") == [[None]]


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_only_the_loopback_listens(dsql):
    """PostgreSQL listens on no TCP port, and the front on 127.0.0.1 alone."""
    assert dsql.execute("SHOW listen_addresses") == [[""]]
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"]
    assert [address for address in listening if address.endswith(f":{dsql.port:04X}")] == [f"0100007F:{dsql.port:04X}"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root must become somebody else")
def test_it_does_not_run_as_root():
    """Started by root, PostgreSQL runs as an unprivileged user, in a folder that is closed to others."""
    postgres = Postgres()
    postgres.start()
    try:
        assert Path(f"/proc/{postgres.pid}").stat().st_uid == Account.suitable().uid != 0
        assert postgres.folder.stat().st_mode & 0o777 == 0o700
    finally:
        postgres.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root must become somebody else")
def test_a_temporary_folder_that_is_roots_alone_is_not_used(tmp_path, monkeypatch):
    """The unprivileged user could not enter it: the server's own folder is made in /tmp then."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(closed))
    with LocalDsql() as dsql:
        assert dsql.execute("SELECT 1") == [["1"]]
        assert dsql.ca_file.parent.parent == Path("/tmp")
    assert list(closed.iterdir()) == []


def test_who_can_reach_a_folder_is_known(shared_folder):
    """Every folder on the way must let him pass: by owner, by group, or as anybody."""
    inner = shared_folder / "closed" / "inner"
    inner.mkdir(parents=True)
    inner.parent.chmod(0o700)
    mine = os.geteuid()
    assert Account().can_enter(inner)
    assert Account(mine, os.getegid()).can_enter(inner)
    assert not Account(mine + 4242, 4242).can_enter(inner)
    inner.parent.chmod(0o710)
    assert not Account(mine + 4242, 4242).can_enter(inner)
    assert Account(mine + 4242, inner.parent.stat().st_gid).can_enter(inner)
    inner.parent.chmod(0o711)
    assert Account(mine + 4242, 4242).can_enter(inner)


def test_a_copy_that_goes_on_when_its_caller_was_killed_leaves_nothing(shared_folder):
    """The supervisor deletes the folder until nothing writes to it any more."""
    for turn in range(5):
        folder = shared_folder / f"server-{turn}"
        folder.mkdir()
        source = Template.ready().cluster / "data"
        with subprocess.Popen(["cp", "-R", str(source), str(folder / "data")], stderr=subprocess.DEVNULL) as copying:
            while copying.poll() is None and not (folder / "data" / "base").exists():
                pass
            command = [sys.executable, "-I", "-S", supervisor.__file__, str(folder), "-", "-", "0", "true"]
            subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
        assert not folder.exists()


def test_what_was_left_half_made_is_removed(shared_folder):
    """Once it is old; what somebody else may be making at this moment stays."""
    for name in ("initialising-old", "unpacking-old", "initialising-new"):
        (shared_folder / name / "cluster").mkdir(parents=True)
    for name in ("initialising-old", "unpacking-old"):
        os.utime(shared_folder / name, (0, 0))
    remove_stale(shared_folder)
    assert [each.name for each in shared_folder.iterdir()] == ["initialising-new"]


def test_what_does_not_start_says_why(tmp_path):
    """A PostgreSQL that ends at once is a `PostgresError` with its reason, and its folder is gone."""
    template = Template.ready()
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "postgres").write_text("#!/bin/sh\necho out of luck >&2\nexit 1\n")
    (programs / "postgres").chmod(0o755)
    broken = Postgres(Template(programs, template.cluster, Account()))
    with pytest.raises(PostgresError, match="did not start"):
        broken.start()
    assert not broken.folder.exists()


@pytest.fixture
def shared_folder():
    """A folder that the unprivileged user can enter too; pytest's own are for its user alone."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_the_template_is_made_once(shared_folder):
    """A second call finds what the first has made, and a cluster made from nothing works."""
    cache = shared_folder / "cache"
    first = Template.ready(cache)
    made = first.cluster.stat().st_mtime_ns
    assert Template.ready(cache) == first
    assert first.cluster.stat().st_mtime_ns == made
    unpacked = {first.programs.parent.name} if first.programs.is_relative_to(cache) else set()  # else they are the machine's
    assert {entry.name for entry in cache.iterdir()} == {first.cluster.name} | unpacked


SERVE = [sys.executable, "-m", "dsql_local", "serve"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_prints_the_environment_and_ends_cleanly(number):
    """A shell takes the export lines as they are; Ctrl-C and SIGTERM end it with status 0 and close the port."""
    with subprocess.Popen([*SERVE, "--conflicts", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        assert serving.stderr is not None
        lines: list[str] = []
        while not any(line.startswith("export AWS_REGION=") for line in lines):
            lines.append(serving.stdout.readline())
            assert lines[-1], serving.stderr.read()
        while "Stop it with Ctrl-C" not in (line := serving.stderr.readline()):
            assert line.startswith("# ")
        serving.send_signal(number)
        assert serving.wait(GONE_SECONDS) == 0
        assert "Traceback" not in serving.stderr.read()
    script = "".join(lines) + 'printf %s "$DSQL_HOST $DSQL_HOSTADDR $DSQL_PORT"; echo; printf %s "$DSQL_SSLROOTCERT"'
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    where, certificate = said.split("\n", 1)
    endpoint, address, port = where.split()
    assert (endpoint.endswith(".dsql.us-east-1.on.aws"), address) == (True, "127.0.0.1")
    assert certificate.startswith("-----BEGIN CERTIFICATE-----")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, int(port)))


def test_serve_says_when_its_port_is_taken():
    """A taken port is one line on standard error and status 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run([*SERVE, "--port", str(taken.getsockname()[1])], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "in use" in done.stderr
