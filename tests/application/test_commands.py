"""`make invoke` and the Python behind it: it answers, and nothing of it stays, however it ends."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HANGS = """
import time

def lambda_handler(event, context):
    print("it hangs", flush=True)
    time.sleep(600)
"""
BROKEN = "#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n"

# Somebody else's session: none of it may reach the local run.
FOREIGN = {
    "AWS_ACCESS_KEY_ID": "AKIAFOREIGN",
    "AWS_SECRET_ACCESS_KEY": "foreign",
    "AWS_SESSION_TOKEN": "foreign",
    "AWS_PROFILE": "no-such-profile",
    "AWS_REGION": "eu-west-1",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "DSQL_URL": "postgres://admin@foreign.dsql.eu-west-1.on.aws/postgres",
}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dsql_local", "invoke", *arguments]


def surroundings(temporary: Path) -> dict[str, str]:
    return {**os.environ, **FOREIGN, "TMPDIR": str(temporary)}


def descendants(pid: int) -> set[int]:
    """Every process below this one, whatever its session."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(stat[1]), []).append(int(entry.name))
    found, waiting = set[int](), [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found.update(children)
        waiting += children
    return found


@pytest.fixture
def hanging(project: Path, built: Path, tmp_path: Path) -> Path:
    """A copy of the built project whose function never ends."""
    copy = tmp_path / "hanging"
    shutil.copytree(project, copy)
    (copy / "src" / "transfer" / "app.py").write_text(HANGS)
    template = copy / "template.yaml"
    template.write_text(template.read_text().replace("Timeout: 15", "Timeout: 600"))
    return copy


@contextlib.contextmanager
def started(arguments: list[str], until: str, temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, once it has printed a line that has `until` in it."""
    with subprocess.Popen(
        command(*arguments), env=surroundings(temporary), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert any(until in line for line in process.stderr), f"it ended before it printed {until!r}"
            yield process
        finally:
            process.kill()


def test_the_transfer_is_invoked(project: Path, temporary: Path) -> None:
    """Steps and log lines on standard error, the response on standard output; a caller's own AWS session is not in the way."""
    arguments = command("--via", "rie", "--conflicts", "2", "--project", str(project))
    done = subprocess.run(arguments, cwd=ROOT, env=surroundings(temporary), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    response = json.loads(done.stdout)
    assert json.loads(response["body"]) == {"balances": {"alice": 97_500, "bob": 27_500}}
    assert done.stderr.count('"message":"OCC conflict, retrying"') == 2
    assert "==> sam build" in done.stderr
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--event", "events/none.json"], "events/none.json"),
        (["--function", "Nobody"], "template.yaml has no function 'Nobody'; it has TransferFunction"),
        (["--event", "LICENSE"], "Expecting value"),
    ],
)
def test_a_mistaken_argument_is_one_line(arguments: list[str], reason: str, temporary: Path) -> None:
    """It says what was wrong, before anything is started."""
    done = subprocess.run(command(*arguments), cwd=ROOT, env=surroundings(temporary), check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert reason in done.stderr
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("until", ["a local DSQL serves", "sam build", "the Runtime Interface Emulator runs"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_invocation_leaves_nothing(
    hanging: Path, temporary: Path, until: str, number: signal.Signals, alive: Callable[[int], bool]
) -> None:
    """Whenever Ctrl-C or a termination comes, every process and every temporary file goes."""
    with started(["--via", "rie", "--project", str(hanging)], until, temporary) as process:
        below = descendants(process.pid)
        assert below
        process.send_signal(number)
        process.wait(30)
    assert process.returncode == 128 + number
    assert not [pid for pid in below if alive(pid)]
    assert list(temporary.iterdir()) == []


def test_a_failing_build_ends_with_its_output(project: Path, temporary: Path, tmp_path: Path) -> None:
    """The local DSQL that was up by then goes, and the exit status says that it failed."""
    copy = tmp_path / "broken"
    shutil.copytree(project, copy)
    (copy / "src" / "transfer" / "Makefile").write_text("build-TransferFunction:\n\t@echo as told >&2; exit 1\n")
    arguments = command("--via", "rie", "--project", str(copy))
    done = subprocess.run(arguments, cwd=ROOT, env=surroundings(temporary), check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "sam build failed." in done.stderr
    assert "as told" in done.stderr
    assert list(temporary.iterdir()) == []


def test_a_failed_function_fails_the_command(project: Path, temporary: Path, tmp_path: Path) -> None:
    """Its error is shown as the response."""
    copy = tmp_path / "failing"
    shutil.copytree(project, copy)
    (copy / "src" / "transfer" / "app.py").write_text("def lambda_handler(event, context):\n    raise LookupError('as told')\n")
    arguments = command("--via", "rie", "--project", str(copy))
    done = subprocess.run(arguments, cwd=ROOT, env=surroundings(temporary), check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert json.loads(done.stdout)["errorType"] == "LookupError"


def test_sam_local_invokes_the_transfer(docker: Any, project: Path, temporary: Path) -> None:
    """The same through `sam local invoke` in Docker: conflicts, log lines, response, and no container stays."""
    before = {container.id for container in docker.containers.list(all=True)}
    arguments = command("--via", "sam", "--conflicts", "2", "--project", str(project))
    done = subprocess.run(arguments, cwd=ROOT, env=surroundings(temporary), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    response = json.loads(done.stdout)
    assert json.loads(response["body"]) == {"balances": {"alice": 97_500, "bob": 27_500}}
    records = [json.loads(line) for line in done.stderr.splitlines() if '"message":"OCC conflict, retrying"' in line]
    assert [(record["occ_type"], record["occ_code"]) for record in records] == [("data", "OC000")] * 2
    assert {container.id for container in docker.containers.list(all=True)} <= before
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("until", ["sam local invoke", "it hangs"])
def test_interrupting_sam_local_leaves_no_container(docker: Any, hanging: Path, temporary: Path, until: str) -> None:
    """Neither the function's container nor the relay's."""
    before = {container.id for container in docker.containers.list(all=True)}
    with started(["--via", "sam", "--project", str(hanging)], until, temporary) as process:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert process.returncode == 128 + signal.SIGINT
    assert {container.id for container in docker.containers.list(all=True)} <= before
    assert list(temporary.iterdir()) == []


@pytest.fixture
def make_venv(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the Makefile's search for an interpreter where only the given ones can be found; `real` is one that works."""
    home, tools = tmp_path / "home", tmp_path / "tools"
    tools.mkdir()
    for name in ("rm", "touch"):
        (tools / name).symlink_to(shutil.which(name) or "")
    shutil.copy(ROOT / "Makefile", tmp_path)

    def place(path: Path, script: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script)
        path.chmod(0o755)

    def run(*, on_path: dict[str, str], in_pyenv: dict[str, str]) -> subprocess.CompletedProcess[str]:
        for name, script in on_path.items():
            place(tools / name, script)
        for version, script in in_pyenv.items():
            place(home / ".pyenv" / "versions" / version / "bin" / "python", script)
        environment = {"PATH": str(tools), "HOME": str(home)}
        make = shutil.which("make")
        assert make is not None
        return subprocess.run([make, ".venv/.made"], cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)

    return run


def test_an_interpreter_is_found_by_trying(make_venv: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """Broken shims and old versions are passed over, in the order of the list, until one works."""
    old = f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; sys.exit(1)"\n'
    works = f'#!/bin/sh\nexec "{getattr(sys, "_base_executable", sys.executable)}" "$@"\n'
    done = make_venv(
        on_path={"python3.14": BROKEN, "python3.12": old, "python3": BROKEN}, in_pyenv={"3.10.1": old, "3.13.0": works}
    )
    assert done.returncode == 0, done.stderr
    assert "pyenv/versions/3.13.0/bin/python" in done.stderr
    assert (tmp_path / ".venv" / "bin" / "pip").exists()


def test_no_interpreter_is_one_clear_line(make_venv: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """It says what is needed; what make adds is that it stopped."""
    done = make_venv(on_path={"python3.13": BROKEN}, in_pyenv={})
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert lines == ["dsql-lambda: no working Python 3.12 or newer (with venv and ssl) was found; install one and run make again"]
