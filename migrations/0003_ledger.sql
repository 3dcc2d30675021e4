-- The transfers of the ledger, and the privileges of its role. Amounts are in cents.

CREATE TABLE IF NOT EXISTS transfers (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    source text NOT NULL,
    target text NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    made_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE INDEX ASYNC IF NOT EXISTS transfers_by_time ON transfers (made_at);

GRANT SELECT, INSERT, UPDATE ON accounts TO ledger;

GRANT SELECT, INSERT ON transfers TO ledger;

GRANT SELECT, INSERT, UPDATE ON dsql_lambda_idempotency TO ledger;
