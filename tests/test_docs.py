"""Every code block of the documentation runs, or is checked against what would run it; no link leads nowhere."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import boto3
import pytest

import dsql_lambda
from dsql_lambda import Idempotency

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "local" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
KNOWN = {"python", "py", "sql", "console", "json", "toml"}
LONGEST_LINE = 140
ADAPTERS = Path(sys.prefix) / "aws" / "bin" / "python"
TYPED_ELSEWHERE = {"curl", "echo", "export", "psql"}  # tests/application types these commands
EVENT = {
    "source": 1,
    "target": 2,
    "amount": 5,
    "version": "2.0",
    "rawPath": "/transfers",
    "headers": {"idempotency-key": "k-1"},
    "requestContext": {"http": {"method": "POST", "path": "/transfers"}, "stage": "$default"},
    "body": '{"source": 1, "target": 2, "amount": 5}',
    "Records": [{"messageId": "m-1", "body": '{"source": 1, "amount": 5}', "attributes": {}, "eventSource": "aws:sqs"}],
}
"""What each page's handler can read: a transfer, a request of an HTTP API, and a batch of SQS."""

WIDE = {"benchmarks.md", "reliability.md"}  # tables of figures, as wide as what they compare


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
    """As a script of its own, with the local DSQL's environment, accounts and table of keys; a handler in it is called."""
    durable = os.environ.get("DURABLE_SDK", str(Path(sys.prefix) / "durable"))
    if "aws_durable_execution_sdk_python" in code and not Path(durable).exists():
        pytest.skip("the SDK of durable functions could not be had")
    python, path = sys.executable, [*sys.path, durable]
    if "import django" in code:  # AWS's adapter for it is in an environment of its own
        python, path = str(ADAPTERS), [str(Path(dsql_lambda.__file__).parents[1])]
        if not ADAPTERS.exists():
            pytest.skip("AWS's adapters could not be had")
    dsql.execute(Idempotency(key="id").create_table())
    called = (
        "if 'lambda_handler' in globals():\n"
        "    answer = lambda_handler(EVENT, CONTEXT)\n"
        "    assert not isinstance(answer, dict) or answer.get('statusCode', 200) < 400, answer\n"
        "    assert not isinstance(answer, dict) or not answer.get('batchItemFailures'), answer\n"
    )
    context = (
        "class CONTEXT:\n"
        "    function_name = memory_limit_in_mb = invoked_function_arn = aws_request_id = 'x'\n"
        "    get_remaining_time_in_millis = staticmethod(lambda: 30000)\n"
        f"EVENT = {EVENT!r}\n"
    )
    done = subprocess.run(
        [python, "-W", "error", "-c", "\n".join([code, context, called])],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "PGHOSTADDR": dsql.host,
            "SSL_CERT_FILE": str(dsql.ca_file),
            **dsql.environment,
        },
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("language", "code"), blocks("py"))
def test_code_for_another_library_is_python(language, code):
    """It needs a real cluster, so it is compiled only."""
    compile(code, "page", "exec")


def test_the_migrations_run(dsql, tmp_path):
    """The blocks that name a file of Alembic's are its environment: up to the last one, and again, which does nothing."""
    files = {code.split()[1]: code for _, code in (each.values for each in blocks("py")) if code.startswith("# migrations/")}
    assert len(files) == 3
    for name, code in {**files, "alembic.ini": "[alembic]\nscript_location = migrations\n"}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    dsql.execute("DROP TABLE IF EXISTS alembic_version; DROP TABLE IF EXISTS notes")
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-W", "error", "-m", "alembic", "upgrade", "head"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **dsql.environment},
            check=True,
        )
    assert dsql.execute("SELECT version_num FROM alembic_version") == [["0002"]]
    indexes = dsql.execute("SELECT indexname FROM pg_indexes WHERE tablename = 'notes' ORDER BY 1")
    assert indexes == [["notes_by_text"], ["notes_pkey"]]


@pytest.mark.parametrize(("language", "code"), blocks("json"))
def test_a_json_block_has_a_record_in_each_line(language, code):
    """As a log has."""
    assert all("message" in json.loads(line) for line in code.splitlines())


@pytest.mark.parametrize(("language", "code"), blocks("toml"))
def test_a_toml_block_sets_an_option_that_there_is(language, code, pytestconfig):
    """An option of the pytest plugin."""
    for option in tomllib.loads(code)["tool"]["pytest"]["ini_options"]:
        pytestconfig.getini(option)  # raises if there is none


