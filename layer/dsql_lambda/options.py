"""Where to connect, as whom, and how: `ConnectOptions`, a frozen value that can't hold a bad one.

Knows the names and bounds of options, connection strings and the environment's variables, and how a region follows from
them. Opens nothing and signs nothing. Every value has one order of precedence: argument > URL > environment > default;
an empty string, like an empty environment variable, is "not given".
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from .errors import ConfigError
from .version import __version__

if TYPE_CHECKING:
    from .token import Token

ADMIN = "admin"
LONGEST_TOKEN_SECS = 604_800  # SigV4's own limit for a presigned request: a week
_LONGEST_APPLICATION_NAME = 63  # PostgreSQL's NAMEDATALEN of 64 bytes holds the terminator too

_CLUSTER_ID = re.compile(r"[a-z0-9]{26}")
_REGION_IN_HOST = re.compile(r"\.dsql[^.]*\.([a-z0-9-]+)\.on\.aws$")
_REGION = re.compile(r"[a-z]{2}(-[a-z0-9]+)+")
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9])?)*")
_IPV6 = re.compile(r"[0-9a-f:.]*:[0-9a-f:.]*")
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")

# The names that a connection string's parameters have: AWS's connectors' own, and libpq's where there is one.
_URL_PARAMETERS = {
    "region": "region",
    "profile": "profile",
    "tokenDurationSecs": "token_duration_secs",
    "ormPrefix": "orm_prefix",
    "hostaddr": "hostaddr",
    "serverName": "server_name",
    "clusterId": "cluster_id",
    "application_name": "application_name",
    "connect_timeout": "connect_timeout",
    "sslrootcert": "sslrootcert",
    "pipeline": "pipeline",
    "probeAfterSecs": "probe_after_secs",
}


@dataclass(frozen=True, kw_only=True)
class ConnectOptions:
    """What a connection is opened with. Raises `ConfigError` for a value that is missing, malformed or contradicts another.

    The region is found in this order: the host name, `region`, `AWS_REGION`, `AWS_DEFAULT_REGION`, the AWS configuration
    files (boto3 is imported only for the last).
    """

    host: str = ""
    """The cluster's endpoint, or its 26-character id where a region is known. Required."""
    hostaddr: str = ""
    """What to dial instead of `host`, which stays the name that TLS verifies and the token is for (as in libpq)."""
    server_name: str = ""
    """The name that TLS sends and verifies, where it is not `host`: with PrivateLink all three may differ."""
    cluster_id: str = ""
    """Sent as the startup option `amzn-cluster-id`: what names the cluster behind a PrivateLink endpoint without private DNS."""
    port: int = 5432
    """The port to dial."""
    user: str = ADMIN
    """The database role. `admin` gets a DbConnectAdmin token, every other role a DbConnect token."""
    database: str = "postgres"
    """The database: a cluster has one."""
    region: str = ""
    """The AWS region that the token is signed for. Found in the host name where that says it; must not contradict it."""
    profile: str = ""
    """The AWS profile to take credentials from; it beats the environment's credentials."""
    credentials: Any = field(default=None, repr=False, hash=False)
    """A boto3 or botocore session, a botocore provider or credentials object, or a callable that returns one of these."""
    token_duration_secs: int = 900
    """How long a token is valid for: 1 to 604,800 seconds."""
    orm_prefix: str = ""
    """Goes before this library's name in the application name, as in `sqlalchemy:dsql-lambda/1.0`."""
    application_name: str = ""
    """Takes the place of the whole application name."""
    sslrootcert: str = ""
    """A path, `system`, or PEM text: the roots to trust. Not given: Amazon's own, which are bundled."""
    connect_timeout: float = 10.0
    """Seconds for one try to open a connection; without a deadline, also for all of them while the cluster is busy."""
    pipeline: bool = True
    """False sends one statement a flight, and COMMIT in one of its own."""
    probe_after_secs: float = 60.0
    """A connection unused for so many seconds proves itself first, by a BEGIN whose answer is awaited. 0: always."""

    def __post_init__(self) -> None:
        for name in _NAMES:
            if getattr(self, name) is None and name != "credentials":
                object.__setattr__(self, name, _DEFAULTS[name])
        for name in ("host", "hostaddr", "server_name"):
            object.__setattr__(self, name, _checked_host(name, getattr(self, name)))
        check_number("port", self.port, 1, 65_535, whole=True)
        check_number("token_duration_secs", self.token_duration_secs, 1, LONGEST_TOKEN_SECS, whole=True)
        check_number("connect_timeout", self.connect_timeout, 0, 3600, above=True)
        check_number("probe_after_secs", self.probe_after_secs, 0, 3600)
        for name in ("user", "database", "cluster_id", "region", "profile", "orm_prefix", "application_name", "sslrootcert"):
            value = getattr(self, name)
            if not isinstance(value, str) or "\0" in value or not _is_unicode(value):
                raise ConfigError(f"{name} is {value!r}: it must be text, without a zero character or a lone surrogate")
        if not isinstance(self.pipeline, bool):
            raise ConfigError(f"pipeline is {self.pipeline!r}: it must be True or False")
        if not self.user or not self.database:
            raise ConfigError(f"{'database' if self.user else 'user'} is empty: leave it out for the default")
        if not self.host:
            raise ConfigError("no host: set DSQL_HOST (or host=) to the cluster's endpoint or its 26-character id")
        if self.cluster_id and not is_cluster_id(self.cluster_id):
            raise ConfigError(f"cluster_id is {self.cluster_id!r}: it must be 26 characters of a-z and 0-9")
        object.__setattr__(self, "region", self._resolve_region())
        if is_cluster_id(self.host):
            object.__setattr__(self, "host", f"{self.host}.dsql.{self.region}.on.aws")
        if len(self.resolved_application_name.encode()) > _LONGEST_APPLICATION_NAME:
            name = "application_name" if self.application_name else "orm_prefix"
            raise ConfigError(
                f"{name} makes the application name {self.resolved_application_name!r} longer than "
                f"{_LONGEST_APPLICATION_NAME} bytes, where PostgreSQL cuts it: shorten it"
            )

    @classmethod
    def from_url(cls, url: str, *, environ: Mapping[str, str] | None = None, **overrides: Any) -> ConnectOptions:
        """Options from `postgres://[user@]host[:port]/[database][?parameter=value&...]`; `postgresql://` is the same.

        Every part may be percent-encoded. What neither `overrides` nor the URL say is taken from `environ` (the process's
        unless given), as libpq does. An unknown or repeated parameter, a password and a weaker `sslmode` are a `ConfigError`.
        """
        return cls(**_merged(os.environ if environ is None else environ, _from_url(url), overrides))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> ConnectOptions:
        """Options from `DSQL_URL` and `DSQL_<FIELD>`; `CLUSTER_ENDPOINT` stands for `DSQL_HOST`, as in AWS's samples."""
        environ = os.environ if environ is None else environ
        url = environ.get("DSQL_URL", "")
        return cls(**_merged(environ, _from_url(url) if url else {}, overrides))

    def replace(self, **changes: Any) -> ConnectOptions:
        """The same options with some changed, validated again. A new host brings its own region unless one is given."""
        if "host" in changes:
            changes.setdefault("region", "")
        return replace(self, **changes)

    def token(self, at: float | None = None) -> Token:
        """Sign a fresh IAM token: a local computation, no call. `at` is the moment of signing (seconds since 1970).

        Raises `TokenError` where no credentials are found.
        """
        from .token import Signer  # noqa: PLC0415 - the one import upwards: options are needed before a token is

        return Signer(self).sign(at)

    @property
    def dial_host(self) -> str:
        """The name or address that the socket is opened to."""
        return self.hostaddr or self.host

    @property
    def tls_name(self) -> str:
        """The name that TLS sends (SNI) and verifies."""
        return self.server_name or self.host

    @property
    def startup_params(self) -> dict[str, str]:
        """What the startup message says beside user, database and application name."""
        return {"options": f"-c amzn-cluster-id={self.cluster_id}"} if self.cluster_id else {}

    @property
    def action(self) -> str:
        """The IAM action that the token asks for."""
        return "DbConnectAdmin" if self.user == ADMIN else "DbConnect"

    @property
    def resolved_application_name(self) -> str:
        """What `pg_stat_activity` shows: `<ormPrefix>:dsql-lambda/<version>`."""
        ours = f"dsql-lambda/{__version__}"
        return self.application_name or (f"{self.orm_prefix}:{ours}" if self.orm_prefix else ours)

    def __repr__(self) -> str:
        shown = []
        for name in _NAMES:
            value = getattr(self, name)
            if value == _DEFAULTS[name] and name != "host":
                continue
            if name == "credentials":
                shown.append("credentials=<given>")
            elif name == "sslrootcert" and is_pem(value):
                shown.append("sslrootcert=<PEM text>")
            else:
                shown.append(f"{name}={value!r}")
        return f"ConnectOptions({', '.join(shown)})"

    def _resolve_region(self) -> str:
        match = _REGION_IN_HOST.search(self.host)
        if match and self.region and self.region != match[1]:
            raise ConfigError(f"region is {self.region!r}, but the host {self.host} is in {match[1]!r}: leave region out")
        region = (
            (match[1] if match else "")
            or self.region
            or os.environ.get("AWS_REGION", "")
            or os.environ.get("AWS_DEFAULT_REGION", "")
            or _configured_region(self.profile)
        )
        if not region:
            what = "a cluster id" if is_cluster_id(self.host) else f"the host {self.host}"
            raise ConfigError(f"no region is known for {what}: set DSQL_REGION (or region=), or AWS_REGION")
        if not _REGION.fullmatch(region):
            raise ConfigError(f"region is {region!r}: it must be an AWS region's name, as us-east-1")
        return region


