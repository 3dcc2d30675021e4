"""Aurora DSQL transactions for AWS Lambda functions in Python.

    from dsql_lambda import with_dsql_transaction

    @with_dsql_transaction
    def lambda_handler(event, context, tx):
        return tx.rows("SELECT id, balance FROM accounts WHERE id = :id", id=event["id"])

Every public name is here. Names are looked up when they are first used: each import is cold start.
"""

from __future__ import annotations

import sys
from importlib import import_module

from .version import __version__

if sys.version_info < (3, 11):  # noqa: UP036 - a layer can be attached to any runtime
    raise ImportError(f"dsql_lambda needs Python 3.11 or newer, and this is {sys.version.split()[0]}: choose a newer runtime")

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from .after_commit import AfterCommitError as AfterCommitError
    from .cache import cached_connection as cached_connection
    from .chunks import WriteInterrupted as WriteInterrupted
    from .chunks import write_in_chunks as write_in_chunks
    from .connection import Connection as Connection
    from .connection import connect as connect
    from .decorator import run_transaction as run_transaction
    from .decorator import with_dsql_transaction as with_dsql_transaction
    from .durable import durable_transaction as durable_transaction
    from .errors import CommitOutcomeUnknown as CommitOutcomeUnknown
    from .errors import ConfigError as ConfigError
    from .errors import ConnectError as ConnectError
    from .errors import DeadlineExceeded as DeadlineExceeded
    from .errors import DsqlError as DsqlError
    from .errors import OCCRetryExhausted as OCCRetryExhausted
    from .errors import TokenError as TokenError
    from .errors import TransactionError as TransactionError
    from .iam_token import Token as Token
    from .idempotency import Idempotency as Idempotency
    from .idempotency import IdempotencyKeyMissing as IdempotencyKeyMissing
    from .idempotency import IdempotencyKeyReused as IdempotencyKeyReused
    from .json_text import ResponseError as ResponseError
    from .json_text import jsonable as jsonable
    from .middleware import DsqlTransactionMiddleware as DsqlTransactionMiddleware
    from .migrate import apply_migrations as apply_migrations
    from .migrate import check_migrations as check_migrations
    from .migrate import pending_migrations as pending_migrations
    from .migration_files import MigrationError as MigrationError
    from .occ import OCCConflict as OCCConflict
    from .occ import OCCType as OCCType
    from .occ import classify_occ as classify_occ
    from .occ import is_occ_error as is_occ_error
    from .occ_loop import retry_on_occ as retry_on_occ
    from .options import ConnectOptions as ConnectOptions
    from .persistence import DsqlPersistenceLayer as DsqlPersistenceLayer
    from .pool import Pool as Pool
    from .retry import OCCRetryConfig as OCCRetryConfig
    from .role_mappings import RoleMapping as RoleMapping
    from .role_mappings import map_roles as map_roles
    from .running import dsql_transaction as dsql_transaction
    from .server_errors import DatabaseError as DatabaseError
    from .server_errors import InterfaceError as InterfaceError
    from .server_errors import ProtocolError as ProtocolError
    from .transaction import Transaction as Transaction

_MODULES = {
    "after_commit": ("AfterCommitError",),
    "cache": ("cached_connection",),
    "chunks": ("WriteInterrupted", "write_in_chunks"),
    "connection": ("Connection", "connect"),
    "decorator": ("run_transaction", "with_dsql_transaction"),
    "durable": ("durable_transaction",),
    "errors": (
        "CommitOutcomeUnknown",
        "ConfigError",
        "ConnectError",
        "DeadlineExceeded",
        "DsqlError",
        "OCCRetryExhausted",
        "TokenError",
        "TransactionError",
    ),
    "iam_token": ("Token",),
    "idempotency": ("Idempotency", "IdempotencyKeyMissing", "IdempotencyKeyReused"),
    "json_text": ("ResponseError", "jsonable"),
    "middleware": ("DsqlTransactionMiddleware",),
    "migrate": ("apply_migrations", "check_migrations", "pending_migrations"),
    "migration_files": ("MigrationError",),
    "occ": ("OCCConflict", "OCCType", "classify_occ", "is_occ_error"),
    "occ_loop": ("retry_on_occ",),
    "options": ("ConnectOptions",),
    "persistence": ("DsqlPersistenceLayer",),
    "pool": ("Pool",),
    "retry": ("OCCRetryConfig",),
    "role_mappings": ("RoleMapping", "map_roles"),
    "running": ("dsql_transaction",),
    "server_errors": ("DatabaseError", "InterfaceError", "ProtocolError"),
    "transaction": ("Transaction",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [  # noqa: PLE0604 - the one list of names, made of the table above
    "__version__",
    *sorted(_MODULE_OF),
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
