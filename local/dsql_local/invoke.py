"""`python -m dsql_local invoke`: build the application, start a local DSQL, run one function on it, end everything.

Knows the order of the steps and what `sam` has to be told. The function's schema is `schema.sql` beside its source; the database
role that the template declares as DSQL_USER is made before it is applied. As with `sam local invoke`, the response goes to
standard output, everything else to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

from .application import Function, read_function
from .relay import PORT, Relay, RelayError
from .rie import MARKERS, Invocation, RieError, RuntimeInterfaceEmulator, is_error
from .server import LocalDsql, SqlError
from .template import PostgresError

__all__ = ["main"]

ARCHITECTURE = "arm64" if platform.machine().lower() in {"arm64", "aarch64"} else "x86_64"
IMAGE = f"public.ecr.aws/lambda/python:3.13-{ARCHITECTURE}"  # what SAM runs the template's functions in
SAM = (sys.executable, "-m", "samcli")
END_SECONDS = 15.0
NO_SERVICE = "http://127.0.0.1:1"  # refuses at once


class InvokeError(Exception):
    """A step failed; the sentence says which and what to do."""


def main(argv: list[str]) -> int:
    """Run the command; 0 only if the function answered without an error."""
    options = _options(argv)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    try:
        invocation = _run(options)
    except (InvokeError, RelayError, RieError, PostgresError, SqlError, OSError, ValueError) as failed:
        print(f"dsql_local invoke: {failed}", file=sys.stderr)
        return 1
    print(json.dumps(invocation.response), flush=True)
    status = invocation.response.get("statusCode", 200) if isinstance(invocation.response, dict) else 200
    return 1 if invocation.failed or (isinstance(status, int) and status >= 500) else 0


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dsql_local invoke", description=__doc__.partition("\n")[0])
    parser.add_argument("--function", default="TransferFunction", help="its logical id in the template (default: %(default)s)")
    parser.add_argument("--event", type=Path, default=Path("events/transfer.json"), help="a JSON file (default: %(default)s)")
    parser.add_argument("--conflicts", type=int, default=0, metavar="N", help="fail the first N COMMITs with OC000")
    parser.add_argument("--via", choices=["auto", "sam", "rie"], default="auto", help="sam local invoke, or the emulator alone")
    parser.add_argument("--project", type=Path, default=Path(), help="the folder of template.yaml (default: this one)")
    return parser.parse_args(argv)


def _interrupted(number: int, _frame: FrameType | None) -> NoReturn:
    """End by unwinding, once: a second Ctrl-C must not interrupt the cleaning up."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _run(options: argparse.Namespace) -> Invocation:
    project: Path = options.project.resolve()
    event: Path = options.event.resolve()
    content = json.loads(event.read_text(encoding="utf-8"))
    source = read_function(project / "template.yaml", options.function)
    via = _choose(options.via)
    with LocalDsql() as dsql:
        _step(f"a local DSQL serves {dsql.endpoint} on 127.0.0.1:{dsql.port}")
        environment = _environment(dsql.environment)
        _step("sam build (cached)")
        _sam_build(project, environment)
        _apply_schema(dsql, source)
        if options.conflicts:
            _step(f"the next {options.conflicts} COMMITs fail with OC000")
            dsql.conflict_next(options.conflicts, "OC000")
        if via == "sam":
            _step(f"sam local invoke {source.name} -e {event.name}")
            return _by_sam(project, source, event, environment, dsql.port)
        _step(f"the Runtime Interface Emulator runs {source.name} with {event.name}")
        return _by_rie(project, source, content, dsql.environment)


def _step(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)


def _choose(via: str) -> str:
    """How to invoke: through Docker when an engine answers."""
    if via == "rie":
        return via
    answers = _docker_engine() is not None
    if via == "sam" and not answers:
        raise InvokeError("no Docker engine answers; start one, or invoke with VIA=rie")
    return "sam" if answers else "rie"


def _docker_engine() -> Any | None:
    """A client of the Docker engine, found as SAM finds it; None if there is none."""
    docker = importlib.import_module("docker")  # SAM's own dependency, which ships no types
    try:
        client = docker.from_env(timeout=5)
        client.ping()
    except docker.errors.DockerException:
        return None
    return client


def _apply_schema(dsql: LocalDsql, source: Function) -> None:
    user = source.environment.get("DSQL_USER") or "admin"
    if user != "admin":
        dsql.execute(f'CREATE ROLE "{user}" WITH LOGIN')
    schema = source.code / "schema.sql"
    if schema.exists():
        _step(f"schema.sql of {source.name} applied; it connects as {user}")
        dsql.execute(schema.read_text(encoding="utf-8"))


