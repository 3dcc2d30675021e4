"""A local DSQL in a process of its own, so that its work is not its clients'. Knows `python -m dsql_local serve`, and nothing else."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from dsql_lambda import ConnectOptions
from dsql_lambda.token import Credentials


@contextmanager
def served() -> Iterator[dict[str, str]]:
    """The variables that a client of it needs."""
    environ = {name: value for name, value in os.environ.items() if name != "AWS_LAMBDA_RUNTIME_API"}
    process = subprocess.Popen(
        [sys.executable, "-m", "dsql_local", "serve"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
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


def options_of(environment: dict[str, str]) -> ConnectOptions:
    """The layer's options for it."""
    credentials = Credentials(access_key=environment["AWS_ACCESS_KEY_ID"], secret_key=environment["AWS_SECRET_ACCESS_KEY"])
    return ConnectOptions.from_env(environment, credentials=credentials)
