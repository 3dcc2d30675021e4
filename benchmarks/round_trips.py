"""Round trips: how often each client waits for the server, counted at the server's side. No time is measured.

Knows the local DSQL's log: a `flight` is what a client sent before it waited.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pg8000.native

from dsql_lambda import ConnectOptions, Transaction, connect
from dsql_local import LocalDsql

from .local import credentials_of, libpq_of, options_of
from .peers import versions
from .report import Say, Section, table, yes

READ = "SELECT balance FROM accounts WHERE id = :id"
WRITE = "UPDATE accounts SET balance = balance + :a WHERE id = :id"

ONE, DEPENDENT, READ_AND_WRITES, WRITES, EMPTY, CONNECTING = (
    "one parameterised statement, no transaction",
    "BEGIN, 3 dependent statements, COMMIT",
    "a read, then 2 writes, COMMIT",
    "3 writes, COMMIT",
    "an empty transaction",
    "connecting: TCP, TLS, startup, password, and SSLRequest where it is not direct",
)
STOCK, CONNECTOR, HERE = "stock pg8000 native", "connector on psycopg 3", "here"
MOST_HERE = {ONE: 1, DEPENDENT: 4, READ_AND_WRITES: 2, WRITES: 1, EMPTY: 0, CONNECTING: 4}

Client = Mapping[str, Callable[[], Any]]
"""What does each work once."""


def _works(one: Callable[[], Any], transaction: Callable[[list[str]], Any]) -> Client:
    """The works of a client whose statements in a transaction are sent one by one."""
    statements = {DEPENDENT: [READ] * 3, READ_AND_WRITES: [READ, WRITE, WRITE], WRITES: [WRITE] * 3, EMPTY: []}
    return {ONE: one, **{work: lambda each=each: transaction(each) for work, each in statements.items()}}  # type: ignore[misc]


class NamedContext(ssl.SSLContext):
    """A verifying context that names the cluster whatever address is dialled: stock pg8000 knows no `hostaddr`."""

    name = ""

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """As ever, for the cluster's name."""
        return super().wrap_socket(*args, **{**kwargs, "server_hostname": self.name})


def stock_connection(options: ConnectOptions) -> pg8000.native.Connection:
    """pg8000 as it is installed, with the layer's token."""
    context = NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=options.sslrootcert)
    context.name = options.host
    return pg8000.native.Connection(
        "admin",
        host=options.hostaddr,
        port=options.port,
        database="postgres",
        password=options.token().value,
        ssl_context=context,
    )


@contextmanager
def stock(options: ConnectOptions, environment: Mapping[str, str]) -> Iterator[Client]:
    """Stock pg8000."""
    connection = stock_connection(options)
    parameters = {READ: {"id": 1}, WRITE: {"a": 1, "id": 1}}

    def transaction(statements: list[str]) -> None:
        connection.run("BEGIN")
        for sql in statements:
            connection.run(sql, **parameters[sql])
        connection.run("COMMIT")

    yield _works(lambda: connection.run(READ, id=1), transaction)
    connection.close()


@contextmanager
def connector(options: ConnectOptions, environment: Mapping[str, str]) -> Iterator[Client]:
    """AWS's Python connector on psycopg 3, with its own token."""
    import aurora_dsql_psycopg  # noqa: PLC0415 - it imports boto3

    with credentials_of(environment), libpq_of(environment) as where:
        connection = aurora_dsql_psycopg.connect(**{**where, "port": options.port})

    def run(sql: str) -> None:
        cursor = connection.execute(sql.replace(":id", "%(id)s").replace(":a", "%(a)s"), {"id": 1, "a": 1})
        if cursor.description:
            cursor.fetchall()

    def transaction(statements: list[str]) -> None:
        with connection.transaction():
            for sql in statements:
                run(sql)

    yield _works(lambda: run(READ), transaction)
    connection.close()


@contextmanager
def layer(options: ConnectOptions, environment: Mapping[str, str]) -> Iterator[Client]:
    """The layer: writes need no answer here, so they are deferred."""
    connection = connect(options)

    def transaction(statements: list[str]) -> None:
        def work(tx: Transaction) -> None:
            for sql in statements:
                if sql == READ:
                    tx.run(sql, id=1)
                else:
                    tx.defer(sql, a=1, id=1)

        connection.transaction_with_retry(work)

    yield _works(lambda: connection.run(READ, id=1), transaction)
    connection.close()


CLIENTS = {STOCK: stock, CONNECTOR: connector, HERE: layer}


def count() -> dict[str, dict[str, int]]:
    """The flights of each work by each client, and the round trips of connecting."""
    counted: dict[str, dict[str, int]] = {name: {} for name in CLIENTS}
    with LocalDsql() as dsql:
        options = options_of(dsql.environment)
        dsql.execute("CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL); INSERT INTO accounts VALUES (1, 100)")
        for name, opened in CLIENTS.items():
            dsql.clear_log()
            with ExitStack() as stack:
                works = stack.enter_context(opened(options, dsql.environment))
                direct = [event.negotiation == "direct" for event in dsql.log if event.kind == "connect"]
                for work, do in works.items():
                    for _ in range(6):  # psycopg prepares a statement that it has met five times, in a flight of its own
                        do()
                    dsql.clear_log()
                    do()
                    counted[name][work] = sum(event.kind == "flight" for event in dsql.log)
                counted[name][CONNECTING] = 4 if direct == [True] else 5  # TCP, TLS, startup, password; and SSLRequest
    return counted


def section(_: Mapping[str, str], *, say: Say) -> Section:
    """The page's chapter."""
    say("round trips: counting")
    counted = count()
    found = versions()
    rows = [
        [work, *(str(counted[name][work]) for name in CLIENTS), yes(held=counted[HERE][work] <= most)]
        for work, most in MOST_HERE.items()
    ]
    text = f"""Flights that the local DSQL received, each of which a client waits for; pg8000 {found["pg8000"]},
`aurora-dsql-python-connector` {found["aurora-dsql-python-connector"]} on psycopg {found["psycopg"]}. They do not depend on
the machine.

{table(["work", *CLIENTS, "target holds"], rows)}

libpq speaks direct TLS too where it is asked to (`sslnegotiation=direct`); the connector does not ask. On a connection that
was idle for 60 s or more, the layer's BEGIN is sent alone: one flight more.
"""
    return Section(title="Round trips", text=text)
