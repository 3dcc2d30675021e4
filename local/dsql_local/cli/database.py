"""What an application needs in the database: its functions' roles, its migrations, and a function's own `schema.sql`."""

import sys
from pathlib import Path

from ..api.local_dsql import LocalDsql
from ..rules.quoting import quote_identifier
from ..sam.template import Function, read_functions

__all__ = ["create_roles", "prepare", "step"]


def prepare(dsql: LocalDsql, project: Path, *sources: Function) -> None:
    """Create the roles, and apply `migrations/*.sql` in the order of their names, then the functions' own schemas.

    Where a function has a `migrations` folder, applying them is its own work.
    """
    create_roles(dsql, project / "template.yaml")
    applied = [] if any((each.code / "migrations").exists() for each in sources) and len(sources) == 1 else ["migrations/*.sql"]
    scripts = [each for pattern in applied for each in sorted(project.glob(pattern))]
    for script in [*scripts, *(each.code / "schema.sql" for each in sources)]:
        if script.exists():
            step(f"{script.name} applied")
            dsql.execute(script.read_text(encoding="utf-8"))
    for each in sources:
        step(f"{each.name} connects as {each.environment.get('DSQL_USER') or 'admin'}")


def create_roles(dsql: LocalDsql, template: Path) -> None:
    """Those that the functions declare as DSQL_USER: the local DSQL's own credentials may connect as each."""
    users = {each.environment.get("DSQL_USER") for each in read_functions(template)}
    for user in sorted(each for each in users if each and each != "admin"):
        dsql.execute(f"CREATE ROLE {quote_identifier(user)} WITH LOGIN")
        dsql.execute(f"AWS IAM GRANT {quote_identifier(user)} TO '{dsql.principal}'")


def step(text: str) -> None:
    """Say on standard error what is done now."""
    print(f"==> {text}", file=sys.stderr, flush=True)
