"""docs/deploy.md, followed literally: the stack on an AWS emulator, its database set up, its function invoked on a local DSQL."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from deploy.setup_database import parse

from dsql_lambda import RoleMapping
from dsql_local import LocalDsql
from dsql_local.cli.recipe import recipe
from dsql_local.postgres.binaries import Binaries

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
PYTHON = Path(sys.prefix) / "ministack" / "bin" / "python"
ENDPOINT = "localdsql00000000000000001.dsql.us-east-1.on.aws"
ACCOUNT, SECRET = "123456789012", "emulated"  # MiniStack gives functions the account's number as their access key
START_SECONDS, COMMAND_SECONDS = 60, 300

Run = Callable[..., subprocess.CompletedProcess[str]]


def block(heading: str, page: str = PAGE) -> list[str]:
    """The commands of the section's first console block, lines that end in a backslash joined."""
    section = page.split(f"# {heading}\n", 1)[1].split("\n#", 1)[0]
    code = re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[0]
    return str(code).replace("\\\n", "").strip().splitlines()


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    """MiniStack on a free port of the loopback; `.args[-1]` is its URL."""
    if not PYTHON.exists():
        reason = "MiniStack is not installed: run `make deploy-check`"
        pytest.fail(reason) if os.environ.get("REQUIRE_MINISTACK") == "1" else pytest.skip(reason)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("ministack")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",  # it would open a port on every address
        "SFTP_ENABLED": "0",
        "MINISTACK_ACCOUNT_ID": ACCOUNT,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([PYTHON, "-m", "ministack"], env=environment, cwd=folder, stdout=log, stderr=log)
        with process:
            try:
                wait_until_ready(process, url, folder / "log")
                process.args = [url]
                yield process
            finally:
                process.terminate()


def wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{url}/_ministack/health", timeout=5):
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)


