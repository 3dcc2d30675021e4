"""A connection pool: four guests book seats for the same show at the same time, and each booking is retried on conflicts.

    DSQL_HOST=<endpoint> python examples/pool.py

Without an endpoint it uses a local DSQL.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from cluster import cluster

from dsql_lambda import Connection, OCCRetryConfig, Pool, Transaction

GUESTS = ["Ada", "Edsger", "Grace", "Niklaus"]
SEATS = 6


def use_schema(connection: Connection) -> None:
    """The pool calls this with each connection that it opens."""
    connection.run("SET search_path = theatre")


def prepare() -> None:
    """Create the table with free seats. Each statement is its own transaction, because DSQL requires that of DDL."""
    with Pool(max_size=1) as pool, pool.connection() as connection:
        connection.run("CREATE SCHEMA IF NOT EXISTS theatre")
        connection.run("CREATE TABLE IF NOT EXISTS theatre.seats (number int PRIMARY KEY, guest text)")
        connection.run("DELETE FROM theatre.seats")
        connection.run("INSERT INTO theatre.seats (number) SELECT generate_series(1, :seats::int)", seats=SEATS)


def take_seat(tx: Transaction, guest: str) -> int:
    """Book the first free seat for this guest. It may run several times, so it has no effect outside `tx`."""
    seat = int(tx.value("SELECT min(number) FROM seats WHERE guest IS NULL"))
    tx.defer("UPDATE seats SET guest = :guest WHERE number = :seat", expect_rows=1, guest=guest, seat=seat)
    return seat


def main() -> None:
    prepare()
    # All four try to book the same seat. One of them gets it, and the others try again.
    retry = OCCRetryConfig(max_attempts=20, max_delay_ms=50, jitter="full")
    with Pool(max_size=len(GUESTS), configure=use_schema) as pool:
        with ThreadPoolExecutor(max_workers=len(GUESTS)) as executor:
            booked = [
                executor.submit(pool.transaction_with_retry, lambda tx, guest=guest: take_seat(tx, guest), retry)
                for guest in GUESTS
            ]
        print("seats booked:", sorted(each.result() for each in booked))

        with pool.connection() as connection:
            # A plain read needs no transaction.
            ((free,),) = connection.run("SELECT count(*) FROM seats WHERE guest IS NULL")
            print("seats free:", free)

            # This transaction is not retried; a conflict would raise an error here.
            with connection.transaction() as tx:
                tx.run("UPDATE seats SET guest = NULL")
    print("all seats are free again")


if __name__ == "__main__":
    with cluster():
        main()
