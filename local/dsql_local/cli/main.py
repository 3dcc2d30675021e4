"""The command line: `serve`; `status`, `psql` and `fault`, which ask a server that runs; and `invoke`."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from typing import Any

from ..faults.commands import FAULTS, WORDS
from .control import ControlError, ask, running
from .env_files import PG
from .serve import add_arguments
from .serve import run as serve


def main(argv: list[str]) -> int:
    """Run one subcommand; the exit status."""
    if argv[:1] == ["invoke"]:
        from . import invoke  # noqa: PLC0415 - its needs are not the others'

        status: int = invoke.main(argv[1:])
        return status
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
    status = commands.add_parser("status", help="what runs, who is connected, which faults wait")
    status.add_argument("--json", action="store_true", help="as one JSON list")
    psql = commands.add_parser("psql", help="open psql on the one that runs; what follows is psql's", allow_abbrev=False)
    psql.add_argument("--user", default="admin", help="the role (default: admin)")
    lines = [f"  {fault.words:45} {fault.sees}" for fault in FAULTS]
    fault = commands.add_parser(
        "fault",
        help="ask the one that runs for a fault",
        description="Words:\n" + "\n".join(lines) + "\n  clear",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fault.add_argument("words", nargs="+", metavar="WORD", help=f"{', '.join(WORDS)}, and what belongs to it")
    for each in (status, psql, fault):
        each.add_argument("--port", type=int, help="of the server, if several run")
    commands.add_parser("invoke", help="run a function as Lambda does, with a local DSQL", add_help=False)
    return parser


def _status(port: int | None, *, as_json: bool) -> int:
    found: list[dict[str, Any]] = [ask(each, "status") for each in (running() if port is None else [port])]
    if as_json:
        print(json.dumps(found))
        return 0
    for each in found:
        print(f"{each['endpoint']} on {each['host']}:{each['port']}, process {each['pid']}")
        print(f"  {each['connections']} connections now, {each['accepted']} so far; {each['postgres']}")
        for waiting in each["faults_waiting"]:
            print(f"  waits: {waiting}")
    if not found:
        print("none runs (start one: python -m dsql_local serve)")
    return 0


def _psql(port: int | None, user: str, arguments: list[str]) -> int:
    program = shutil.which("psql")
    if program is None:
        print("dsql_local: psql is not on the PATH (postgresql-client, libpq)", file=sys.stderr)
        return 1
    libpq: dict[str, str] = ask(port, "libpq", user=user)
    variables = {variable: libpq[name] for name, variable in PG.items()}
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # psql's own: it ends a query
    environment = {**os.environ, **variables, "PGPASSWORD": libpq["password"]}
    return subprocess.run([program, *arguments], env=environment, check=False, preexec_fn=_take_interrupts).returncode


def _take_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _fault(port: int | None, words: list[str]) -> int:
    for waiting in ask(port, "fault", words=" ".join(words)):
        print(f"waits: {waiting}")
    return 0
