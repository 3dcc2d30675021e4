"""The migrate function end to end: the events that CloudFormation sends, in AWS's emulator, and what it answers to their URL."""

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dsql_local import LocalDsql
from dsql_local.cli.database import create_roles
from dsql_local.sam.rie import RuntimeInterfaceEmulator
from dsql_local.sam.template import Function, read_function

ROOT = Path(__file__).parents[2]
EVENTS = ROOT / "events"
FILES = sorted(path.name for path in (ROOT / "migrations").glob("*.sql"))
ROLE, OTHER = "arn:aws:iam::123456789012:role/transfer-1", "arn:aws:iam::123456789012:role/transfer-2"
OTHERS = {user: f"arn:aws:iam::123456789012:role/{user}" for user in ("durable_order", "ledger", "orders")}
"""The roles of the other functions, to which migrations grant too."""
MAPPED = "SELECT pg_role_name, arn FROM sys.iam_pg_role_mappings WHERE pg_role_name = 'transfer' ORDER BY arn"

Emulate = Callable[..., RuntimeInterfaceEmulator]


class ResponseUrl:
    """Where CloudFormation waits for an answer: a presigned URL of S3. The first `refusals` answers are refused."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.refusals = 0
        self.has_answer = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if outer.refusals:
                    outer.refusals -= 1
                    self.send_error(503)
                    return
                assert len(body) <= 4096
                outer.headers.append(dict(self.headers))
                outer.answers.append(json.loads(body))
                self.send_response(200)
                self.end_headers()
                outer.has_answer.set()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/bucket/key?X-Amz-Signature=secret"


@pytest.fixture
def response_url() -> Iterator[ResponseUrl]:
    found = ResponseUrl()
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


@pytest.fixture(scope="session")
def function(built: Path) -> Function:
    return read_function(built / "template.yaml", "MigrateFunction")


def request(kind: str, response_url: ResponseUrl, roles: list[str], before: list[str] | None = None) -> dict[str, Any]:
    """What CloudFormation sends. https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-requests.html"""

    def properties(arns: list[str]) -> dict[str, Any]:
        token = "arn:aws:lambda:us-east-1:123456789012:function:migrate"
        mapped = [*(("transfer", arn) for arn in arns), *OTHERS.items()]
        return {"ServiceToken": token, "Code": "1", "Roles": [{"User": user, "Arn": arn} for user, arn in mapped]}

    event = {
        "RequestType": kind,
        "RequestId": "unique-id",
        "ResponseURL": response_url.url,
        "ResourceType": "Custom::DsqlSchema",
        "LogicalResourceId": "Schema",
        "StackId": "arn:aws:cloudformation:us-east-1:123456789012:stack/dsql-lambda/guid",
        "ResourceProperties": properties(roles),
    }
    if kind != "Create":
        event["PhysicalResourceId"] = "Schema-schema"
    if before is not None:
        event["OldResourceProperties"] = properties(before)
    return event


def test_a_create_makes_a_working_database(
    emulate: Emulate, function: Function, transfer: Function, empty: LocalDsql, response_url: ResponseUrl
) -> None:
    """Role, mapping, schema: the transfer function's first request succeeds."""
    emulate(function, empty.environment).invoke(request("Create", response_url, [empty.principal]))
    assert response_url.answers == [
        {
            "Status": "SUCCESS",
            "Reason": "see the function's log",
            "PhysicalResourceId": "Schema-schema",
            "StackId": "arn:aws:cloudformation:us-east-1:123456789012:stack/dsql-lambda/guid",
            "RequestId": "unique-id",
            "LogicalResourceId": "Schema",
            "Data": {"Applied": len(FILES)},
        }
    ]
    assert response_url.headers[0]["Content-Type"] == ""  # the URL was signed without one
    answer = emulate(transfer, empty.environment).invoke(json.loads((EVENTS / "transfer.json").read_text()))
    assert answer.response["statusCode"] == 200, answer


def test_an_update_maps_the_role_that_took_the_other_s_place(
    emulate: Emulate, function: Function, empty: LocalDsql, response_url: ResponseUrl
) -> None:
    """The old mapping is revoked; a rollback, which sends the old properties, brings it back. Somebody else's mapping stays."""
    environment = emulate(function, empty.environment)
    environment.invoke(request("Create", response_url, [ROLE]))
    empty.execute(f"AWS IAM GRANT transfer TO '{empty.principal}'")
    empty.execute("UPDATE accounts SET balance = 7 WHERE id = 'bob'")
    environment.invoke(request("Update", response_url, [OTHER], [ROLE]))
    assert empty.execute(MAPPED) == [["transfer", empty.principal], ["transfer", OTHER]]
    environment.invoke(request("Update", response_url, [ROLE], [OTHER]))
    environment.invoke(request("Update", response_url, [ROLE], [ROLE]))
    assert empty.execute(MAPPED) == [["transfer", empty.principal], ["transfer", ROLE]]
    assert {each["Status"] for each in response_url.answers} == {"SUCCESS"}
    assert {each["PhysicalResourceId"] for each in response_url.answers} == {"Schema-schema"}
    assert empty.execute("SELECT balance FROM accounts WHERE id = 'bob'") == [["7"]]


