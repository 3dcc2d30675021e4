"""The SAM CLI: `sam build`, and `sam local invoke`, `start-lambda` and `start-api` with a local DSQL.

Commands do not see the caller's AWS credentials, and everything they start ends with this process.
"""

import contextlib
import http.client
import importlib
import json
import os
import platform
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from .bridge import bridge_port
from .command import running
from .docker_relay import PORT, DockerRelay
from .durable import DurableRunner
from .ports import free_ports
from .rie import MARKERS, Invocation, duration_of, is_error

__all__ = ["SamError", "build", "docker_engine", "local_invoke", "reachable_port", "start_api", "start_lambda"]

ARCHITECTURE = "arm64" if platform.machine().lower() in {"arm64", "aarch64"} else "x86_64"
DEFAULT_RUNTIME = "python3.13"  # its image has the relay's Python, whatever the functions run on
SAM = (sys.executable, "-m", "samcli")
OWN = Path(".aws-sam", "invoke")  # what it builds has bytecode for this machine's interpreter, and is never deployed
NO_SERVICE = "http://127.0.0.1:1"  # refuses at once
START_SECONDS = 120.0
ANSWER_SECONDS = 960.0  # longer than any function may run
REPORT_SECONDS = 5.0  # a log line may come later than the answer


class SamError(Exception):
    """A command failed or cannot run; the message says what to do."""


def build(project: Path, runtime: str = "") -> Path:
    """`sam build`, quietly; the template that it made. Its output is the error's text when it fails.

    `runtime` is the value of the template's parameter Runtime, such as python3.14; empty leaves it at its default.
    """
    folder = OWN / runtime
    command = [*SAM, "build", "--build-dir", str(folder / "build"), "--cached", "--cache-dir", str(folder / "cache")]
    command += _parameters(runtime)
    with tempfile.TemporaryFile("w+") as output:
        runtimes = {"RUNTIMES": runtime.removeprefix("python")} if runtime else {}
        with running(command, project, {**_environment(project, {}), **runtimes}, stdout=output, stderr=output) as sam:
            status = sam.wait()
        if status != 0:
            output.seek(0)
            raise SamError(f"sam build failed.\n{output.read().rstrip()}")
    return project / folder / "build" / "template.yaml"


def local_invoke(
    project: Path,
    name: str,
    event: Path,
    variables: Mapping[str, str],
    runtime: str = "",
    *,
    durable: DurableRunner | None = None,
) -> Invocation:
    """Run `sam local invoke` with these variables, and show what SAM and the function write.

    SAM takes every variable that the template declares from its environment, so no file of variables is needed. A durable
    function needs a runner, which stands in for the one that SAM would pull as an image.
    """
    command = ["local", "invoke", name, "--event", str(event)]
    lines: list[str] = []
    with contextlib.ExitStack() as stack:
        environment = stack.enter_context(_local_environment(project, variables, runtime))
        if durable is not None:
            stack.enter_context(bridge_port(docker_engine(), durable.port))
            environment = {**environment, "DURABLE_EXECUTIONS_EXTERNAL_EMULATOR_PORT": str(durable.port)}
        output = stack.enter_context(tempfile.TemporaryFile("w+"))
        options = [*SAM, *command, *_local_options(runtime)]
        with running(options, project, environment, stdout=output, stderr=subprocess.PIPE) as sam:
            assert sam.stderr is not None  # noqa: S101 - it was asked for
            for line in _function_lines(sam.stderr):
                lines.append(line)
                print(line, file=sys.stderr, flush=True)
            status = sam.wait()
        output.seek(0)
        answer = output.read().strip()
        ending = durable.ending() if durable is not None and status == 0 else None
    if ending is not None:  # what SAM prints of an execution is a table
        return Invocation(response=ending[1], log_lines=tuple(lines), failed=not ending[0])
    if status != 0 or not answer:
        raise SamError(f"sam local invoke ended with status {status} and no response; its output is above")
    return _answered(answer, tuple(lines))


