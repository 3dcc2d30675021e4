"""A local DSQL in a process of its own, so that its work is not its clients'.

Knows `python -m dsql_local serve`, and what clients want to be told.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from subprocess import PIPE, Popen
from typing import IO, Any, cast

from dsql_lambda import ConnectOptions, connect
from dsql_lambda.credentials import Credentials


@contextmanager
def served() -> Iterator[dict[str, str]]:
    """The variables that a client of it needs."""
    environ = {name: value for name, value in os.environ.items() if name != "AWS_LAMBDA_RUNTIME_API"}
    process = Popen([sys.executable, "-m", "dsql_local", "serve"], stdout=PIPE, stderr=PIPE, text=True, env=environ)
    stdout, stderr = cast("list[IO[str]]", [process.stdout, process.stderr])
    try:
        said = ""
        while not said.endswith(f"kill {process.pid}\n"):  # its last line
            said += (line := stderr.readline())
            if not line:
                raise RuntimeError(f"the local DSQL did not start: {said}")
        # What it exports comes in one piece; the certificate has several lines.
        words = shlex.split(os.read(stdout.fileno(), 65_536).decode())
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
def libpq_of(environment: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """What libpq needs beside the password and the database's name; its certificate is in a file."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as authority:
        authority.write(environment["DSQL_SSLROOTCERT"])
        authority.flush()
        place = {name: environment[f"DSQL_{name.upper()}"] for name in ("host", "hostaddr", "port")}
        yield {**place, "user": "admin", "sslmode": "verify-full", "sslrootcert": authority.name, "autocommit": True}


def accounts(environment: Mapping[str, str]) -> None:
    """A table `accounts` with 100 rows, new."""
    with connect(options_of(environment)) as connection:
        connection.run("DROP TABLE IF EXISTS accounts")
        connection.run("CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL)")
        connection.run("INSERT INTO accounts SELECT n, 100 FROM generate_series(1, 100) n")
