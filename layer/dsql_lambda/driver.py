"""pg8000, the driver under this package, in a version that it is written for. Knows nothing of connections.

The only module that imports pg8000. In the layer, `layer/lean.py` has moved pg8000's costly imports into the functions that use
them.
"""

from __future__ import annotations

from typing import Any

VERSION = "1.31.6"
"""The version in the layer, and the oldest that will do."""

_SERIES, _, _OLDEST = VERSION.rpartition(".")


def _is_supported(version: str) -> bool:
    series, _, patch = version.rpartition(".")
    return series == _SERIES and patch.isdecimal() and int(patch) >= int(_OLDEST)


def _installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - costly, and only for an error

    try:
        return version("pg8000")
    except PackageNotFoundError:
        return "one without metadata"


def _unsupported(version: str) -> ImportError:
    """What to say of another version, as a rule the function's own: /var/task comes before /opt on sys.path."""
    from importlib.util import find_spec  # noqa: PLC0415 - the same

    needed = f"dsql_lambda needs pg8000 {VERSION} or a later {_SERIES}"
    spec = find_spec("pg8000")
    if spec is None or not spec.submodule_search_locations:
        return ImportError(f"{needed}, which is not installed: attach the layer, or pip install pg8000=={VERSION}", name="pg8000")
    folder = spec.submodule_search_locations[0]
    remedy = f"remove it from the function's package, or pin pg8000=={VERSION} there"
    return ImportError(f"{needed}, but found {version} in {folder}: {remedy}", name="pg8000", path=folder)


try:
    # `import pg8000.core as core`, for `from pg8000 import core` would first ask the package for the name, and load its DB-API.
    import pg8000.converters as converters  # noqa: PLR0402
    import pg8000.core as core  # noqa: PLR0402
    import pg8000.exceptions as exceptions  # noqa: PLR0402
    import pg8000.native as native  # noqa: PLR0402
except ImportError as error:
    if not _is_supported(found := _installed_version()):
        raise _unsupported(found) from error
    raise
if not _is_supported(found := getattr(core, "ver", None) or _installed_version()):
    raise _unsupported(found)


def dbapi() -> Any:
    """pg8000's DB-API module, which most programs never need."""
    import pg8000.dbapi  # noqa: PLC0415

    return pg8000.dbapi


__all__ = ["VERSION", "converters", "core", "dbapi", "exceptions", "native"]
