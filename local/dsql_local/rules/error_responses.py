"""The errors that DSQL answers and PostgreSQL does not: SQLSTATEs and messages as data.

Messages of refused connections and of conflicts are DSQL's where they are known; docs/local-dsql.md lists those that are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ..protocol.messages import Message, error
from .rulebook import ANSWERS

__all__ = [
    "CONFLICTS",
    "IN_FAILED_TRANSACTION",
    "LONG_KEY",
    "NO_SNI",
    "PLAINTEXT",
    "REASONS",
    "REFUSALS",
    "UNAVAILABLE",
    "ConflictCode",
    "ConnectionRefusal",
    "RefusalCode",
    "RefusalReason",
    "access_denied",
    "conflict",
    "foreign_sni",
    "no_such_role",
    "not_authorized",
    "not_mapped",
]

ConflictCode = Literal["OC000", "OC001", "40001"]
RefusalReason = Literal["rate", "connections", "waking", "access"]
RefusalCode = Literal["53400", "53300", "08006"]

CONFLICTS: Mapping[str, str] = {
    "OC000": "change conflicts with another transaction (OC000)",
    "OC001": "schema has been updated by another transaction (OC001)",
    "40001": "could not serialize access",  # only on demand
}


@dataclass(frozen=True, slots=True)
class ConnectionRefusal:
    """The FATAL error of a refused connection; the hint contains the reason."""

    sqlstate: str
    message: str
    hint: str | None = None

    @property
    def answer(self) -> Message:
        """The ErrorResponse."""
        return error(self.sqlstate, self.message, severity="FATAL", hint=self.hint)


REFUSALS: Mapping[str, ConnectionRefusal] = {
    "rate": ConnectionRefusal("53400", "Unable to accept connection, rate exceeded."),
    "connections": ConnectionRefusal("53300", "Unable to accept connection, too many open connections."),
    "waking": ConnectionRefusal("08006", "unable to accept connection, waking up cluster, please retry later"),
}
# What `refuse_connections` accepts: a name, or its SQLSTATE.
REASONS: Mapping[str, RefusalReason] = {
    "rate": "rate",
    "connections": "connections",
    "waking": "waking",
    "access": "access",
    "53400": "rate",
    "53300": "connections",
    "08006": "access",
}
ACCESS_DENIED = "unable to accept connection, access denied"
NO_SNI = ConnectionRefusal("08006", "unable to accept connection, sni was not received")
PLAINTEXT = ConnectionRefusal("08P01", "SSL is mandatory")


def foreign_sni(sni: str, endpoint: str) -> ConnectionRefusal:
    """The SNI is the name of another host."""
    return ConnectionRefusal("08006", "unable to accept connection, sni does not match", f"sni: {sni}, cluster: {endpoint}")


def access_denied(reason: str) -> ConnectionRefusal:
    """The access token is not valid."""
    return ConnectionRefusal("08006", ACCESS_DENIED, reason)


def not_authorized(user: str, cluster: str, region: str, principal: str | None = None) -> ConnectionRefusal:
    """IAM denies the caller the connection."""
    action = "dsql:DbConnectAdmin" if user == "admin" else "dsql:DbConnect"
    return access_denied(
        f"User: {principal or 'arn:aws:sts::123456789012:assumed-role/local/session'} is not authorized to perform: {action} "
        f"on resource: arn:aws:dsql:{region}:123456789012:cluster/{cluster}"
    )


def not_mapped(user: str, cluster: str, region: str, principal: str) -> ConnectionRefusal:
    """No `AWS IAM GRANT` maps the caller to this role. The second sentence of the hint is ours."""
    refusal = not_authorized(user, cluster, region, principal)
    return replace(refusal, hint=f"{refusal.hint}. As admin, run: AWS IAM GRANT {user} TO '{principal}'")


def no_such_role(user: str) -> ConnectionRefusal:
    """The role does not exist. The SQLSTATE is from AWS's tests; the hint is ours."""
    return ConnectionRefusal("08P01", ACCESS_DENIED, f'role "{user}" does not exist')


def conflict(code: str) -> Message:
    """The error of a conflict."""
    return error("40001", CONFLICTS[code])


UNAVAILABLE = error("XX000", "server unavailable")
LONG_KEY = error(*ANSWERS["long_key"])
IN_FAILED_TRANSACTION = error("25P02", "current transaction is aborted, commands ignored until end of transaction block")