@contextlib.contextmanager
def start_lambda(project: Path, variables: Mapping[str, str], runtime: str = "") -> Iterator[Callable[[str, object], Invocation]]:
    """`sam local start-lambda`, which keeps containers: call what it yields with a function's logical id and an event."""
    with _serving("start-lambda", project, variables, runtime) as (port, lines):

        def invoke(name: str, event: object) -> Invocation:
            link = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
            try:
                link.request("POST", f"/2015-03-31/functions/{name}/invocations", json.dumps(event))
                answer = link.getresponse().read().decode()
            except (OSError, http.client.HTTPException) as error:
                raise SamError(f"sam local start-lambda does not answer: {error!r}; its output is above") from error
            finally:
                link.close()
            return _answered(answer, tuple(_lines_until("REPORT RequestId", lines, REPORT_SECONDS)))

        yield invoke


@contextlib.contextmanager
def start_api(project: Path, variables: Mapping[str, str], runtime: str = "", *, port: int = 0) -> Iterator[str]:
    """`sam local start-api`: yields the address of the routes of all functions. Port 0 is a free one."""
    with _serving("start-api", project, variables, runtime, port) as (found, _lines):
        yield f"http://127.0.0.1:{found}"


@contextlib.contextmanager
def _serving(
    what: str, project: Path, variables: Mapping[str, str], runtime: str, port: int = 0
) -> Iterator[tuple[int, queue.SimpleQueue[str]]]:
    """A server of SAM's that keeps containers, once it serves: its port, and the lines that it and the functions write."""
    port = port or free_ports(1)[0]
    command = [*SAM, "local", what, "--port", str(port), "--warm-containers", "LAZY", *_local_options(runtime)]
    with (
        _local_environment(project, variables, runtime) as environment,
        tempfile.TemporaryFile("w+") as output,
        running(command, project, environment, stdout=output, stderr=subprocess.PIPE) as sam,
    ):
        assert sam.stderr is not None  # noqa: S101 - it was asked for
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=_collect, args=(sam.stderr, lines), daemon=True).start()
        if "Running on" not in "".join(_lines_until("Running on", lines, START_SECONDS)):
            raise SamError(f"sam local {what} did not start; its output is above")
        yield port, lines


def _answered(answer: str, lines: tuple[str, ...]) -> Invocation:
    shown = tuple(line for line in lines if not line.startswith(MARKERS))
    try:
        response = json.loads(answer)
    except ValueError:  # such as "Task timed out after 15.00 seconds"
        return Invocation(response=answer, log_lines=shown, failed=True)
    return Invocation(response=response, log_lines=shown, failed=is_error(response), duration_ms=duration_of(lines))


def _collect(stream: IO[str], lines: queue.SimpleQueue[str]) -> None:
    """Every line, as it comes; the function's are shown, and SAM's with an indent."""
    is_function_s = False
    for raw in stream:
        for line in filter(str.strip, raw.rstrip("\n").split("\r")):
            if line.startswith(MARKERS):
                is_function_s = line.startswith("START")
            else:
                print(line if is_function_s else f"    {line}", file=sys.stderr, flush=True)
            lines.put(line)


def _lines_until(text: str, lines: queue.SimpleQueue[str], seconds: float) -> list[str]:
    """The lines up to the one that has the text in it, or what has come when there is none for so long."""
    found: list[str] = []
    with contextlib.suppress(queue.Empty):
        while not found or text not in found[-1]:
            found.append(lines.get(timeout=seconds))
    return found


def _local_options(runtime: str) -> list[str]:
    template = str(OWN / runtime / "build" / "template.yaml")
    return ["--template", template, "--skip-pull-image", *_parameters(runtime)]


