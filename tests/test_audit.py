"""`make audit`: what it makes of a service's answers. Which advisories there are is the services' business."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[1] / ".ci" / "audit"
PIP_AUDIT = """
import json, os, sys
service = sys.argv[sys.argv.index("--vulnerability-service") + 1]
answer = json.loads(os.environ["ANSWERS"])[service]
if answer is None:
    sys.exit("ConnectionError: no route to it")
print(json.dumps({"dependencies": [answer]}))
"""
CLEAN = {"name": "six", "version": "1.17.0", "vulns": []}
UNKNOWN = {"name": "six", "skip_reason": "not found"}
ADVISORY = {**CLEAN, "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["1.18"]}]}


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        ({"pypi": CLEAN}, 0, "audit: wanted.txt: 0 advisories"),
        ({"pypi": ADVISORY}, 1, "six 1.17.0: PYSEC-1 CVE-1, fixed in 1.18"),
        ({"pypi": UNKNOWN, "osv": CLEAN}, 0, "audit: wanted.txt: 0 advisories"),
        ({"pypi": UNKNOWN, "osv": ADVISORY}, 1, "PYSEC-1"),
        (
            {"pypi": UNKNOWN, "osv": None},
            2,
            "not everything could be looked up, so this says nothing about it:\n  wanted.txt: six",
        ),
        ({"pypi": None, "osv": None}, 2, "wanted.txt: every package"),
    ],
)
def test_an_audit_that_could_ask_nobody_is_not_a_clean_one(tmp_path, answers, code, said):
    """0: nothing is known; 1: an advisory; 2: nobody could be asked."""
    (tmp_path / "pip_audit.py").write_text(PIP_AUDIT)
    (tmp_path / "wanted.txt").write_text("six==1.17.0\n")
    done = subprocess.run(
        [sys.executable, str(AUDIT), "wanted.txt"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "ANSWERS": json.dumps(answers)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr


def test_what_the_local_dsql_needs_is_looked_up_too():
    """Its own needs and theirs, as they are installed."""
    needed = runpy.run_path(str(AUDIT))["needed_by"]("dsql-local", {})
    assert {"trustme", "cryptography", "pgparse"} <= set(needed)
