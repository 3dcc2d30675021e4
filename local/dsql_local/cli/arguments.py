"""The arguments of `invoke`, checked by the standard library alone: `make invoke` runs this file before it installs anything.

As a script it prints the way to take, `sam` or `rie`; of a mistaken argument it says in one sentence what is accepted.
"""

import argparse
import http.client
import json
import os
import re
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["ArgumentError", "Arguments", "parse"]

DOCKER_SOCKET = "/var/run/docker.sock"
PING_SECONDS = 5.0


class ArgumentError(ValueError):
    """An argument is not what it must be."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is invoked, with what, and how."""

    function: str
    event: Path
    payload: Any
    conflicts: int
    warm: int
    via: str
    runtime: str
    project: Path


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ArgumentError(message)


def parse(argv: Sequence[str]) -> Arguments:
    """The arguments, with the event read and the way chosen. Raises `ArgumentError`."""
    parser = _Parser(prog="python -m dsql_local invoke", description="Run a function as Lambda does, with a local DSQL.")
    parser.add_argument("--function", default="TransferFunction", help="its logical id in the template (default: %(default)s)")
    parser.add_argument("--event", type=Path, default=Path("events/transfer.json"), help="a JSON file (default: %(default)s)")
    parser.add_argument("--conflicts", default="0", metavar="N", help="fail the first N COMMITs with OC000")
    parser.add_argument(
        "--warm", default="0", metavar="N", help="invoke it N times more in the same environment, and show durations"
    )
    parser.add_argument("--via", default="auto", help="sam (sam local invoke), rie (the emulator alone), or auto")
    parser.add_argument("--runtime", default="", help="python3.14, say, instead of the template's; only by sam")
    parser.add_argument("--project", type=Path, default=Path(), help="the folder of template.yaml (default: this one)")
    given = parser.parse_args(argv)
    for name in ("conflicts", "warm"):
        value = getattr(given, name)
        if not re.fullmatch("[0-9]{1,6}", value):
            raise ArgumentError(f"{name} is {value!r}: it must be a whole number, 0 or more")
    if not re.fullmatch(r"(python3\.[0-9]{2})?", given.runtime):
        raise ArgumentError(f"runtime is {given.runtime!r}: it must be one of Lambda's, such as python3.14")
    project = given.project.resolve()
    _check_function(project / "template.yaml", given.function)
    return Arguments(
        function=given.function,
        event=given.event.resolve(),
        payload=_read_event(given.event),
        conflicts=int(given.conflicts),
        warm=int(given.warm),
        via=_way(given.via, given.runtime),
        runtime=given.runtime,
        project=project,
    )


def _check_function(template: Path, name: str) -> None:
    """A look at the text: the reader of templates needs packages."""
    try:
        text = template.read_text(encoding="utf-8")
    except OSError as error:
        raise ArgumentError(f"{template} can't be read: {error.strerror}") from error
    found = re.findall(r"^  (\w+):(?:\n    .*)*?\n    Type: AWS::Serverless::Function$", text, re.MULTILINE)
    if found and name not in found:
        raise ArgumentError(f"{template.name} has no function {name!r}; it has {', '.join(sorted(found))}")


def _read_event(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArgumentError(f"the event {path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise ArgumentError(f"the event {path} is not JSON: {error}") from error


def _way(via: str, runtime: str) -> str:
    if via not in {"auto", "sam", "rie"}:
        raise ArgumentError(f"via is {via!r}: it must be auto, sam or rie")
    if via == "rie":
        if runtime:
            raise ArgumentError(
                f"runtime is {runtime!r}: the emulator alone runs this machine's Python; leave it out, or use VIA=sam"
            )
        return via
    answers = _docker_answers(os.environ.get("DOCKER_HOST") or f"unix://{DOCKER_SOCKET}")
    if (via == "sam" or runtime) and not answers:
        raise ArgumentError("no Docker engine answers; start one, or invoke with VIA=rie and without RUNTIME=")
    return "sam" if answers else "rie"


def _docker_answers(address: str) -> bool:
    """Whether there is an engine; of one that only its own client can reach (ssh, npipe) this is believed."""
    scheme, _, place = address.partition("://")
    link = http.client.HTTPConnection(place if scheme in {"tcp", "http"} else "localhost", timeout=PING_SECONDS)
    try:
        if scheme == "unix":
            link.sock = socket.socket(socket.AF_UNIX)
            link.sock.settimeout(PING_SECONDS)
            link.sock.connect(place)
        elif scheme not in {"tcp", "http"}:
            return True
        link.request("GET", "/_ping")
        return link.getresponse().status < 500  # an engine that asks for TLS answers 400
    except (OSError, http.client.HTTPException):
        return False
    finally:
        link.close()


if __name__ == "__main__":
    try:
        print(parse(sys.argv[1:]).via)
    except ArgumentError as error:
        sys.exit(f"dsql_local invoke: {error}")
