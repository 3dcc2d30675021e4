"""What the two distributions must do where they are installed and no source is at hand; .ci/dist runs it under each Python.

The arguments are the version, and `import` where there is no PostgreSQL to run a transaction on.
"""

import os
import sys
from importlib import metadata
from pathlib import Path

import dsql_lambda
import dsql_local
from dsql_local import LocalDsql

version, only_imports = sys.argv[1], "import" in sys.argv[2:]
for package in (dsql_lambda, dsql_local):
    name = package.__name__.replace("_", "-")
    files = {str(each) for each in metadata.files(name) or ()}
    assert metadata.version(name) == version, (name, metadata.version(name))
    assert f"{package.__name__}/py.typed" in files, name
    assert any(each.endswith("licenses/LICENSE") for each in files), name
    assert Path(str(package.__file__)).parents[1] in {Path(str(each.locate_file(""))) for each in metadata.distributions()}, name
assert dsql_lambda.__version__ == version
for public in dsql_lambda.__all__:
    try:
        getattr(dsql_lambda, public)
    except ModuleNotFoundError as missing:
        if str(missing.name).partition(".")[0] != "aws_lambda_powertools":  # an extra
            raise
for public in dsql_local.__all__:
    getattr(dsql_local, public)


@dsql_lambda.with_dsql_transaction
def pay(amount: int, tx: dsql_lambda.Transaction) -> int:
    """Takes two attempts, because the first COMMIT conflicts."""
    tx.defer("UPDATE accounts SET balance = balance - :amount WHERE id = 1", expect_rows=1, amount=amount)
    return tx.attempt


if only_imports:
    options = dsql_lambda.ConnectOptions(host="a" * 26, region="us-east-1")
    os.environ.update(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret")
    assert options.token().value.startswith(options.host)
else:
    with LocalDsql() as dsql:
        os.environ.update(dsql.environment)
        dsql.execute("CREATE TABLE accounts (id int PRIMARY KEY, balance int); INSERT INTO accounts VALUES (1, 100)")
        dsql.conflict_next(1)
        assert pay(40) == 2
        assert dsql.execute("SELECT balance FROM accounts") == [["60"]]
print(f"Python {sys.version.split()[0]}: {'imported, and a token signed' if only_imports else 'a transaction committed'}")
