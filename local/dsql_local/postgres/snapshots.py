"""Snapshots of the database, kept as PostgreSQL databases and restored in milliseconds.

Clients always see DSQL's one database, `postgres`. A snapshot is a copy of it under another name; restoring it renames a copy of
the copy to `postgres`, and the next copy is made in advance. Roles belong to the whole PostgreSQL cluster: restoring drops those
created later, and does not undo changes of older ones. The caller must close all client connections first.
"""

import asyncio
import contextlib
from pathlib import Path

from ..rules.quoting import quote_identifier
from .backend import Backend, CommandFailed
from .template import SUPERUSER

__all__ = ["CONTROL", "Snapshots", "connect_control"]

CONTROL = "dsql_control"  # internal database: a database with a connection, such as `postgres`, cannot be renamed
_COPY = "STRATEGY file_copy"  # takes half as long as wal_log for nearly empty databases


async def connect_control(server: Path) -> Backend:
    """A connection to the internal database, which is created on first use."""
    with contextlib.suppress(CommandFailed):
        backend = await Backend.connect(server, {"user": SUPERUSER, "database": "postgres"})
        try:
            if not await backend.run(f"SELECT 1 FROM pg_database WHERE datname = '{CONTROL}'"):
                await _end_sessions(backend, "postgres")
                await backend.run(f"CREATE DATABASE {CONTROL} TEMPLATE postgres {_COPY}")
                await backend.run(f"REVOKE CONNECT ON DATABASE {CONTROL} FROM PUBLIC")
        finally:
            await backend.close()
    return await Backend.connect(server, {"user": SUPERUSER, "database": CONTROL})


async def _end_sessions(backend: Backend, database: str) -> None:
    await backend.run(
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid()"
    )


class Snapshots:
    """The snapshots of one PostgreSQL, through one control connection."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lock = asyncio.Lock()
        self._roles: dict[str, frozenset[str]] = {}
        self._count = 0
        self._next_copies: dict[str, asyncio.Task[str]] = {}

    async def take(self) -> str:
        """Take a snapshot of `postgres`; returns its name."""
        async with self._lock:
            self._count += 1
            name = f"dsql_snapshot_{self._count}"
            await self._backend.run("ALTER DATABASE postgres ALLOW_CONNECTIONS false")
            try:
                await _end_sessions(self._backend, "postgres")
                await self._copy("postgres", name)
            finally:
                await self._backend.run("ALTER DATABASE postgres ALLOW_CONNECTIONS true")
            self._roles[name] = await self._existing_roles()
        self._prepare_copy(name)
        return name

    async def restore(self, name: str) -> None:
        """Restore a snapshot. Raises KeyError for a name that `take` did not return."""
        roles = self._roles[name]
        copy = await self._copy_of(name)
        async with self._lock:
            self._count += 1
            old = f"dsql_old_{self._count}"
            await self._backend.run("ALTER DATABASE postgres ALLOW_CONNECTIONS false")
            await _end_sessions(self._backend, "postgres")
            await self._backend.run(f"ALTER DATABASE postgres RENAME TO {old}")
            await self._backend.run(f"ALTER DATABASE {copy} RENAME TO postgres")
            new_roles = sorted(await self._existing_roles() - roles)
            if new_roles:
                await self._backend.run(f"DROP DATABASE {old}")
                for role in new_roles:
                    await self._backend.run(f"DROP ROLE {quote_identifier(role)}")
        self._prepare_copy(name, None if new_roles else old)

    async def close(self) -> None:
        """Close the connection, after copies in progress are complete."""
        await asyncio.gather(*self._next_copies.values(), return_exceptions=True)
        await self._backend.close()

    async def _copy_of(self, name: str) -> str:
        prepared = self._next_copies.pop(name, None)
        return await (self._new_copy(name) if prepared is None else prepared)

    def _prepare_copy(self, name: str, old: str | None = None) -> None:
        self._next_copies[name] = asyncio.get_running_loop().create_task(self._new_copy(name, old))

    async def _new_copy(self, name: str, old: str | None = None) -> str:
        async with self._lock:
            self._count += 1
            copy = f"dsql_copy_{self._count}"
            await self._copy(name, copy)
            if old is not None:
                await self._backend.run(f"DROP DATABASE {old}")
            return copy

    async def _copy(self, source: str, target: str) -> None:
        await self._backend.run(f"CREATE DATABASE {target} TEMPLATE {source} OWNER admin {_COPY}")

    async def _existing_roles(self) -> frozenset[str]:
        return frozenset(role for (role,) in await self._backend.run("SELECT rolname FROM pg_roles") if role is not None)
