"""What the template promises: who may call, what the function may do, and that SAM and a local run understand it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from dsql_local import LocalDsql
from dsql_local.sam.template import Function, read_function

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def template() -> Any:
    return yaml_parse((ROOT / "template.yaml").read_text())


def test_sam_s_linter_has_nothing_to_say() -> None:
    """`sam validate` lints because samconfig.toml tells it to, and needs neither credentials nor a region."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    command = [sys.executable, "-m", "samcli", "validate", "--lint"]
    done = subprocess.run(
        command, cwd=ROOT, env={**environment, "SAM_CLI_TELEMETRY": "0"}, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_local_run_can_set_what_it_needs(transfer: Function, running_cluster: LocalDsql) -> None:
    """`sam local` sets only variables that the template declares."""
    needed = {name for name in running_cluster.environment if name.startswith("DSQL_")}
    assert needed <= transfer.environment.keys()


def test_the_function_may_connect_to_its_cluster_alone(template: Any) -> None:
    """One action, and no resource that could be another cluster; its role in the database is not admin."""
    function = template["Resources"]["TransferFunction"]["Properties"]
    [policy] = function["Policies"]
    [statement] = policy["Statement"]
    assert (statement["Effect"], statement["Action"]) == ("Allow", "dsql:DbConnect")
    assert "*" not in str(statement["Resource"])
    assert statement["Resource"]["Fn::If"][1] == {"Fn::GetAtt": ["Cluster", "ResourceArn"]}
    assert function["Environment"]["Variables"]["DSQL_USER"] == "transfer"


def test_callers_must_sign_their_requests(template: Any) -> None:
    """The HTTP API's default authorizer is IAM's, and the function's one event is of that API."""
    assert template["Resources"]["TransferApi"]["Properties"]["Auth"] == {
        "EnableIamAuthorizer": True,
        "DefaultAuthorizer": "AWS_IAM",
    }
    [event] = template["Resources"]["TransferFunction"]["Properties"]["Events"].values()
    assert (event["Type"], event["Properties"]["ApiId"]) == ("HttpApi", {"Ref": "TransferApi"})
    assert "Auth" not in event["Properties"]


def test_an_unknown_function_is_named_with_those_there_are() -> None:
    """A slip in FUNCTION= costs one look at the message."""
    with pytest.raises(ValueError, match="no function 'Transfer'; it has .*TransferFunction"):
        read_function(ROOT / "template.yaml", "Transfer")
