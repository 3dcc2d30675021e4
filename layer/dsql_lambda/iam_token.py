"""The IAM token that is the password: `Token` and its `Signer`. Knows SigV4; opens no connection and knows no options.

A token is a SigV4 query presign, computed here with the standard library alone, equal byte for byte to botocore's
`generate_db_connect_auth_token`.
https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
https://docs.aws.amazon.com/aurora-dsql/latest/userguide/authentication-authorization.html
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from .credentials import Credentials, chain_credentials, environment_credentials, read_credentials
from .fields import Frozen

try:
    # As `random` does: importing `hashlib`, or `hmac` which imports it, costs more than all the rest of a token, for it asks
    # OpenSSL for each of its algorithms.
    from _sha2 import sha256  # type: ignore[import-not-found]
except ImportError:  # Python 3.11, or an interpreter built without it
    from hashlib import sha256

LONGEST_TOKEN_SECS = 604_800  # SigV4's own limit for a presigned request: a week

_EMPTY_PAYLOAD = sha256(b"").hexdigest()
_BLOCK_BYTES = 64
_INNER = int.from_bytes(b"\x36" * _BLOCK_BYTES)
_OUTER = int.from_bytes(b"\x5c" * _BLOCK_BYTES)
_REFRESH_SHARE = 0.2  # of a token's life: below that a new one is signed
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class Token(Frozen):
    """A password for one or more connections. It is checked only while a connection opens. Its `repr` hides it."""

    value: str
    expires_at: float
    """The moment (seconds since 1970) from which it is refused: its own end, or its credentials' if that is sooner."""
    signed_at: float
    """The moment (seconds since 1970) of signing."""

    def __init__(self, value: str, expires_at: float, signed_at: float = 0.0) -> None:
        self.__dict__.update(value=value, expires_at=expires_at, signed_at=signed_at)

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
    """Makes tokens for one host, region and action, and keeps the last one while it is good."""

    def __init__(
        self,
        *,
        host: str,
        region: str,
        action: str,
        duration_secs: int = 900,
        credentials: object = None,
        profile: str = "",
        clock: Callable[[], float] = time.time,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._host = host
        self._region = region
        self._action = action
        self._duration_secs = duration_secs
        self._given = credentials
        self._profile = profile
        self._clock = clock
        self._environ = environ
        self._kept: tuple[Token, Credentials] | None = None
        self._chain: Any = None

    def credentials(self) -> Credentials:
        """What to sign with: given credentials, else a given profile's, else the environment's, else boto3's chain.

        They are read anew at each call, for Lambda and refreshable sources replace them; what boto3's chain found is kept, and
        refreshes itself. Raises `TokenError`.
        """
        if self._given is not None:
            return read_credentials(self._given)
        if not self._profile and (found := environment_credentials(self._environ)):
            return found
        if self._chain is None:
            self._chain = chain_credentials(self._profile)
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
        value = presign(self._host, self._region, self._action, credentials, self._duration_secs, signed_at)
        return Token(value, min(signed_at + self._duration_secs, credentials.expires_at), signed_at)


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
        key = hmac_sha256(key, part.encode())
    signature = hmac_sha256(key, to_sign.encode()).hex()
    return f"{host}/?{'&'.join(encoded)}&X-Amz-Signature={signature}"


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """HMAC with SHA-256, as RFC 2104 defines it."""
    block = int.from_bytes((key if len(key) <= _BLOCK_BYTES else sha256(key).digest()).ljust(_BLOCK_BYTES, b"\0"))
    inner = sha256((block ^ _INNER).to_bytes(_BLOCK_BYTES) + message).digest()
    outer: bytes = sha256((block ^ _OUTER).to_bytes(_BLOCK_BYTES) + inner).digest()
    return outer


def _percent_encoded(value: str) -> str:
    """SigV4's UriEncode: every byte but the unreserved ones. (`urllib.parse` costs more to import than all of a signature.)"""
    data = value.encode()
    return data.decode("latin-1").translate({code: f"%{code:02X}" for code in set(data) - _UNRESERVED})
