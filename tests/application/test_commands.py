"""`make invoke`, the Python behind it, and SAM on `serve`: each answers, and nothing of it stays, however it ends."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pytest

from dsql_local.sam import makefile_build
from dsql_local.sam.template import read_function

ROOT = Path(__file__).parents[2]
FUNCTIONS = "DurableOrderFunction, LedgerFunction, MigrateFunction, OrdersFunction, TransferFunction"
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
    assert "==> make build-TransferFunction build-DsqlLayer, as sam build does it" in done.stderr
    assert list(temporary.iterdir()) == []


def durations(errors: str) -> list[tuple[str, float]]:
    """What `WARM=` says: of each invocation its name, and what its handler took."""
    return [(name, float(ms)) for name, ms in re.findall(r"^==> (cold|warm \d+): (?:.*, )?([0-9.]+) ms", errors, re.MULTILINE)]


def test_warm_invocations_are_timed(project: Path, temporary: Path) -> None:
    """In the same environment, each as a transfer of its own; the first one's response is the command's."""
    arguments = command("--via", "rie", "--warm", "2", "--project", str(project))
    done = subprocess.run(arguments, cwd=ROOT, env=surroundings(temporary), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(json.loads(done.stdout)["body"]) == {"balances": {"alice": 97_500, "bob": 27_500}}
    assert [name for name, _ in durations(done.stderr)] == ["cold", "warm 1", "warm 2"]
    assert done.stderr.count('"message":"transfer attempted"') == 3
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--event", "events/none.json"], "the event events/none.json can't be read: No such file or directory"),
        (["--function", "Nobody"], f"template.yaml has no function 'Nobody'; it has {FUNCTIONS}"),
        (["--event", "LICENSE"], "the event LICENSE is not JSON: Expecting value"),
        (["--conflicts", "-1"], "conflicts is '-1': it must be a whole number, 0 or more"),
        (["--conflicts", "two"], "conflicts is 'two'"),
        (["--warm", "-1"], "warm is '-1': it must be a whole number, 0 or more"),
        (["--function", "DurableOrderFunction", "--warm", "1", "--via", "rie"], "is a durable function"),
        (["--via", "lambda"], "via is 'lambda': it must be auto, sam or rie"),
        (["--project", "docs"], "template.yaml can't be read: No such file or directory"),
        (["--functoin", "TransferFunction"], "unrecognized arguments: --functoin"),
        (["--runtime", "3.14"], "runtime is '3.14': it must be one of Lambda's, such as python3.14"),
        (["--runtime", "python3.14", "--via", "rie"], "the emulator alone runs this machine's Python"),
    ],
)
def test_a_mistaken_argument_is_one_line(arguments: list[str], reason: str, temporary: Path) -> None:
    """It says what was wrong, before anything is started."""
    done = subprocess.run(command(*arguments), cwd=ROOT, env=surroundings(temporary), check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert reason in done.stderr
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("until", ["a local DSQL serves", "make build-TransferFunction", "the Runtime Interface Emulator runs"])
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
    assert "make build-TransferFunction failed in a copy of" in done.stderr
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


def test_what_only_sam_can_build_is_left_to_it(project: Path, temporary: Path, tmp_path: Path) -> None:
    """SAM has builders of its own, for each language."""
    copy = tmp_path / "python"
    shutil.copytree(project, copy)
    template = copy / "template.yaml"
    metadata = "    Metadata:\n      BuildMethod: makefile\n"
    assert metadata in template.read_text()
    template.write_text(template.read_text().replace(metadata, ""))
    arguments = command("--via", "rie", "--project", str(copy))
    done = subprocess.run(arguments, cwd=ROOT, env=surroundings(temporary), check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "TransferFunction has no BuildMethod: makefile in the template" in done.stderr


def test_make_builds_what_sam_builds(built: Path, project: Path, tmp_path: Path) -> None:
    """File by file, for the function and its layer; what has not changed is not built again."""
    source = read_function(project / "template.yaml", "TransferFunction")
    first = makefile_build.build(source, tmp_path)
    assert (first.code, first.layers) == (tmp_path / "TransferFunction", (tmp_path / "DsqlLayer",))
    for mine, theirs in ((first.code, built / "TransferFunction"), (first.layers[0], built / "DsqlLayer")):
        assert {path.relative_to(mine): path.read_bytes() for path in mine.rglob("*") if path.is_file()} == {
            path.relative_to(theirs): path.read_bytes() for path in theirs.rglob("*") if path.is_file()
        }
    made = first.layers[0].stat().st_ino
    assert makefile_build.build(source, tmp_path).layers[0].stat().st_ino == made


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("CONFLICTS=-1", "conflicts is '-1': it must be a whole number, 0 or more"),
        ("EVENT=Makefile", "the event Makefile is not JSON: Expecting value: line 1 column 1 (char 0)"),
        ("FUNCTION=Nobody", f"template.yaml has no function 'Nobody'; it has {FUNCTIONS}"),
    ],
)
def test_make_invoke_checks_its_arguments_before_it_installs_anything(tmp_path: Path, argument: str, reason: str) -> None:
    """In a fresh clone, by the first interpreter that works."""
    for name in ("Makefile", "template.yaml", "events/transfer.json", "local/dsql_local/cli/arguments.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    done = subprocess.run(["make", "invoke", argument], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert lines == [f"dsql_local invoke: {reason}"]
    assert not (tmp_path / ".venv").exists()


Containers = Callable[[], set[str]]


@pytest.fixture
def own_containers(docker: Any, temporary: Path, tmp_path: Path, project: Path) -> Containers:
    """The containers into which something of this test is mounted: its functions', and the relay's. Others' come and go."""
    folders = [each.resolve() for each in (temporary, tmp_path, project)]

    def own_containers() -> set[str]:
        found = docker.containers.list(all=True, ignore_removed=True)
        mounts = [(each.id, Path(mount["Source"])) for each in found for mount in each.attrs["Mounts"]]
        return {container for container, source in mounts if any(source.is_relative_to(folder) for folder in folders)}

    return own_containers


