-- What the durable order works on.

CREATE TABLE IF NOT EXISTS products (id text PRIMARY KEY, stock int NOT NULL CHECK (stock >= 0), price int NOT NULL);

CREATE TABLE IF NOT EXISTS customers (id text PRIMARY KEY, balance int NOT NULL CHECK (balance >= 0));

CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY, product text NOT NULL, quantity int NOT NULL, price int NOT NULL, state text NOT NULL);

-- The receipts of its steps: what Idempotency.create_table() says.
CREATE TABLE IF NOT EXISTS dsql_lambda_idempotency (id text PRIMARY KEY, payload text NOT NULL, owner text NOT NULL, result text, expires_at timestamptz NOT NULL);
