"""Where to connect, as whom, and how: `ConnectOptions`, a frozen value that can't hold a bad one.

Knows the options, their bounds, and how a region follows from them. Opens nothing. Every value has one order of precedence:
argument > URL > environment > default; an empty string, like an empty environment variable, is "not given".
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from .endpoint import checked_host, endpoint_of, is_cluster_id, is_region, region_in
from .errors import ConfigError
from .fields import Frozen, check_number, check_text
from .iam_token import LONGEST_TOKEN_SECS, Signer, Token
from .variables import read_variables
from .version import __version__

ADMIN = "admin"
_LONGEST_APPLICATION_NAME = 63  # PostgreSQL's NAMEDATALEN of 64 bytes holds the terminator too


class ConnectOptions(Frozen):
    """What a connection is opened with. Raises `ConfigError` for a value that is missing, malformed or contradicts another.

    The region is found in this order: the host name, `region`, `AWS_REGION`, `AWS_DEFAULT_REGION`, the AWS configuration
    files (boto3 is imported only for the last).
    """

    host: str
    """The cluster's endpoint, or its 26-character id where a region is known. Required."""
    hostaddr: str
    """What to dial instead of `host`, which stays the name that TLS verifies and the token is for (as in libpq)."""
    server_name: str
    """The name that TLS sends and verifies, where it is not `host`: with PrivateLink all three may differ."""
    cluster_id: str
    """Sent as the startup option `amzn-cluster-id`: what names the cluster behind a PrivateLink endpoint without private DNS."""
    port: int
    """The port to dial."""
    user: str
    """The database role. `admin` gets a DbConnectAdmin token, every other role a DbConnect token."""
    database: str
    """The database: a cluster has one."""
    region: str
    """The AWS region that the token is signed for. Found in the host name where that says it; must not contradict it."""
    profile: str
    """The AWS profile to take credentials from; it beats the environment's credentials."""
    credentials: object
    """A boto3 or botocore session, a botocore provider or credentials object, or a callable that returns one of these."""
    token_duration_secs: int
    """How long a token is valid for: 1 to 604,800 seconds."""
    orm_prefix: str
    """Goes before this library's name in the application name, as in `sqlalchemy:dsql-lambda/1.0`."""
    application_name: str
    """Takes the place of the whole application name."""
    sslrootcert: str
    """A path, `system`, or PEM text: the roots to trust. Not given: Amazon's own, which are bundled."""
    connect_timeout: float
    """Seconds for one try to open a connection; without a deadline, also for all of them while the cluster is busy."""
    pipeline: bool
    """False sends one statement a flight, and COMMIT in one of its own."""
    probe_after_secs: float
    """A connection unused for so many seconds proves itself first, by a BEGIN whose answer is awaited. 0: always."""
    configure: Callable[[Any], None] | None
    """Called with each new connection before it is used: what it SETs stays set, also where the rest is taken back."""

    def __init__(
        self,
        *,
        host: str = "",
        hostaddr: str = "",
        server_name: str = "",
        cluster_id: str = "",
        port: int = 5432,
        user: str = ADMIN,
        database: str = "postgres",
        region: str = "",
        profile: str = "",
        credentials: object = None,
        token_duration_secs: int = 900,
        orm_prefix: str = "",
        application_name: str = "",
        sslrootcert: str = "",
        connect_timeout: float = 10.0,
        pipeline: bool = True,
        probe_after_secs: float = 60.0,
        configure: Callable[[Any], None] | None = None,
    ) -> None:
        given = locals()
        values = {name: default if given[name] is None else given[name] for name, default in _DEFAULTS.items()}
        for name in ("host", "hostaddr", "server_name"):
            values[name] = checked_host(name, values[name])
        for name in ("user", "database", "cluster_id", "region", "profile", "orm_prefix", "application_name", "sslrootcert"):
            check_text(name, values[name])
        values["orm_prefix"] = values["orm_prefix"].strip()
        self.__dict__.update(values)
        self._check()
        self.__dict__["region"] = self._resolve_region()
        if is_cluster_id(self.host):
            self.__dict__["host"] = endpoint_of(self.host, self.region)

    @classmethod
    def from_url(cls, url: str, *, environ: Mapping[str, str] | None = None, **overrides: Any) -> ConnectOptions:
        """Options from `postgres://[user@]host[:port]/[database][?parameter=value&...]`; `postgresql://` is the same.

        A cluster's endpoint or id alone is accepted too. Every part may be percent-encoded. What neither `overrides` nor the URL
        say is taken from `environ` (the process's unless given), as libpq does. An unknown or repeated parameter, a password and
        a weaker `sslmode` are a `ConfigError`.
        """
        return cls(**_merged(os.environ if environ is None else environ, _read_url(url), overrides))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> ConnectOptions:
        """Options from `DSQL_URL` and `DSQL_<FIELD>`.

        `CLUSTER_ENDPOINT` and `CLUSTER_USER` stand for `DSQL_HOST` and `DSQL_USER`, as in AWS's samples.
        """
        environ = os.environ if environ is None else environ
        url = environ.get("DSQL_URL", "")
        return cls(**_merged(environ, _read_url(url) if url else {}, overrides))

    def replace(self, **changes: Any) -> Self:
        """The same options with some changed, validated again. A new host brings its own region unless one is given."""
        if "host" in changes:
            changes.setdefault("region", "")
        return super().replace(**changes)

    def token(self, at: float | None = None) -> Token:
        """Sign a fresh IAM token: a local computation, no call. `at` is the moment of signing (seconds since 1970).

        Raises `TokenError` where no credentials are found.
        """
        return signer_for(self).sign(at)

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
        for name, default in _DEFAULTS.items():
            value = getattr(self, name)
            if value == default and name != "host":
                continue
            if name == "credentials":
                shown.append("credentials=<given>")
            elif name == "configure":
                shown.append(f"configure={getattr(value, '__qualname__', '<given>')}")
            elif name == "sslrootcert" and is_pem(value):
                shown.append("sslrootcert=<PEM text>")
            else:
                shown.append(f"{name}={value!r}")
        return f"ConnectOptions({', '.join(shown)})"

    def _check(self) -> None:
        check_number("port", self.port, 1, 65_535, whole=True)
        check_number("token_duration_secs", self.token_duration_secs, 1, LONGEST_TOKEN_SECS, whole=True)
        check_number("connect_timeout", self.connect_timeout, 0, 3600, above=True)
        check_number("probe_after_secs", self.probe_after_secs, 0, 3600)
        if not isinstance(self.pipeline, bool):
            raise ConfigError(f"pipeline is {self.pipeline!r}: it must be True or False")
        if self.configure is not None and not callable(self.configure):
            raise ConfigError(f"configure is {self.configure!r}: it must be a function of one connection")
        if not self.user or not self.database:
            raise ConfigError(f"{'database' if self.user else 'user'} is empty: leave it out for the default")
        if not self.host:
            raise ConfigError("no host: set DSQL_HOST (or host=) to the cluster's endpoint or its 26-character id")
        if self.cluster_id and not is_cluster_id(self.cluster_id):
            raise ConfigError(f"cluster_id is {self.cluster_id!r}: it must be 26 characters of a-z and 0-9")
        if len(self.resolved_application_name.encode()) > _LONGEST_APPLICATION_NAME:
            name = "application_name" if self.application_name else "orm_prefix"
            raise ConfigError(
                f"{name} makes the application name {self.resolved_application_name!r} longer than "
                f"{_LONGEST_APPLICATION_NAME} bytes, where PostgreSQL cuts it: shorten it"
            )

    def _resolve_region(self) -> str:
        said = region_in(self.host)
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
        if not is_region(region):
            raise ConfigError(f"region is {region!r}: it must be an AWS region's name, as us-east-1")
        return region


