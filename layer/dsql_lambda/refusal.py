"""Why no connection came about: what the cluster's refusal means for the next try, and the sentence that says what to check.

Knows DSQL's, the network's and TLS's ways to say no; opens nothing and waits for nothing. Loaded when one was refused.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from enum import Enum, auto

from .errors import ConnectError
from .options import ConnectOptions
from .server_errors import ConnectionLost, DatabaseError, DeadlineReached, ProtocolError


class Unreachable(ConnectError):
    """No connection this time: refused, reset, silent, or a handshake that ended. Trying again can help."""


class Refusal(Enum):
    """What a failed try to connect means for the next one."""

    UNREACHABLE = auto()
    """The network or the server's process was away. Wait with jitter."""
    BUSY = auto()
    """53300 or 53400: too many connections, or too many new ones a second. Wait with jitter."""
    WAKING = auto()
    """The cluster wakes up. Wait longer."""
    EXPIRED = auto()
    """The token is too old. Once more, with a fresh one."""
    FINAL = auto()
    """Nothing that trying again could mend."""


PASSING = frozenset({Refusal.UNREACHABLE, Refusal.BUSY, Refusal.WAKING})
"""What waiting can mend."""

_FIRST_WAIT_SECONDS = {Refusal.UNREACHABLE: 0.05, Refusal.BUSY: 0.1, Refusal.WAKING: 0.5}
_LONGEST_WAIT_SECONDS = 2.0  # thousands that wait longer leave a part of what the cluster admits unused: simulated at 5 s


def wait_before(refusal: Refusal, tries: int, random: Callable[[], float]) -> float:
    """Seconds to wait after so many refused tries, given a number from 0 to 1: it doubles up to 2 s, and is spread by half."""
    return (0.5 + random()) * min(_FIRST_WAIT_SECONDS[refusal] * 2.0 ** min(tries - 1, 31), _LONGEST_WAIT_SECONDS)


def refusal_of(error: Exception) -> Refusal:
    """Tell what a failure means, by its SQLSTATE and words. DSQL's wording changes: case and the rest don't count."""
    if not isinstance(error, DatabaseError):
        return Refusal.UNREACHABLE if isinstance(error, (Unreachable, ConnectionLost)) else Refusal.FINAL
    said = f"{error.message} {error.hint}".lower()
    if error.sqlstate in {"53300", "53400"}:
        return Refusal.BUSY
    if "waking up" in said:
        return Refusal.WAKING
    if "signature expired" in said:
        return Refusal.EXPIRED
    if error.sqlstate.startswith("57") or (error.sqlstate == "XX000" and "unavailable" in said):
        return Refusal.UNREACHABLE  # it shuts down, starts up, or is unavailable for a moment
    return Refusal.FINAL


def refused(error: Exception, options: ConnectOptions) -> ConnectError:
    """The sentence that says what to check, by DSQL's own reason."""
    if isinstance(error, ConnectError):
        return error
    if isinstance(error, DeadlineReached):
        return ConnectError(
            f"{options.host} did not answer within connect_timeout ({options.connect_timeout:g} s) while the connection was "
            "being opened: raise it, or check the network path"
        )
    if isinstance(error, ProtocolError):
        return ConnectError(
            f"{options.host} does not speak PostgreSQL's protocol ({error}): check that DSQL_HOST, DSQL_HOSTADDR and DSQL_PORT "
            "name the cluster"
        )
    if not isinstance(error, DatabaseError):
        return ConnectError(
            f"{options.host} closed the connection while it was being opened ({error}): check that DSQL_HOST, DSQL_HOSTADDR and "
            "DSQL_PORT name the cluster"
        )
    said = f"{error.message} {error.hint}".lower()
    action = f"dsql:{options.action}"
    if refusal_of(error) is Refusal.BUSY:
        check = "the cluster takes no more connections just now: lower the function's concurrency, or raise connect_timeout"
    elif refusal_of(error) is Refusal.WAKING:
        check = "the cluster is waking up: try again, or raise connect_timeout"
    elif "signature expired" in said or "not yet" in said:
        check = "check this machine's clock: a token that was signed just now is out of its time"
    elif "wrong user to action" in said:
        check = f"check the token's type: the user {options.user!r} takes a token for {action}"
    elif "not authorized" in said:
        check = f"check the IAM policy: the role must be allowed {action} on the cluster's ARN"
    elif error.sqlstate in {"28000", "28P01"} or "role" in said:
        check = f"check the role mapping: AWS IAM GRANT {options.user} TO '<the execution role's ARN>', as admin"
    else:
        check = (
            f"check the IAM policy ({action}), the role mapping (AWS IAM GRANT {options.user} TO the role's ARN), this "
            "machine's clock, and the token's type (DbConnectAdmin is for admin alone)"
        )
    hint = f": {error.hint}" if error.hint else ""
    return ConnectError(
        f"the cluster refused the connection: {error.message}{hint} (SQLSTATE {error.sqlstate}); {check}",
        sqlstate=error.sqlstate,
        hint=error.hint,
    )


def unreachable(address: tuple[str, int], error: OSError) -> ConnectError:
    """No TCP connection. A name that does not exist is a mistake in the configuration; the rest can pass."""
    where = f"{address[0]}:{address[1]}"
    if isinstance(error, socket.gaierror):
        kind = Unreachable if error.errno == socket.EAI_AGAIN else ConnectError
        return kind(f"the name {address[0]} can't be resolved: check DSQL_HOST, and the VPC's DNS settings")
    if isinstance(error, TimeoutError):
        return Unreachable(
            f"no answer from {where} within the time allowed: check the function's subnet, security group and its route "
            "(NAT or PrivateLink) to port 5432"
        )
    return Unreachable(f"no connection to {where}: {error.strerror or error}; check DSQL_HOST, DSQL_HOSTADDR and DSQL_PORT")


def no_handshake(server_name: str) -> ConnectError:
    """TCP connected, and TLS stayed silent."""
    return Unreachable(f"no TLS handshake with {server_name} within the time allowed: check the network path")


def failed_handshake(server_name: str, error: OSError) -> ConnectError:
    """TLS began and ended."""
    return Unreachable(f"the TLS handshake with {server_name} failed, so no token was sent: {error}")


def untrusted(server_name: str, error: ssl.SSLCertVerificationError) -> ConnectError:
    """A certificate that does not lead to the roots, or belongs to another name."""
    reason = error.verify_message or str(error)
    if "expired" in reason or "not yet valid" in reason:
        check = "check this machine's clock, then the server's certificate"
    elif "mismatch" in reason or "not valid for" in reason:
        check = "check that DSQL_HOST is the cluster's own endpoint (a private address belongs in DSQL_HOSTADDR)"
    else:
        check = "set DSQL_SSLROOTCERT to the roots to trust (a path, PEM text, or 'system')"
    return ConnectError(f"the certificate of {server_name} is not trusted, so no token was sent: {reason}; {check}")
