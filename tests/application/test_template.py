"""What the template promises: who may call, what the function may do, and that SAM and a local run understand it."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
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
TEMPLATES = ("template.yaml", "examples/layer_by_arn/template.yaml")


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


def test_an_example_s_template_is_valid() -> None:
    """A stack that attaches the layer by its ARN."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    command = [sys.executable, "-m", "samcli", "validate", "--lint", "--template", "examples/layer_by_arn/template.yaml"]
    done = subprocess.run(
        command, cwd=ROOT, env={**environment, "SAM_CLI_TELEMETRY": "0"}, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_templates_are_valid_wherever_dsql_is() -> None:
    """cfn-lint knows which resource types and properties each region has; the regions of AWS's commercial partition."""
    package = importlib.util.find_spec("cfnlint")
    assert package is not None
    assert package.origin is not None
    providers = Path(package.origin).parent / "data" / "schemas" / "providers"
    has_dsql = {path.stem for path in providers.glob("*.json") if '"AWS::DSQL::Cluster"' in path.read_text(encoding="utf-8")}
    regions = sorted(has_dsql & set(boto3.Session().get_available_regions("lambda", partition_name="aws")))
    assert len(regions) >= 15
    command = [str(Path(sys.executable).parent / "cfn-lint"), "--regions", *regions, "--template", *TEMPLATES]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_local_run_can_set_what_it_needs(transfer: Function, running_cluster: LocalDsql) -> None:
    """`sam local` sets only variables that the template declares."""
    needed = {name for name in running_cluster.environment if name.startswith("DSQL_")}
    assert needed <= transfer.environment.keys()


@pytest.fixture(scope="module")
def translated() -> Callable[..., Any]:
    """What SAM's translator makes of it with some parameters: what CloudFormation is given."""
    return translate


@pytest.fixture(scope="module")
def transformed() -> Any:
    """The same with no parameter set."""
    return translate()


def translate(**parameters: str) -> Any:
    parser = Parser()
    source = yaml_parse((ROOT / "template.yaml").read_text())
    for layer in (each for each in source["Resources"].values() if each["Type"] == "AWS::Serverless::LayerVersion"):
        layer["Properties"]["ContentUri"] = "s3://bucket/layer"
    for function in (each for each in source["Resources"].values() if each["Type"] == "AWS::Serverless::Function"):
        function["Properties"]["CodeUri"] = "s3://bucket/function"
    defaults = {name: each["Default"] for name, each in source["Parameters"].items()}
    session = boto3.Session(region_name="us-east-1")
    return Translator({}, parser, boto_session=session).translate(source, {**defaults, **parameters})


FUNCTIONS = {"Transfer": "transfer", "Orders": "orders", "Ledger": "ledger", "DurableOrder": "durable_order"}
ASKED_FOR = {"KeyPolicy": "HasKey", "TracingPolicy": "IsTraced", "VpcPolicy": "IsInVpc"}
MORE = {
    "Orders": (["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"], {"Fn::GetAtt": ["OrdersQueue", "Arn"]}),
    "DurableOrder": (
        ["lambda:CheckpointDurableExecution", "lambda:GetDurableExecutionState"],
        {
            "Fn::Sub": "arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:function:${AWS::StackName}-durable-order:*",
        },
    ),
}


def test_every_function_is_named_here(transformed: Any) -> None:
    """With a role of its own, and no role is there besides."""
    resources = transformed["Resources"]
    functions = [name for name, each in resources.items() if each["Type"] == "AWS::Lambda::Function"]
    roles = [name for name, each in resources.items() if each["Type"] == "AWS::IAM::Role"]
    assert sorted(functions) == sorted(f"{name}Function" for name in (*FUNCTIONS, "Migrate"))
    assert sorted(roles) == sorted(f"{name}Role" for name in (*FUNCTIONS, "Migrate"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_may_connect_to_its_cluster_and_write_its_logs(transformed: Any, name: str) -> None:
    """Three actions, and what its event source needs; more only where a parameter asks; its database role is not admin."""
    resources = transformed["Resources"]
    assert resources[f"{name}Function"]["Properties"]["Role"] == {"Fn::GetAtt": [f"{name}Role", "Arn"]}
    role = resources[f"{name}Role"]["Properties"]
    assert role["ManagedPolicyArns"] == [
        {"Fn::If": [condition, {"Ref": policy}, {"Ref": "AWS::NoValue"}]} for policy, condition in ASKED_FOR.items()
    ]
    [policy] = role["Policies"]
    connect, log, *more = policy["PolicyDocument"]["Statement"]
    assert (connect["Effect"], connect["Action"]) == ("Allow", "dsql:DbConnect")
    assert connect["Resource"]["Fn::If"][1] == {"Fn::GetAtt": ["Cluster", "ResourceArn"]}
    assert (log["Effect"], log["Action"]) == ("Allow", ["logs:CreateLogStream", "logs:PutLogEvents"])
    assert log["Resource"] == {"Fn::GetAtt": [f"{name}Logs", "Arn"]}
    assert [(each["Action"], each["Resource"]) for each in more] == ([MORE[name]] if name in MORE else [])
    variables = resources[f"{name}Function"]["Properties"]["Environment"]["Variables"]
    assert variables["DSQL_USER"] == FUNCTIONS[name]


def test_what_roles_may_besides_is_asked_for(transformed: Any) -> None:
    """Keys, traces and network interfaces: each only where its parameter is set."""
    policies = {name: each for name, each in transformed["Resources"].items() if each["Type"] == "AWS::IAM::ManagedPolicy"}
    assert {name: each["Condition"] for name, each in policies.items()} == ASKED_FOR


def test_a_deployment_is_gradual_where_it_is_asked_for(translated: Callable[..., Any]) -> None:
    """By default no CodeDeploy; with a canary, one for each function, which its own alarm rolls back."""
    kinds = [each["Type"] for each in translated()["Resources"].values()]
    assert not any(kind.startswith("AWS::CodeDeploy") for kind in kinds)
    canary = translated(Deployment="Canary10Percent5Minutes")["Resources"]
    for name in FUNCTIONS:
        group = canary[f"{name}FunctionDeploymentGroup"]["Properties"]
        assert group["AlarmConfiguration"]["Alarms"] == [{"Name": {"Ref": f"{name}ErrorsAlarm"}}]
        alias = canary[f"{name}FunctionAliaslive"]
        assert alias["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]["DeploymentGroupName"] == {
            "Ref": f"{name}FunctionDeploymentGroup"
        }


def test_events_invoke_the_alias(transformed: Any) -> None:
    """Only so do versions, canaries, snapshots and provisioned concurrency mean anything."""
    resources = transformed["Resources"]
    mapping = resources["OrdersFunctionOrders"]["Properties"]
    assert mapping["FunctionName"] == {"Ref": "OrdersFunctionAliaslive"}
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert "TransferFunctionAliaslive" in str(resources["Api"]["Properties"]["Body"])


def test_every_alarm_that_production_needs_is_there(template: Any) -> None:
    """Each says in its description what has happened, and none rings for want of data."""
    alarms = {
        name: each["Properties"] for name, each in template["Resources"].items() if each["Type"] == "AWS::CloudWatch::Alarm"
    }
    watched = {each.get("MetricName") for each in alarms.values()}
    watched |= {
        metric["MetricStat"]["Metric"]["MetricName"]
        for each in alarms.values()
        for metric in each.get("Metrics", ())
        if "MetricStat" in metric
    }
    wanted = {"CommitOutcomeUnknown", "OccRetryExhausted", "Errors", "Throttles", "5xx", "ConnectErrors"}
    assert wanted <= watched
    for each in alarms.values():
        assert len(each["AlarmDescription"]) > 20
        assert each["TreatMissingData"] == "notBreaching"
        assert "AlarmTopicArn" in str(each["AlarmActions"])
    always = {name for name in alarms if "Condition" not in template["Resources"][name]}
    assert always == {f"{name}ErrorsAlarm" for name in FUNCTIONS if name != "DurableOrder"}
    assert {f"{name}ErrorsAlarm" for name in FUNCTIONS} <= set(alarms)
    for name in ("ThrottlesAlarm", "UnknownOutcomesAlarm", "ExhaustedRetriesAlarm"):
        assert len([each for each in alarms[name]["Metrics"] if "MetricStat" in each]) == len(FUNCTIONS), name


def test_the_queue_leaves_a_batch_its_time(template: Any) -> None:
    """Six times the function's timeout, as Lambda asks for, and a place for what no try puts right."""
    queue = template["Resources"]["OrdersQueue"]["Properties"]
    assert queue["VisibilityTimeout"] == 6 * template["Globals"]["Function"]["Timeout"]
    assert queue["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": ["OrdersDeadLetters", "Arn"]}


def test_the_dashboard_shows_our_metrics(template: Any) -> None:
    """It is JSON once the stack's names are in it, and no two widgets overlap."""
    body = template["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    widgets = json.loads(body)["widgets"]
    for name in ("OccConflict", "TransactionAttempts", "TransactionDuration", "ConnectionOpened", "CommitOutcomeUnknown"):
        assert name in body
    for metric in ("Errors", "Throttles"):
        assert body.count(f'"AWS/Lambda", "{metric}"') == len(FUNCTIONS)
    places = [(each["x"], each["y"]) for each in widgets]
    assert len(set(places)) == len(places)


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
    """The HTTP API's default authorizer is IAM's, and every route is that API's and has no other."""
    assert template["Resources"]["Api"]["Properties"]["Auth"] == {"EnableIamAuthorizer": True, "DefaultAuthorizer": "AWS_IAM"}
    functions = [each["Properties"] for each in template["Resources"].values() if each["Type"] == "AWS::Serverless::Function"]
    routes = [event for each in functions for event in each.get("Events", {}).values() if event["Type"] != "SQS"]
    assert len(routes) == 3
    for event in routes:
        assert (event["Type"], event["Properties"]["ApiId"]) == ("HttpApi", {"Ref": "Api"})
        assert "Auth" not in event["Properties"]


def test_an_unknown_function_is_named_with_those_there_are() -> None:
    """A slip in FUNCTION= costs one look at the message."""
    with pytest.raises(ValueError, match="no function 'Transfer'; it has .*TransferFunction"):
        read_function(ROOT / "template.yaml", "Transfer")
