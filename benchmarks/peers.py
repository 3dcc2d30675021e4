"""One and the same function as users write it with each client: as texts, for each runs in a process of its own.

`TRANSACTION` has a Powertools Logger with the Lambda context, and one transaction: a read and a write. `SELECT_1` is what the
official samples show. All verify TLS with the local DSQL's certificate authority and make a real token. The cluster's name does
not resolve here: libpq is given `hostaddr`; for asyncpg and pg8000 `socket.getaddrinfo` is replaced by one that knows it.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

OURS = "here"
CONNECTOR = "connector, psycopg 3"

_LOGGER = "from aws_lambda_powertools import Logger\nlogger = Logger()\n"
_LOGGED = f"""{_LOGGER}
@logger.inject_lambda_context
def lambda_handler(event, context):
    balance = change(event["id"], event["amount"])
    logger.info("changed", balance=balance)
    return {{"balance": balance}}
"""
_SELECTED = """
def lambda_handler(event, context):
    return {"row": select()}
"""
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

_CLIENTS = {
    CONNECTOR: """
import aurora_dsql_psycopg
connection = aurora_dsql_psycopg.connect(
    host=HOST, hostaddr=ADDRESS, port=PORT, user="admin", sslmode="verify-full", sslrootcert=CA, autocommit=True
)
def change(id, amount):
    with connection.transaction():
        balance = connection.execute("SELECT balance FROM accounts WHERE id = %s", (id,)).fetchone()[0]
        connection.execute("UPDATE accounts SET balance = balance + %s WHERE id = %s", (amount, id))
    return balance
def select():
    return connection.execute("SELECT 1").fetchone()[0]
""",
    "connector, asyncpg": _RESOLVE
    + """
import asyncio
import aurora_dsql_asyncpg
loop = asyncio.new_event_loop()
connection = loop.run_until_complete(
    aurora_dsql_asyncpg.connect(host=HOST, port=PORT, user="admin", ssl="verify-full", sslrootcert=CA)
)
async def changed(id, amount):
    async with connection.transaction():
        balance = await connection.fetchval("SELECT balance FROM accounts WHERE id = $1", id)
        await connection.execute("UPDATE accounts SET balance = balance + $1 WHERE id = $2", amount, id)
    return balance
def change(id, amount):
    return loop.run_until_complete(changed(id, amount))
def select():
    return loop.run_until_complete(connection.fetchval("SELECT 1"))
""",
    "boto3 + psycopg2": _SIGNED_BY_BOTO3
    + """
import psycopg2
connection = psycopg2.connect(
    host=HOST, hostaddr=ADDRESS, port=PORT, user="admin", password=token, dbname="postgres", sslmode="verify-full", sslrootcert=CA
)
def change(id, amount):
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT balance FROM accounts WHERE id = %s", (id,))
        balance = cursor.fetchone()[0]
        cursor.execute("UPDATE accounts SET balance = balance + %s WHERE id = %s", (amount, id))
    return balance
def select():
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchone()[0]
""",
    "boto3 + pg8000": _RESOLVE
    + _SIGNED_BY_BOTO3
    + """
import ssl
import pg8000.native
connection = pg8000.native.Connection(
    "admin", host=HOST, port=PORT, password=token, database="postgres", ssl_context=ssl.create_default_context(cafile=CA)
)
def change(id, amount):
    connection.run("BEGIN")
    balance = connection.run("SELECT balance FROM accounts WHERE id = :id", id=id)[0][0]
    connection.run("UPDATE accounts SET balance = balance + :a WHERE id = :id", a=amount, id=id)
    connection.run("COMMIT")
    return balance
def select():
    return connection.run("SELECT 1")[0][0]
""",
}

TRANSACTION = {
    OURS: _LOGGER
    + """
from dsql_lambda import with_dsql_transaction

@logger.inject_lambda_context
@with_dsql_transaction(logger=logger)
def lambda_handler(event, context, tx):
    balance = tx.value("SELECT balance FROM accounts WHERE id = :id", id=event["id"])
    tx.defer("UPDATE accounts SET balance = balance + :a WHERE id = :id", a=event["amount"], id=event["id"])
    logger.info("changed", balance=balance)
    return {"balance": balance}
""",
    **{name: _SETTINGS + client + _LOGGED for name, client in _CLIENTS.items()},
}
"""By the client's name."""

SELECT_1 = {
    OURS: """
from dsql_lambda import with_dsql_transaction

@with_dsql_transaction
def lambda_handler(event, context, tx):
    return {"row": tx.value("SELECT 1")}
""",
    **{name: _SETTINGS + client + _SELECTED for name, client in _CLIENTS.items()},
}

WITHOUT_DATABASE = _LOGGED.replace('change(event["id"], event["amount"])', "0")
"""What `TRANSACTION` is without a transaction: awslambdaric and Powertools."""

PACKAGES = ("aurora-dsql-python-connector", "boto3", "psycopg", "psycopg-binary", "asyncpg", "psycopg2-binary", "pg8000")


def versions() -> dict[str, str]:
    """The installed peers. Raises `RuntimeError` for one that is not."""
    try:
        return {name: version(name) for name in PACKAGES}
    except PackageNotFoundError as missing:
        raise RuntimeError(f"{missing.name} is not installed: run make bench, or pip install -e '.[bench]'") from missing