@pytest.fixture(scope="module")
def aws(emulator: subprocess.Popen[bytes]) -> dict[str, str]:
    """The variables of an operator of the emulated account."""
    return {
        "AWS_ENDPOINT_URL": str(emulator.args[-1]),  # type: ignore[index]
        "AWS_ACCESS_KEY_ID": ACCOUNT,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


@pytest.fixture(scope="module")
def principals() -> dict[str, str]:
    """Who the account's key is to the local DSQL: the function's role, once there is one."""
    return {}


@pytest.fixture(scope="module")
def cluster(principals: dict[str, str]) -> Iterator[LocalDsql]:
    """The local DSQL, empty, at the endpoint that the stack is told of."""
    with LocalDsql(credentials={ACCOUNT: SECRET}, principals=principals) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, cluster: LocalDsql) -> Path:
    """What a clone has, with the environment that `make` has already made; and in the template, where the local DSQL listens.

    The template's three variables for that are empty: on AWS the endpoint's name leads to the cluster.
    """
    copy = tmp_path_factory.mktemp("clone")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, tracked.split("\0")):
        is_left_out = name.startswith(("tests/", "benchmarks/")) and not name.endswith("requirements.txt")
        if not is_left_out and (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    template = (copy / "template.yaml").read_text(encoding="utf-8")
    for name in ("DSQL_HOSTADDR", "DSQL_PORT", "DSQL_SSLROOTCERT"):
        assert template.count(f'{name}: ""') == 1
        template = template.replace(f'{name}: ""', f"{name}: {json.dumps(cluster.environment[name])}")
    (copy / "template.yaml").write_text(template, encoding="utf-8")
    (copy / ".venv").symlink_to(sys.prefix)
    return copy


@pytest.fixture(scope="module")
def run(clone: Path, aws: dict[str, str]) -> Run:
    """Runs a command of the page in the clone, as the operator, who says yes to what is asked. Time is limited."""

    def run(command: str, **more: str) -> subprocess.CompletedProcess[str]:
        own = ("AWS_", "DSQL_", "MAKE", "MFLAGS", "ARGS")  # the last three would tell a `make` what the one above was told
        kept = {key: value for key, value in os.environ.items() if not key.startswith(own)}
        environment = {**kept, **aws, "BYTECODE": "optional", "PIP_NO_INDEX": "1", **more}
        return subprocess.run(
            ["bash", "-c", command],
            cwd=clone,
            env=environment,
            input="y\ny\n",
            check=False,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )

    return run


def outputs(aws: dict[str, str]) -> dict[str, str]:
    [stack] = client("cloudformation", aws).describe_stacks(StackName="dsql-lambda")["Stacks"]
    return {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}


def client(service: str, aws: dict[str, str]) -> Any:
    new: Any = boto3.client
    return new(
        service,
        endpoint_url=aws["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id=ACCOUNT,
        aws_secret_access_key=SECRET,
    )


@pytest.fixture(scope="module")
def deployed(run: Run, aws: dict[str, str], principals: dict[str, str]) -> dict[str, str]:
    """The outputs of the stack, deployed with the local DSQL's endpoint as the existing cluster."""
    deploy, _invoke = block("Deploy the stack")
    done = run(f'{deploy} PARAMETERS="ExistingClusterEndpoint={ENDPOINT}"')
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Successfully created/updated stack" in done.stdout
    found = outputs(aws)
    principals[ACCOUNT] = found["TransferRoleArn"]  # all functions of MiniStack have the account's key
    return found


def balances(cluster: LocalDsql) -> dict[str | None, str | None]:
    return dict(cluster.execute("SELECT id, balance FROM accounts"))  # type: ignore[arg-type]


def test_what_serve_says_to_type_fits_the_stack(tmp_path: Path) -> None:
    """One line writes the local DSQL's address into the template, for a deployment connects too; another maps its principal."""
    principal = "arn:aws:iam::123456789012:role/local"
    lines = [each.strip() for each in recipe(ENDPOINT, ACCOUNT, SECRET, principal).splitlines()]
    address = {"DSQL_HOSTADDR": "127.0.0.1", "DSQL_PORT": "5555", "DSQL_SSLROOTCERT": "-----BEGIN CERTIFICATE-----\nx"}
    shutil.copy(ROOT / "template.yaml", tmp_path)
    [point] = [each.replace("python", shlex.quote(sys.executable), 1) for each in lines if each.startswith("python -c")]
    subprocess.run(["bash", "-c", point], cwd=tmp_path, env={**os.environ, **address}, check=True)
    template = (tmp_path / "template.yaml").read_text(encoding="utf-8")
    assert [template.count(f"{name}: {json.dumps(value)}") for name, value in address.items()] == [1, 1, 1]
    [arguments] = [each.split('"')[1] for each in lines if each.startswith("make setup-database ARGS=")]
    options = parse(shlex.split(arguments))
    assert (options.endpoint, options.role) == (ENDPOINT, [RoleMapping("transfer", principal)])


def test_the_emulator_listens_on_the_loopback_alone(emulator: subprocess.Popen[bytes]) -> None:
    """No port of it can be reached from another machine."""
    if sys.platform != "linux":
        pytest.skip("/proc is Linux's")
    links = (str(each.readlink()) for each in Path(f"/proc/{emulator.pid}/fd").iterdir())
    own = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")}
    tables = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    listening = {row[1].partition(":")[0] for row in tables if row[3] == "0A" and row[9] in own}
    assert listening == {"0100007F"}


def test_the_role_allows_three_actions_and_no_policy_is_attached(deployed: dict[str, str], aws: dict[str, str]) -> None:
    """What docs/deploy.md says of permissions holds for the stack as it is deployed."""
    iam, role = client("iam", aws), deployed["TransferRoleArn"].rpartition("/")[2]
    assert iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []
    [name] = iam.list_role_policies(RoleName=role)["PolicyNames"]
    connect, log = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]["Statement"]
    cluster = ENDPOINT.partition(".")[0]
    assert (connect["Action"], connect["Resource"]) == ("dsql:DbConnect", f"arn:aws:dsql:us-east-1:{ACCOUNT}:cluster/{cluster}")
    assert log["Action"] == ["logs:CreateLogStream", "logs:PutLogEvents"]
    assert log["Resource"] == f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/lambda/dsql-lambda-transfer:*"
    function = client("lambda", aws).get_function_configuration(FunctionName=deployed["TransferFunctionName"])
    assert function["Role"] == deployed["TransferRoleArn"]
    assert function["LoggingConfig"]["LogGroup"] == "/aws/lambda/dsql-lambda-transfer"


def test_every_function_is_deployed_with_its_alias_and_its_alarm(deployed: dict[str, str], aws: dict[str, str]) -> None:
    """Its events invoke the alias, the queue's among them; the dashboard and the exported outputs are there."""
    api = client("lambda", aws)
    functions = {each["Description"]: each["FunctionName"] for each in api.list_functions()["Functions"]}
    assert len(functions) == 5
    for name in functions.values():
        assert api.get_alias(FunctionName=name, Name="live")["FunctionVersion"] != "$LATEST"
    [mapping] = api.list_event_source_mappings()["EventSourceMappings"]
    assert mapping["FunctionArn"].endswith(":live")
    alarms = {each["AlarmName"] for each in client("cloudwatch", aws).describe_alarms()["MetricAlarms"]}
    assert len(alarms) == 4  # those that roll back; the others need a topic
    assert [each["DashboardName"] for each in client("cloudwatch", aws).list_dashboards()["DashboardEntries"]] == ["dsql-lambda"]
    exports = {each["Name"]: each["Value"] for each in client("cloudformation", aws).list_exports()["Exports"]}
    assert exports["dsql-lambda-LayerArn"] == deployed["LayerArn"]


def test_the_page_s_commands_lead_to_a_response(run: Run, deployed: dict[str, str], cluster: LocalDsql) -> None:
    """`sam deploy` alone gives a working stack: the first request succeeds, with two conflicts retried, and money moves once."""
    _deploy, invoke = commands = block("Deploy the stack")
    assert commands == block("Deploy", (ROOT / "README.md").read_text(encoding="utf-8"))
    roles = {"durable_order": "DurableOrder", "ledger": "Ledger", "orders": "Orders", "transfer": "Transfer"}
    assert cluster.execute("SELECT pg_role_name, arn FROM sys.iam_pg_role_mappings ORDER BY 1") == [
        [user, deployed[f"{name}RoleArn"]] for user, name in roles.items()
    ]
    applied = cluster.execute("SELECT name FROM dsql_lambda_migrations WHERE state = 'applied' ORDER BY version")
    assert [name for (name,) in applied] == sorted(path.name for path in (ROOT / "migrations").glob("*.sql"))
    cluster.conflict_next(2)
    done = run(invoke)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["statusCode"], json.loads(answer["body"])) == (200, {"balances": {"alice": 97_500, "bob": 27_500}})
    assert done.stderr.count('"message":"OCC conflict, retrying"') == 2
    assert balances(cluster) == {"alice": "97500", "bob": "27500", "carol": "0"}


