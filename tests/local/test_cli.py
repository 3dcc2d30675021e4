"""The command line: `serve` with its files, and what is asked of a server that runs."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dsql_local.cli.control import ControlError, ControlServer, request, running_ports

PROGRAM = [sys.executable, "-m", "dsql_local"]
END_SECONDS = 20.0


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """A folder of this test's own for the sockets."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


def command(*arguments: str, status: int = 0, text: str | None = None) -> str:
    """What a subcommand prints."""
    done = subprocess.run([*PROGRAM, *arguments], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout + (done.stderr if status else "")


@contextmanager
def served(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A server in a process of its own, until SIGINT."""
    with subprocess.Popen([*PROGRAM, "serve", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            line = process.stdout.readline()
            while not line.startswith("export AWS_REGION="):
                assert line, process.stderr.read()
                line = process.stdout.readline()
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(END_SECONDS) == 0


def test_a_server_is_asked_from_another_process(runtime):
    """`status` names it, `fault` reaches it; after Ctrl-C nobody answers and nothing is left."""
    with served() as process:
        (found,) = json.loads(command("status", "--json"))
        assert (found["pid"], found["host"]) == (process.pid, "127.0.0.1")
        assert found["postgres"].startswith("postgresql-")
        assert f"process {process.pid}" in command("status")
        assert "pending: Conflict(code='OC001', at='commit') n=2" in command("fault", "conflict", "OC001", "n=2")
        assert "pending: Conflict" in command("status", "--port", str(found["port"]))
        assert "there is no fault 'conflct'" in command("fault", "conflct", status=1)
        assert command("fault", "clear") == ""
    assert "no server runs" in command("status")
    assert "no server runs" in command("fault", "restart", status=1)
    assert [*(runtime / "dsql-local").iterdir()] == []


def test_a_server_says_what_to_type_beside_an_aws_emulator(runtime, tmp_path):
    """With the account's number as access key, as emulators give it to functions; without one, how to get one."""
    account, env = "123456789012", tmp_path / "local.env"
    with served("--account", account, "--env-file", str(env)) as process:
        assert f"AWS_ACCESS_KEY_ID={account}\n" in env.read_text()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    lines = [line.removeprefix("# ").strip() for line in said.splitlines()]
    assert any(line.startswith("BIND_HOST=127.0.0.1") and f"MINISTACK_ACCOUNT_ID={account}" in line for line in lines)
    assert any(line.startswith('make deploy PARAMETERS="ExistingClusterEndpoint=localdsql') for line in lines)
    assert "which has 12 digits" in command("serve", "--account", "12", status=1)


def test_a_server_may_be_strict(runtime):
    """`--schema-conflicts any`: DDL conflicts with every other session, whatever it is about."""
    with served("--schema-conflicts", "any"):
        port = running_ports()[0]
        address = make_conninfo(**request(port, "libpq", user="admin"))
        with psycopg.connect(address, autocommit=True) as one, psycopg.connect(address, autocommit=True) as other:
            one.execute("CREATE TABLE things (id int PRIMARY KEY)")
            with pytest.raises(psycopg.errors.SerializationFailure, match="OC001"):
                other.execute("SELECT 1")


def test_psql_opens_on_the_running_one(runtime):
    """With its TLS verified and a token; its own arguments are handed on, and so is its status."""
    if shutil.which("psql") is None:
        pytest.skip("psql is not on this machine")
    with served():
        assert command("psql", "-Atc", "SELECT current_user") == "admin\n"
        assert command("psql", "-At", text="SELECT 6 * 7;\n") == "42\n"
        assert "does not exist" in command("psql", "-c", "SELECT nothing", status=1)


def test_several_must_be_told_apart(runtime):
    """Without --port it is an error that names the ports."""
    with served(), served():
        ports = running_ports()
        assert len(ports) == 2
        said = command("fault", "restart", status=1)
        assert all(str(port) in said for port in ports)
        assert command("fault", "--port", str(ports[1]), "restart") == ""
        assert len(json.loads(command("status", "--json"))) == 2


def test_the_files_lead_to_it_and_go_with_it(runtime, tmp_path):
    """An env file for shells, JSON for `sam local --env-vars`; both closed to others, both gone at the end."""
    env, sam, schema = tmp_path / ".env.local", tmp_path / "env.json", tmp_path / "schema.sql"
    schema.write_text("CREATE TABLE accounts (id int PRIMARY KEY);\nINSERT INTO accounts VALUES (1), (2);\n")
    with served("--env-file", str(env), "--env-json", str(sam), "--schema", str(schema)):
        assert [stat.S_IMODE(path.stat().st_mode) for path in (env, sam)] == [0o600, 0o600]
        said = subprocess.run(
            ["sh", "-c", f"set -a; . {env}; env"], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True
        ).stdout
        variables = dict(line.split("=", 1) for line in said.splitlines())
        assert variables["DSQL_HOST"] == variables["PGHOST"] == variables["CLUSTER_ENDPOINT"]
        assert Path(variables["DSQL_SSLROOTCERT"]).read_text().startswith("-----BEGIN CERTIFICATE-----")
        parameters = json.loads(sam.read_text())["Parameters"]
        assert parameters["DSQL_HOST"] == variables["DSQL_HOST"]
        assert parameters["DSQL_SSLROOTCERT"].startswith("-----BEGIN CERTIFICATE-----")
        script = "from dsql_lambda import connect; c = connect(); print(c.run('SELECT count(*) FROM accounts')); c.close()"
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "PG"))},
            **variables,
            "DSQL_USER": "admin",
        }
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == ("[[2]]\n", "")
    assert not env.exists()
    assert not sam.exists()


