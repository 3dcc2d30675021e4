"""Where to connect, as whom, and how: `ConnectOptions`, a frozen value that can't hold a bad one.

Knows the names and bounds of options, connection strings and the environment's variables, and how a region follows from
them. Opens nothing and signs nothing. Every value has one order of precedence: argument > URL > environment > default;
an empty string, like an empty environment variable, is "not given".
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import isfinite

from .errors import ConfigError
from .value import Value
from .version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from .token import Token

ADMIN = "admin"
LONGEST_TOKEN_SECS = 604_800  # SigV4's own limit for a presigned request: a week
_LONGEST_APPLICATION_NAME = 63  # PostgreSQL's NAMEDATALEN of 64 bytes holds the terminator too

# Sets, not patterns: to compile these as regular expressions took 3 ms of each cold start.
_ALPHANUMERIC = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_IN_A_LABEL = _ALPHANUMERIC | {"-", "_"}
_IN_IPV6 = frozenset("0123456789abcdef:.")

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


class ConnectOptions(Value, kw_only=True):
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
    credentials: object = None
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
        values = self.__dict__
        for name in _NAMES:
            if values[name] is None and name != "credentials":
                values[name] = _DEFAULTS[name]
        for name in ("host", "hostaddr", "server_name"):
            values[name] = _checked_host(name, values[name])
        check_number("port", self.port, 1, 65_535, whole=True)
        check_number("token_duration_secs", self.token_duration_secs, 1, LONGEST_TOKEN_SECS, whole=True)
        check_number("connect_timeout", self.connect_timeout, 0, 3600, above=True)
        check_number("probe_after_secs", self.probe_after_secs, 0, 3600)
        for name in ("user", "database", "cluster_id", "region", "profile", "orm_prefix", "application_name", "sslrootcert"):
            value = values[name]
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
        values["region"] = self._resolve_region()
        if is_cluster_id(self.host):
            values["host"] = f"{self.host}.dsql.{self.region}.on.aws"
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

    def replace(self, **changes: Any) -> Self:
        """The same options with some changed, validated again. A new host brings its own region unless one is given."""
        if "host" in changes:
            changes.setdefault("region", "")
        return super().replace(**changes)

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

    def __hash__(self) -> int:
        return hash((self.host, self.port, self.user))  # asked for at each invocation; credentials may not be hashable

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
        said = _region_in(self.host)
        if said and self.region and self.region != said:
            raise ConfigError(f"region is {self.region!r}, but the host {self.host} is in {said!r}: leave region out")
        region = (
            said
            or self.region
            or os.environ.get("AWS_REGION", "")
            or os.environ.get("AWS_DEFAULT_REGION", "")
            or _configured_region(self.profile)
        )
        if not region:
            what = "a cluster id" if is_cluster_id(self.host) else f"the host {self.host}"
            raise ConfigError(f"no region is known for {what}: set DSQL_REGION (or region=), or AWS_REGION")
        if not _is_region(region):
            raise ConfigError(f"region is {region!r}: it must be an AWS region's name, as us-east-1")
        return region


_DEFAULTS: dict[str, Any] = {name: getattr(ConnectOptions, name) for name in ConnectOptions._fields}
_NAMES = tuple(_DEFAULTS)


def is_cluster_id(host: str) -> bool:
    """Is it a cluster's id, 26 of a-z and 0-9? Then the endpoint is made of it and the region; no other name is touched."""
    return len(host) == 26 and _ALPHANUMERIC.issuperset(host)


def _region_in(host: str) -> str:
    """The region that an endpoint's name says, as in `<id>.dsql.<region>.on.aws`; empty if it says none."""
    labels = host.lower().split(".")
    is_endpoint = len(labels) > 4 and labels[-4].startswith("dsql") and labels[-2:] == ["on", "aws"]
    return labels[-3] if is_endpoint else ""


def _is_region(name: str) -> bool:
    first, *others = name.split("-")
    is_place = len(first) == 2 and first.isalpha() and _ALPHANUMERIC.issuperset(first)
    return is_place and bool(others) and all(each and _ALPHANUMERIC.issuperset(each) for each in others)


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
    if host and not (_is_name(host) or (":" in host and _IN_IPV6.issuperset(host))):
        raise ConfigError(f"{name} is {value!r}: it must be a name or an address alone, as <26 characters>.dsql.<region>.on.aws")
    return host


def _is_name(host: str) -> bool:
    return len(host) <= 253 and all(
        label and _IN_A_LABEL.issuperset(label) and label[0] != "-" and (label[-1] in _ALPHANUMERIC or label == "_")
        for label in host.split(".")
    )


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
        if _region_in(str(level.get("host", ""))):
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
    from .url import split  # noqa: PLC0415 - a part of cold start for those who have a connection string

    found: dict[str, Any] = {}
    place, parameters = split(url)
    for name, text in place.items():
        found[name] = _parsed(name, text, name) if text else None
    for key, text in parameters.items():
        if key == "sslmode":
            if text != "verify-full":
                raise ConfigError(f"sslmode is {text!r}: only verify-full is accepted, for the password is an IAM token")
        elif key in _URL_PARAMETERS:
            found[_URL_PARAMETERS[key]] = _parsed(_URL_PARAMETERS[key], text, key) if text else None
        else:
            raise ConfigError(f"the connection string has an unknown parameter {key!r}{_nearest(key)}")
    return {name: value for name, value in found.items() if value is not None}


def _nearest(key: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only for the sentence of an error

    known = [*_URL_PARAMETERS, "sslmode"]
    by_lower = {each.lower(): each for each in known}
    near = get_close_matches(key.lower(), by_lower, n=1, cutoff=0.5)
    return f": did you mean {by_lower[near[0]]!r}?" if near else f": known are {', '.join(known)}"


def _parsed(name: str, text: str, said_as: str) -> Any:
    """The value of an option that was written as text; `said_as` is its name where it was written."""
    default = _DEFAULTS[name]
    if isinstance(default, bool):
        if text.lower() not in ("on", "off", "true", "false", "1", "0", "yes", "no"):
            raise ConfigError(f"{said_as} is {text!r}: it must be on or off")
        return text.lower() in ("on", "true", "1", "yes")
    if isinstance(default, int | float):
        kind = type(default)
        digits = text.split(".", 0 if kind is int else 1)
        if not all(each.isascii() and each.isdigit() and len(each) <= 18 for each in digits):
            raise ConfigError(f"{said_as} is {text!r}: it must be a {'whole ' if kind is int else ''}number")
        return kind(text)
    return text
