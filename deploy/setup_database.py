"""Does from here what the stack's migrate function does: maps the function's IAM role to its database role, applies migrations.

    make setup-database

For a cluster or a function that the stack does not know. Reads the stack's outputs, and leaves the work to `dsql_lambda`'s
`map_roles` and `apply_migrations`. Connects as admin with the AWS credentials of whoever runs it. They need
dsql:DbConnectAdmin on the cluster, and cloudformation:DescribeStacks on the stack. Running it again changes nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

from dsql_lambda import (
    ConfigError,
    ConnectOptions,
    DatabaseError,
    DsqlError,
    Pool,
    RoleMapping,
    apply_migrations,
    map_roles,
    pending_migrations,
)
from dsql_lambda.role_mappings import parse_mapping

ROOT = Path(__file__).resolve().parents[1]


class SetupError(Exception):
    """The database could not be set up; the sentence says why, and what to do."""


class Target(NamedTuple):
    """The cluster, and who connects to it as which database role."""

    endpoint: str
    roles: list[RoleMapping]


def main(argv: list[str]) -> int:
    """Run the command; 0 only if the database is ready."""
    options = parse(argv)
    try:
        target = find_target(options)
        environment = {**os.environ, "DSQL_URL": "", "DSQL_HOST": target.endpoint, "DSQL_USER": "admin"}
        say(f"connecting to {target.endpoint} as admin")
        with Pool(ConnectOptions.from_env(environment)) as pool:
            pending_migrations(options.migrations, source=pool)  # what is wrong with them is said before anything is done
            with pool.connection() as connection:
                map_roles(connection, target.roles, say=say)
            apply_migrations(options.migrations, source=pool, say=say)
    except DatabaseError as error:
        return fail(f"the cluster refused a statement: {error.message} ({error.sqlstate})")
    except (SetupError, DsqlError, OSError) as error:
        return fail(str(error))
    for role, arn in target.roles:
        say(f"done: {arn} connects as {role}")
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """The command's arguments. What is wrong with them is argparse's business to say."""
    parser = argparse.ArgumentParser(prog="setup_database.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--stack", default="dsql-lambda", help="the stack to read endpoint and roles from (default: %(default)s)")
    parser.add_argument("--endpoint", help="the cluster's endpoint, instead of the stack's output ClusterEndpoint")
    parser.add_argument(
        "--role",
        type=mapping,
        action="append",
        metavar="ROLE=ARN",
        help="a database role and who connects as it, instead of the stack's",
    )
    parser.add_argument("--migrations", type=Path, default=ROOT / "migrations", help="the folder of them (default: migrations)")
    return parser.parse_args(argv)


def mapping(text: str) -> RoleMapping:
    """One --role."""
    try:
        return parse_mapping(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def find_target(options: argparse.Namespace) -> Target:
    """What the arguments name; what they leave out is read from the stack's outputs."""
    if options.endpoint and options.role:
        return Target(options.endpoint, options.role)
    say(f"reading the outputs of the stack {options.stack}")
    outputs = read_outputs(options.stack)
    roles = options.role or roles_of(outputs)
    missing = [*([] if "ClusterEndpoint" in outputs else ["ClusterEndpoint"]), *([] if roles else ["…RoleArn"])]
    if missing:
        raise SetupError(
            f"the stack {options.stack} has no output {' and no output '.join(missing)}: wait until it is deployed, or pass "
            "--endpoint and --role"
        )
    return Target(options.endpoint or outputs["ClusterEndpoint"], roles)


def roles_of(outputs: dict[str, str]) -> list[RoleMapping]:
    """`TransferRoleArn` is the role of the function that connects as `transfer`, and `LedgerApiRoleArn` of `ledger_api`."""
    named = {name.removesuffix("RoleArn"): arn for name, arn in outputs.items() if name.endswith("RoleArn")}
    return [RoleMapping(re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower(), arn) for name, arn in sorted(named.items())]


def read_outputs(stack: str) -> dict[str, str]:
    """The outputs of a stack, by CloudFormation's API."""
    import boto3  # noqa: PLC0415 - only what reads a stack needs it
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        [found] = boto3.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    except (BotoCoreError, ClientError) as error:
        raise SetupError(
            f"the stack {stack} could not be read ({error}): check AWS_PROFILE and AWS_REGION, name another stack by STACK=, or "
            "pass --endpoint and --role"
        ) from error
    return {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", ())}


def say(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)


def fail(reason: str) -> int:
    print(f"setup-database: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
