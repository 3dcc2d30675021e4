"""The variables that lead a program to the local DSQL, as files: for a shell or python-dotenv, and for `sam local`.

A file that somebody else has made is never overwritten, and what is written here is removed at the end: it leads nowhere then.
"""

import contextlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["PG", "env_file", "env_json", "for_files", "written"]

_MARK = "# Written by python -m dsql_local serve, and removed when it ends.\n"
_NOTE = "written by python -m dsql_local serve, and removed when it ends"
PG = {"host": "PGHOST", "hostaddr": "PGHOSTADDR", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE"}
PG |= {"sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT"}


def for_files(environment: Mapping[str, str], libpq: Mapping[str, str]) -> dict[str, str]:
    """The variables for programs on this machine: the certificate as a path, and libpq's own, without a password."""
    own = {**environment, "DSQL_SSLROOTCERT": libpq["sslrootcert"], "CLUSTER_ENDPOINT": environment["DSQL_HOST"]}
    return own | {variable: libpq[name] for name, variable in PG.items()}


def env_file(variables: Mapping[str, str]) -> str:
    """`NAME=value` lines, which a shell and python-dotenv read alike."""
    return _MARK + "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())


def env_json(variables: Mapping[str, str]) -> str:
    """What `sam local invoke --env-vars` and `sam local start-api --env-vars` take: for every function."""
    return json.dumps({"Parameters": {**variables, "DSQL_LOCAL": _NOTE}}, indent=2) + "\n"


@contextlib.contextmanager
def written(path: Path | None, content: str) -> Iterator[None]:
    """The file is there inside the block, readable by its owner alone. FileExistsError for a file that is not ours."""
    if path is None:
        yield
        return
    if path.exists() and not _is_ours(path.read_text(encoding="utf-8")):
        raise FileExistsError(f"{path} is there already and was not written by dsql_local: it is left as it is")
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
