"""What DSQL answers where PostgreSQL would say something else: SQLSTATEs and texts as data.

Texts of refusals at connect and of conflicts are DSQL's own where they are known; `docs/local-dsql.md` says which are ours.
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
    "40001": "could not serialize access",  # no marker: only ever on demand
}


@dataclass(frozen=True, slots=True)
class ConnectionRefusal:
    """A connection that is not opened: FATAL with this SQLSTATE and text, and a reason in the hint."""

    sqlstate: str
    message: str
    hint: str | None = None

    @property
    def answer(self) -> Message:
        """As an ErrorResponse."""
        return error(self.sqlstate, self.message, severity="FATAL", hint=self.hint)


REFUSALS: Mapping[str, ConnectionRefusal] = {
    "rate": ConnectionRefusal("53400", "Unable to accept connection, rate exceeded."),
    "connections": ConnectionRefusal("53300", "Unable to accept connection, too many open connections."),
    "waking": ConnectionRefusal("08006", "unable to accept connection, waking up cluster, please retry later"),
}
# What `refuse_connections` takes: a name, or the SQLSTATE that belongs to one of them.
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
    """A TLS server name that is another host's."""
    return ConnectionRefusal("08006", "unable to accept connection, sni does not match", f"sni: {sni}, cluster: {endpoint}")


def access_denied(reason: str) -> ConnectionRefusal:
    """A token that does not open the connection."""
    return ConnectionRefusal("08006", ACCESS_DENIED, reason)


def not_authorized(user: str, cluster: str, region: str, principal: str | None = None) -> ConnectionRefusal:
    """IAM knows the caller and does not let it connect."""
    action = "dsql:DbConnectAdmin" if user == "admin" else "dsql:DbConnect"
    return access_denied(
        f"User: {principal or 'arn:aws:sts::123456789012:assumed-role/local/session'} is not authorized to perform: {action} "
        f"on resource: arn:aws:dsql:{region}:123456789012:cluster/{cluster}"
    )


def not_mapped(user: str, cluster: str, region: str, principal: str) -> ConnectionRefusal:
    """IAM lets the caller connect, and no `AWS IAM GRANT` lets it be this role. The second sentence is ours."""
    refusal = not_authorized(user, cluster, region, principal)
    return replace(refusal, hint=f"{refusal.hint}. As admin, run: AWS IAM GRANT {user} TO '{principal}'")


def no_such_role(user: str) -> ConnectionRefusal:
    """No role of this name. AWS's own tests know the SQLSTATE; the hint is ours."""
    return ConnectionRefusal("08P01", ACCESS_DENIED, f'role "{user}" does not exist')


def conflict(code: str) -> Message:
    """A conflict, as COMMIT or a statement outside a transaction answers it."""
    return error("40001", CONFLICTS[code])


UNAVAILABLE = error("XX000", "server unavailable")
LONG_KEY = error(*ANSWERS["long_key"])
IN_FAILED_TRANSACTION = error("25P02", "current transaction is aborted, commands ignored until end of transaction block")
