"""What to type so that functions in an AWS emulator reach a local DSQL: the text that `serve` prints.

Emulators give a function the account's number as access key, and the secret key that they were started with. So the local DSQL
has to know that pair (`serve --account`). Functions find it by variables, which are given to each that is deployed.
"""

__all__ = ["POINT_FUNCTIONS", "recipe"]

POINT_FUNCTIONS = (
    "import boto3, os; api = boto3.client('lambda'); "
    "local = {name: os.environ[name] for name in ('DSQL_HOST', 'DSQL_HOSTADDR', 'DSQL_PORT', 'DSQL_SSLROOTCERT')}; "
    "[api.update_function_configuration(FunctionName=each['FunctionName'], "
    "Environment={'Variables': {**each['Environment']['Variables'], **local}}) "
    "for each in api.list_functions()['Functions'] if 'DSQL_HOST' in each.get('Environment', {}).get('Variables', {})]"
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
  make deploy PARAMETERS="ExistingClusterEndpoint={endpoint}"
  make setup-database ARGS="--role-arn {principal}"
  python -c "{POINT_FUNCTIONS}"
  sam remote invoke TransferFunction --stack-name dsql-lambda --event-file events/transfer.json"""
