"""Access tokens of DSQL: signed as a client does, and verified as the service does, with the known secret.

Pure. An error names what differs and what to do; it contains no token, signature or secret.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote, urlencode

__all__ = ["InvalidToken", "Token", "expired", "read", "sign", "verify"]

MAX_SECONDS = 604_800  # a week, the maximum for a presigned request
MAX_SKEW = timedelta(minutes=5)  # how far ahead a client's clock may be
_FORM = "%Y%m%dT%H%M%SZ"
_EMPTY = hashlib.sha256(b"").hexdigest()
_SIGNATURE = "X-Amz-Signature"


class InvalidToken(Exception):
    """The token is refused; the message is the reason, which DSQL puts into the hint."""


@dataclass(frozen=True, slots=True)
class Token:
    """A decoded token, before it is verified."""

    host: str
    parameters: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        if name not in self.parameters:
            raise InvalidToken(f"Missing parameter: {name}. Sign a fresh token for this endpoint.")
        return self.parameters[name]

    @property
    def signed_at(self) -> datetime:
        """When it was signed, in whole seconds."""
        try:
            return datetime.strptime(self["X-Amz-Date"], _FORM).replace(tzinfo=UTC)
        except ValueError:
            raise InvalidToken("Malformed X-Amz-Date: it must look like 20260102T030405Z.") from None

    @property
    def lifetime(self) -> timedelta:
        """How long it is valid after it was signed."""
        value = self["X-Amz-Expires"]
        if not re.fullmatch(r"\d{1,18}", value) or int(value) < 1:
            raise InvalidToken(f"X-Amz-Expires must be a number of seconds from 1 to {MAX_SECONDS}.")
        if int(value) > MAX_SECONDS:
            raise InvalidToken("X-Amz-Expires must be less than a week (in seconds)")  # AWS's words
        return timedelta(seconds=int(value))


def read(text: str) -> Token:
    """Decode a token. Raises `InvalidToken`."""
    host, mark, parameters = text.partition("/?")
    if not mark or not host:
        raise InvalidToken(
            "The password is not an access token. Sign one for this endpoint (generate_db_connect_auth_token, or "
            "generate_db_connect_admin_auth_token for admin) and send it as the password."
        )
    pairs = parse_qsl(parameters, keep_blank_values=True)
    if len(dict(pairs)) != len(pairs):
        raise InvalidToken("The token contains a parameter twice. Sign a fresh token for this endpoint.")
    return Token(host, dict(pairs))


def sign(*, user: str, endpoint: str, region: str, key: str, secret: str, now: float, seconds: int = 900) -> str:
    """A token with which `user` can connect for this many seconds."""
    at = datetime.fromtimestamp(now, UTC)
    parameters = {
        "Action": "DbConnectAdmin" if user == "admin" else "DbConnect",
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{key}/{at:%Y%m%d}/{region}/dsql/aws4_request",
        "X-Amz-Date": f"{at:{_FORM}}",
        "X-Amz-Expires": str(seconds),
        "X-Amz-SignedHeaders": "host",
    }
    signature = _signature(Token(endpoint, parameters), secret, f"{at:%Y%m%d}", region)
    return f"{endpoint}/?{urlencode(parameters, quote_via=quote)}&{_SIGNATURE}={signature}"


def verify(
    token: Token, *, user: str, endpoint: str, region: str, credentials: Mapping[str, str], now: float, accepted_keys: str
) -> None:
    """Raise `InvalidToken` unless the token allows `user` to connect at the time `now`, in seconds since the epoch.

    `credentials` maps access keys to secret keys. `accepted_keys` is the sentence about accepted keys in an error message.
    """
    _check_action(token["Action"], user)
    if token.host != endpoint:
        raise InvalidToken(f"Host mismatch: the token was signed for {token.host}, this cluster is {endpoint}.")
    if token["X-Amz-Algorithm"] != "AWS4-HMAC-SHA256" or token["X-Amz-SignedHeaders"] != "host":
        raise InvalidToken("The token must be signed with AWS4-HMAC-SHA256 over the header host alone.")
    key, date = _check_scope(token, region)
    _check_time(token, datetime.fromtimestamp(now, UTC))
    if key not in credentials:
        raise InvalidToken(
            f"The security token included in the request is invalid: no credentials with the access key {key!r}. {accepted_keys}"
        )
    if not hmac.compare_digest(_signature(token, credentials[key], date, region), token[_SIGNATURE]):
        raise InvalidToken(
            "The request signature we calculated does not match the signature you provided. Check the secret access key "
            f"that belongs to the access key {key!r}."
        )


def _check_action(action: str, user: str) -> None:
    if action != ("DbConnectAdmin" if user == "admin" else "DbConnect"):
        raise InvalidToken(f"Wrong user to action mapping. user: {user}, action: {action}")


def _check_scope(token: Token, region: str) -> tuple[str, str]:
    """The access key and the date of the credential, after a check of its scope."""
    scope = token["X-Amz-Credential"].split("/")
    if len(scope) != 5:
        raise InvalidToken("Malformed X-Amz-Credential: it must be <access key>/<date>/<region>/dsql/aws4_request.")
    key, date, signed_region, service, ending = scope
    if signed_region != region:
        raise InvalidToken(f"Credential should be scoped to a valid region: {region}, not {signed_region}.")
    if service != "dsql":
        raise InvalidToken(f"Credential should be scoped to correct service: dsql, not {service}.")
    if ending != "aws4_request" or date != token["X-Amz-Date"][:8]:
        raise InvalidToken("The credential's scope must have the day of X-Amz-Date and end in aws4_request.")
    return key, date


def _check_time(token: Token, now: datetime) -> None:
    earliest = now - token.lifetime
    if token.signed_at < earliest:
        raise InvalidToken(
            f"Signature expired: {token.signed_at:{_FORM}} is now earlier than {earliest:{_FORM}} "
            f"({now:{_FORM}} - {token['X-Amz-Expires']} s)"
        )
    if token.signed_at > now + MAX_SKEW:
        raise InvalidToken(
            f"Signature not yet current: {token.signed_at:{_FORM}} is still later than {now + MAX_SKEW:{_FORM}} "
            f"({now:{_FORM}} + 5 min.)"
        )


def expired(token: Token, now: float) -> InvalidToken:
    """The error for a token that was declared expired."""
    return InvalidToken(
        f"Signature expired: {token.signed_at:{_FORM}} is now earlier than {datetime.fromtimestamp(now, UTC):{_FORM}}"
    )


def _signature(token: Token, secret: str, date: str, region: str) -> str:
    parameters = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in token.parameters.items() if name != _SIGNATURE
    )
    canonical = "&".join(f"{name}={value}" for name, value in parameters)
    request = f"GET\n/\n{canonical}\nhost:{token.host}\n\nhost\n{_EMPTY}"
    scope = f"{date}/{region}/dsql/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{token['X-Amz-Date']}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = b"AWS4" + secret.encode()
    for part in (*scope.split("/"), to_sign):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key.hex()
