"""What the template promises: who may call, what the function may do, and that SAM and a local run understand it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
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


@pytest.fixture(scope="module")
def transformed() -> Any:
    """What SAM's translator makes of it: what CloudFormation is given."""
    parser = Parser()
    source = yaml_parse((ROOT / "template.yaml").read_text())
    for layer in (each for each in source["Resources"].values() if each["Type"] == "AWS::Serverless::LayerVersion"):
        layer["Properties"]["ContentUri"] = "s3://bucket/layer"
    for function in (each for each in source["Resources"].values() if each["Type"] == "AWS::Serverless::Function"):
        function["Properties"]["CodeUri"] = "s3://bucket/function"
    defaults = {name: each["Default"] for name, each in source["Parameters"].items()}
    session = boto3.Session(region_name="us-east-1")
    return Translator({}, parser, boto_session=session).translate(source, defaults)


def test_the_function_may_connect_to_its_cluster_and_write_its_logs(transformed: Any) -> None:
    """Three actions, no wildcard, no managed policy, and no other roles than ours; its role in the database is not admin."""
    resources = transformed["Resources"]
    assert {name for name, each in resources.items() if each["Type"] == "AWS::IAM::Role"} == {"MigrateRole", "TransferRole"}
    assert resources["TransferFunction"]["Properties"]["Role"] == {"Fn::GetAtt": ["TransferRole", "Arn"]}
    role = resources["TransferRole"]["Properties"]
    assert "ManagedPolicyArns" not in role
    [policy] = role["Policies"]
    connect, log = policy["PolicyDocument"]["Statement"]
    assert (connect["Effect"], connect["Action"]) == ("Allow", "dsql:DbConnect")
    assert connect["Resource"]["Fn::If"][1] == {"Fn::GetAtt": ["Cluster", "ResourceArn"]}
    assert (log["Effect"], log["Action"]) == ("Allow", ["logs:CreateLogStream", "logs:PutLogEvents"])
    assert log["Resource"] == {"Fn::GetAtt": ["TransferLogs", "Arn"]}
    assert "*" not in str(role)
    variables = resources["TransferFunction"]["Properties"]["Environment"]["Variables"]
    assert variables["DSQL_USER"] == "transfer"


def test_only_the_migrate_function_is_admin(transformed: Any) -> None:
    """It alone may connect as admin; every other function's role is mapped to its DSQL_USER before the function is created."""
    resources = transformed["Resources"]
    functions = {name: each for name, each in resources.items() if each["Type"] == "AWS::Lambda::Function"}
    mapped = {each["Arn"]["Fn::GetAtt"][0]: each["User"] for each in resources["Schema"]["Properties"]["Roles"]}
    for name, function in functions.items():
        role = function["Properties"]["Role"]["Fn::GetAtt"][0]
        user = function["Properties"]["Environment"]["Variables"]["DSQL_USER"]
        action = resources[role]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"][0]["Action"]
        if name == "MigrateFunction":
            assert (action, user) == ("dsql:DbConnectAdmin", "admin")
        else:
            assert (action, mapped[role]) == ("dsql:DbConnect", user)
            assert function["DependsOn"] in ("Schema", ["Schema"])


def test_other_code_of_the_migrate_function_calls_it_again(transformed: Any) -> None:
    """The custom resource has the version as a property, whose logical id changes with the code."""
    properties = transformed["Resources"]["Schema"]["Properties"]
    version = properties["Code"]["Ref"]
    assert transformed["Resources"][version]["Type"] == "AWS::Lambda::Version"
    assert version.startswith("MigrateFunctionVersion")
    assert properties["ServiceToken"] == {"Fn::GetAtt": ["MigrateFunction", "Arn"]}
    timeout = transformed["Resources"]["MigrateFunction"]["Properties"]["Timeout"]
    assert timeout < properties["ServiceTimeout"] <= 3600


def test_no_stack_operation_deletes_a_cluster_in_use(transformed: Any) -> None:
    """Only the rollback of the operation that created it does; it can, for deletion protection is off until it is asked for."""
    cluster = transformed["Resources"]["Cluster"]
    assert (cluster["DeletionPolicy"], cluster["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")
    assert cluster["Properties"]["DeletionProtectionEnabled"] == {"Ref": "DeletionProtection"}
    assert transformed["Parameters"]["DeletionProtection"]["Default"] == "false"


def test_the_runtime_is_a_parameter_that_the_layer_supports(template: Any) -> None:
    """Whatever may be chosen, both forms of the layer are for it."""
    allowed = template["Parameters"]["Runtime"]["AllowedValues"]
    layers = [each for each in template["Resources"].values() if each["Type"] == "AWS::Serverless::LayerVersion"]
    assert [layer["Properties"]["CompatibleRuntimes"] for layer in layers] == [allowed, allowed]
    assert template["Globals"]["Function"]["Runtime"] == {"Ref": "Runtime"}


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