def test_a_delete_changes_nothing(emulate: Emulate, function: Function, empty: LocalDsql, response_url: ResponseUrl) -> None:
    """It succeeds without a connection, so that a stack can be deleted whose cluster is gone."""
    environment = emulate(function, empty.environment)
    environment.invoke(request("Create", response_url, [ROLE]))
    before = empty.execute("SELECT * FROM accounts ORDER BY id"), empty.execute(MAPPED)
    environment.invoke(request("Delete", response_url, [ROLE]))
    assert (empty.execute("SELECT * FROM accounts ORDER BY id"), empty.execute(MAPPED)) == before
    emulate(function, {**empty.environment, "DSQL_PORT": "1", "DSQL_CONNECT_TIMEOUT": "0.1"}).invoke(
        request("Delete", response_url, [ROLE])
    )
    assert [each["Status"] for each in response_url.answers] == ["SUCCESS"] * 3


def test_a_failure_is_answered_with_its_reason(
    emulate: Emulate, function: Function, empty: LocalDsql, response_url: ResponseUrl
) -> None:
    """In one answer that CloudFormation takes; the event's URL, which is a secret, is in no log."""
    (empty.execute("CREATE VIEW accounts AS SELECT 1 AS a"))
    invocation = emulate(function, empty.environment).invoke(request("Create", response_url, [ROLE]))
    [answer] = response_url.answers
    assert (answer["Status"], answer["PhysicalResourceId"]) == ("FAILED", "Schema-schema")
    assert answer["Reason"].startswith("MigrationError: /")
    assert "0001_accounts.sql:9: statement 2 of 5: refused: " in answer["Reason"]
    assert not any("X-Amz-Signature" in line for line in invocation.log_lines)


def test_a_mapping_that_is_none_changes_nothing(
    emulate: Emulate, function: Function, empty: LocalDsql, response_url: ResponseUrl
) -> None:
    """What stands in the template is checked before anything is done."""
    emulate(function, empty.environment).invoke(request("Create", response_url, ["not an ARN"]))
    assert response_url.answers[0]["Reason"].startswith("ConfigError: the ARN is 'not an ARN': use an IAM role's")
    assert empty.execute("SELECT 1 FROM pg_roles WHERE rolname = 'transfer'") == []


def test_a_function_whose_layer_is_broken_still_answers(
    emulate: Emulate, function: Function, empty: LocalDsql, response_url: ResponseUrl, tmp_path: Path
) -> None:
    """The package is imported where its failure is an answer."""
    package = tmp_path / "python" / "dsql_lambda"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('for another Python')")
    broken = dataclasses.replace(function, layers=(tmp_path,))
    emulate(broken, empty.environment).invoke(request("Create", response_url, [ROLE]))
    assert (response_url.answers[0]["Status"], response_url.answers[0]["Reason"]) == ("FAILED", "ImportError: for another Python")


def test_what_hangs_is_answered_before_the_function_s_time_is_up(
    emulate: Emulate, function: Function, empty: LocalDsql, response_url: ResponseUrl
) -> None:
    """By an alarm: Lambda ends the function without a word."""
    short = dataclasses.replace(function, timeout=4)
    empty.delay(60_000)
    thread = threading.Thread(target=emulate(short, empty.environment).invoke, args=[request("Create", response_url, [ROLE])])
    thread.start()
    assert response_url.has_answer.wait(10)
    empty.clear_faults()
    empty.close_connections("rst")
    thread.join()
    assert [(each["Status"], each["Reason"][:26]) for each in response_url.answers] == [("FAILED", "the function's time is up:")]


def test_an_answer_that_is_refused_is_sent_again(
    emulate: Emulate, function: Function, empty: LocalDsql, response_url: ResponseUrl
) -> None:
    """S3 is busy at times, and an unanswered request holds the stack."""
    response_url.refusals = 2
    invocation = emulate(function, empty.environment).invoke(request("Delete", response_url, [ROLE]))
    assert [each["Status"] for each in response_url.answers] == ["SUCCESS"]
    assert not any("X-Amz-Signature" in line for line in invocation.log_lines)


def test_without_a_request_the_migrations_are_applied(emulate: Emulate, function: Function, empty: LocalDsql) -> None:
    """As a pipeline invokes it; a second time there is nothing to do."""
    create_roles(empty, ROOT / "template.yaml")
    environment = emulate(function, empty.environment)
    event = json.loads((EVENTS / "migrate.json").read_text())
    assert environment.invoke(event).response == {"applied": FILES}
    assert environment.invoke(event).response == {"applied": []}
