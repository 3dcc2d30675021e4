"""`python -m dsql_local invoke`: builds the application, runs one function on a local DSQL, and stops everything.

It creates the database roles that the template's functions declare as DSQL_USER, and applies the project's `migrations/*.sql` in
the order of their names, unless the function has them itself, and `schema.sql` from the function's source folder.
As with `sam local invoke`, the response goes to standard output, everything else to standard error.
"""

import json
import sys

from ..api.admin_session import SqlError
from ..api.local_dsql import LocalDsql
from ..postgres.binaries import PostgresError
from ..rules.quoting import quote_identifier
from ..sam import makefile_build, sam_cli
from ..sam.docker_relay import RelayError
from ..sam.rie import Invocation, RieError, RuntimeInterfaceEmulator
from ..sam.signals import exit_on_signals
from ..sam.template import Function, database_users, read_function
from .arguments import Arguments, parse

__all__ = ["main"]

FAILURES = (
    *(sam_cli.SamError, makefile_build.MakefileBuildError, RelayError, RieError),
    *(PostgresError, SqlError, OSError, ValueError),
)


def main(argv: list[str]) -> int:
    """Run the command; 0 only if the function answered without an error."""
    exit_on_signals()
    try:
        invocation = _run(parse(argv))
    except FAILURES as failed:
        print(f"dsql_local invoke: {failed}", file=sys.stderr)
        return 1
    print(json.dumps(invocation.response), flush=True)
    status = invocation.response.get("statusCode", 200) if isinstance(invocation.response, dict) else 200
    return 1 if invocation.failed or (isinstance(status, int) and status >= 500) else 0


def _run(arguments: Arguments) -> Invocation:
    chosen = {"Runtime": arguments.runtime} if arguments.runtime else {}
    source = read_function(arguments.project / "template.yaml", arguments.function, chosen)
    with LocalDsql() as dsql:
        _step(f"a local DSQL serves {dsql.endpoint} on 127.0.0.1:{dsql.port}")
        run = _through_sam if arguments.via == "sam" else _through_emulator
        return run(arguments, source, dsql)


def _through_sam(arguments: Arguments, source: Function, dsql: LocalDsql) -> Invocation:
    _step("sam build (cached)")
    sam_cli.build(arguments.project, arguments.runtime)
    _prepare(arguments, dsql, source)
    _step(f"sam local invoke {source.name} -e {arguments.event.name}")
    return sam_cli.local_invoke(arguments.project, source.name, arguments.event, dsql.environment, arguments.runtime)


def _through_emulator(arguments: Arguments, source: Function, dsql: LocalDsql) -> Invocation:
    _step(f"make {' '.join(f'build-{each}' for each in (source.name, *source.layer_names))}, as sam build does it")
    function = makefile_build.build(source, arguments.project / ".aws-sam" / "rie")
    _prepare(arguments, dsql, source)
    _step(f"the Runtime Interface Emulator runs {source.name} with {arguments.event.name}")
    with RuntimeInterfaceEmulator(function, dsql.environment) as emulator:
        invocation = emulator.invoke(arguments.payload)
    for line in invocation.log_lines:
        print(line, file=sys.stderr)
    return invocation


def _prepare(arguments: Arguments, dsql: LocalDsql, source: Function) -> None:
    _create_roles(arguments, dsql)
    _apply_schema(arguments, dsql, source)
    if arguments.conflicts:
        _step(f"the next {arguments.conflicts} COMMITs fail with OC000")
        dsql.conflict_next(arguments.conflicts, "OC000")


def _step(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)


def _create_roles(arguments: Arguments, dsql: LocalDsql) -> None:
    """Those of all functions, for migrations GRANT to them."""
    for user in sorted(database_users(arguments.project / "template.yaml") - {"admin"}):
        dsql.execute(f"CREATE ROLE {quote_identifier(user)} WITH LOGIN")
        dsql.execute(f"AWS IAM GRANT {quote_identifier(user)} TO '{dsql.principal}'")


def _apply_schema(arguments: Arguments, dsql: LocalDsql, source: Function) -> None:
    user = source.environment.get("DSQL_USER") or "admin"
    own = source.code / "migrations"
    scripts = [] if own.exists() else sorted((arguments.project / "migrations").glob("*.sql"))
    for script in [*scripts, source.code / "schema.sql"]:
        if script.exists():
            _step(f"{script.name} applied; {source.name} connects as {user}")
            dsql.execute(script.read_text(encoding="utf-8"))
