-- The accounts of the transfer function, and the privileges of its role, which is there already: the deployment maps it first.
-- Balances are in cents.

CREATE TABLE IF NOT EXISTS accounts (
    id text PRIMARY KEY,
    balance bigint NOT NULL CHECK (balance >= 0)
);

INSERT INTO accounts (id, balance) VALUES ('alice', 100000), ('bob', 25000), ('carol', 0) ON CONFLICT (id) DO NOTHING;

GRANT SELECT, UPDATE ON accounts TO transfer;
