"""One connection, without a pool: for scripts. It has a fresh token, and lives for at most an hour.

    CLUSTER_ENDPOINT=<endpoint> python examples/example_no_connection_pool.py

Without CLUSTER_ENDPOINT it runs on a local DSQL.
"""

from __future__ import annotations

from cluster import cluster

from dsql_lambda import OCCRetryConfig, Transaction, connect, retry_on_occ


def main() -> None:
    with connect() as connection:
        print(connection.run("SELECT 1 AS value"), connection.columns[0]["name"])
        connection.run("CREATE TABLE IF NOT EXISTS visits (page text PRIMARY KEY, number bigint NOT NULL)")
        connection.run("INSERT INTO visits VALUES ('home', 0) ON CONFLICT DO NOTHING")

        def visit(tx: Transaction) -> int:
            return int(tx.value("UPDATE visits SET number = number + 1 WHERE page = :page RETURNING number", page="home"))

        # With the connectors' own policy, then with another one.
        print("visits:", connection.transaction_with_retry(visit))
        print(
            "visits:", connection.transaction_with_retry(visit, OCCRetryConfig(max_attempts=5, base_delay_ms=10, max_delay_ms=50))
        )

        # A function that has its own transaction.
        def own_transaction() -> int:
            with connection.transaction() as tx:
                return visit(tx)

        print("visits:", retry_on_occ(own_transaction))
        connection.run("DELETE FROM visits")


if __name__ == "__main__":
    with cluster():
        main()
