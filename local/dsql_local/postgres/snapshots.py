"""What the database held at a moment, kept as another PostgreSQL database, and brought back in some milliseconds.

DSQL has one database, `postgres`, so clients see that name always: a snapshot is a copy under another name, and to restore it is
to give a copy of it the name `postgres`. The next copy is made in advance. Roles belong to the whole cluster: those made later
are dropped, a change of one that was there stays. It knows PostgreSQL's control connection only; that no client is connected is
its caller's business.
"""

import asyncio
import contextlib
from pathlib import Path

from ..rules.quoting import quote_identifier
from .backend import Backend, CommandFailed
from .template import SUPERUSER

__all__ = ["CONTROL", "Snapshots", "control"]

CONTROL = "dsql_control"  # a database of our own: who stands in `postgres` keeps it from being renamed
_COPY = "STRATEGY file_copy"  # half as long as the other one, for databases that are nearly empty


async def control(server: Path) -> Backend:
    """A connection to the database of our own, which is made on first use."""
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
        self._turn = asyncio.Lock()
        self._roles: dict[str, frozenset[str]] = {}
        self._made = 0
        self._spares: dict[str, asyncio.Task[str]] = {}

    async def take(self) -> str:
        """Keep what `postgres` holds now; its name."""
        async with self._turn:
            self._made += 1
            name = f"dsql_snapshot_{self._made}"
            await self._backend.run("ALTER DATABASE postgres ALLOW_CONNECTIONS false")
            try:
                await _end_sessions(self._backend, "postgres")
                await self._copy("postgres", name)
            finally:
                await self._backend.run("ALTER DATABASE postgres ALLOW_CONNECTIONS true")
            self._roles[name] = await self._existing_roles()
        self._make_spare(name)
        return name

    async def restore(self, name: str) -> None:
        """Let `postgres` hold what it held then. Raises KeyError for a name that `take` has not given."""
        roles = self._roles[name]
        copy = await self._copy_of(name)
        async with self._turn:
            self._made += 1
            old = f"dsql_old_{self._made}"
            await self._backend.run("ALTER DATABASE postgres ALLOW_CONNECTIONS false")
            await _end_sessions(self._backend, "postgres")
            await self._backend.run(f"ALTER DATABASE postgres RENAME TO {old}")
            await self._backend.run(f"ALTER DATABASE {copy} RENAME TO postgres")
            new_roles = sorted(await self._existing_roles() - roles)
            if new_roles:
                await self._backend.run(f"DROP DATABASE {old}")
                for role in new_roles:
                    await self._backend.run(f"DROP ROLE {quote_identifier(role)}")
        self._make_spare(name, None if new_roles else old)

    async def close(self) -> None:
        """End the connection, and what is made in advance."""
        await asyncio.gather(*self._spares.values(), return_exceptions=True)
        await self._backend.close()

    async def _copy_of(self, name: str) -> str:
        spare = self._spares.pop(name, None)
        return await (self._new_copy(name) if spare is None else spare)

    def _make_spare(self, name: str, old: str | None = None) -> None:
        self._spares[name] = asyncio.get_running_loop().create_task(self._new_copy(name, old))

    async def _new_copy(self, name: str, old: str | None = None) -> str:
        async with self._turn:
            self._made += 1
            copy = f"dsql_copy_{self._made}"
            await self._copy(name, copy)
            if old is not None:
                await self._backend.run(f"DROP DATABASE {old}")
            return copy

    async def _copy(self, source: str, target: str) -> None:
        await self._backend.run(f"CREATE DATABASE {target} TEMPLATE {source} OWNER admin {_COPY}")

    async def _existing_roles(self) -> frozenset[str]:
        return frozenset(role for (role,) in await self._backend.run("SELECT rolname FROM pg_roles") if role is not None)
