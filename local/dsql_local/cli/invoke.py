"""`python -m dsql_local invoke`: builds the application, runs one function on a local DSQL, and stops everything.

It creates the database roles that the template declares as DSQL_USER, and applies the project's `migrations/*.sql` in the order
of their names, unless the function has them itself, and `schema.sql` from the function's source folder.
As with `sam local invoke`, the response goes to standard output, everything else to standard error. A durable function is run by
AWS's local runner, to the end of its execution.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ..api.admin_session import SqlError
from ..api.local_dsql import LocalDsql
from ..postgres.binaries import PostgresError
from ..sam import makefile_build, sam_cli
from ..sam.docker_relay import RelayError
from ..sam.durable import DurableError, DurableRunner
from ..sam.rie import Invocation, RieError, RuntimeInterfaceEmulator
from ..sam.signals import exit_on_signals
from ..sam.template import Function, read_function
from .arguments import Arguments, parse
from .database import prepare, step

__all__ = ["main"]

FAILURES = (
    *(sam_cli.SamError, makefile_build.MakefileBuildError, RelayError, RieError, DurableError),
    *(PostgresError, SqlError, OSError, ValueError),
)

EXECUTION_SECONDS = 120.0


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
    if source.is_durable and arguments.warm:
        raise ValueError(f"{source.name} is a durable function, whose executions are several invocations: leave WARM out")
    with LocalDsql() as dsql:
        step(f"a local DSQL serves {dsql.endpoint} on 127.0.0.1:{dsql.port}")
        run = _through_sam if arguments.via == "sam" else _through_emulator
        return run(arguments, source, dsql)


def _through_sam(arguments: Arguments, source: Function, dsql: LocalDsql) -> Invocation:
    step("sam build (cached)")
    sam_cli.build(arguments.project, arguments.runtime)
    _prepare(arguments, dsql, source)
    if arguments.warm:
        step(f"sam local start-lambda, and {source.name} with {arguments.event.name}")
        with sam_cli.start_lambda(arguments.project, dsql.environment, arguments.runtime) as invoke:
            return _repeatedly(lambda event: invoke(source.name, event), arguments)
    step(f"sam local invoke {source.name} -e {arguments.event.name}")
    with _durable_runner(source) as runner:
        place = (arguments.project, source.name, arguments.event)
        return sam_cli.local_invoke(*place, dsql.environment, arguments.runtime, durable=runner)


def _through_emulator(arguments: Arguments, source: Function, dsql: LocalDsql) -> Invocation:
    step(f"make {' '.join(f'build-{each}' for each in (source.name, *source.layer_names))}, as sam build does it")
    function = makefile_build.build(source, arguments.project / ".aws-sam" / "rie")
    _prepare(arguments, dsql, source)
    step(f"the Runtime Interface Emulator runs {source.name} with {arguments.event.name}")
    with _durable_runner(source) as runner:
        if runner is not None:
            return _execution(arguments, function, dsql, runner)
        with RuntimeInterfaceEmulator(function, dsql.environment) as emulator:
            return _repeatedly(lambda event: _shown(emulator.invoke(event)), arguments)


def _execution(arguments: Arguments, function: Function, dsql: LocalDsql, runner: DurableRunner) -> Invocation:
    """A whole durable execution: as many invocations as it takes."""
    environment = {**dsql.environment, "AWS_ENDPOINT_URL_LAMBDA": runner.url}
    with RuntimeInterfaceEmulator(function, environment) as emulator:
        has_succeeded, result = runner.execute(arguments.payload, emulator.url, seconds=EXECUTION_SECONDS)
        return _shown(Invocation(response=result, log_lines=emulator.log_lines(), failed=not has_succeeded))


def _shown(invocation: Invocation) -> Invocation:
    for line in invocation.log_lines:
        print(line, file=sys.stderr)
    return invocation


def _repeatedly(invoke: Callable[[Any], Invocation], arguments: Arguments) -> Invocation:
    """The first invocation, which is a cold start, and then the warm ones: what each took. Returns the first that failed."""
    first = invoke(arguments.payload)
    if arguments.warm and not first.failed:
        step(f"cold: {_in_ms(first)}, with the init phase")
    for number in range(1, arguments.warm + 1):
        if first.failed:
            break
        again = invoke(_another(arguments.payload, number))
        step(f"warm {number}: {_in_ms(again)}")
        if again.failed:
            return again
    return first


def _in_ms(invocation: Invocation) -> str:
    return "no duration" if invocation.duration_ms is None else f"{invocation.duration_ms:.1f} ms"


def _another(event: Any, number: int) -> Any:
    """The same request as a new one: with an idempotency key of its own, if it has the header."""
    match event:
        case {"headers": {"idempotency-key": key, **headers}, **rest}:
            return {**rest, "headers": {**headers, "idempotency-key": f"{key}-{number}"}}
    return event


@contextlib.contextmanager
def _durable_runner(source: Function) -> Iterator[DurableRunner | None]:
    if not source.is_durable:
        yield None
        return
    with DurableRunner(invocation_seconds=source.timeout) as runner:
        step(f"AWS's local runner of durable executions answers at {runner.url}; waits take no time")
        yield runner


def _prepare(arguments: Arguments, dsql: LocalDsql, source: Function) -> None:
    prepare(dsql, arguments.project, source)
    if arguments.conflicts:
        step(f"the next {arguments.conflicts} COMMITs fail with OC000")
        dsql.conflict_next(arguments.conflicts, "OC000")
