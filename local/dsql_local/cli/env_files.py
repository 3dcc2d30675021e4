"""Files of environment variables that point a program to the local DSQL: for a shell or python-dotenv, and for `sam local`.

Files that this module did not write are never overwritten. Those that it wrote are removed at the end, when they are obsolete.
"""

import contextlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["LIBPQ_VARIABLES", "env_file", "env_json", "file_variables", "temporary_file"]

_MARK = "# Written by python -m dsql_local serve, and removed when it ends.\n"
_NOTE = "written by python -m dsql_local serve, and removed when it ends"
LIBPQ_VARIABLES = {"host": "PGHOST", "hostaddr": "PGHOSTADDR", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE"}
LIBPQ_VARIABLES |= {"sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT"}


def file_variables(environment: Mapping[str, str], libpq: Mapping[str, str]) -> dict[str, str]:
    """The variables for programs on this machine: the certificate as a path, and libpq's variables without a password."""
    own = {**environment, "DSQL_SSLROOTCERT": libpq["sslrootcert"], "CLUSTER_ENDPOINT": environment["DSQL_HOST"]}
    return own | {variable: libpq[name] for name, variable in LIBPQ_VARIABLES.items()}


def env_file(variables: Mapping[str, str]) -> str:
    """`NAME=value` lines, for a shell and python-dotenv."""
    return _MARK + "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())


def env_json(variables: Mapping[str, str]) -> str:
    """The JSON that `sam local invoke --env-vars` and `sam local start-api --env-vars` read, for all functions."""
    return json.dumps({"Parameters": {**variables, "DSQL_LOCAL": _NOTE}}, indent=2) + "\n"


@contextlib.contextmanager
def temporary_file(path: Path | None, content: str) -> Iterator[None]:
    """Keep a file inside the block, readable only by its owner. Raises FileExistsError if another file exists."""
    if path is None:
        yield
        return
    if path.exists() and not _is_ours(path.read_text(encoding="utf-8")):
        raise FileExistsError(f"{path} exists and was not written by dsql_local; delete it or choose another name")
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(content)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if path.read_text(encoding="utf-8") == content:
                path.unlink()


def _is_ours(content: str) -> bool:
    return content.startswith(_MARK) or _NOTE in content
