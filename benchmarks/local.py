"""A local DSQL in a process of its own, so that its work is not its clients'.

Knows `python -m dsql_local serve`, and what clients want to be told.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dsql_lambda import ConnectOptions
from dsql_lambda.credentials import Credentials


@contextmanager
def served() -> Iterator[dict[str, str]]:
    """The variables that a client of it needs."""
    environ = {name: value for name, value in os.environ.items() if name != "AWS_LAMBDA_RUNTIME_API"}
    process = subprocess.Popen(
        [sys.executable, "-m", "dsql_local", "serve"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
    )
    try:
        if process.stdout is None or process.stderr is None:
            raise RuntimeError("no pipe to the local DSQL")
        said = process.stderr.readline()
        process.stderr.readline()
        if not said.startswith("# The local DSQL serves"):
            raise RuntimeError(f"The local DSQL did not start: {said}{process.stderr.read()}")
        # What it exports comes in one piece; the certificate has several lines.
        exported = os.read(process.stdout.fileno(), 65_536).decode()
        words = shlex.split(exported)
        yield dict(word.split("=", 1) for word in words if word != "export")
    finally:
        process.terminate()
        process.communicate()


def options_of(environment: Mapping[str, str]) -> ConnectOptions:
    """The layer's options for it."""
    credentials = Credentials(access_key=environment["AWS_ACCESS_KEY_ID"], secret_key=environment["AWS_SECRET_ACCESS_KEY"])
    return ConnectOptions.from_env(environment, credentials=credentials)


@contextmanager
def credentials_of(environment: Mapping[str, str]) -> Iterator[None]:
    """Its AWS_* variables in this process, for boto3, and as they were afterwards."""
    before = dict(os.environ)
    os.environ.update({name: value for name, value in environment.items() if name.startswith("AWS_")})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def authority_of(environment: Mapping[str, str]) -> Iterator[str]:
    """The path of a file with its certificate, for libpq."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as authority:
        authority.write(environment["DSQL_SSLROOTCERT"])
        authority.flush()
        yield authority.name
