"""Round trips: how often each client waits for the server, counted at the server's side. No time is measured.

Knows the local DSQL's log: a `flight` is what a client sent before it waited. `python -m benchmarks.round_trips` prints the
table.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pg8000.native

from dsql_lambda import ConnectOptions, Transaction, connect
from dsql_local import LocalDsql

from .local import authority_of, credentials_of, options_of
from .peers import versions
from .report import Say, Section, table, yes

READ = "SELECT balance FROM accounts WHERE id = :id"
WRITE = "UPDATE accounts SET balance = balance + :a WHERE id = :id"
_STATEMENTS = 3

WORKS = (
    "one parameterised statement, no transaction",
    f"BEGIN, {_STATEMENTS} dependent statements, COMMIT",
    "a read, then 2 writes, COMMIT",
    "3 writes, COMMIT",
    "an empty transaction",
)
CONNECTING = "connecting"
STOCK, CONNECTOR, HERE = "stock pg8000 native", "connector on psycopg 3", "here"

FLOORS = {STOCK: (3, 11, 11, 11, 2), CONNECTOR: (1, 5, 5, 5, 2), HERE: (1, 4, 2, 1, 0)}
"""What the issue of round trips allows: 3N + 2, N + 2, N + 1, and so on."""

Client = Mapping[str, Callable[[], Any]]


@contextmanager
def stock(options: ConnectOptions) -> Iterator[Client]:
    """pg8000 as it is installed, with the layer's token."""
    connection = pg8000.native.Connection(
        "admin",
        host=options.hostaddr,
        port=options.port,
        database="postgres",
        password=options.token().value,
        ssl_context=NamedContext.of(options),
    )

    def transaction(*works: tuple[str, dict[str, Any]]) -> None:
        connection.run("BEGIN")
        for sql, params in works:
            connection.run(sql, **params)
        connection.run("COMMIT")

    read, write = (READ, {"id": 1}), (WRITE, {"a": 1, "id": 1})
    yield dict(
        zip(
            WORKS,
            (
                lambda: connection.run(READ, id=1),
                lambda: transaction(*[read] * _STATEMENTS),
                lambda: transaction(read, write, write),
                lambda: transaction(write, write, write),
                transaction,
            ),
            strict=True,
        )
    )
    connection.close()


class NamedContext(ssl.SSLContext):
    """A verifying context that names the cluster whatever address is dialled: stock pg8000 knows no `hostaddr`."""

    name = ""

    @classmethod
    def of(cls, options: ConnectOptions) -> NamedContext:
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=options.sslrootcert)
        context.name = options.host
        return context

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """As ever, for the cluster's name."""
        return super().wrap_socket(*args, **{**kwargs, "server_hostname": self.name})


@contextmanager
def connector(options: ConnectOptions, environment: Mapping[str, str]) -> Iterator[Client]:
    """AWS's Python connector on psycopg 3, with its own token."""
    import aurora_dsql_psycopg  # noqa: PLC0415 - it imports boto3

    with credentials_of(environment), authority_of(environment) as authority:
        connection = aurora_dsql_psycopg.connect(
            host=options.host,
            hostaddr=options.hostaddr,
            port=options.port,
            user="admin",
            sslmode="verify-full",
            sslrootcert=authority,
            autocommit=True,
        )
    read, write = READ.replace(":id", "%(id)s"), WRITE.replace(":a", "%(a)s").replace(":id", "%(id)s")

    def transaction(*works: str) -> None:
        with connection.transaction():
            for sql in works:
                cursor = connection.execute(sql, {"id": 1, "a": 1})
                if cursor.description:
                    cursor.fetchall()

    yield dict(
        zip(
            WORKS,
            (
                lambda: connection.execute(read, {"id": 1}).fetchall(),
                lambda: transaction(*[read] * _STATEMENTS),
                lambda: transaction(read, write, write),
                lambda: transaction(write, write, write),
                transaction,
            ),
            strict=True,
        )
    )
    connection.close()


@contextmanager
def layer(options: ConnectOptions) -> Iterator[Client]:
    """The layer: deferred writes where the work has writes that need no answer."""
    connection = connect(options)

    def dependent(tx: Transaction) -> None:
        for _ in range(_STATEMENTS):
            tx.run(READ, id=1)

    def read_then_write(tx: Transaction) -> None:
        tx.run(READ, id=1)
        tx.defer(WRITE, a=1, id=1)
        tx.defer(WRITE, a=1, id=1)

    def write(tx: Transaction) -> None:
        for _ in range(3):
            tx.defer(WRITE, a=1, id=1)

    yield dict(
        zip(
            WORKS,
            (
                lambda: connection.run(READ, id=1),
                lambda: connection.transaction_with_retry(dependent),
                lambda: connection.transaction_with_retry(read_then_write),
                lambda: connection.transaction_with_retry(write),
                lambda: connection.transaction_with_retry(lambda tx: None),
            ),
            strict=True,
        )
    )
    connection.close()


def count() -> dict[str, dict[str, int]]:
    """The flights of each work by each client, and the round trips of connecting."""
    counted: dict[str, dict[str, int]] = {}
    with LocalDsql() as dsql:
        options = options_of(dsql.environment)
        dsql.execute("CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL); INSERT INTO accounts VALUES (1, 100)")
        clients: dict[str, Callable[[], Any]] = {
            STOCK: lambda: stock(options),
            CONNECTOR: lambda: connector(options, dsql.environment),
            HERE: lambda: layer(options),
        }
        with connect(options):
            pass  # the layer remembers from here on whether the server speaks direct TLS
        for name, opened in clients.items():
            dsql.clear_log()
            with ExitStack() as stack:
                works = stack.enter_context(opened())
                direct = [event.negotiation == "direct" for event in dsql.log if event.kind == "connect"]
                counted[name] = {CONNECTING: 4 if direct == [True] else 5}  # TCP, TLS, startup, password; and SSLRequest
                for work, do in works.items():
                    for _ in range(6):  # psycopg prepares a statement that it has met five times, in a flight of its own
                        do()
                    dsql.clear_log()
                    do()
                    counted[name][work] = sum(event.kind == "flight" for event in dsql.log)
    return counted


def section(*, say: Say) -> Section:
    """The page's chapter."""
    say("round trips: counting")
    counted = count()
    found = versions()
    clients = (STOCK, CONNECTOR, HERE)
    rows = [
        [work, *(str(counted[name][work]) for name in clients), yes(held=counted[HERE][work] <= FLOORS[HERE][index])]
        for index, work in enumerate(WORKS)
    ]
    rows.append(
        [
            "connecting: TCP, TLS, startup, password, and SSLRequest where it is not direct",
            *(str(counted[name][CONNECTING]) for name in clients),
            yes(held=counted[HERE][CONNECTING] == 4),
        ]
    )
    text = f"""Flights that the local DSQL received, each of which a client waits for; pg8000 {found["pg8000"]},
`aurora-dsql-python-connector` {found["aurora-dsql-python-connector"]} on psycopg {found["psycopg"]}. They do not depend on
the machine.

{table(["work", *clients, "target holds"], rows)}

libpq speaks direct TLS too where it is asked to (`sslnegotiation=direct`); the connector does not ask. On a connection that
was idle for 60 s or more, the layer's BEGIN goes ahead alone: one flight more.
"""
    return Section(title="Round trips", text=text)


def main() -> None:
    """Print the chapter."""
    print(section(say=lambda line: print(line, file=sys.stderr)).text)


if __name__ == "__main__":
    main()
