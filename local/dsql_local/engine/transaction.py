"""One explicit transaction with optimistic concurrency, as in DSQL: it never waits for a lock, and the first COMMIT wins.

PostgreSQL locks rows. So a transaction here is in one of these states:

    OPEN       its statements ran on the real tables and hold PostgreSQL's locks
    SUSPENDED  another session needed a row that it had locked: it was rolled back to its first savepoint, which frees the locks
               and keeps the snapshot. Before its next unit its units are replayed, and must give the same answers
    DOOMED     it lost a conflict: its statements run on shadow tables (see `shadow_tables`), its COMMIT fails with 40001
    LOST       it lost a conflict and cannot use shadow tables: its next statement fails with 40001

It decides what its backend executes. It knows nothing about sockets, tokens, or the statements of other sessions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ..postgres.backend import Backend, CommandFailed, encode_prefix
from ..protocol.client import Client, NullClient
from ..protocol.messages import error_fields
from ..rules.error_responses import conflict
from ..rules.statements import identifiers, locks_for_key_share, locks_for_update, may_write
from .constraint_checks import ConstraintChecks
from .flights import Unit
from .response import Response, relay_response
from .shadow_tables import Table, copy_rows, create_shadows, locked_tables, named_tables, touch_locked_rows
from .write_stats import modified_rows

__all__ = ["State", "Transaction"]

_START = "_dsql_start"  # the savepoint before the first statement, for suspension
_LAST = "_dsql_last"  # a savepoint before each writing statement, for its own failure
_UNIQUE_VIOLATION = "23505"
_FOREIGN_KEY_VIOLATION = "23503"


class State(Enum):
    """The state of a transaction; see above."""

    OPEN = "open"
    SUSPENDED = "suspended"
    DOOMED = "doomed"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class ExecutedUnit:
    """A unit that was executed, and a digest of what the client saw of it."""

    unit: Unit
    digest: int


SavedRows = dict[Table, bytes]


def _writes(unit: Unit) -> bool:
    return unit.is_function_call or any(may_write(statement) for statement in unit.statements)


class Transaction:
    """An explicit transaction, which can be suspended, replayed and doomed. `record_loss` is called once, with the reason."""

    def __init__(self, backend: Backend, keys: ConstraintChecks, record_loss: Callable[[str], None]) -> None:
        self._backend = backend
        self._constraint_checks = keys
        self._record_loss = record_loss
        self._started = False
        self._removals = 0  # the server's count when it started
        self._executed: list[ExecutedUnit] = []
        self._saved_rows: SavedRows | None = {}
        self._shares_keys = False
        self._contenders: list[Transaction] = []
        self._committed = False
        self.locked_bytes = 0  # the size of the keys that the last unit has locked
        self.modified: int | None = None  # rows that the last unit modified, if its command tag does not count them all
        self.state = State.OPEN

    async def execute(self, unit: Unit, client: Client, *, counting: bool = False) -> bool:
        """Execute a unit, and send its response to the client; returns whether it succeeded. With `counting`, sets `modified`."""
        self.modified, self.locked_bytes = None, 0
        if self.state is State.SUSPENDED:
            await self._resume()
        if self.state is State.LOST:
            return await self._fail_with_conflict(client)
        if self.state is State.DOOMED:
            return await self._execute_on_shadow(unit, client)
        response = await self._attempt(unit, client, counting=counting)
        if response.error is None:
            if await self._has_duplicate_keys(unit):
                return await self._doom_at(unit, client, already_sent=response.partly_sent)
            self._executed.append(ExecutedUnit(unit.with_copy_data(response.copy_data), response.digest))
        elif _writes(unit) and not response.partly_sent:
            if response.is_conflict:
                return await self._doom_at(unit, client)
            if response.sqlstate in (_UNIQUE_VIOLATION, _FOREIGN_KEY_VIOLATION):
                return await self._resolve_violation(unit, response, client)
        return response.send(client)

    async def may_commit(self) -> bool:
        """Whether COMMIT may be executed: False after a lost conflict. A suspended transaction is replayed first."""
        if self.state is State.SUSPENDED:
            await self._resume()
        if self.state is State.OPEN and self._lost_to_key_share:
            await self._doom({}, "another transaction committed first")
        return self.state is State.OPEN

    def contend_with(self, other: "Transaction") -> None:
        """Note that both need the same row. PostgreSQL does not keep a FOR KEY SHARE lock after COMMIT, so it is noted here."""
        if (self._shares_keys or other._shares_keys) and other not in self._contenders:
            self._contenders.append(other)
            other._contenders.append(self)

    async def may_remove_keys(self) -> bool:
        """Whether it may have removed a unique key."""
        return await self._constraint_checks.may_remove_keys(
            [statement for executed in self._executed for statement in executed.unit.statements]
        )

    def mark_committed(self) -> None:
        """Its COMMIT is about to be executed."""
        self._committed = True

    @property
    def _lost_to_key_share(self) -> bool:
        """Whether a transaction with a FOR KEY SHARE lock on a row that this one changes has committed."""
        return any(other._committed and other._shares_keys for other in self._contenders)

    async def suspend(self) -> None:
        """Free all locks and keep the snapshot. Call it only between two flights of its session."""
        if not self._started or self.state in (State.SUSPENDED, State.LOST):
            return
        if self._backend.status == b"E":  # failed: only ROLLBACK can follow, and PostgreSQL keeps its locks until then
            await self._roll_back()
            await self._backend.fail_transaction()
            return
        if self.state is State.DOOMED:  # another session changes the originals of its shadow tables
            await self._roll_back()
            self.state = State.LOST
            return
        self._saved_rows = await self._copy_rows(await locked_tables(self._backend))
        await self._roll_back()
        self.state = State.SUSPENDED

    # --- Real tables ---

    async def _attempt(self, unit: Unit, client: Client, *, is_replay: bool = False, counting: bool = False) -> Response:
        """Execute a unit after its savepoints, in one round trip. The response is held."""
        writes = _writes(unit)
        before = [] if self._started else [f"SAVEPOINT {_START}"]
        if not self._started:
            self._removals = self._constraint_checks.removals
        if writes:  # never released: a session that waits for a row of a released savepoint waits for the whole transaction
            before.append(f"SAVEPOINT {_LAST}")
        self._shares_keys = self._shares_keys or any(locks_for_key_share(statement) for statement in unit.statements)
        previous_rows = await modified_rows(self._backend) if counting else 0
        self._backend.send(encode_prefix(*before) + unit.data)
        await self._backend.skip_prefix(len(before))
        self._started = True
        response = await relay_response(self._backend, unit, client, hold=True, copying=not is_replay)
        if counting and response.error is None:
            self.modified = await modified_rows(self._backend) - previous_rows
        if writes and response.error is None and any(locks_for_update(statement) for statement in unit.statements):
            locked_bytes = await self._write_locked_rows()
            self.locked_bytes = 0 if is_replay else locked_bytes
        return response

    async def _write_locked_rows(self) -> int:
        try:
            return await touch_locked_rows(self._backend)
        except CommandFailed:  # give the lock up: it would not count as a write, and the client has its rows
            await self._backend.run(f"ROLLBACK TO {_LAST}")
            return 0

    async def _has_duplicate_keys(self, unit: Unit) -> bool:
        """Whether it has written a key that another transaction has removed, but its snapshot still contains."""
        if self._removals == self._constraint_checks.removals or not await self._constraint_checks.may_add_keys(unit.statements):
            return False
        return await self._constraint_checks.has_duplicate_keys()

    async def _roll_back(self) -> None:
        await self._backend.run(f"ROLLBACK TO {_START}")

    async def _resume(self) -> None:
        """Replay all units on the same snapshot; doom the transaction if one answers differently."""
        self.state = State.OPEN
        for executed in self._executed:
            unit = executed.unit.for_replay
            if not unit.messages:
                continue
            response = await self._attempt(unit, NullClient(), is_replay=True)
            if response.error is not None or response.digest != executed.digest or await self._has_duplicate_keys(unit):
                reason = "another transaction committed first" if response.is_conflict else "its replay gave another answer"
                await self._doom(self._saved_rows, reason)
                return
        self._saved_rows = {}

    # --- Shadow tables ---

    async def _doom_at(self, unit: Unit, client: Client, *, already_sent: bool = False) -> bool:
        """The unit conflicts with a committed transaction: execute it on shadow tables, unless part of its response was sent."""
        await self._backend.run(f"ROLLBACK TO {_LAST}")
        self.modified = None
        saved = None if already_sent else await self._copy_rows(await self._tables_of(unit) | await locked_tables(self._backend))
        await self._doom(saved, "another transaction committed first")
        return await self._fail_with_conflict(client) if self.state is State.LOST else await self._execute_on_shadow(unit, client)

    async def _doom(self, saved: SavedRows | None, reason: str) -> None:
        await self._roll_back()
        self._record_loss(reason)
        self.state = State.DOOMED
        await self._create_shadows(saved)

    async def _copy_rows(self, tables: set[Table]) -> SavedRows | None:
        """The rows of the tables. None if this role may not read them; the transaction must then be rolled back."""
        try:
            return await copy_rows(self._backend, tables)
        except CommandFailed:
            return None

    async def _create_shadows(self, saved: SavedRows | None) -> None:
        try:
            if saved is not None:
                await create_shadows(self._backend, saved)
                return
        except CommandFailed:
            pass
        await self._roll_back()
        self.state = State.LOST

    async def _tables_of(self, unit: Unit) -> set[Table]:
        """The real tables that a unit may write to, by the names in its statements."""
        names = {name for statement in unit.statements if may_write(statement) for name in identifiers(statement)}
        return await named_tables(self._backend, names) if names else set()

    async def _execute_on_shadow(self, unit: Unit, client: Client) -> bool:
        tables = await self._tables_of(unit)
        if tables:
            await self._create_shadows(await self._copy_rows(tables))
            if self.state is State.LOST:
                return await self._fail_with_conflict(client)
        response = await self._attempt_on_shadow(unit, client)
        if response.is_conflict:  # it reached a real table by a schema name or a view: shadow tables cannot replace it
            self.state = State.LOST
        return response.send(client)

    async def _attempt_on_shadow(self, unit: Unit, client: Client) -> Response:
        self._backend.send(unit.data)
        return await relay_response(self._backend, unit, client, hold=True)

    async def _resolve_violation(self, unit: Unit, response: Response, client: Client) -> bool:
        """Decide what a violated key means: an error if a row of the snapshot violates it, otherwise a conflict."""
        await self._backend.run(f"ROLLBACK TO {_LAST}")
        try:
            await create_shadows(self._backend, await copy_rows(self._backend, await self._tables_of(unit)))
            trial = await self._attempt_on_shadow(unit, NullClient())
            if trial.error is None and not (
                response.sqlstate == _FOREIGN_KEY_VIOLATION and await self._violates_in_snapshot(response)
            ):
                return await self._doom_at(unit, client)
        except CommandFailed:
            pass
        if self._backend.status == b"T":
            await self._backend.fail_transaction()
        return response.send(client)

    async def _violates_in_snapshot(self, response: Response) -> bool:
        """Whether the foreign key is violated in the snapshot. Shadow tables have no foreign keys, but contain the changes."""
        fields = error_fields(response.error) if response.error is not None else {}
        return await self._constraint_checks.has_missing_parents(fields.get("s", ""), fields.get("t", ""), fields.get("n", ""))

    async def _fail_with_conflict(self, client: Client) -> bool:
        """Fail the statement: the transaction lost a conflict and cannot continue."""
        await self._backend.fail_transaction()
        client.write(conflict("OC000").data)
        return False
