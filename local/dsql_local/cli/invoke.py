"""`python -m dsql_local invoke`: builds the application, runs one function on a local DSQL, and stops everything.

It creates the database role that the template declares as DSQL_USER, and applies `schema.sql` from the function's source folder.
As with `sam local invoke`, the response goes to standard output, everything else to standard error.
"""

import argparse
import json
import sys
from pathlib import Path

from ..api.admin_session import SqlError
from ..api.local_dsql import LocalDsql
from ..postgres.binaries import PostgresError
from ..rules.quoting import quote_identifier
from ..sam import sam_cli
from ..sam.docker_relay import RelayError
from ..sam.rie import Invocation, RieError, RuntimeInterfaceEmulator
from ..sam.signals import exit_on_signals
from ..sam.template import Function, read_function

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """Run the command; returns 0 only if the function responded without an error."""
    options = _options(argv)
    exit_on_signals()
    try:
        invocation = _run(options)
    except (sam_cli.SamError, RelayError, RieError, PostgresError, SqlError, OSError, ValueError) as failed:
        print(f"dsql_local invoke: {failed}", file=sys.stderr)
        return 1
    print(json.dumps(invocation.response), flush=True)
    status = invocation.response.get("statusCode", 200) if isinstance(invocation.response, dict) else 200
    return 1 if invocation.failed or (isinstance(status, int) and status >= 500) else 0


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dsql_local invoke", description=__doc__.partition("\n")[0])
    parser.add_argument("--function", default="TransferFunction", help="logical id in the template (default: %(default)s)")
    parser.add_argument("--event", type=Path, default=Path("events/transfer.json"), help="a JSON file (default: %(default)s)")
    parser.add_argument("--conflicts", type=int, default=0, metavar="N", help="fail the first N COMMITs with OC000")
    parser.add_argument(
        "--via", choices=["auto", "sam", "rie"], default="auto", help="sam local invoke, or only the Runtime Interface Emulator"
    )
    parser.add_argument("--project", type=Path, default=Path(), help="the folder of template.yaml (default: this one)")
    return parser.parse_args(argv)


def _run(options: argparse.Namespace) -> Invocation:
    project: Path = options.project.resolve()
    event: Path = options.event.resolve()
    content = json.loads(event.read_text(encoding="utf-8"))
    source = read_function(project / "template.yaml", options.function)
    through_docker = _through_docker(options.via)
    with LocalDsql() as dsql:
        _step(f"a local DSQL serves {dsql.endpoint} on 127.0.0.1:{dsql.port}")
        _step("sam build (cached)")
        sam_cli.build(project)
        _apply_schema(dsql, source)
        if options.conflicts:
            _step(f"the next {options.conflicts} COMMITs fail with OC000")
            dsql.conflict_next(options.conflicts, "OC000")
        if through_docker:
            _step(f"sam local invoke {source.name} -e {event.name}")
            return sam_cli.local_invoke(project, source.name, event, dsql.environment)
        _step(f"the Runtime Interface Emulator runs {source.name} with {event.name}")
        function = read_function(project / ".aws-sam" / "build" / "template.yaml", source.name)
        with RuntimeInterfaceEmulator(function, dsql.environment) as emulator:
            invocation = emulator.invoke(content)
        for line in invocation.log_lines:
            print(line, file=sys.stderr)
        return invocation


def _step(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)


def _through_docker(via: str) -> bool:
    """Whether to use `sam local invoke`: with "auto", if a Docker engine answers."""
    if via == "rie":
        return False
    answers = sam_cli.docker_engine() is not None
    if via == "sam" and not answers:
        raise sam_cli.SamError("no Docker engine answers; start one, or use VIA=rie")
    return answers


def _apply_schema(dsql: LocalDsql, source: Function) -> None:
    user = source.environment.get("DSQL_USER") or "admin"
    if user != "admin":
        dsql.execute(f"CREATE ROLE {quote_identifier(user)} WITH LOGIN")
        dsql.execute(f"AWS IAM GRANT {quote_identifier(user)} TO '{dsql.principal}'")
    schema = source.code / "schema.sql"
    if schema.exists():
        _step(f"schema.sql of {source.name} applied; it connects as {user}")
        dsql.execute(schema.read_text(encoding="utf-8"))
