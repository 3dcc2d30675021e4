"""The IAM token that is the password: `Token`, its `Signer`, and where the credentials come from.

Knows SigV4 and the places that hold credentials; opens no connection to a database. A token is a SigV4 query presign,
computed here with the standard library alone, equal byte for byte to botocore's `generate_db_connect_auth_token`.
boto3's chain is imported only when the execution environment's variables hold no credentials, or a profile is asked for.
https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
https://docs.aws.amazon.com/aurora-dsql/latest/userguide/authentication-authorization.html

`python -m dsql_lambda.token [URL]` prints one, for psql's PGPASSWORD.
"""

from __future__ import annotations

import hmac
import os
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import sha256

from .errors import ConfigError, TokenError
from .options import ConnectOptions
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EMPTY_PAYLOAD = sha256(b"").hexdigest()
_REFRESH_SHARE = 0.2  # of a token's life: below that a new one is signed
_FOREVER = float("inf")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class Credentials(Value, kw_only=True):
    """An AWS access key as it was when it was read. Its `repr` shows no secret."""

    access_key: str
    secret_key: str
    session_token: str = ""
    expires_at: float = _FOREVER
    """Seconds since 1970."""

    def __repr__(self) -> str:
        return f"Credentials(access_key={self.access_key!r}, expires_at={self.expires_at!r})"


class Token(Value):
    """A password for one or more connections. It is checked only while a connection opens. Its `repr` hides it."""

    value: str
    expires_at: float
    """The moment (seconds since 1970) from which it is refused: its own end, or its credentials' if that is sooner."""
    signed_at: float = 0.0
    """The moment (seconds since 1970) of signing."""

    def __repr__(self) -> str:
        return f"Token(expires_at={self.expires_at!r}, signed_at={self.signed_at!r})"

    @property
    def refresh_at(self) -> float:
        """The moment at which a fifth of its life is left, and a new one should take its place."""
        return self.expires_at - _REFRESH_SHARE * (self.expires_at - self.signed_at)

    def is_fresh(self, now: float) -> bool:
        """Is more than a fifth of its life left?"""
        return now < self.refresh_at


