"""`python -m dsql_local start-api`: the routes of all functions of an application, on a local DSQL, until Ctrl-C."""

import argparse
import signal
import sys
from pathlib import Path

from ..api.admin_session import SqlError
from ..api.local_dsql import LocalDsql
from ..postgres.binaries import PostgresError
from ..sam import sam_cli
from ..sam.docker_relay import RelayError
from ..sam.signals import exit_on_signals
from ..sam.template import read_functions
from .database import prepare, step

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """Run the command; it ends by a signal."""
    exit_on_signals()
    parser = argparse.ArgumentParser(prog="python -m dsql_local start-api", description=__doc__, allow_abbrev=False)
    parser.add_argument("--port", type=int, default=3000, help="on 127.0.0.1 (default: %(default)s)")
    parser.add_argument("--project", type=Path, default=Path(), help="the folder of template.yaml (default: this one)")
    options = parser.parse_args(argv)
    project = options.project.resolve()
    if sam_cli.docker_engine() is None:
        print("dsql_local start-api: no Docker engine answers, and `sam local start-api` needs one", file=sys.stderr)
        return 1
    try:
        with LocalDsql() as dsql:
            step(f"a local DSQL serves {dsql.endpoint} on 127.0.0.1:{dsql.port}")
            prepare(dsql, project, *read_functions(project / "template.yaml"))
            step("sam build (cached)")
            sam_cli.build(project)
            with sam_cli.start_api(project, dsql.environment, port=options.port) as address:
                step(f"sam local start-api serves {address}; stop it with Ctrl-C")
                signal.pause()
    except (sam_cli.SamError, RelayError, PostgresError, SqlError, OSError, ValueError) as failed:
        print(f"dsql_local start-api: {failed}", file=sys.stderr)
    return 1
