"""The syntax of a connection string: `postgres://[user@]host[:port]/[database][?parameter=value&...]`, taken apart.

Knows percent-encoding and what no connection string may hold; knows nothing of options, of their names or of their bounds.
Loaded only where there is one to read. No message quotes it: it may hold a password.
https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from .errors import ConfigError

_NO_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def split(url: str) -> tuple[dict[str, str], dict[str, str]]:
    """What stands before the question mark (`host`, `port`, `user`, `database`), and the parameters behind it, decoded.

    Raises `ConfigError` for another scheme, white space, a password, a fragment, a repeated parameter, and what is not
    percent-encoded UTF-8.
    """
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
        if _NO_ESCAPE.search(text):
            raise ValueError
        return unquote(text, errors="strict")
    except ValueError:
        raise ConfigError(f"the {what} in the connection string is not percent-encoded UTF-8: write '%' as %25") from None
