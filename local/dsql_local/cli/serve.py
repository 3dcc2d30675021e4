"""`python -m dsql_local serve`: runs a local DSQL until Ctrl-C, and prints its environment variables or writes them to files."""

import argparse
import contextlib
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..api.admin_session import SqlError
from ..api.local_dsql import LocalDsql
from ..postgres.binaries import PostgresError
from .control import ControlError, ControlServer
from .env_files import env_file, env_json, file_variables, temporary_file
from .recipe import recipe

__all__ = ["add_arguments", "run"]

SECRET = "defaultsecret"  # noqa: S105 - the default of a local DSQL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serve`."""
    parser.add_argument("--port", type=int, default=0, help="the port on 127.0.0.1 (default: a free one)")
    parser.add_argument("--schema", type=Path, action="append", default=[], metavar="FILE", help="SQL to run first, as admin")
    parser.add_argument("--env-file", type=Path, metavar="FILE", help="write NAME=value lines to it, and remove it at the end")
    parser.add_argument("--env-json", type=Path, metavar="FILE", help="the same for `sam local invoke --env-vars FILE`")
    parser.add_argument("--conflicts", type=int, default=0, metavar="N", help="fail the first N COMMITs with OC000")
    parser.add_argument("--conflict-rate", type=float, default=0.0, metavar="P", help="fail each COMMIT with probability P")
    parser.add_argument(
        "--schema-conflicts",
        choices=("touched", "any"),
        default="touched",
        help="which statements fail with OC001 after another session's DDL (default: touched, those that name what it changed)",
    )
    parser.add_argument(
        "--account",
        default="",
        metavar="NUMBER",
        help="take this account's number as access key, as AWS emulators give it to functions, and print what to type beside one",
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="make runs repeatable: order, jobs, random numbers, --conflict-rate"
    )


def run(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    ends = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before any thread starts, so that only sigwait receives them
    try:
        if options.account and not re.fullmatch("[0-9]{12}", options.account):
            raise ValueError(f"account is {options.account!r}: it must be an account's number, which has 12 digits")
        with contextlib.ExitStack() as stack:
            credentials = {options.account: SECRET} if options.account else None
            dsql = stack.enter_context(
                LocalDsql(
                    port=options.port, schema_conflicts=options.schema_conflicts, seed=options.seed, credentials=credentials
                )
            )
            for path in options.schema:
                dsql.execute(path.read_text(encoding="utf-8"))
            if options.conflicts:
                dsql.conflict_next(options.conflicts)
            dsql.conflict_rate(options.conflict_rate)
            stack.enter_context(temporary_file(options.env_file, env_file(file_variables(dsql.environment, dsql.libpq()))))
            if options.env_json is not None:
                address = stack.enter_context(_container_variables(dsql.port))
                stack.enter_context(temporary_file(options.env_json, env_json({**dsql.environment, **address})))
            stack.enter_context(ControlServer(dsql))
            _print_variables(dsql, options.account)
            signal.sigwait(ends)
    except (PostgresError, ControlError, SqlError, OSError, ValueError) as failed:
        print(f"dsql_local: {failed}", file=sys.stderr)
        return 1
    return 0


def _print_variables(dsql: LocalDsql, account: str) -> None:
    for name, value in dsql.environment.items():
        print(f"export {name}={shlex.quote(value)}")
    for line in recipe(dsql.endpoint, account, SECRET, dsql.principal).splitlines():
        print(f"# {line}", file=sys.stderr)
    print(f"# The local DSQL serves {dsql.endpoint} on {dsql.host}:{dsql.port}.", file=sys.stderr)
    print(f"# Stop it with Ctrl-C, or: kill {os.getpid()}", file=sys.stderr, flush=True)
    sys.stdout.flush()


@contextlib.contextmanager
def _container_variables(port: int) -> Iterator[Mapping[str, str]]:
    """The variables with which containers reach it through a relay; none if no Docker engine answers."""
    try:
        from ..sam import sam_cli  # noqa: PLC0415 - needs the extra `sam`

        engine = sam_cli.docker_engine()
    except ImportError:
        engine = None
    if engine is None:
        print("# No Docker engine answers: --env-json contains 127.0.0.1, which containers cannot reach.", file=sys.stderr)
        yield {}
        return
    with sam_cli.reachable_port(port) as address:
        yield address
