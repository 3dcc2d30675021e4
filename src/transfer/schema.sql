-- The demonstration's accounts, and what the function's role may do with them. Balances are in cents.
-- Run it as admin, after CREATE ROLE transfer WITH LOGIN. Each statement is a transaction of its own (DSQL takes one DDL statement in
-- a transaction), and running it again changes nothing.

CREATE TABLE IF NOT EXISTS accounts (
    id text PRIMARY KEY,
    balance bigint NOT NULL CHECK (balance >= 0)
);

INSERT INTO accounts (id, balance) VALUES ('alice', 100000), ('bob', 25000), ('carol', 0) ON CONFLICT (id) DO NOTHING;

GRANT SELECT, UPDATE ON accounts TO transfer;
