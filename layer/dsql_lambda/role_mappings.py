"""Which IAM role connects as which database role: `RoleMapping`, `map_roles`.

Knows CREATE ROLE, AWS IAM GRANT and REVOKE, and `sys.iam_pg_role_mappings`; knows nothing of schemas. Each statement is a
transaction of its own, and what is there already is left as it is.
https://docs.aws.amazon.com/aurora-dsql/latest/userguide/using-database-and-iam-roles.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .connection import Connection
from .errors import ConfigError
from .occ_loop import retry_on_occ
from .retry import OCCRetryConfig
from .server_errors import DatabaseError

_ARN = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[A-Za-z0-9+=,.@_/-]+")
_ROLE = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_EXISTS = frozenset({"42710", "23505"})  # the second is what two at once can meet
_MISSING = "42704"


class RoleMapping(NamedTuple):
    """An IAM role (or user) that connects as a database role."""

    role: str
    arn: str


def parse_mapping(text: str) -> RoleMapping:
    """`role=arn`. Raises `ConfigError`."""
    role, _, arn = text.partition("=")
    return checked(RoleMapping(role, arn))


def checked(mapping: RoleMapping) -> RoleMapping:
    """The mapping, if its names can be written into a statement. Raises `ConfigError`."""
    if not _ROLE.fullmatch(mapping.role) or mapping.role == "admin":
        raise ConfigError(
            f"the database role is {mapping.role!r}: use lower-case letters, digits and _, and another name than admin"
        )
    if not _ARN.fullmatch(mapping.arn):
        raise ConfigError(f"the ARN is {mapping.arn!r}: use an IAM role's or user's, arn:aws:iam::<account>:role/<name>")
    return mapping


def map_roles(
    connection: Connection,
    mappings: Iterable[RoleMapping],
    *,
    revoked: Iterable[RoleMapping] = (),
    retry: OCCRetryConfig | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Create the database roles that are missing and map each to its ARN; then take back `revoked`, but what is still wanted.

    A role is never dropped. Raises `ConfigError` for a name that is none, before anything is done, and `DatabaseError`.
    """
    wanted = [checked(each) for each in mappings]
    unwanted = [each for each in map(checked, revoked) if each not in wanted]

    def run(statement: str, **params: Any) -> list[list[object]]:
        rows: list[list[object]] = retry_on_occ(lambda: connection.run(statement, **params), retry) or []
        return rows

    def run_unless(sqlstates: frozenset[str], statement: str) -> bool:
        try:
            run(statement)
        except DatabaseError as error:
            if error.sqlstate not in sqlstates:
                raise
            return False
        return True

    for role in dict.fromkeys(each.role for each in wanted):
        exists = bool(run("SELECT 1 FROM pg_roles WHERE rolname = :role", role=role))
        created = not exists and run_unless(_EXISTS, f'CREATE ROLE "{role}" WITH LOGIN')
        say(f"database role {role}: {'created' if created else 'exists'}")
    find = "SELECT 1 FROM sys.iam_pg_role_mappings WHERE pg_role_name = :role AND arn = :arn"
    for role, arn in wanted:
        granted = not run(find, role=role, arn=arn)
        if granted:
            try:
                run(f"AWS IAM GRANT \"{role}\" TO '{arn}'")
            except DatabaseError:
                if not run(find, role=role, arn=arn):  # else another one has just granted it
                    raise
        say(f"mapping of {arn} to {role}: {'created' if granted else 'exists'}")
    for role, arn in unwanted:
        if run(find, role=role, arn=arn) and run_unless(frozenset({_MISSING}), f"AWS IAM REVOKE \"{role}\" FROM '{arn}'"):
            say(f"mapping of {arn} to {role}: revoked")
