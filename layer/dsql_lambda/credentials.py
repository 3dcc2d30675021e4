"""AWS credentials: `Credentials`, and the places that hold them. Signs nothing.

boto3's chain is imported only when the execution environment's variables hold no credentials, or a profile is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from math import inf
from typing import Any

from .errors import TokenError
from .fields import Frozen


class Credentials(Frozen):
    """An AWS access key as it was when it was read. Its `repr` shows no secret."""

    access_key: str
    secret_key: str
    session_token: str
    expires_at: float
    """Seconds since 1970; infinite if they do not expire."""

    def __init__(self, *, access_key: str, secret_key: str, session_token: str = "", expires_at: float = inf) -> None:
        self.__dict__.update(access_key=access_key, secret_key=secret_key, session_token=session_token, expires_at=expires_at)

    def __repr__(self) -> str:
        return f"Credentials(access_key={self.access_key!r}, expires_at={self.expires_at!r})"


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
    expires_at = expiry.timestamp() if isinstance(expiry, datetime) else inf
    return Credentials(access_key=access_key, secret_key=secret_key, session_token=token or "", expires_at=expires_at)