@pytest.mark.parametrize(("chosen", "runtime"), [([], "python3.13"), (["--runtime", "python3.14"], "python3.14")])
def test_sam_local_invokes_the_transfer(
    own_containers: Containers, project: Path, temporary: Path, chosen: list[str], runtime: str
) -> None:
    """The same through `sam local invoke` in Docker: conflicts, log lines, response, and no container stays."""
    arguments = command("--via", "sam", "--conflicts", "2", "--project", str(project), *chosen)
    done = subprocess.run(arguments, cwd=ROOT, env=surroundings(temporary), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    response = json.loads(done.stdout)
    assert json.loads(response["body"]) == {"balances": {"alice": 97_500, "bob": 27_500}}
    records = [json.loads(line) for line in done.stderr.splitlines() if '"message":"OCC conflict, retrying"' in line]
    assert [(record["occ_type"], record["occ_code"]) for record in records] == [("data", "OC000")] * 2
    assert f"Invoking app.lambda_handler ({runtime})" in done.stderr
    assert own_containers() == set()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("function", "event", "expected"),
    [
        ("OrdersFunction", "orders", {"batchItemFailures": []}),
        ("MigrateFunction", "migrate", {"applied": sorted(each.name for each in (ROOT / "migrations").glob("*.sql"))}),
    ],
)
def test_sam_local_invokes_what_no_api_reaches(
    own_containers: Containers, project: Path, temporary: Path, function: str, event: str, expected: object
) -> None:
    """A batch of orders, and the migrations on an empty cluster."""
    arguments = command("--via", "sam", "--project", str(project), "--function", function, "--event", f"events/{event}.json")
    done = subprocess.run(arguments, cwd=ROOT, env=surroundings(temporary), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected
    assert own_containers() == set()
    assert list(temporary.iterdir()) == []


def test_sam_local_keeps_its_container_for_warm_invocations(own_containers: Containers, project: Path, temporary: Path) -> None:
    """`sam local start-lambda`: one container for all, and none stays."""
    arguments = command("--via", "sam", "--warm", "2", "--project", str(project))
    done = subprocess.run(arguments, cwd=ROOT, env=surroundings(temporary), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(json.loads(done.stdout)["body"]) == {"balances": {"alice": 97_500, "bob": 27_500}}
    assert [name for name, _ in durations(done.stderr)] == ["cold", "warm 1", "warm 2"]
    assert own_containers() == set()
    assert list(temporary.iterdir()) == []


def test_the_api_of_all_functions_is_served_until_it_is_ended(own_containers: Containers, project: Path, temporary: Path) -> None:
    """`make start-api`: every function's role and schema are there, and nothing stays."""
    arguments = [sys.executable, "-m", "dsql_local", "start-api", "--port", "0", "--project", str(project)]
    with subprocess.Popen(arguments, env=surroundings(temporary), cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = re.search(r"http://[0-9.:]+", line_with("sam local start-api serves", process.stderr))
            assert address is not None
            with urllib.request.urlopen(f"{address[0]}/ledger/accounts/alice") as answer:
                assert json.load(answer) == {"id": "alice", "balance": 100_000}
        finally:
            process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert own_containers() == set()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("until", ["sam local invoke", "it hangs"])
def test_interrupting_sam_local_leaves_no_container(
    own_containers: Containers, hanging: Path, temporary: Path, until: str
) -> None:
    """Neither the function's container nor the relay's."""
    with started(["--via", "sam", "--project", str(hanging)], until, temporary) as process:
        assert until != "it hangs" or len(own_containers()) == 2
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert process.returncode == 128 + signal.SIGINT
    assert own_containers() == set()
    assert list(temporary.iterdir()) == []


@pytest.fixture
def terminals(built: Path, temporary: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts what a user types in the built project, in whose shell a profile of AWS's is chosen; at the end it has ended."""
    (tmp_path / "config").write_text("[profile mine]\nregion = eu-west-1\n")
    (tmp_path / "credentials").write_text("[mine]\naws_access_key_id = AKIAFOREIGN\naws_secret_access_key = foreign\n")
    files = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")}
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    foreign = {**surroundings(temporary), **files, "AWS_PROFILE": "mine", "SAM_CLI_TELEMETRY": "0", "PATH": tools}

    with contextlib.ExitStack() as stack:

        def start(typed: str, exported: Mapping[str, str]) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                shlex.split(typed),
                cwd=built.parents[1],
                env={**foreign, **exported},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.send_signal, signal.SIGTERM)
            return process

        yield start


def line_with(text: str, stream: IO[str] | None) -> str:
    """The first line that has this in it."""
    assert stream is not None
    seen = []
    for line in stream:
        seen.append(line)
        if text in line:
            return line
    raise AssertionError("".join(seen))


def test_the_page_s_commands_for_sam_local_answer(
    own_containers: Containers, built: Path, terminals: Callable[..., subprocess.Popen[str]]
) -> None:
    """docs/local-dsql.md: `sam local invoke` and `start-api` take the file of `serve` as it is, and nothing of it stays."""
    page = (ROOT / "docs" / "local-dsql.md").read_text(encoding="utf-8")
    section = page.split("### With `sam local`", 1)[1].split("\n#", 1)[0]
    typed = [line.partition("  # ")[0] for line in re.findall(r"^\$ (.*)$", section.replace("\\\n", ""), re.MULTILINE)]
    _build, role, serve, export, invoke, start_api, curl = typed  # `built` is the first
    subprocess.run(["sh", "-c", role], cwd=built.parents[1], check=True)
    exported = dict(each.split("=") for each in shlex.split(export)[1:])

    serving = terminals(serve, {})
    line_with("Stop it with Ctrl-C", serving.stderr)
    invoked, said = terminals(invoke, exported).communicate()
    assert json.loads(json.loads(invoked)["body"]) == {"balances": {"alice": 97_500, "bob": 27_500}}, said

    api = terminals(f"{start_api} --port 0", exported)
    address = line_with("Running on", api.stderr).split()[-1]
    _curl, _header, header, _data, body, url = shlex.split(curl)
    asked = urllib.request.Request(url.replace("http://127.0.0.1:3000", address), body.encode(), dict([header.split(": ")]))
    with urllib.request.urlopen(asked) as answer:
        assert json.load(answer) == {"balances": {"alice": 95_000, "bob": 30_000}}
    assert len(own_containers()) == 2
    for process in (api, serving):
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert own_containers() == set()
    assert not (built.parents[1] / "env.json").exists()


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


def test_an_old_interpreter_is_named(make_venv: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """So that one knows why it will not do."""
    old = '#!/bin/sh\n[ "$1" = -V ] && echo Python 3.10.13 || exit 1\n'
    done = make_venv(on_path={"python3": old}, in_pyenv={})
    assert "newer (with venv and ssl) was found, only Python 3.10.13; install one" in done.stderr
