"""Where options are written: a connection string and the environment's variables, each read into keywords of `ConnectOptions`.

Knows their syntax and names, and nothing of bounds. `defaults` holds each option's default by its name; the default's type says
how a text is read. No message quotes a connection string: it may hold a password.
https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .endpoint import is_cluster_id, is_endpoint
from .errors import ConfigError

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

# As AWS's samples name them; DSQL_HOST and DSQL_USER beat them.
SAMPLES_VARIABLES = {"host": "CLUSTER_ENDPOINT", "user": "CLUSTER_USER"}

OBJECTS = frozenset({"configure", "credentials"})  # no text can say them
_OTHER_VARIABLES = ("DSQL_URL", "DSQL_CONNECT_AT_INIT")


def variable_of(option: str) -> str:
    """The environment's variable of an option."""
    return f"DSQL_{option.upper()}"


def read_variables(environ: Mapping[str, str], defaults: Mapping[str, object]) -> dict[str, Any]:
    """What the environment says. An empty variable is unset. Raises `ConfigError`."""
    names = {variable_of(option): option for option in defaults if option not in OBJECTS}
    _look_for_misspelt(environ, [*names, *_OTHER_VARIABLES])
    found = {}
    for variable, option in names.items():
        used = variable if environ.get(variable) else SAMPLES_VARIABLES.get(option, variable)
        if text := environ.get(used, ""):
            found[option] = _parsed(text, defaults[option], used)
    return found


def read_url(url: str, defaults: Mapping[str, object]) -> dict[str, Any]:
    """What a connection string says, or a cluster's endpoint or id alone. An empty value is "not given". Raises `ConfigError`."""
    if isinstance(url, str) and (is_cluster_id(url.lower()) or is_endpoint(url)):
        return {"host": url}
    place, parameters = _split(url)
    found = {name: _parsed(text, defaults[name], name) for name, text in place.items() if text}
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
            found[option] = _parsed(text, defaults[option], key)
    return found


def _split(url: str) -> tuple[dict[str, str], dict[str, str]]:
    """What stands before the question mark (`host`, `port`, `user`, `database`), and the parameters behind it, decoded."""
    from urllib.parse import urlsplit  # noqa: PLC0415 - cold start, for those alone who have a connection string

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
    import re  # noqa: PLC0415 - as above
    from urllib.parse import unquote  # noqa: PLC0415

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


def _look_for_misspelt(environ: Mapping[str, str], known: list[str]) -> None:
    """Refuse a slip, which would mean the default: DSQL_TOKEN_DURATION_SEC=60. Warn, once, of another name that is near one."""
    unknown = [name for name in environ if name.startswith("DSQL_") and name not in known]
    if not unknown:
        return
    import warnings  # noqa: PLC0415 - only where there is a name to look at
    from difflib import get_close_matches  # noqa: PLC0415

    for name in unknown:
        for each in known:
            if _is_slip(name, each):
                raise ConfigError(f"the environment has an unknown variable {name}: did you mean {each}?")
        for each in get_close_matches(name, known, n=1, cutoff=0.9):
            warnings.warn(f"dsql_lambda does not read the variable {name}: did you mean {each}?", stacklevel=2)


def _is_slip(name: str, known: str) -> bool:
    """Is it `known` with one letter missing, added or changed, or two in each other's place? What goes on behind it is a name."""
    if name.startswith(known):
        return False
    if len(name) != len(known):
        return name in _without_a_letter(known) or known in _without_a_letter(name)
    differences = sum(one != other for one, other in zip(name, known, strict=True))
    return differences == 1 or (differences == 2 and sorted(name) == sorted(known))


def _without_a_letter(text: str) -> set[str]:
    return {text[:at] + text[at + 1 :] for at in range(len(text))}


def _parsed(text: str, default: object, said_as: str) -> Any:
    """The value of an option that was written as text; `said_as` is its name where it was written."""
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
