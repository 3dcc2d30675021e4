"""The typed API, as type checkers see it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

USAGE = Path(__file__).parent / "typing"
"""The public names (`api.py`), and Powertools' decorators and utilities around them (`powertools.py`)."""

ROOT = Path(__file__).parents[1]


def test_mypy_accepts_the_usage():
    """Strictly."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *map(str, sorted(USAGE.glob("*.py")))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_pyright_accepts_the_usage(tmp_path):
    """By its checker as basedpyright carries it, which needs no download."""
    (tmp_path / "pyrightconfig.json").write_text(
        json.dumps({"include": [str(USAGE)], "typeCheckingMode": "standard", "extraPaths": [str(ROOT / "layer")]})
    )
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "-p", str(tmp_path), "--pythonpath", sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x: str = dsql_lambda.run_transaction(lambda tx: tx.attempt)", "ncompatible type"),
        ("dsql_lambda.OCCRetryConfig(jitter='none')", "incompatible type"),
        ("dsql_lambda.OCCRetryConfig(3)", "Too many positional arguments"),
        ("dataclasses.replace(dsql_lambda.OCCRetryConfig(), max_attempts=5)", "cannot be"),
    ],
)
def test_a_wrong_use_is_refused(tmp_path, code, said):
    """What would fail when it runs: values are no dataclasses, and take their fields by name."""
    (tmp_path / "wrong.py").write_text(f"import dataclasses\nimport dsql_lambda\n{code}\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(tmp_path / "wrong.py")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert said in done.stdout
