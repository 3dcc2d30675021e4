"""Options as a connection string says them: `read_url`, into keywords of `ConnectOptions`. Loaded where there is one.

Knows its syntax and the names of its parameters; nothing of bounds. `defaults` is what module `variables` reads by. No message
quotes a connection string: it may hold a password.
https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from .endpoint import is_cluster_id, is_endpoint
from .errors import ConfigError
from .variables import parsed

# The names that a connection string's parameters have: AWS's connectors' own, and libpq's where there is one.
URL_PARAMETERS = {
    "region": "region",
    "profile": "profile",
    "tokenDurationSecs": "token_duration_secs",
    "ormPrefix": "orm_prefix",
    "user": "user",
    "hostaddr": "hostaddr",
    "serverName": "server_name",
    "clusterId": "cluster_id",
    "application_name": "application_name",
    "connect_timeout": "connect_timeout",
    "sslrootcert": "sslrootcert",
    "pipeline": "pipeline",
    "probeAfterSecs": "probe_after_secs",
}


def read_url(url: str, defaults: Mapping[str, object]) -> dict[str, Any]:
    """What a connection string says, or a cluster's endpoint or id alone. An empty value is "not given". Raises `ConfigError`."""
    if isinstance(url, str) and (is_cluster_id(url.lower()) or is_endpoint(url)):
        return {"host": url}
    place, parameters = _split(url)
    found = {name: parsed(text, defaults[name], name) for name, text in place.items() if text}
    for key, text in parameters.items():
        if key == "sslmode":
            if text != "verify-full":
                raise ConfigError(f"sslmode is {text!r}: only verify-full is accepted, for the password is an IAM token")
            continue
        if key not in URL_PARAMETERS:
            raise ConfigError(f"the connection string has an unknown parameter {key!r}{_nearest_parameter(key)}")
        option = URL_PARAMETERS[key]
        if text and option in found:
            raise ConfigError(f"the connection string says the {option} twice, before the '@' and as a parameter: leave one")
        if text:
            found[option] = parsed(text, defaults[option], key)
    return found


def _split(url: str) -> tuple[dict[str, str], dict[str, str]]:
    """What stands before the question mark (`host`, `port`, `user`, `database`), and the parameters behind it, decoded."""
    if not isinstance(url, str) or not url.startswith(("postgres://", "postgresql://")):
        scheme = url.partition("://")[0] if isinstance(url, str) and "://" in url else ""
        said = f"the scheme {scheme!r} is not known" if scheme.isalnum() else "it has no scheme"
        wanted = "it starts with postgres:// or postgresql://, or is a cluster's endpoint or id alone"
        raise ConfigError(f"the connection string can't be read, {said}: {wanted}")
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
    place = {
        "host": _decoded("host", parts.hostname or ""),
        "port": "" if port is None else str(port),
        "user": _decoded("user", parts.username or ""),
        "database": _decoded("database", parts.path.removeprefix("/")),
    }
    parameters: dict[str, str] = {}
    for pair in filter(None, parts.query.split("&")):
        key, _, value = (_decoded("parameter", each) for each in pair.partition("="))
        if key in parameters:
            raise ConfigError(f"the connection string has the parameter {key!r} twice: leave one")
        parameters[key] = value
    return place, parameters


def _decoded(what: str, text: str) -> str:
    try:
        if re.search(r"%(?![0-9A-Fa-f]{2})", text):
            raise ValueError
        return unquote(text, errors="strict")
    except ValueError:
        raise ConfigError(f"the {what} in the connection string is not percent-encoded UTF-8: write '%' as %25") from None


def _nearest_parameter(key: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only for the sentence of an error

    known = [*URL_PARAMETERS, "sslmode"]
    by_lower = {each.lower(): each for each in known}
    near = get_close_matches(key.lower(), by_lower, n=1, cutoff=0.5)
    return f": did you mean {by_lower[near[0]]!r}?" if near else f": known are {', '.join(known)}"
