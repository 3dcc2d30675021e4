-- What the orders function and the durable order work on, and the privileges of their roles. Prices and balances are in cents.

CREATE TABLE IF NOT EXISTS products (id text PRIMARY KEY, stock int NOT NULL CHECK (stock >= 0), price int NOT NULL);

CREATE TABLE IF NOT EXISTS customers (id text PRIMARY KEY, balance int NOT NULL CHECK (balance >= 0));

CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY, product text NOT NULL, quantity int NOT NULL, price int NOT NULL, state text NOT NULL);

INSERT INTO products (id, stock, price) VALUES ('book', 10, 30), ('desk', 100, 29900), ('lamp', 3, 4500) ON CONFLICT (id) DO NOTHING;

INSERT INTO customers (id, balance) VALUES ('rich', 100), ('poor', 10) ON CONFLICT (id) DO NOTHING;

GRANT SELECT, UPDATE ON products TO orders;

GRANT INSERT ON orders TO orders;

GRANT SELECT, INSERT, UPDATE ON dsql_lambda_idempotency TO orders;

GRANT SELECT, UPDATE ON products TO durable_order;

GRANT SELECT, UPDATE ON customers TO durable_order;

GRANT SELECT, INSERT, UPDATE ON orders TO durable_order;

GRANT SELECT, INSERT, UPDATE ON dsql_lambda_idempotency TO durable_order;