_DEFAULTS: dict[str, Any] = {each.name: each.default for each in fields(ConnectOptions)}
_NAMES = tuple(_DEFAULTS)


def is_cluster_id(host: str) -> bool:
    """Is it a cluster's id, 26 of a-z and 0-9? Then the endpoint is made of it and the region; no other name is touched."""
    return _CLUSTER_ID.fullmatch(host) is not None


def is_pem(text: str) -> bool:
    """Is it certificates themselves, and not the path of a file that holds them?"""
    return "-----BEGIN" in text


def check_number(name: str, value: object, least: float, most: float, *, above: bool = False, whole: bool = False) -> None:
    """Raise `ConfigError` unless `value` is a number from `least` (or above it) to `most`."""
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not isfinite(value):
        raise ConfigError(f"{name} is {value!r}: it must be a {'whole ' if whole else ''}number")
    if not least <= value <= most or (above and value == least):
        raise ConfigError(f"{name} is {value}: it must be {'above' if above else 'at least'} {least} and at most {most}")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _checked_host(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{name} is {value!r}: it must be a name or an address")
    host = value.lower()
    if host and not (_HOST.fullmatch(host) or _IPV6.fullmatch(host)):
        raise ConfigError(f"{name} is {value!r}: it must be a name or an address alone, as <26 characters>.dsql.<region>.on.aws")
    return host


def _configured_region(profile: str) -> str:
    try:
        import botocore.session  # noqa: PLC0415 - a tenth of a second of import, wanted only here
    except ImportError:
        return ""
    try:
        return botocore.session.Session(profile=profile or None).get_config_variable("region") or ""
    except Exception as error:
        raise ConfigError(f"the AWS configuration can't be read for a region: {error}") from error


def _merged(environ: Mapping[str, str], url: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Argument over URL over environment. A host that names its region takes the place of a region said below it."""
    merged: dict[str, Any] = {}
    for level in (_from_variables(environ), url, overrides):
        if _REGION_IN_HOST.search(str(level.get("host", ""))):
            merged.pop("region", None)
        merged.update(level)
    return merged


def _from_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    _refuse_misspelt_variables(environ)
    found = {"host": environ.get("CLUSTER_ENDPOINT", "")}
    for name in _NAMES:
        if name != "credentials":
            found[name] = environ.get(f"DSQL_{name.upper()}", "") or found.get(name, "")
    return {name: _parsed(name, text, f"DSQL_{name.upper()}") for name, text in found.items() if text}


def _refuse_misspelt_variables(environ: Mapping[str, str]) -> None:
    """A variable that is nearly one of ours is none of somebody else's: DSQL_TOKEN_DURATION_SEC=60 must not mean 900."""
    known = {f"DSQL_{name.upper()}" for name in _NAMES} | {"DSQL_URL", "DSQL_CONNECT_AT_INIT"}
    unknown = [name for name in environ if name.startswith("DSQL_") and name not in known]
    if not unknown:
        return
    from difflib import get_close_matches  # noqa: PLC0415 - only where there is a name to look at

    for name in unknown:
        near = get_close_matches(name, known, n=1, cutoff=0.9)
        if near:
            raise ConfigError(f"the environment has an unknown variable {name}: did you mean {near[0]}?")


def _from_url(url: str) -> dict[str, Any]:
    # No message quotes the URL: it may hold a password.
    if not isinstance(url, str) or not url.startswith(("postgres://", "postgresql://")):
        scheme = url.partition("://")[0] if isinstance(url, str) and "://" in url else ""
        said = f"the scheme {scheme!r} is not known" if scheme.isalnum() else "it has no scheme"
        raise ConfigError(f"the connection string can't be read, {said}: it starts with postgres:// or postgresql://")
    if any(ord(each) <= ord(" ") for each in url):
        raise ConfigError("the connection string can't be read: it holds white space; write a space as %20")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError("the connection string can't be read: its host or port is malformed (a port is 1 to 65535)") from None
    if parts.fragment or url.endswith("#"):
        raise ConfigError("the connection string has a part after '#': write the character as %23")
    if parts.password is not None:
        raise ConfigError("the connection string has a password: leave it out, an IAM token is made for each connection")
    found: dict[str, Any] = {
        "host": _decoded("host", parts.hostname or ""),
        "port": port,
        "user": _decoded("user", parts.username or ""),
        "database": _decoded("database", parts.path.removeprefix("/")),
    }
    seen: set[str] = set()
    for pair in filter(None, parts.query.split("&")):
        key, _, value = (_decoded("parameter", each) for each in pair.partition("="))
        if key in seen:
            raise ConfigError(f"the connection string has the parameter {key!r} twice: leave one")
        seen.add(key)
        if key == "sslmode":
            if value != "verify-full":
                raise ConfigError(f"sslmode is {value!r}: only verify-full is accepted, for the password is an IAM token")
        elif key in _URL_PARAMETERS:
            found[_URL_PARAMETERS[key]] = _parsed(_URL_PARAMETERS[key], value, key) if value else None
        else:
            raise ConfigError(f"the connection string has an unknown parameter {key!r}{_nearest(key)}")
    return {name: value for name, value in found.items() if value not in ("", None)}


def _nearest(key: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only for the sentence of an error

    known = [*_URL_PARAMETERS, "sslmode"]
    by_lower = {each.lower(): each for each in known}
    near = get_close_matches(key.lower(), by_lower, n=1, cutoff=0.5)
    return f": did you mean {by_lower[near[0]]!r}?" if near else f": known are {', '.join(known)}"


def _decoded(what: str, text: str) -> str:
    try:
        if _PERCENT.search(text):
            raise ValueError
        return unquote(text, errors="strict")
    except ValueError:
        raise ConfigError(f"the {what} in the connection string is not percent-encoded UTF-8: write '%' as %25") from None


def _parsed(name: str, text: str, said_as: str) -> Any:
    """The value of an option that was written as text; `said_as` is its name where it was written."""
    default = _DEFAULTS[name]
    if isinstance(default, bool):
        if text.lower() not in ("on", "off", "true", "false", "1", "0", "yes", "no"):
            raise ConfigError(f"{said_as} is {text!r}: it must be on or off")
        return text.lower() in ("on", "true", "1", "yes")
    if isinstance(default, int | float):
        kind, pattern = (int, r"\d{1,18}") if isinstance(default, int) else (float, r"\d{1,18}(\.\d{1,18})?")
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ConfigError(f"{said_as} is {text!r}: it must be a {'whole ' if kind is int else ''}number")
        return kind(text)
    return text
