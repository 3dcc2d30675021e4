"""`python -m dsql_lambda.token [URL]`: prints a token, for psql's PGPASSWORD.

Without a connection string the environment's variables say what it is for.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .errors import ConfigError, TokenError
from .options import ConnectOptions


def main(arguments: Sequence[str]) -> int:
    """Print a token, or in one line why there is none."""
    try:
        options = ConnectOptions.from_url(arguments[0]) if arguments else ConnectOptions.from_env()
        print(options.token().value)
    except (ConfigError, TokenError) as error:
        print(f"dsql_lambda.token: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
