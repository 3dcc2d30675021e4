"""A pool: concurrent queries, a transactional write that is retried on conflicts, and one that is not.

    CLUSTER_ENDPOINT=<endpoint> python examples/example_preferred.py

Without CLUSTER_ENDPOINT it runs on a local DSQL. CLUSTER_USER is the database role, `admin` unless given.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from cluster import cluster

from dsql_lambda import Connection, Pool, Transaction

USER = os.environ.get("CLUSTER_USER", "admin")
SCHEMA = "public" if USER == "admin" else "myschema"


def use_schema(connection: Connection) -> None:
    """What every connection of the pool begins with."""
    connection.run(f"SET search_path = '{SCHEMA}'")


def query(pool: Pool, number: int) -> int:
    """One of the concurrent queries: outside a transaction, on any free connection."""
    with pool.connection() as connection:
        ((value,),) = connection.run("SELECT :number::int", number=number)
        return int(value)


def insert_owner(tx: Transaction) -> None:
    """Runs again when DSQL reports a conflict: so it has no effect outside `tx`."""
    tx.run("INSERT INTO owner (name, city) VALUES (:name, :city)", name="John Doe", city="Anytown")


def main() -> None:
    with Pool(user=USER, max_size=10, configure=use_schema) as pool:
        with ThreadPoolExecutor(max_workers=5) as executor:
            for value in executor.map(lambda number: query(pool, number), range(5)):
                print(f"worker result: {value}")

        with pool.connection() as connection:
            connection.run(
                "CREATE TABLE IF NOT EXISTS owner (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), "
                "name varchar(30) NOT NULL, city varchar(80) NOT NULL)"
            )

        pool.transaction_with_retry(insert_owner)

        with pool.connection() as connection:
            for name, city in connection.run("SELECT name, city FROM owner WHERE name = :name", name="John Doe"):
                print(f"inserted: {name}, {city}")

            # Opting out of retry: a conflict is raised here as the error that it is.
            with connection.transaction() as tx:
                tx.run("DELETE FROM owner WHERE name = :name", name="John Doe")
        print("done")


if __name__ == "__main__":
    with cluster():
        main()
