"""AWS's own tests of its Python projects for DSQL, on the local DSQL: each passes.

They come from the source distributions that the requirements pin, which `make` fetches by pip; so do the adapters, into an
environment of their own.
"""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import dsql_lambda
from dsql_local import LocalDsql

HERE = Path(__file__).parent
PYTHON = Path(sys.prefix) / "aws" / "bin" / "python"
SOURCES = Path(sys.prefix) / "sources"

# On our driver: all but the tests of AWS's own `create_dsql_engine`, which makes engines on the two drivers that it knows.
OF_THE_DIALECT = "test/test_suite.py test/test_sequence.py test/test_serial_primary_key.py test/test_compiler.py"


@pytest.fixture(scope="module")
def dsql():
    with LocalDsql() as dsql:
        yield dsql


def unpacked(name: str, folder: Path) -> Path:
    """A source distribution. Without it the test is skipped, or fails where REQUIRE_AWS_SUITES=1."""
    archives = sorted(SOURCES.glob(f"{name}-*.tar.gz"))
    if not archives or not PYTHON.exists():
        missing = f"{name} is not in {SOURCES}, or {PYTHON} is missing: `make clean test` fetches both where pip reaches an index"
        if os.environ.get("REQUIRE_AWS_SUITES") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    with tarfile.open(archives[-1]) as archive:
        archive.extractall(folder, filter="data")
    return folder / archives[-1].name.removesuffix(".tar.gz")


@pytest.mark.parametrize(
    ("name", "tests", "least", "environment"),
    [
        ("aurora_dsql_python_connector", "tests", 162, {}),
        ("aurora_dsql_sqlalchemy", "test", 118, {"DRIVER": "psycopg"}),
        ("aurora_dsql_sqlalchemy", "test", 117, {"DRIVER": "psycopg2"}),
        ("aurora_dsql_sqlalchemy", OF_THE_DIALECT, 105, {"DRIVER": "dsql_lambda"}),
        ("aurora_dsql_tortoise_orm", "tests", 329, {}),
        ("aurora_dsql_django", "aurora_dsql_django/tests/unit", 102, {"DJANGO_SETTINGS_MODULE": "suite_settings"}),
        ("aurora_dsql_django", "aurora_dsql_django/tests/integration", 3, {"DJANGO_SETTINGS_MODULE": "suite_settings"}),
    ],
    ids=lambda value: value.get("DRIVER", "-") if isinstance(value, dict) else str(value),
)
def test_aws_own_tests_pass(dsql, tmp_path, name, tests, least, environment):
    """All of them but those that AWS itself skips."""
    suite, results = unpacked(name, tmp_path), tmp_path / "results"
    libpq = dsql.libpq()
    own = ("DSQL_",) if environment.get("DRIVER") == "dsql_lambda" else ()
    done = subprocess.run(
        [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "suite_plugin", *tests.split()],
        cwd=suite,
        env={
            **{key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "PG", "PYTEST_", "DSQL_"))},
            **{key: value for key, value in dsql.environment.items() if key.startswith(("AWS_", *own))},
            "CLUSTER_ENDPOINT": dsql.endpoint,
            "PGHOSTADDR": libpq["hostaddr"],
            "PGPORT": libpq["port"],
            "SSL_CERT_FILE": str(dsql.ca_file),
            "SSL_CERT_PATH": str(dsql.ca_file),
            "PYTHONPATH": os.pathsep.join((str(HERE), str(Path(dsql_lambda.__file__).parents[1]))),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SUITE_RESULTS": str(results),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    found = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    assert sum(each["outcome"] == "passed" for each in found) >= least, done.stdout[-4000:] + done.stderr[-2000:]
    assert {each["id"]: each["why"] for each in found if each["outcome"] == "failed"} == {}


def test_the_suites_are_the_pinned_versions():
    """The source distributions that were fetched are those of the adapters that are installed."""
    pinned = [line.strip() for line in (HERE / "requirements.txt").read_text().splitlines() if line.startswith("aurora-dsql-")]
    assert len(pinned) == 4
    for each in pinned:
        name, _, number = each.replace("-", "_").partition("==")
        archives = [archive.name for archive in SOURCES.glob(f"{name}-*.tar.gz")]
        assert archives in ([f"{name}-{number}.tar.gz"], [])