@pytest.mark.parametrize(
    ("page", "files"),
    [
        ("README.md", {"test_page.py": "def test_a_conflict_is_retried"}),
        ("docs/quick-start.md", {"app.py": "def lambda_handler", "test_app.py": "def test_a_transfer_survives_a_conflict"}),
        ("docs/testing.md", {"test_page.py": "def test_a_conflict_is_retried"}),
        ("docs/testing.md", {"pyproject.toml": "\ndsql_schema = "}),
        ("docs/testing.md", {"conftest.py": "def dsql_schema"}),
        ("docs/testing.md", {"conftest.py": "def dsql_template", "test_page.py": "def test_the_schema_takes_every_statement"}),
    ],
    ids=["README", "quick-start", "testing", "option", "fixture", "migrations"],
)
def test_the_tests_of_a_page_pass(tmp_path, page, files):
    """In a project that has the functions, their migrations and a schema of accounts; without a test, one asks for the table."""
    found = [code for _, code in BLOCK.findall((ROOT / page).read_text())]
    for name in ("src", "migrations"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "schema.sql").write_text("CREATE TABLE accounts (id int PRIMARY KEY, balance int)")
    (tmp_path / "test_page.py").write_text("def test_page(dsql):\n    dsql.execute('SELECT id, balance FROM accounts')\n")
    for name, words in files.items():
        [code] = [each for each in found if words in each]
        (tmp_path / name).write_text(code)
    ran = [name for name in files if name.startswith("test_")] or ["test_page.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *ran],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def commands(code):
    """What is typed: all lines, or those after a `$` where a block shows answers too; without comments."""
    lines = code.replace("\\\n", "").splitlines()
    typed = [line[2:] for line in lines if line.startswith("$ ")] or lines
    return [re.sub(r"\s+# .*", "", line) for line in typed]


@pytest.mark.parametrize(("language", "code"), blocks("console"))
def test_a_console_block_has_commands_that_are_there(language, code):
    """`make` targets and variables, modules of ours, `sam`, operations of the AWS CLI; other commands run in another test."""
    for command in commands(code):
        match command.split():
            case ["make", target, *_]:
                check_make(target, re.findall(r" ([A-Z]+)=", command))
            case ["python", "-m", module, *_]:
                subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
            case ["sam" | ".venv/bin/sam", *arguments]:
                check_sam(arguments)
            case ["aws", *_]:
                check_aws(*shlex.split(command)[1:])
            case ["pip", "install", what]:
                assert (ROOT / what / "pyproject.toml").exists() or metadata.version(what.partition("[")[0]), what
            case [word, *_]:
                assert re.split(r"[ =]", word)[0] in {*TYPED_ELSEWHERE, "PGPASSWORD"}, command


def check_make(target, variables):
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), target
    for variable in variables:
        assert re.search(rf"^{variable} \?=", makefile, re.MULTILINE), variable


def check_sam(arguments):
    """Each option is in the help of its subcommand."""
    options = [each for each in arguments if each.startswith("--")]
    names = arguments[: next((at for at, each in enumerate(arguments) if each.startswith("--") or each[0].isupper()), None)]
    shown = subprocess.run(
        [sys.executable, "-m", "samcli", *names, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200", "SAM_CLI_TELEMETRY": "0"},
    )
    assert [option for option in options if option not in shown.stdout] == []


def check_aws(service, operation, *arguments):
    """Each option is a parameter of the operation in botocore's model, which the AWS CLI is made from."""
    client = boto3.client(service, region_name="us-east-1")
    model = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[operation.replace("-", "_")])
    known = {name.lower() for name in model.input_shape.members}
    known |= {"zipfile"} if "content" in known else set()  # the CLI's own option for Content.ZipFile
    options = [each.removeprefix("--").removeprefix("no-") for each in arguments if each.startswith("--")]
    assert {option.replace("-", "") for option in options} <= known


@pytest.mark.parametrize(("language", "code"), blocks("sql"))
def test_an_sql_block_runs(dsql, language, code):
    """As `admin`, each statement a transaction of its own."""
    dsql.execute(code)


def test_the_options_table_is_made_from_the_options():
    """Every option, with its variable, its place in a URL, its default and its meaning, as the code has them."""
    made = subprocess.run([sys.executable, str(ROOT / "docs" / "options_table.py")], capture_output=True, text=True, check=True)
    assert made.stdout in (ROOT / "docs" / "how-it-works.md").read_text()


def test_no_link_leads_nowhere():
    """Every relative link of a page names a file, and every reference has its definition."""
    for page in PAGES:
        text = page.read_text()
        for target in re.findall(r"(?:\]\(|^\[[^\]]+\]: )(?!http)([^)#\s]+)", text, re.MULTILINE):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
        defined = set(re.findall(r"^\[([^\]]+)\]: ", text, re.MULTILINE))
        if defined:
            prose = re.sub(r"`[^`\n]*`", "", BLOCK.sub("", text))
            assert set(re.findall(r"\[(\w+)\](?![(:])", prose)) == defined, page.name


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in WIDE], ids=lambda page: page.name)
def test_no_line_is_too_long_to_read_in_a_diff(page):
    """At most 140 characters, also in tables."""
    assert [line for line in page.read_text().splitlines() if len(line) > LONGEST_LINE] == []
