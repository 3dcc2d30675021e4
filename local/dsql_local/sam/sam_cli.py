"""The SAM CLI: `sam build`, and `sam local invoke` with a local DSQL.

Commands do not see the caller's AWS credentials, and everything they start ends with this process.
"""

import contextlib
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from .command import running
from .docker_relay import PORT, DockerRelay
from .rie import MARKERS, Invocation, is_error

__all__ = ["SamError", "build", "docker_engine", "local_invoke", "reachable_port"]

ARCHITECTURE = "arm64" if platform.machine().lower() in {"arm64", "aarch64"} else "x86_64"
DEFAULT_RUNTIME = "python3.13"  # its image has the relay's Python, whatever the functions run on
SAM = (sys.executable, "-m", "samcli")
OWN = Path(".aws-sam", "invoke")  # what it builds has bytecode for this machine's interpreter, and is never deployed
NO_SERVICE = "http://127.0.0.1:1"  # refuses at once


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


def local_invoke(project: Path, name: str, event: Path, variables: Mapping[str, str], runtime: str = "") -> Invocation:
    """Run `sam local invoke` with these variables, and show what SAM and the function write.

    SAM takes every variable that the template declares from its environment, so no file of variables is needed.
    """
    template = str(OWN / runtime / "build" / "template.yaml")
    command = [*SAM, "local", "invoke", name, "--template", template, "--event", str(event), "--skip-pull-image"]
    command += _parameters(runtime)
    lines: list[str] = []
    with (
        reachable_port(int(variables["DSQL_PORT"]), runtime or DEFAULT_RUNTIME) as address,
        tempfile.TemporaryDirectory(prefix="dsql-sam-") as temporary,  # SAM leaves a file in it
        tempfile.TemporaryFile("w+") as output,
        _container_removed(address),
    ):
        environment = {**_environment(project, variables), **address, "TMPDIR": temporary}
        with running(command, project, environment, stdout=output, stderr=subprocess.PIPE) as sam:
            assert sam.stderr is not None  # noqa: S101 - it was asked for
            for line in _function_lines(sam.stderr):
                lines.append(line)
                print(line, file=sys.stderr, flush=True)
            status = sam.wait()
        output.seek(0)
        answer = output.read().strip()
    if status != 0 or not answer:
        raise SamError(f"sam local invoke ended with status {status} and no response; its output is above")
    try:
        response = json.loads(answer)
    except ValueError:  # such as "Task timed out after 15.00 seconds"
        return Invocation(response=answer, log_lines=tuple(lines), failed=True)
    return Invocation(response=response, log_lines=tuple(lines), failed=is_error(response))


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
    """The function's lines in SAM's standard error. SAM's own lines are printed."""
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
