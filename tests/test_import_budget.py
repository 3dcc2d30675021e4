"""What may be loaded on the way from Lambda's process to the first row: a list of modules, for a list has no noise.

Lambda's process has its runtime interface client (awslambdaric) loaded, and pg8000 is as the layer has it. Each module here is
cold start, at every memory size. One that is missing from the list was added by a change: either the change can do without it, or
the list grows in the same commit, and the reader sees what it costs.
"""

import json
import subprocess
import sys

import pytest

OURS = {
    "dsql_lambda",
    "dsql_lambda.claim",
    "dsql_lambda.connection",
    "dsql_lambda.connector",
    "dsql_lambda.credentials",
    "dsql_lambda.dial",
    "dsql_lambda.driver",
    "dsql_lambda.endpoint",
    "dsql_lambda.errors",
    "dsql_lambda.fields",
    "dsql_lambda.iam_token",
    "dsql_lambda.lambda_runtime",
    "dsql_lambda.options",
    "dsql_lambda.parameters",
    "dsql_lambda.pg8000_adapter",
    "dsql_lambda.attempt",
    "dsql_lambda.flight",
    "dsql_lambda.session",
    "dsql_lambda.rows",
    "dsql_lambda.runner",
    "dsql_lambda.server_errors",
    "dsql_lambda.sql",
    "dsql_lambda.system",
    "dsql_lambda.telemetry",
    "dsql_lambda.transaction",
    "dsql_lambda.transport",
    "dsql_lambda.values",
    "dsql_lambda.variables",
    "dsql_lambda.version",
    "pg8000",
    "pg8000.converters",
    "pg8000.core",
    "pg8000.exceptions",
    "pg8000.native",
    "pg8000.types",
}
HANDLERS = {"dsql_lambda.cache", "dsql_lambda.decorator", "dsql_lambda.stacked"}

STANDARD = """
    annotationlib array ast base64 binascii contextvars datetime dis importlib inspect ipaddress opcode
    select selectors socket ssl struct token tokenize typing
""".split()  # noqa: SIM905 - it reads better so
"""Of the standard library, beyond what awslambdaric has loaded, for any of the supported versions; what begins with an underscore
comes with one of these."""

NEVER = {"_strptime", "encodings.idna"}
"""Of the private ones."""

CONNECT = """
from dsql_lambda import connect
with connect() as connection:
    row = connection.run("SELECT id, balance FROM accounts WHERE id = :id", id=1)
"""
HANDLE = """
from dsql_lambda import with_dsql_transaction
@with_dsql_transaction(timeout=30)
def handler(event, context, tx):
    return tx.run("SELECT id, balance FROM accounts WHERE id = :id", id=1)
row = handler({}, None)
"""


def loaded(code, path, environment):
    """What a process that is about to import a handler's module has loaded when it has its first row, besides what it had."""
    script = f"import sys\nsys.path[:] = {path!r}\nimport awslambdaric.bootstrap, json\nbefore = set(sys.modules)\n"
    script += f"{code}\nassert row == [[1, 100]], row\nprint(json.dumps(sorted(set(sys.modules) - before)))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def is_standard(name):
    return name.partition(".")[0] in sys.stdlib_module_names


@pytest.mark.parametrize(("code", "allowed"), [(CONNECT, OURS), (HANDLE, OURS | HANDLERS)])
def test_only_these_modules_are_loaded_on_the_way_to_the_first_row(dsql, lean_pg8000, code, allowed):
    """Ours and pg8000's, each needed; of the standard library, no others than these. (No boto3, scramp, dateutil or email.)"""
    found = loaded(code, [str(lean_pg8000), *sys.path], dsql.environment)
    assert {name for name in found if not is_standard(name)} == allowed
    tops = {name.partition(".")[0] for name in found if is_standard(name)} - set(sys.builtin_module_names)
    assert {name for name in tops if not name.startswith(("_", "encodings"))} - set(STANDARD) == set()
    assert found & NEVER == set()
