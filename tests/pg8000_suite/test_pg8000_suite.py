"""pg8000's own tests of `pg8000.native`, with our `Connection` in the place of pg8000's, on the same plain PostgreSQL.

They come from the source distribution of the pinned version, which `make` fetches by pip.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest
import trustme

from dsql_lambda import Connection
from dsql_lambda.driver import VERSION
from dsql_local.postgres.server import Postgres
from dsql_local.postgres.template import SUPERUSER, Template

HERE = Path(__file__).parent
ARCHIVE = Path(sys.prefix) / "sources" / f"pg8000-{VERSION}.tar.gz"

SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
ssl = on
default_transaction_isolation = 'read committed'
password_encryption = 'scram-sha-256'
"""

# As pg8000's README has it.
ACCESS = """
local all all trust
host pg8000_md5 all 127.0.0.1/32 md5
host pg8000_gss all 127.0.0.1/32 gss
host pg8000_password all 127.0.0.1/32 password
host pg8000_scram_sha_256 all 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""


class ListeningTemplate(Template):
    """The local DSQL's cluster, listening on a TCP port as pg8000's tests want it."""

    port: int

    def copy(self, target: Path) -> None:
        super().copy(target)
        certificate = trustme.CA().issue_cert("localhost")
        key = target / "server.key"
        key.write_bytes(certificate.private_key_pem.bytes())
        key.chmod(0o600)
        self.account.own(key)
        (target / "server.crt").write_bytes(certificate.cert_chain_pems[0].bytes())
        (target / "pg_hba.conf").write_text(ACCESS)
        with (target / "postgresql.conf").open("a") as settings:
            settings.write(SETTINGS.format(port=self.port))


class ListeningPostgres(Postgres):
    """A PostgreSQL whose unix socket has the port in its name."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        ready = Template.ready()
        template = ListeningTemplate(programs=ready.programs, cluster=ready.cluster, account=ready.account)
        object.__setattr__(template, "port", self.port)
        super().__init__(template)

    @property
    def socket(self) -> Path:
        return self.folder / f".s.PGSQL.{self.port}"


@pytest.fixture(scope="module")
def postgres():
    with contextlib.ExitStack() as stack:
        postgres = ListeningPostgres()
        stack.callback(postgres.stop)
        postgres.start()
        with Connection(SUPERUSER, unix_sock=str(postgres.socket), database="postgres", ssl_context=False) as connection:
            connection.run("CREATE ROLE postgres SUPERUSER LOGIN PASSWORD 'pw'")
            connection.run("CREATE EXTENSION hstore")
            connection.run("CREATE DATABASE pg8000_scram_sha_256 TEMPLATE postgres")
        yield postgres


@pytest.fixture
def suite(tmp_path):
    """The source distribution, unpacked. Without it the test is skipped, or fails where REQUIRE_PG8000_SUITE=1."""
    if not ARCHIVE.exists():
        missing = f"{ARCHIVE} is missing: `make clean test` fetches it where pip reaches a package index"
        if os.environ.get("REQUIRE_PG8000_SUITE") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / f"pg8000-{VERSION}"


def test_pg8000s_own_tests_pass_with_our_connection(postgres, suite, tmp_path):
    """Every test passes. Stock pg8000 passes them too on this server, so there is no list of exceptions."""
    results = tmp_path / "results"
    plugins = ("-p", "no:cacheprovider", "-p", "suite_plugin")
    done = subprocess.run(
        # An empty configuration: warnings are pg8000's business here.
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", ".", *plugins, "test/native"],
        cwd=suite,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SUITE_RESULTS": str(results),
            "PGHOST": "127.0.0.1",
            "PGPORT": str(postgres.port),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    found = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    assert len(found) > 230, done.stdout + done.stderr
    assert {each["id"]: each["why"] for each in found if each["outcome"] != "passed"} == {}


def test_the_suite_is_the_pinned_versions():
    """The installed version, the one that the layer pins and the one whose tests run are the same."""
    assert version("pg8000") == VERSION
    assert f"pg8000=={VERSION}" in (HERE.parents[1] / "layer" / "requirements.txt").read_text()
