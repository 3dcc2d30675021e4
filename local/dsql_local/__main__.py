"""The command line: `python -m dsql_local serve` and `python -m dsql_local invoke`."""

import argparse
import os
import shlex
import signal
import sys

from .server import LocalDsql
from .template import PostgresError


def main(argv: list[str]) -> int:
    """Run one subcommand; the exit status."""
    if argv[:1] == ["invoke"]:
        from .invoke import main as invoke  # noqa: PLC0415 - its needs are not serve's

        return invoke(argv[1:])
    parser = argparse.ArgumentParser(prog="python -m dsql_local", description="A local Aurora DSQL.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run a local DSQL until Ctrl-C, and print the variables to export")
    serve.add_argument("--port", type=int, default=0, help="the port on 127.0.0.1 (default: a free one)")
    serve.add_argument("--conflicts", type=int, default=0, metavar="N", help="fail the first N COMMITs with OC000")
    commands.add_parser("invoke", help="run a function as Lambda does, with a local DSQL", add_help=False)
    chosen = parser.parse_args(argv)
    return _serve(chosen.port, chosen.conflicts)


def _serve(port: int, conflicts: int) -> int:
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before any thread starts, so that only sigwait sees them
    try:
        with LocalDsql(port=port) as dsql:
            if conflicts:
                dsql.conflict_next(conflicts)
            for name, value in dsql.environment.items():
                print(f"export {name}={shlex.quote(value)}")
            print(f"# The local DSQL serves {dsql.endpoint} on {dsql.host}:{dsql.port}.", file=sys.stderr)
            print(f"# Stop it with Ctrl-C, or: kill {os.getpid()}", file=sys.stderr, flush=True)
            sys.stdout.flush()
            signal.sigwait(ends)
    except (PostgresError, OSError) as failed:
        print(f"dsql_local: {failed}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
