"""Every code block of the documentation runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "local" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
KNOWN = {"python", "sql", "console", "json", "text"}


def blocks(*languages):
    return [
        pytest.param(language, code, id=f"{page.name}-{number}")
        for page in PAGES
        for number, (language, code) in enumerate(BLOCK.findall(page.read_text()), 1)
        if not languages or language in languages
    ]


@pytest.mark.parametrize(("language", "code"), blocks())
def test_a_block_says_what_it_is(language, code):
    """In a language that a test below, or a reader's shell, runs."""
    assert language in KNOWN
    assert code.strip()


@pytest.mark.parametrize(("language", "code"), blocks("python"))
def test_a_python_block_runs(dsql, options, language, code):
    """As a script of its own, with the local DSQL's environment and its accounts; a handler in it is called."""
    called = "\nif 'lambda_handler' in globals():\n    lambda_handler(EVENT, CONTEXT)\n"
    context = (
        "class CONTEXT:\n"
        "    function_name = memory_limit_in_mb = invoked_function_arn = aws_request_id = 'x'\n"
        "    get_remaining_time_in_millis = staticmethod(lambda: 30000)\n"
        "EVENT = {'source': 1, 'target': 2, 'amount': 5}\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", context + code + called],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **dsql.environment},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("language", "code"), blocks("console"))
def test_a_console_block_names_commands_that_are_there(language, code):
    """`make` targets, and modules of ours."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"^make (\w+)", code, re.MULTILINE):
        assert target in targets
    for module in re.findall(r"python -m (dsql_\w+(?:\.\w+)?)", code):
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)


@pytest.mark.parametrize(("language", "code"), blocks("sql"))
def test_an_sql_block_runs(dsql, language, code):
    """As `admin`, each statement a transaction of its own."""
    dsql.execute(code)
    roles = [role for (role,) in dsql.execute("SELECT rolname FROM pg_roles WHERE rolname = 'transfer'")]
    assert roles == ["transfer"]
    for arn in re.findall(r"AWS IAM GRANT transfer TO '([^']+)'", code):
        dsql.execute(f"AWS IAM REVOKE transfer FROM '{arn}'")
    dsql.execute("DROP ROLE transfer")


def test_the_options_table_is_made_from_the_options():
    """Every option, with its variable, its place in a URL, its default and its meaning, as the code has them."""
    made = subprocess.run([sys.executable, str(ROOT / "docs" / "options_table.py")], capture_output=True, text=True, check=True)
    assert made.stdout in (ROOT / "docs" / "how-it-works.md").read_text()


def test_no_link_leads_nowhere():
    """Every relative link of a page names a file."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
