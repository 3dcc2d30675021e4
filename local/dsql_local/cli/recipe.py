"""What to type so that functions in an AWS emulator reach a local DSQL: the text that `serve` prints.

Emulators give a function the account's number as access key, and the secret key that they were started with. So the local DSQL
has to know that pair (`serve --account`), and the role of each function is the same to it. Functions find it by variables of the
template: the stack's own migrate function connects while the stack is deployed.
"""

__all__ = ["POINT_TEMPLATE", "recipe"]

POINT_TEMPLATE = (
    "import json, os, pathlib; path = pathlib.Path('template.yaml'); text = path.read_text(); "
    "[text := text.replace(name + ': ' + 2 * chr(34), name + ': ' + json.dumps(os.environ[name])) "
    "for name in ('DSQL_HOSTADDR', 'DSQL_PORT', 'DSQL_SSLROOTCERT')]; path.write_text(text)"
)


def recipe(endpoint: str, account: str, secret: str, principal: str) -> str:
    """Lines of a shell, to be typed where the printed variables are exported; without an account, how to get one."""
    if not account:
        return "For the functions of an AWS emulator beside it: python -m dsql_local serve --account 123456789012"
    loopback = "BIND_HOST=127.0.0.1 IOT_MTLS_ENABLED=0 SFTP_ENABLED=0"
    return f"""\
An AWS emulator beside it, such as MiniStack; export the variables above in both terminals:
  pip install ministack aws-sam-translator
  {loopback} MINISTACK_ACCOUNT_ID={account} AWS_SECRET_ACCESS_KEY={secret} python -m ministack
  export AWS_ENDPOINT_URL=http://127.0.0.1:4566 AWS_REGION=us-east-1
  python -c "{POINT_TEMPLATE}"
  make deploy PARAMETERS="ExistingClusterEndpoint={endpoint}"
  make setup-database ARGS="--endpoint {endpoint} --role transfer={principal}"
  sam remote invoke TransferFunction --stack-name dsql-lambda --event-file events/transfer.json
  git checkout template.yaml  # takes the address out again, and your own changes of it"""