def _environment(local: Mapping[str, str]) -> dict[str, str]:
    """The environment of the `sam` commands: the local DSQL's credentials, and nothing of the caller's own AWS session."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "DSQL_", "CLUSTER_ENDPOINT"))}
    return {
        **kept,
        **local,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        # `sam local` asks who the caller is, and goes on when nobody tells: these credentials are nobody's.
        "AWS_ENDPOINT_URL_STS": NO_SERVICE,
        "AWS_MAX_ATTEMPTS": "1",
        "PYTHON": sys.executable,  # for layer/Makefile
        "SAM_CLI_TELEMETRY": "0",
    }


def _sam_arguments() -> list[str]:
    """What every `sam` command is told: this machine's architecture, so that it runs an image without emulating one."""
    return ["--parameter-overrides", f"Architecture={ARCHITECTURE}"]


def _sam_build(project: Path, environment: Mapping[str, str]) -> None:
    with tempfile.TemporaryFile("w+") as output:
        with _running([*SAM, "build", *_sam_arguments()], project, environment, stdout=output, stderr=output) as build:
            status = build.wait()
        if status != 0:
            output.seek(0)
            raise InvokeError(f"sam build failed.\n{output.read().rstrip()}")


def _by_rie(project: Path, source: Function, event: object, environment: Mapping[str, str]) -> Invocation:
    function = read_function(project / ".aws-sam" / "build" / "template.yaml", source.name)
    with RuntimeInterfaceEmulator(function, environment) as emulator:
        invocation = emulator.invoke(event)
    for line in invocation.log_lines:
        print(line, file=sys.stderr)
    return invocation


@contextlib.contextmanager
def _reachable(port: int) -> Iterator[dict[str, str]]:
    """The variables by which a container dials this machine's 127.0.0.1:port."""
    engine = _docker_engine()
    assert engine is not None  # noqa: S101 - `_choose` has seen it
    if sys.platform != "linux" or engine.info().get("OperatingSystem") == "Docker Desktop":
        yield {"DSQL_HOSTADDR": "host.docker.internal"}
        return
    if not engine.images.list(filters={"reference": IMAGE}):
        _step(f"pulling {IMAGE}, once; this can take minutes")
    with Relay(engine, IMAGE, port) as relay:
        yield {"DSQL_HOSTADDR": relay.host, "DSQL_PORT": str(PORT)}


def _by_sam(project: Path, source: Function, event: Path, environment: Mapping[str, str], port: int) -> Invocation:
    command = [*SAM, "local", "invoke", source.name, "--event", str(event), "--skip-pull-image", *_sam_arguments()]
    # SAM sets every variable that the template declares from its own environment, so none has to be written to a file.
    lines: list[str] = []
    with tempfile.TemporaryFile("w+") as output, _container_ended() as containers, _reachable(port) as address:
        environment = {**environment, **address}
        with _running(command, project, environment, stdout=output, stderr=subprocess.PIPE) as sam:
            assert sam.stderr is not None  # noqa: S101 - it was asked for
            for line in _function_lines(sam.stderr, containers):
                lines.append(line)
                print(line, file=sys.stderr, flush=True)
            status = sam.wait()
        output.seek(0)
        answer = output.read().strip()
    if status != 0 or not answer:
        raise InvokeError(f"sam local invoke ended with status {status} and no response: its own lines are above")
    try:
        response = json.loads(answer)
    except ValueError:  # such as "Task timed out after 15.00 seconds"
        return Invocation(response=answer, log_lines=tuple(lines), failed=True)
    return Invocation(response=response, log_lines=tuple(lines), failed=is_error(response))


def _function_lines(stream: IO[str], containers: list[str]) -> Iterator[str]:
    """SAM's standard error line by line, the emulator's markers left out; notes the container that is started."""
    for raw in stream:
        for line in raw.rstrip("\n").split("\r"):
            if found := re.match(r"SAM_CONTAINER_ID: (\w+)", line):
                containers.append(found[1])
            elif line.strip() and not line.startswith(MARKERS):
                yield line


@contextlib.contextmanager
def _container_ended() -> Iterator[list[str]]:
    """Remove the containers noted in the list, should SAM have been stopped before it did."""
    containers: list[str] = []
    try:
        yield containers
    finally:
        if containers and (client := _docker_engine()) is not None:
            for container in client.containers.list(all=True, filters={"id": containers[-1]}):
                container.remove(force=True)


@contextlib.contextmanager
def _running(
    command: list[str], folder: Path, environment: Mapping[str, str], *, stdout: IO[str], stderr: IO[str] | int
) -> Iterator[subprocess.Popen[str]]:
    """A command in a session of its own: a Ctrl-C reaches it through us alone, and leaving the block ends all of it."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(END_SECONDS)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