@contextlib.contextmanager
def _local_environment(project: Path, variables: Mapping[str, str], runtime: str) -> Iterator[dict[str, str]]:
    """The environment of `sam local`, with the address at which its containers reach the local DSQL. Afterwards none is left."""
    with (
        reachable_port(int(variables["DSQL_PORT"]), runtime or DEFAULT_RUNTIME) as address,
        tempfile.TemporaryDirectory(prefix="dsql-sam-") as temporary,  # SAM leaves a file in it
        _container_removed(address),
    ):
        yield {**_environment(project, variables), **address, "TMPDIR": temporary}


def docker_engine() -> Any | None:
    """A client of the Docker engine, found as SAM finds it; None if there is none."""
    try:
        docker = importlib.import_module("docker")  # SAM's own dependency, which ships no types
    except ModuleNotFoundError:
        return None
    try:
        client = docker.from_env(timeout=5)
        client.ping()
    except docker.errors.DockerException:
        return None
    return client


def _parameters(runtime: str) -> list[str]:
    """An image of this machine's architecture needs no emulation."""
    return ["--parameter-overrides", f"Architecture={ARCHITECTURE}", *([f"Runtime={runtime}"] if runtime else [])]


def _environment(project: Path, local: Mapping[str, str]) -> dict[str, str]:
    """The environment of a command: the local DSQL's variables, and nothing of the caller's own AWS session."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "DSQL_", "CLUSTER_ENDPOINT"))}
    return {
        **kept,
        **local,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        # `sam local` calls STS, and continues when it fails; these credentials belong to nobody.
        "AWS_ENDPOINT_URL_STS": NO_SERVICE,
        "AWS_MAX_ATTEMPTS": "1",
        "BYTECODE": "optional",  # this and PYTHON are for layer/Makefile
        "PYTHON": sys.executable,
        "SAM_CLI_TELEMETRY": "0",
        "SAM_LAYER_CACHE_BASEDIR": str(project / OWN / "app"),  # this and the next: a home directory may be read-only
        "__SAM_CLI_APP_DIR": str(project / OWN / "app"),
    }


@contextlib.contextmanager
def reachable_port(port: int, runtime: str = DEFAULT_RUNTIME) -> Iterator[dict[str, str]]:
    """The variables with which a container reaches this machine's 127.0.0.1:port. The relay runs in the runtime's image."""
    engine = docker_engine()
    assert engine is not None  # noqa: S101 - the caller has checked it
    if sys.platform != "linux" or engine.info().get("OperatingSystem") == "Docker Desktop":
        yield {"DSQL_HOSTADDR": "host.docker.internal", "DSQL_PORT": str(port)}
        return
    image = f"public.ecr.aws/lambda/python:{runtime.removeprefix('python')}-{ARCHITECTURE}"
    if not engine.images.list(filters={"reference": image}):
        print(f"    pulling {image} (only once; this can take minutes)", file=sys.stderr, flush=True)
        try:
            engine.images.pull(image)
        except sys.modules["docker"].errors.DockerException as error:
            raise SamError(f"the Docker engine could not pull {image} ({error}); use VIA=rie") from error
    with DockerRelay(engine, image, port, python=f"/var/lang/bin/{runtime}") as relay:
        yield {"DSQL_HOSTADDR": relay.host, "DSQL_PORT": str(PORT)}


def _function_lines(stream: IO[str]) -> Iterator[str]:
    """The function's lines in SAM's standard error, of one invocation or several. SAM's own lines before them are printed."""
    started = ended = False
    for raw in stream:
        for line in raw.rstrip("\n").split("\r"):
            if line.startswith(MARKERS):
                started, ended = True, not line.startswith("START")
            elif started and not ended and line.strip():
                yield line
            elif not started and line.strip():
                print(f"    {line}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _container_removed(address: Mapping[str, str]) -> Iterator[None]:
    """Remove the function's container if SAM was stopped before it did. The variables in its environment identify it."""
    try:
        yield
    finally:
        given = {f"{name}={value}" for name, value in address.items()}
        engine = docker_engine()
        for container in engine.containers.list(all=True, ignore_removed=True) if engine else []:
            if given <= set(container.attrs["Config"]["Env"] or ()):
                container.remove(force=True)
