"""Prepares the database of the deployed function: its role, the mapping of that role to the function's IAM role, and its schema.

    make setup-database

Connects as admin with the AWS credentials of whoever runs it. They need dsql:DbConnectAdmin on the cluster, and
cloudformation:DescribeStacks to read the endpoint and the role from the stack. Running it again changes nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

from dsql_lambda import Connection, ConnectOptions, DatabaseError, DsqlError, connect, retry_on_occ
from dsql_local.rules.statements import split

ROOT = Path(__file__).resolve().parents[1]
ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[A-Za-z0-9+=,.@_/-]+")
USER = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class SetupError(Exception):
    """The database could not be set up; the sentence says why, and what to do."""


class Target(NamedTuple):
    """The cluster, and the IAM role of the function."""

    endpoint: str
    role_arn: str


def main(argv: list[str]) -> int:
    """Run the command; 0 only if the database is ready."""
    options = parse(argv)
    try:
        target = find_target(options)
        schema = split(options.schema.read_text(encoding="utf-8"))
        environment = {**os.environ, "DSQL_URL": "", "DSQL_HOST": target.endpoint, "DSQL_USER": "admin"}
        say(f"connecting to {target.endpoint} as admin")
        with connect(ConnectOptions.from_env(environment)) as connection:
            create_role(connection, options.user)
            map_role(connection, options.user, target.role_arn)
            apply_schema(connection, schema, options.schema.name)
    except DatabaseError as error:
        return fail(f"the cluster refused a statement: {error.message} ({error.sqlstate})")
    except (SetupError, DsqlError, OSError, UnicodeDecodeError) as error:
        return fail(str(error))
    say(f"done: {target.role_arn} connects as {options.user}")
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """The command's arguments. What is wrong with them is argparse's business to say."""
    parser = argparse.ArgumentParser(prog="setup_database.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--stack", default="dsql-lambda", help="the stack to read endpoint and role from (default: %(default)s)")
    parser.add_argument("--endpoint", help="the cluster's endpoint, instead of the stack's output ClusterEndpoint")
    parser.add_argument("--role-arn", help="the function's IAM role, instead of the stack's output TransferRoleArn")
    parser.add_argument("--user", default="transfer", help="the database role (default: %(default)s)")
    parser.add_argument("--schema", type=Path, default=ROOT / "src/transfer/schema.sql", help="default: src/transfer/schema.sql")
    options = parser.parse_args(argv)
    if not USER.fullmatch(options.user) or options.user == "admin":
        parser.error(f"--user is {options.user!r}: use lower-case letters, digits and _, and another name than admin")
    if options.role_arn and not ROLE_ARN.fullmatch(options.role_arn):
        parser.error(f"--role-arn is {options.role_arn!r}: use an IAM role's or user's, arn:aws:iam::<account>:role/<name>")
    return options


def find_target(options: argparse.Namespace) -> Target:
    """What the arguments name; what they leave out is read from the stack's outputs."""
    if options.endpoint and options.role_arn:
        return Target(options.endpoint, options.role_arn)
    say(f"reading the outputs of the stack {options.stack}")
    outputs = read_outputs(options.stack)
    missing = sorted({"ClusterEndpoint", "TransferRoleArn"} - outputs.keys())
    if missing:
        raise SetupError(
            f"the stack {options.stack} has no output {' and no output '.join(missing)}: wait until it is deployed, or pass "
            "--endpoint and --role-arn"
        )
    return Target(options.endpoint or outputs["ClusterEndpoint"], options.role_arn or outputs["TransferRoleArn"])


def read_outputs(stack: str) -> dict[str, str]:
    """The outputs of a stack, by CloudFormation's API."""
    import boto3  # noqa: PLC0415 - only what reads a stack needs it
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        [found] = boto3.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    except (BotoCoreError, ClientError) as error:
        raise SetupError(
            f"the stack {stack} could not be read ({error}): check AWS_PROFILE and AWS_REGION, name another stack by STACK=, or "
            "pass --endpoint and --role-arn"
        ) from error
    return {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", ())}


def create_role(connection: Connection, user: str) -> None:
    """The database role that the function connects as."""
    if run(connection, "SELECT 1 FROM pg_roles WHERE rolname = :user", user=user):
        say(f"database role {user}: exists")
        return
    run(connection, f'CREATE ROLE "{user}" WITH LOGIN')
    say(f"database role {user}: created")


def map_role(connection: Connection, user: str, role_arn: str) -> None:
    """Let the IAM role connect as the database role."""
    find = "SELECT 1 FROM sys.iam_pg_role_mappings WHERE pg_role_name = :user AND arn = :arn"
    if run(connection, find, user=user, arn=role_arn):
        say(f"mapping of {role_arn}: exists")
        return
    run(connection, f"AWS IAM GRANT \"{user}\" TO '{role_arn}'")
    say(f"mapping of {role_arn}: created")


def apply_schema(connection: Connection, statements: tuple[str, ...], name: str) -> None:
    """Each statement in a transaction of its own: DSQL takes one DDL statement in a transaction, and none beside DML."""
    for number, statement in enumerate(statements, 1):
        say(f"{name}: statement {number} of {len(statements)}")
        run(connection, statement)


def run(connection: Connection, statement: str, **params: Any) -> list[list[Any]]:
    """The rows of a statement, which is run again when another session's DDL got in its way."""
    return retry_on_occ(lambda: connection.run(statement, **params))


def say(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)


def fail(reason: str) -> int:
    print(f"setup-database: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
