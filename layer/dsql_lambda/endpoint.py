"""A cluster's endpoint: the forms of its name, and the region in it. Pure functions on text.

<26 of a-z and 0-9>.dsql.<region>.on.aws, or .dsql-<suffix>.<region>.on.aws with PrivateLink
"""

from __future__ import annotations

from .errors import ConfigError

# Sets, not patterns: to compile these as regular expressions took 3 ms of each cold start.
_ALPHANUMERIC = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_IN_A_LABEL = _ALPHANUMERIC | {"-", "_"}
_IN_IPV6 = frozenset("0123456789abcdef:.")


def is_cluster_id(host: str) -> bool:
    """Is it a cluster's id, 26 of a-z and 0-9? Then the endpoint is made of it and the region; no other name is touched."""
    return len(host) == 26 and _ALPHANUMERIC.issuperset(host)


def endpoint_of(cluster_id: str, region: str) -> str:
    """The public endpoint of a cluster."""
    return f"{cluster_id}.dsql.{region}.on.aws"


def region_in(host: str) -> str:
    """The region that an endpoint's name says; empty if it says none."""
    labels = host.lower().split(".")
    is_endpoint = len(labels) > 4 and labels[-4].startswith("dsql") and labels[-2:] == ["on", "aws"]
    return labels[-3] if is_endpoint else ""


def is_endpoint(text: str) -> bool:
    """Is it an endpoint's name, and nothing else?"""
    return bool(region_in(text)) and _is_name(text.lower())


def is_region(name: str) -> bool:
    """Does it have the form of a region's name, as us-east-1?"""
    first, *others = name.split("-")
    is_place = len(first) == 2 and first.isalpha() and _ALPHANUMERIC.issuperset(first)
    return is_place and bool(others) and all(each and _ALPHANUMERIC.issuperset(each) for each in others)


def checked_host(name: str, value: object) -> str:
    """A host's name or address in lower case. Raises `ConfigError`, in which `name` is what the option is called."""
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