def test_setting_up_by_hand_finds_nothing_to_do(run: Run, deployed: dict[str, str], cluster: LocalDsql) -> None:
    """`make setup-database` does the same from here, by the same code."""
    [setup] = block("From your machine instead")
    before = balances(cluster)
    done = run(setup, **{key: value for key, value in cluster.environment.items() if not key.startswith("AWS_")})
    assert done.returncode == 0, done.stderr
    assert f"mapping of {deployed['TransferRoleArn']} to transfer: exists" in done.stderr
    assert "statement" not in done.stderr
    assert balances(cluster) == before


def test_a_new_migration_is_applied_by_the_next_deploy(
    run: Run, clone: Path, deployed: dict[str, str], aws: dict[str, str], cluster: LocalDsql
) -> None:
    """Other code is why CloudFormation calls the function. A migration that fails rolls the stack back, and says why."""
    deploy, _invoke = block("Deploy the stack")
    (clone / "migrations" / "9998_notes.sql").write_text("CREATE TABLE notes (id int PRIMARY KEY);\n")
    done = run(deploy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert cluster.execute("SELECT count(*) FROM notes") == [["0"]]
    wrong = clone / "migrations" / "9999_wrong.sql"
    wrong.write_text("CREATE INDEX notes_id ON notes (id);\n")
    try:
        assert run(deploy).returncode != 0
    finally:
        wrong.unlink()
    events = client("cloudformation", aws).describe_stack_events(StackName="dsql-lambda")["StackEvents"]
    reasons = [each.get("ResourceStatusReason", "") for each in events if each["LogicalResourceId"] == "Schema"]
    expected = "9999_wrong.sql:1: statement 1 of 1: refused: unsupported mode. please use CREATE INDEX ASYNC."
    assert any(expected in reason and "DSQL's form: CREATE INDEX ASYNC notes_id ON notes (id)" in reason for reason in reasons)
    [stack] = client("cloudformation", aws).describe_stacks(StackName="dsql-lambda")["Stacks"]
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"


def test_the_same_by_hand_with_psql(run: Run, deployed: dict[str, str], tmp_path: Path) -> None:
    """The page's psql commands make the same database; a token or a statement that fails ends them."""
    export, psql = block("With psql")
    export = export.replace("<ClusterEndpoint>", ENDPOINT).replace("<TransferRoleArn>", deployed["TransferRoleArn"])
    with LocalDsql(credentials={ACCOUNT: SECRET}) as cluster:
        address = {"PGHOSTADDR": cluster.host, "PGPORT": str(cluster.port)}
        path = {"PATH": f"{Binaries.ready(tmp_path).folder}{os.pathsep}{os.environ['PATH']}"}
        command = f"{export}\n{psql}".replace("layer/dsql_lambda/roots.pem", str(cluster.ca_file))
        done = run(command, **address, **path)
        assert done.returncode == 0, done.stderr
        assert balances(cluster) == {"alice": "100000", "bob": "25000", "carol": "0"}
        mapped = cluster.execute("SELECT pg_role_name, arn FROM sys.iam_pg_role_mappings")
        assert mapped == [["transfer", deployed["TransferRoleArn"]]]
        again = run(command, **address, **path)
        assert (again.returncode != 0, "already exists" in again.stderr) == (True, True)
        unsigned = run(command, **address, **path, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
        assert unsigned.returncode == 1
        assert unsigned.stderr.startswith("dsql_lambda.token: no AWS credentials")


def test_a_later_deploy_keeps_the_parameters(run: Run, deployed: dict[str, str], aws: dict[str, str]) -> None:
    """The cluster need not be named again to turn on deletion protection, or to choose another runtime."""
    [protect] = block("Deletion")
    done = run(f"{protect} RUNTIME=python3.14")
    assert done.returncode == 0, done.stdout + done.stderr
    [stack] = client("cloudformation", aws).describe_stacks(StackName="dsql-lambda")["Stacks"]
    parameters = {each["ParameterKey"]: each["ParameterValue"] for each in stack["Parameters"]}
    assert parameters["ExistingClusterEndpoint"] == ENDPOINT
    assert (parameters["DeletionProtection"], parameters["Runtime"]) == ("true", "python3.14")
    function = client("lambda", aws).get_function_configuration(FunctionName=deployed["TransferFunctionName"])
    assert function["Runtime"] == "python3.14"


def test_a_stack_that_is_not_there_is_one_sentence(run: Run, deployed: dict[str, str]) -> None:
    """`make setup-database` names the stack and what to do."""
    done = run("make setup-database STACK=nobody")
    assert done.returncode != 0
    [reason] = [line for line in done.stderr.splitlines() if line.startswith("setup-database:")]
    assert "the stack nobody could not be read" in reason
    assert "STACK=" in reason


def test_deleting_the_stack_takes_what_the_page_says(
    run: Run, deployed: dict[str, str], aws: dict[str, str], cluster: LocalDsql
) -> None:
    """The functions, their roles and logs go; the layer's versions and the data stay. (The last test: the stack is gone.)"""
    commands = next(
        code for code in re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if "sam delete" in code
    )
    done = run(commands.splitlines()[0])
    assert done.returncode == 0, done.stdout + done.stderr
    assert client("lambda", aws).list_functions()["Functions"] == []
    assert client("iam", aws).list_roles()["Roles"] == []
    assert client("logs", aws).describe_log_groups()["logGroups"] == []
    assert [each["LayerName"] for each in client("lambda", aws).list_layers()["Layers"]] == ["dsql-lambda-dsql"]
    assert balances(cluster).keys() == {"alice", "bob", "carol"}