class Signer:
    """Makes tokens for one set of options, and keeps the last one while it is good."""

    def __init__(
        self,
        options: ConnectOptions,
        *,
        clock: Callable[[], float] = time.time,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._options = options
        self._clock = clock
        self._environ = environ
        self._kept: tuple[Token, Credentials] | None = None
        self._chain: Any = None

    def credentials(self) -> Credentials:
        """What to sign with: given credentials, else a given profile's, else the environment's, else boto3's chain.

        They are read anew at each call, for Lambda and refreshable sources replace them; what boto3's chain found is kept, and
        refreshes itself. Raises `TokenError`.
        """
        options = self._options
        if options.credentials is not None:
            return read_credentials(options.credentials)
        if not options.profile and (found := environment_credentials(self._environ)):
            return found
        if self._chain is None:
            self._chain = chain_credentials(options.profile)
        return read_credentials(self._chain)

    def sign(self, at: float | None = None) -> Token:
        """A fresh token, signed with the credentials of this moment. Raises `TokenError`."""
        return self._sign(self.credentials(), at)

    def token(self) -> Token:
        """The kept token, or a fresh one once a fifth of its life is left or the credentials have changed."""
        credentials = self.credentials()
        kept = self._kept  # read once: another thread may forget it
        if kept and kept[1] == credentials and kept[0].is_fresh(self._clock()):
            return kept[0]
        token = self._sign(credentials, None)
        self._kept = token, credentials
        return token

    def forget(self) -> None:
        """Drop the kept token: the server called it expired."""
        self._kept = None

    def _sign(self, credentials: Credentials, at: float | None) -> Token:
        signed_at = float(int(self._clock() if at is None else at))  # a presign carries whole seconds
        options = self._options
        value = presign(options.host, options.region, options.action, credentials, options.token_duration_secs, signed_at)
        return Token(value, min(signed_at + options.token_duration_secs, credentials.expires_at), signed_at)


def presign(  # noqa: PLR0917
    host: str, region: str, action: str, credentials: Credentials, duration_secs: int, at: float
) -> str:
    """The SigV4 query presign of `GET https://<host>/?Action=<action>`, without its `https://`."""
    timestamp = datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{timestamp[:8]}/{region}/dsql/aws4_request"
    parameters = [
        ("Action", action),
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-Credential", f"{credentials.access_key}/{scope}"),
        ("X-Amz-Date", timestamp),
        ("X-Amz-Expires", str(duration_secs)),
        ("X-Amz-SignedHeaders", "host"),
    ]
    if credentials.session_token:
        parameters.append(("X-Amz-Security-Token", credentials.session_token))
    encoded = [f"{name}={_percent_encoded(value)}" for name, value in parameters]
    canonical = f"GET\n/\n{'&'.join(sorted(encoded))}\nhost:{host}\n\nhost\n{_EMPTY_PAYLOAD}"
    to_sign = f"AWS4-HMAC-SHA256\n{timestamp}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{credentials.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    return f"{host}/?{'&'.join(encoded)}&X-Amz-Signature={signature}"


def _percent_encoded(value: str) -> str:
    """SigV4's UriEncode: every byte but the unreserved ones. (`urllib.parse` costs more to import than all of a signature.)"""
    return "".join(chr(each) if each in _UNRESERVED else f"%{each:02X}" for each in value.encode())


def environment_credentials(environ: Mapping[str, str]) -> Credentials | None:
    """Those of the execution environment's variables, as Lambda sets them; None if they are not there."""
    access_key, secret_key = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if not access_key or not secret_key:
        return None
    return Credentials(access_key=access_key, secret_key=secret_key, session_token=environ.get("AWS_SESSION_TOKEN", ""))


def chain_credentials(profile: str) -> Any:
    """What boto3's chain finds: profile, SSO, assumed role, process, container, instance. Raises `TokenError`."""
    wanted = f"profile {profile!r}" if profile else "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set"
    try:
        import boto3  # noqa: PLC0415 - 0.2 s of import: only where nothing cheaper answers
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415
    except ImportError as error:
        raise TokenError(f"no AWS credentials: {wanted}, and boto3, which finds all other kinds, is not installed") from error
    try:
        found = boto3.Session(profile_name=profile or None).get_credentials()
    except BotoCoreError as error:
        raise TokenError(f"no AWS credentials: {error}") from error
    if found is None:
        raise TokenError(
            f"no AWS credentials: {wanted}, and boto3's chain found none; give the function an execution role, or set a profile"
        )
    return found


def read_credentials(source: Any) -> Credentials:
    """Read any of the kinds that `ConnectOptions.credentials` takes, by what it can do. Raises `TokenError`."""
    try:
        for _ in range(4):  # a callable -> a session -> its credentials -> their frozen values, at most
            if isinstance(source, Credentials):
                return source
            if hasattr(source, "get_frozen_credentials"):
                frozen = source.get_frozen_credentials()
                return _checked(frozen.access_key, frozen.secret_key, frozen.token, getattr(source, "_expiry_time", None))
            if hasattr(source, "get_credentials"):
                source = source.get_credentials()
            elif hasattr(source, "load"):
                source = source.load()
            elif hasattr(source, "access_key") and hasattr(source, "secret_key"):
                return _checked(source.access_key, source.secret_key, getattr(source, "token", None), None)
            elif callable(source):
                source = source()
            else:
                break
    except TokenError:
        raise
    except Exception as error:
        raise TokenError(f"the credentials can't be read: {type(error).__name__}: {error}") from error
    raise TokenError(
        f"the given credentials are a {type(source).__name__}: give a boto3 or botocore session, a botocore provider or "
        "credentials object, or a callable that returns one of these"
    )


def _checked(access_key: Any, secret_key: Any, token: Any, expiry: Any) -> Credentials:
    if not isinstance(access_key, str) or not isinstance(secret_key, str) or not access_key or not secret_key:
        raise TokenError("the given credentials hold no access key or no secret key")
    expires_at = expiry.timestamp() if isinstance(expiry, datetime) else _FOREVER
    return Credentials(access_key=access_key, secret_key=secret_key, session_token=token or "", expires_at=expires_at)


def main(arguments: list[str]) -> int:
    """Print a token for the connection string given, or for the environment's options."""
    try:
        options = ConnectOptions.from_url(arguments[0]) if arguments else ConnectOptions.from_env()
        print(options.token().value)
    except (ConfigError, TokenError) as error:
        print(f"dsql_lambda.token: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