_DEFAULTS: dict[str, Any] = ConnectOptions.__init__.__kwdefaults__ or {}  # the signature has them

OPTION_NAMES = tuple(_DEFAULTS)


def signer_for(
    options: ConnectOptions, *, clock: Callable[[], float] = time.time, environ: Mapping[str, str] = os.environ
) -> Signer:
    """What signs the tokens of these options, and keeps the last one while it is good."""
    return Signer(
        host=options.host,
        region=options.region,
        action=options.action,
        duration_secs=options.token_duration_secs,
        credentials=options.credentials,
        profile=options.profile,
        clock=clock,
        environ=environ,
    )


def is_pem(text: str) -> bool:
    """Is it certificates themselves, and not the path of a file that holds them?"""
    return "-----BEGIN" in text


def _configured_region(profile: str) -> str:
    try:
        import botocore.session  # noqa: PLC0415 - a tenth of a second of import, wanted only here
    except ImportError:
        return ""
    try:
        return botocore.session.Session(profile=profile or None).get_config_variable("region") or ""
    except Exception as error:
        raise ConfigError(f"the AWS configuration can't be read for a region: {error}") from error


def _read_url(url: str) -> dict[str, Any]:
    from .conninfo import read_url  # noqa: PLC0415 - an import costs cold start: for those who have a connection string

    return read_url(url, _DEFAULTS)


def _merged(environ: Mapping[str, str], url: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Argument over URL over environment. A host that names its region takes the place of a region said below it."""
    merged: dict[str, Any] = {}
    for level in (read_variables(environ, _DEFAULTS), url, overrides):
        if region_in(str(level.get("host", ""))):
            merged.pop("region", None)
        merged.update(level)
    return merged
