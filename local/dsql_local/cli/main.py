"""The command line: `serve`; `status`, `psql` and `fault` for a running server; `invoke` and `start-api`."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from typing import Any

from ..faults.table import COMMANDS
from .control import ControlError, request, running_ports
from .env_files import LIBPQ_VARIABLES
from .serve import add_arguments
from .serve import run as serve


def main(argv: list[str]) -> int:
    """Run a subcommand, and return the exit status."""
    if argv[:1] == ["invoke"]:
        from . import invoke  # noqa: PLC0415 - only it needs the extra `sam`

        status: int = invoke.main(argv[1:])
        return status
    if argv[:1] == ["start-api"]:
        from . import start_api  # noqa: PLC0415 - the same

        return start_api.main(argv[1:])
    options, rest = _parser().parse_known_args(argv)
    if rest and options.command != "psql":
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        if options.command == "serve":
            return serve(options)
        if options.command == "status":
            return _status(options.port, as_json=options.json)
        if options.command == "psql":
            return _psql(options.port, options.user, rest)
        return _fault(options.port, options.words)
    except ControlError as failed:
        print(f"dsql_local: {failed}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dsql_local", description="A local Aurora DSQL.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    add_arguments(commands.add_parser("serve", help="run a local DSQL until Ctrl-C, and print the variables to export"))
    status = commands.add_parser("status", help="show running servers, connections and pending faults")
    status.add_argument("--json", action="store_true", help="print a JSON list")
    psql = commands.add_parser("psql", help="open psql on the running server; further arguments are psql's", allow_abbrev=False)
    psql.add_argument("--user", default="admin", help="the role (default: admin)")
    lines = [f"  {spec.word + ' ' + arguments:42} {sees}" for spec in COMMANDS.values() for arguments, sees, _ in spec.examples]
    fault = commands.add_parser(
        "fault",
        help="inject a fault into the running server",
        description="Words:\n" + "\n".join(lines) + "\n  clear",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fault.add_argument("words", nargs="+", metavar="WORD", help=f"{', '.join(COMMANDS)}, followed by its arguments")
    for each in (status, psql, fault):
        each.add_argument("--port", type=int, help="the server's port, if several run")
    commands.add_parser("invoke", help="run a function as Lambda does, on a local DSQL", add_help=False)
    commands.add_parser("start-api", help="serve an application's HTTP API on a local DSQL, until Ctrl-C", add_help=False)
    return parser


def _status(port: int | None, *, as_json: bool) -> int:
    found: list[dict[str, Any]] = [request(each, "status") for each in (running_ports() if port is None else [port])]
    if as_json:
        print(json.dumps(found))
        return 0
    for each in found:
        print(f"{each['endpoint']} on {each['host']}:{each['port']}, process {each['pid']}")
        print(f"  {each['connections']} connections now, {each['accepted']} so far; {each['postgres']}")
        for pending in each["faults_waiting"]:
            print(f"  pending: {pending}")
    if not found:
        print("no server runs; start one with: python -m dsql_local serve")
    return 0


def _psql(port: int | None, user: str, arguments: list[str]) -> int:
    program = shutil.which("psql")
    if program is None:
        print("dsql_local: psql is not on the PATH; install it (Debian: postgresql-client, Homebrew: libpq)", file=sys.stderr)
        return 1
    libpq: dict[str, str] = request(port, "libpq", user=user)
    variables = {variable: libpq[name] for name, variable in LIBPQ_VARIABLES.items()}
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # psql handles it: Ctrl-C cancels a query
    environment = {**os.environ, **variables, "PGPASSWORD": libpq["password"]}
    return subprocess.run([program, *arguments], env=environment, check=False, preexec_fn=_restore_sigint).returncode


def _restore_sigint() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _fault(port: int | None, words: list[str]) -> int:
    for pending in request(port, "fault", words=" ".join(words)):
        print(f"pending: {pending}")
    return 0
