"""What users would pick instead, each written as its documentation shows, up to the first row. As texts: every one runs in a
process of its own.

All verify TLS against the local DSQL's certificate authority, and make a real token. The cluster's name does not resolve
here: libpq is given `hostaddr`; for asyncpg and pg8000, `socket.getaddrinfo` is replaced inside the process by one that knows
the one address. The layer's own timeout leaves time for a run under valgrind.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

_SETTINGS = """
import os
HOST, PORT = os.environ["DSQL_HOST"], int(os.environ["DSQL_PORT"])
ADDRESS, CA, REGION = os.environ["DSQL_HOSTADDR"], os.environ["BENCH_CA"], os.environ["AWS_REGION"]
"""
_RESOLVE = """
import socket
resolve = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **more: resolve(ADDRESS if host in (HOST, HOST.encode()) else host, *rest, **more)
"""
_SIGNED_BY_BOTO3 = """
import boto3
token = boto3.client("dsql", region_name=REGION).generate_db_connect_admin_auth_token(HOST, REGION)
"""

OURS = "here"
CONNECTOR = "connector, psycopg 3"

FIRST_ROW = {
    OURS: """
from dsql_lambda import with_dsql_transaction
@with_dsql_transaction(timeout=60)
def first(tx):
    return tx.value("SELECT balance FROM accounts WHERE id = :id", id=1)
row = first()
""",
    CONNECTOR: _SETTINGS
    + """
import aurora_dsql_psycopg
connection = aurora_dsql_psycopg.connect(
    host=HOST, hostaddr=ADDRESS, port=PORT, user="admin", sslmode="verify-full", sslrootcert=CA, autocommit=True
)
row = connection.execute("SELECT balance FROM accounts WHERE id = %s", (1,)).fetchone()[0]
""",
    "connector, asyncpg": _SETTINGS
    + _RESOLVE
    + """
import asyncio
import aurora_dsql_asyncpg
async def first():
    connection = await aurora_dsql_asyncpg.connect(host=HOST, port=PORT, user="admin", ssl="verify-full", sslrootcert=CA)
    return await connection.fetchval("SELECT balance FROM accounts WHERE id = $1", 1)
row = asyncio.run(first())
""",
    "boto3 + psycopg2": _SETTINGS
    + _SIGNED_BY_BOTO3
    + """
import psycopg2
connection = psycopg2.connect(
    host=HOST, hostaddr=ADDRESS, port=PORT, user="admin", password=token, dbname="postgres", sslmode="verify-full", sslrootcert=CA
)
cursor = connection.cursor()
cursor.execute("SELECT balance FROM accounts WHERE id = %s", (1,))
row = cursor.fetchone()[0]
""",
    "boto3 + pg8000": _SETTINGS
    + _RESOLVE
    + _SIGNED_BY_BOTO3
    + """
import ssl
import pg8000.native
connection = pg8000.native.Connection(
    "admin", host=HOST, port=PORT, password=token, database="postgres", ssl_context=ssl.create_default_context(cafile=CA)
)
row = connection.run("SELECT balance FROM accounts WHERE id = :id", id=1)[0][0]
""",
}

PACKAGES = ("aurora-dsql-python-connector", "boto3", "psycopg", "psycopg-binary", "asyncpg", "psycopg2-binary", "pg8000")


def versions() -> dict[str, str]:
    """The installed peers. Raises `RuntimeError` for one that is not."""
    try:
        return {name: version(name) for name in PACKAGES}
    except PackageNotFoundError as missing:
        raise RuntimeError(f"{missing.name} is not installed: run make bench, or pip install -e '.[bench]'") from missing
