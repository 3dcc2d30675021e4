"""A single connection, for scripts: it counts page visits. DSQL closes a connection after an hour.

    DSQL_HOST=<endpoint> python examples/single_connection.py

Without an endpoint it uses a local DSQL.
"""

from __future__ import annotations

from cluster import cluster

from dsql_lambda import OCCRetryConfig, Transaction, connect, retry_on_occ

COUNT = "UPDATE visits SET number = number + 1 WHERE page = :page RETURNING number"


def visit(tx: Transaction) -> int:
    """Count a visit, and return the number of visits."""
    return int(tx.value(COUNT, page="/start"))


def main() -> None:
    with connect() as connection:
        connection.run("CREATE TABLE IF NOT EXISTS visits (page text PRIMARY KEY, number bigint NOT NULL)")
        connection.run("INSERT INTO visits VALUES ('/start', 0) ON CONFLICT (page) DO UPDATE SET number = 0")

        # The connection runs the transaction and retries it: with the default policy, then with another one.
        print("visits:", connection.transaction_with_retry(visit))
        print("visits:", connection.transaction_with_retry(visit, OCCRetryConfig(max_attempts=8, base_delay_ms=5)))

        # The function runs its own transaction. retry_on_occ retries the whole function.
        def visit_in_its_own_transaction() -> int:
            with connection.transaction() as tx:
                return visit(tx)

        print("visits:", retry_on_occ(visit_in_its_own_transaction))


if __name__ == "__main__":
    with cluster():
        main()
