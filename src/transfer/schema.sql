-- The accounts of the transfer function, and the privileges of its role. Balances are in cents.
-- `make setup-database` runs it as admin, after it has created the role. Each statement is its own transaction, because DSQL allows only
-- one DDL statement in a transaction. Running it again changes nothing.

CREATE TABLE IF NOT EXISTS accounts (
    id text PRIMARY KEY,
    balance bigint NOT NULL CHECK (balance >= 0)
);

INSERT INTO accounts (id, balance) VALUES ('alice', 100000), ('bob', 25000), ('carol', 0) ON CONFLICT (id) DO NOTHING;

GRANT SELECT, UPDATE ON accounts TO transfer;
