"""How the package hangs together: which module may import which, what an import costs, and how deep a call goes."""

import ast
import ssl
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver

import dsql_lambda
from dsql_lambda import DsqlTransactionMiddleware, Pool, Transaction, connect, run_transaction, with_dsql_transaction

PACKAGE = Path(dsql_lambda.__file__).parent

# From the top to the bottom, as one invocation goes. A module imports only what stands below it.
ORDER = [
    "__init__",
    "token",
    "sqlalchemy",
    "sqlalchemy_dialect",
    "dbapi_view",
    "check",
    "migrate",
    "migration_run",
    "migration_records",
    "migration_files",
    "catalog",
    "jobs",
    "dsql_forms",
    "script",
    "role_mappings",
    "persistence",
    "durable",
    "middleware",
    "stored_response",
    "chunks",
    "row_chunks",
    "multirow",
    "decorator",
    "stacked",
    "lazy_annotations",
    "cache",
    "pool",
    "pool_recycler",
    "pool_queue",
    "dbapi",
    "connection",
    "running",
    "transaction_block",
    "occ_loop",
    "runner",
    "once",
    "idempotency",
    "json_text",
    "failure",
    "after_commit",
    "transaction",
    "row_stream",
    "telemetry",
    "records",
    "subsegments",
    "spans",
    "emf",
    "observation",
    "retry",
    "connector",
    "lease",
    "claim",
    "lambda_runtime",
    "dial",
    "refusal",
    "pg8000_adapter",
    "session",
    "attempt",
    "flight",
    "parameters",
    "rows",
    "values",
    "intervals",
    "sql",
    "transport",
    "server_errors",
    "driver",
    "options",
    "conninfo",
    "variables",
    "endpoint",
    "iam_token",
    "credentials",
    "occ",
    "fields",
    "system",
    "errors",
    "version",
]


def imports_of(module):
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            yield node.module
        elif isinstance(node, ast.ImportFrom) and node.level == 1:
            yield from (each.name for each in node.names)


def test_every_module_has_its_place():
    """The list is the package: no module is missing from it, and none is on it that is not there."""
    assert sorted(ORDER) == sorted(path.stem for path in PACKAGE.glob("*.py"))


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_what_stands_below_it(module):
    """Reading order is data flow. There is no exception, for imports inside of functions either."""
    above = set(ORDER[: ORDER.index(module) + 1])
    assert {each for each in imports_of(module) if each in above} == set()


def test_only_one_module_imports_pg8000():
    """`driver`, which knows what to leave out."""
    found = set()
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None) or ""]
            if any(name.partition(".")[0] == "pg8000" for name in names):
                found.add(path.stem)
    assert found == {"driver"}


def test_every_module_says_what_it_knows():
    """A header that is a contract."""
    for path in PACKAGE.glob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path.name


def test_every_public_name_is_there():
    """`__all__` is what can be had, and nothing else can."""
    for name in dsql_lambda.__all__:
        assert getattr(dsql_lambda, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'connnect'"):
        _ = dsql_lambda.connnect


def modules_after(code, **environment):
    script = f"import sys\nsys.path[:] = {sys.path!r}\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    return set(done.stdout.split())


def test_an_older_python_is_refused_in_one_sentence():
    """Nothing keeps a layer from a runtime that it is not for. (Here the interpreter only says that it is old.)"""
    with pytest.raises(subprocess.CalledProcessError) as failed:
        modules_after("sys.version, sys.version_info = '3.10.13 (main)', (3, 10, 13)\nimport dsql_lambda")
    said = failed.value.stderr.splitlines()[-1]
    assert said == "ImportError: dsql_lambda needs Python 3.11 or newer, and this is 3.10.13: choose a newer runtime"


def test_importing_the_package_imports_nothing_else_of_it():
    """Names are looked up at their first use."""
    loaded = {name for name in modules_after("import dsql_lambda") if name.startswith("dsql_lambda")}
    assert loaded == {"dsql_lambda", "dsql_lambda.version"}


def test_the_decorator_costs_no_import_of_boto3_botocore_or_powertools():
    """All that a handler's module imports until its first record or its first unusual credentials."""
    loaded = modules_after("import dsql_lambda\ndsql_lambda.with_dsql_transaction")
    assert not {name.partition(".")[0] for name in loaded} & {"boto3", "botocore", "aws_lambda_powertools"}


def frames_up_to(frame, code):
    """How many frames of this package stand above `frame`, up to the one that runs `code`, that one included."""
    count = 0
    while frame is not None and frame.f_code is not code:
        count += Path(frame.f_code.co_filename).parent == PACKAGE
        frame = frame.f_back
    return count + (frame is not None and Path(code.co_filename).parent == PACKAGE)


MOST_FRAMES = 4
"""Of ours, between the caller and the handler: what a traceback of the user's shows."""

MOST_CALLS = 6
"""From `tx.run` to the socket's `send`."""


class Recorder:
    """Metrics and a tracer that keep nothing."""

    namespace = "Tests"
    provider = property(lambda self: self)

    def add_metric(self, name, unit, value):
        """Not kept."""

    add_dimension = add_metric

    def in_subsegment(self, name):
        return nullcontext()


def test_few_frames_stand_between_the_caller_and_the_handler(options):
    """However the handler is run, and whoever observes it."""
    here = sys._getframe().f_code

    def handler(event, context, tx):
        return frames_up_to(sys._getframe(), here)

    decorated = with_dsql_transaction(options=options)(handler)

    @with_dsql_transaction(options=options)
    def by_keyword(event, context, *, tx):
        return handler(event, context, tx)

    def function(tx):
        return handler({}, None, tx)

    observed: Any = Recorder()
    with Pool(options) as pool, connect(options) as connection:
        counts = [
            decorated({}, None),
            by_keyword({}, None),
            run_transaction(function, source=connection),
            run_transaction(function, source=connection, metrics=observed, tracer=observed),
            connection.transaction_with_retry(function),
            pool.transaction_with_retry(function),
        ]
    assert max(counts) <= MOST_FRAMES


def test_one_frame_more_stands_between_a_resolver_and_a_route(options):
    """The middleware's own, and that of its attempt; Powertools has others."""
    app = APIGatewayHttpResolver()
    app.use(middlewares=[DsqlTransactionMiddleware(options=options)])
    here = sys._getframe().f_code
    counts = []

    @app.get("/")
    def route():
        counts.append(frames_up_to(sys._getframe(), here))

    app.resolve({"rawPath": "/", "requestContext": {"http": {"method": "GET", "path": "/"}, "stage": "$default"}}, None)  # type: ignore[arg-type]
    assert counts == [MOST_FRAMES + 1]


def test_few_calls_lead_from_a_statement_to_the_socket(options):
    """One for each thing that is done: the statement, its flight, the exchange, the stream, the send."""
    counts = []

    def note(frame, event, _):
        if event == "call" and frame.f_code is ssl.SSLSocket.send.__code__:
            counts.append(frames_up_to(frame, Transaction.run.__code__))

    with connect(options) as connection, connection.transaction() as tx:
        tx.run("SELECT 1")
        sys.setprofile(note)
        try:
            tx.run("SELECT :id::int", id=1)
        finally:
            sys.setprofile(None)
    assert counts == [MOST_CALLS]
