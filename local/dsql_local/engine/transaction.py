"""One explicit transaction, optimistic as DSQL's are: no waiting for locks, the earliest COMMIT wins, the loser learns at COMMIT.

PostgreSQL locks rows. So a transaction here is in one of four standings:

    OPEN       its statements ran on the real tables and hold PostgreSQL's locks
    SUSPENDED  another session wanted a row of it: it was rolled back to its first savepoint, which frees the locks and keeps the
               snapshot; its units are executed again before its next one, and must answer as they did
    DOOMED     it has lost: its statements run on shadows (see `shadow`), its COMMIT is answered 40001
    LOST       it has lost, and shadows could not be made: its next statement is answered 40001

It holds a backend and decides what that is told; it knows nothing of sockets, tokens, or other sessions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ..postgres.backend import Backend, CommandFailed, ahead
from ..protocol.client import Client, NullClient
from ..protocol.messages import error_fields
from ..rules.error_responses import conflict
from ..rules.statements import identifiers, locks_for_update, may_write, shares_keys
from .constraint_checks import ConstraintChecks
from .flights import Unit
from .response import Response, relay_response
from .shadow_tables import Table, dump, load, locked_tables, named_tables, touch_locked_rows
from .write_stats import modified_rows

__all__ = ["Standing", "Transaction"]

_START = "_dsql_start"  # the savepoint before the first statement: what a suspension rolls back to
_LAST = "_dsql_last"  # one before each writing statement, inside the former: what its own failure rolls back to
_UNIQUE_VIOLATION = "23505"
_FOREIGN_KEY_VIOLATION = "23503"


class Standing(Enum):
    """How a transaction stands."""

    OPEN = "open"
    SUSPENDED = "suspended"
    DOOMED = "doomed"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Done:
    """A unit that was executed, and what the client saw of it."""

    unit: Unit
    digest: int


Dumped = dict[Table, bytes]


def _writes(unit: Unit) -> bool:
    return unit.function_call or any(may_write(statement) for statement in unit.statements)


class Transaction:
    """What an open transaction needs to be suspended, executed again, or doomed. `lost` is called with a reason, once."""

    def __init__(self, backend: Backend, keys: ConstraintChecks, lost: Callable[[str], None]) -> None:
        self._backend = backend
        self._constraint_checks = keys
        self._record_loss = lost
        self._started = False
        self._removals = 0  # of keys, when it started
        self._done: list[Done] = []
        self._dumped: Dumped | None = {}
        self._shares_keys = False
        self._met: list[Transaction] = []
        self._won = False
        self.locked_bytes = 0  # of the keys that the last unit has locked
        self.modified: int | None = None  # rows, by the last unit that reached further than its command tag says
        self.standing = Standing.OPEN

    async def execute(self, unit: Unit, client: Client, *, further: bool = False) -> bool:
        """Execute one unit and give its reply to the client; whether it succeeded. With `further` its rows are counted."""
        self.modified, self.locked_bytes = None, 0
        if self.standing is Standing.SUSPENDED:
            await self._resume()
        if self.standing is Standing.LOST:
            return await self._refuse(client)
        if self.standing is Standing.DOOMED:
            return await self._execute_on_shadow(unit, client)
        reply = await self._attempt(unit, client, counting=further)
        if reply.error is None:
            if await self._doubles_keys(unit):
                return await self._doom_at(unit, client, told=reply.passed_on)
            self._done.append(Done(unit.with_copied(reply.copied), reply.digest))
        elif _writes(unit) and not reply.passed_on:
            if reply.lost:
                return await self._doom_at(unit, client)
            if reply.sqlstate in (_UNIQUE_VIOLATION, _FOREIGN_KEY_VIOLATION):
                return await self._tell_violation(unit, reply, client)
        return reply.give(client)

    async def may_commit(self) -> bool:
        """Whether COMMIT may be tried now: False if it has lost. A suspended transaction gets its locks back first."""
        if self.standing is Standing.SUSPENDED:
            await self._resume()
        if self.standing is Standing.OPEN and self._beaten:
            await self._doom({}, "a rival committed first")
        return self.standing is Standing.OPEN

    def meets(self, other: "Transaction") -> None:
        """The two want the same row. If that is about a FOR KEY SHARE, nothing that PostgreSQL keeps tells the later one so."""
        if (self._shares_keys or other._shares_keys) and other not in self._met:
            self._met.append(other)
            other._met.append(self)

    async def removes_keys(self) -> bool:
        """Whether it may have taken a unique key away."""
        return await self._constraint_checks.removes([statement for done in self._done for statement in done.unit.statements])

    def wins(self) -> None:
        """It commits."""
        self._won = True

    @property
    def _beaten(self) -> bool:
        """Whether another one has committed its FOR KEY SHARE of a row that this one changes."""
        return any(other._won and other._shares_keys for other in self._met)

    async def suspend(self) -> None:
        """Free all locks, keep the snapshot. Only between two flights of its session."""
        if not self._started or self.standing in (Standing.SUSPENDED, Standing.LOST):
            return
        if self._backend.status == b"E":  # it has failed: only ROLLBACK is to come, and PostgreSQL keeps its locks until then
            await self._roll_back()
            await self._backend.fail()
            return
        if self.standing is Standing.DOOMED:  # its shadows were all that it had: somebody wants to change their originals
            await self._roll_back()
            self.standing = Standing.LOST
            return
        self._dumped = await self._dump(await locked_tables(self._backend))
        await self._roll_back()
        self.standing = Standing.SUSPENDED

    # --- On the real tables ---

    async def _attempt(self, unit: Unit, client: Client, *, again: bool = False, counting: bool = False) -> Response:
        """Execute a unit behind its savepoints, all in one go; its reply is held back."""
        writes = _writes(unit)
        before = [] if self._started else [f"SAVEPOINT {_START}"]
        if not self._started:
            self._removals = self._constraint_checks.removals
        if writes:  # never released: whoever waits for a row of a released savepoint waits for the whole transaction
            before.append(f"SAVEPOINT {_LAST}")
        self._shares_keys = self._shares_keys or any(shares_keys(statement) for statement in unit.statements)
        so_far = await modified_rows(self._backend) if counting else 0
        self._backend.send(ahead(*before) + unit.data)
        await self._backend.pass_ahead(len(before))
        self._started = True
        reply = await relay_response(self._backend, unit, client, hold=True, copying=not again)
        if counting and reply.error is None:
            self.modified = await modified_rows(self._backend) - so_far
        if writes and reply.error is None and any(locks_for_update(statement) for statement in unit.statements):
            locked = await self._count_as_written()
            self.locked_bytes = 0 if again else locked
        return reply

    async def _count_as_written(self) -> int:
        try:
            return await touch_locked_rows(self._backend)
        except CommandFailed:  # then the lock is given up: it would count for nothing, and the client has its rows
            await self._backend.run(f"ROLLBACK TO {_LAST}")
            return 0

    async def _doubles_keys(self, unit: Unit) -> bool:
        """Whether it has written a key that a rival has removed, and that its snapshot still shows."""
        if self._removals == self._constraint_checks.removals or not await self._constraint_checks.brings(unit.statements):
            return False
        return await self._constraint_checks.are_doubled()

    async def _roll_back(self) -> None:
        await self._backend.run(f"ROLLBACK TO {_START}")

    async def _resume(self) -> None:
        """Execute everything again on the same snapshot; doomed if anything answers otherwise than it did."""
        self.standing = Standing.OPEN
        for done in self._done:
            unit = done.unit.again
            if not unit.messages:
                continue
            reply = await self._attempt(unit, NullClient(), again=True)
            if reply.error is not None or reply.digest != done.digest or await self._doubles_keys(unit):
                reason = "a rival committed first" if reply.lost else "executed again, it answered otherwise"
                await self._doom(self._dumped, reason)
                return
        self._dumped = {}

    # --- On shadows ---

    async def _doom_at(self, unit: Unit, client: Client, *, told: bool = False) -> bool:
        """The unit met a rival that has committed: go on as if it had not. It cannot, once the client was told of it."""
        await self._backend.run(f"ROLLBACK TO {_LAST}")
        self.modified = None
        dumped = None if told else await self._dump(await self._tables_of(unit) | await locked_tables(self._backend))
        await self._doom(dumped, "a rival committed first")
        return await self._refuse(client) if self.standing is Standing.LOST else await self._execute_on_shadow(unit, client)

    async def _doom(self, dumped: Dumped | None, reason: str) -> None:
        await self._roll_back()
        self._record_loss(reason)
        self.standing = Standing.DOOMED
        await self._load(dumped)

    async def _dump(self, tables: set[Table]) -> Dumped | None:
        """The tables' rows; None if this role may not read them, and the transaction must be rolled back."""
        try:
            return await dump(self._backend, tables)
        except CommandFailed:
            return None

    async def _load(self, dumped: Dumped | None) -> None:
        try:
            if dumped is not None:
                await load(self._backend, dumped)
                return
        except CommandFailed:
            pass
        await self._roll_back()
        self.standing = Standing.LOST

    async def _tables_of(self, unit: Unit) -> set[Table]:
        """The real tables that a unit may write to, by the names that stand in it."""
        names = {name for statement in unit.statements if may_write(statement) for name in identifiers(statement)}
        return await named_tables(self._backend, names) if names else set()

    async def _execute_on_shadow(self, unit: Unit, client: Client) -> bool:
        more = await self._tables_of(unit)
        if more:
            await self._load(await self._dump(more))
            if self.standing is Standing.LOST:
                return await self._refuse(client)
        reply = await self._attempt_on_shadow(unit, client)
        if reply.lost:  # it reached a real table, by a schema's name or a view: nothing answers for it
            self.standing = Standing.LOST
        return reply.give(client)

    async def _attempt_on_shadow(self, unit: Unit, client: Client) -> Response:
        self._backend.send(unit.data)
        return await relay_response(self._backend, unit, client, hold=True)

    async def _tell_violation(self, unit: Unit, reply: Response, client: Client) -> bool:
        """A violated key: by a row that it sees, an error; by one that a rival committed meanwhile, a conflict."""
        await self._backend.run(f"ROLLBACK TO {_LAST}")
        try:
            await load(self._backend, await dump(self._backend, await self._tables_of(unit)))
            trial = await self._attempt_on_shadow(unit, NullClient())
            if trial.error is None and not (reply.sqlstate == _FOREIGN_KEY_VIOLATION and await self._misses(reply)):
                return await self._doom_at(unit, client)
        except CommandFailed:
            pass
        if self._backend.status == b"T":
            await self._backend.fail()
        return reply.give(client)

    async def _misses(self, reply: Response) -> bool:
        """Whether a foreign key is violated for the snapshot, too. The shadows hold what the unit has done, and have none."""
        fields = error_fields(reply.error) if reply.error is not None else {}
        return await self._constraint_checks.are_missed(fields.get("s", ""), fields.get("t", ""), fields.get("n", ""))

    async def _refuse(self, client: Client) -> bool:
        """The transaction has lost and cannot go on: say so at the statement."""
        await self._backend.fail()
        client.write(conflict("OC000").data)
        return False