def test_somebody_elses_file_is_left_as_it_is(runtime, tmp_path):
    """A file that was not written by `serve` ends it with a sentence."""
    env = tmp_path / ".env"
    env.write_text("SECRET=1\n")
    assert "was not written by dsql_local" in command("serve", "--env-file", str(env), status=1)
    assert env.read_text() == "SECRET=1\n"


def test_a_rate_of_conflicts_can_be_served(runtime):
    """--conflict-rate is seen by `status`; one that is no probability is an error."""
    with served("--conflict-rate", "0.25", "--seed", "3"):
        (found,) = json.loads(command("status", "--json"))
        assert found["faults_waiting"] == ["Conflict(code='OC000', at='commit') of every COMMIT with p=0.25"]
    assert "between 0 and 1" in command("serve", "--conflict-rate", "2", status=1)


def test_the_socket_is_closed_to_others(dsql, runtime):
    """Its folder is the user's alone; one that is open, or a link, is refused."""
    with ControlServer(dsql):
        folder = runtime / "dsql-local"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert running_ports() == [dsql.port]
        assert request(None, "status")["endpoint"] == dsql.endpoint
        folder.chmod(0o755)
        with pytest.raises(ControlError, match="closed to other users"):
            request(None, "status")
        folder.chmod(0o700)
    with pytest.raises(ControlError, match="no server runs"):
        request(None, "status")
    folder.rmdir()
    folder.symlink_to(runtime)
    with pytest.raises(ControlError, match="closed to other users"):
        running_ports()


def test_a_socket_that_a_killed_server_left_is_nobody(runtime):
    """It is not listed, and asking it is an error."""
    folder = runtime / "dsql-local"
    folder.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "5999.sock"))
    assert running_ports() == []
    with pytest.raises(ControlError, match="5999"):
        request(5999, "status")


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b'{"do": "nothing"}\n', b"[1]\n", b'{"do": "fault"}\n'])
def test_what_is_not_understood_is_answered(dsql, runtime, line):
    """The server goes on."""
    with ControlServer(dsql), socket.socket(socket.AF_UNIX) as link:
        link.connect(str(runtime / "dsql-local" / f"{dsql.port}.sock"))
        link.sendall(line)
        with link.makefile("rb") as answers:
            assert "invalid request" in json.loads(answers.readline())["error"]
        assert request(dsql.port, "status")["port"] == dsql.port
