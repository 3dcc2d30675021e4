-- The accounts of the transfer function, the idempotency keys of all functions, and the privileges of the transfer function's role,
-- which is there already: the deployment maps it first. Balances are in cents.

CREATE TABLE IF NOT EXISTS accounts (
    id text PRIMARY KEY,
    balance bigint NOT NULL CHECK (balance >= 0)
);

INSERT INTO accounts (id, balance) VALUES ('alice', 100000), ('bob', 25000), ('carol', 0) ON CONFLICT (id) DO NOTHING;

-- What Idempotency.create_table() says.
CREATE TABLE IF NOT EXISTS dsql_lambda_idempotency (
    id text PRIMARY KEY,
    payload text NOT NULL,
    owner text NOT NULL,
    result text,
    expires_at timestamptz NOT NULL
);

GRANT SELECT, UPDATE ON accounts TO transfer;

GRANT SELECT, INSERT, UPDATE ON dsql_lambda_idempotency TO transfer;
