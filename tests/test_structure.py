"""How the package hangs together: which module may import which, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dsql_lambda

PACKAGE = Path(dsql_lambda.__file__).parent

# From the top to the bottom, as one invocation goes. A module imports only what stands below it.
ORDER = [
    "__init__",
    "token",
    "decorator",
    "environment",
    "pool",
    "dbapi",
    "connection",
    "attempt",
    "transaction",
    "telemetry",
    "retry",
    "refusal",
    "wire",
    "sql",
    "rows",
    "driver",
    "link",
    "options",
    "conninfo",
    "endpoint",
    "iam_token",
    "credentials",
    "occ",
    "checks",
    "frozen",
    "errors",
    "version",
]

# An import upwards, at its use: a link that was refused has its sentence made.
UPWARDS = {("link", "refusal")}


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
    """Reading order is data flow."""
    above = set(ORDER[: ORDER.index(module) + 1])
    assert {(module, each) for each in imports_of(module) if each in above} <= UPWARDS


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


def test_importing_the_package_imports_nothing_else_of_it():
    """Names are looked up at their first use."""
    loaded = {name for name in modules_after("import dsql_lambda") if name.startswith("dsql_lambda")}
    assert loaded == {"dsql_lambda", "dsql_lambda.version"}


def test_the_decorator_costs_no_import_of_boto3_botocore_or_powertools():
    """All that a handler's module imports until its first record or its first unusual credentials."""
    loaded = modules_after("import dsql_lambda\ndsql_lambda.with_dsql_transaction")
    assert not {name.partition(".")[0] for name in loaded} & {"boto3", "botocore", "aws_lambda_powertools"}
