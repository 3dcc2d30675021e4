"""DSQL's transactions as a model: committed states, one after the other, and transactions that each see one of them.

The oracle of `test_interleavings`. A transaction sees the newest committed state of its first statement, and its own writes; its
COMMIT fails if another transaction that has committed since wrote a row or a unique value that it wrote, too. That is all: no
locks, no waiting, no PostgreSQL. Statements are few, and each is told twice: as SQL, and as what it does to a `View`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

TABLES = ("stock", "orders")
SCHEMA = "; ".join(f"CREATE TABLE {name} (id int PRIMARY KEY, n int NOT NULL, code int UNIQUE)" for name in TABLES)
COLUMNS = "id, n, code"


class Row(NamedTuple):
    """A row of either table."""

    id: int
    n: int
    code: int | None


class Key(NamedTuple):
    """What two transactions may not both write: a row, or a unique value."""

    table: str
    column: str
    value: int


class Answer(NamedTuple):
    """What a statement answers: its command tag and its rows, sorted; for an error the SQLSTATE alone."""

    tag: str
    rows: tuple[tuple[int | None, ...], ...] = ()


State = Mapping[str, Mapping[int, Row]]
VIOLATION, FAILED, CONFLICT = Answer("23505"), Answer("25P02"), Answer("40001")


class View:
    """A committed state as one transaction sees and changes it."""

    def __init__(self, state: State) -> None:
        self._before = state
        self.tables = {name: dict(state[name]) for name in TABLES}
        self._written = set[Key]()
        self._passed_over = set[Key]()

    def rows(self, table: str) -> list[Row]:
        """All rows, by id."""
        return sorted(self.tables[table].values())

    def duplicates(self, table: str, row: Row, instead_of: int | None = None) -> list[Row]:
        """The rows that keep this one out."""
        others = (other for other in self.rows(table) if other.id != instead_of)
        return [other for other in others if other.id == row.id or (row.code is not None and other.code == row.code)]

    def put(self, table: str, row: Row, instead_of: Row | None = None) -> None:
        """Insert a row, or write it instead of another one. Raises ValueError for a duplicate."""
        if self.duplicates(table, row, None if instead_of is None else instead_of.id):
            raise ValueError(row)
        if instead_of is not None:
            self.remove(table, instead_of)
        self.tables[table][row.id] = row
        self.lock(table, row)
        if row.code is not None and (instead_of is None or row.code != instead_of.code):
            self._written.add(Key(table, "code", row.code))

    def remove(self, table: str, row: Row) -> None:
        """Delete a row."""
        del self.tables[table][row.id]
        self.lock(table, row)

    def lock(self, table: str, row: Row) -> None:
        """Count a row as written."""
        self._written.add(Key(table, "id", row.id))

    def pass_over(self, table: str, row: Row) -> None:
        """Leave a row as it is, for its being there."""
        self._passed_over.add(Key(table, "id", row.id))

    @property
    def written(self) -> frozenset[Key]:
        """What it writes when it is committed."""
        return frozenset(key for key in self._written if _holds(self._before, key) or _holds(self.tables, key))

    @property
    def touched(self) -> frozenset[Key]:
        """What it need not write, though PostgreSQL finds it in its way: what was there only for a while, what it passed over."""
        return frozenset(self._written | self._passed_over) - self.written


def _holds(state: State, key: Key) -> bool:
    return any(getattr(row, key.column) == key.value for row in state[key.table].values())


# --- Statements ---


class Statement(Protocol):
    """One statement, told twice."""

    @property
    def sql(self) -> str:
        """As a client sends it."""

    def execute(self, view: View) -> Answer:
        """What it does, and answers. Raises ValueError for a duplicate."""


@dataclass(frozen=True)
class Where:
    """Which rows: one by its id, those with less than so much, or all."""

    id: int | None = None
    below: int | None = None

    @property
    def sql(self) -> str:
        if self.id is not None:
            return f" WHERE id = {self.id}"
        return "" if self.below is None else f" WHERE n < {self.below}"

    def of(self, rows: list[Row]) -> list[Row]:
        return [row for row in rows if self.id in (None, row.id) and (self.below is None or row.n < self.below)]


@dataclass(frozen=True)
class Select:
    table: str
    where: Where
    for_update: bool = False

    @property
    def sql(self) -> str:
        lock = " FOR UPDATE" if self.for_update else ""
        return f"SELECT {COLUMNS} FROM {self.table}{self.where.sql} ORDER BY id{lock}"

    def execute(self, view: View) -> Answer:
        rows = self.where.of(view.rows(self.table))
        for row in rows if self.for_update else ():
            view.lock(self.table, row)
        return Answer(f"SELECT {len(rows)}", tuple(rows))


@dataclass(frozen=True)
class Totals:
    """A read of both tables in one statement."""

    sql = "SELECT (SELECT coalesce(sum(n), 0) FROM stock), (SELECT count(*) FROM orders)"

    def execute(self, view: View) -> Answer:
        return Answer("SELECT 1", ((sum(row.n for row in view.rows("stock")), len(view.rows("orders"))),))


@dataclass(frozen=True)
class Update:
    """UPDATE of one column: of n by adding, by a value, or by the most that the other table has; of id and code by a value."""

    table: str
    where: Where
    column: str
    how: str  # "add", "set", "other"; "read" has no SQL yet
    value: int | None = None

    @property
    def sql(self) -> str:
        literal = "NULL" if self.value is None else str(self.value)
        values = {"add": f"n + {literal}", "set": literal, "other": f"(SELECT coalesce(max(n), 0) FROM {_other(self.table)})"}
        return f"UPDATE {self.table} SET {self.column} = {values[self.how]}{self.where.sql} RETURNING {COLUMNS}"

    def execute(self, view: View) -> Answer:
        most = max((row.n for row in view.rows(_other(self.table))), default=0)
        changed = []
        for row in self.where.of(view.rows(self.table)):
            value = {"add": row.n + (self.value or 0), "set": self.value, "other": most}[self.how]
            new = Row(**{**row._asdict(), self.column: value})
            view.put(self.table, new, row)
            changed.append(new)
        return Answer(f"UPDATE {len(changed)}", tuple(sorted(changed)))


def _other(table: str) -> str:
    return TABLES[1 - TABLES.index(table)]


@dataclass(frozen=True)
class Delete:
    table: str
    where: Where

    @property
    def sql(self) -> str:
        return f"DELETE FROM {self.table}{self.where.sql} RETURNING {COLUMNS}"

    def execute(self, view: View) -> Answer:
        rows = self.where.of(view.rows(self.table))
        for row in rows:
            view.remove(self.table, row)
        return Answer(f"DELETE {len(rows)}", tuple(rows))


@dataclass(frozen=True)
class Insert:
    """INSERT of one row; a duplicate is an error, or is left, or (of the id) is added to."""

    table: str
    row: Row
    on_conflict: str = ""  # "", "nothing", "add"

    @property
    def sql(self) -> str:
        clauses = {"": "", "nothing": " ON CONFLICT DO NOTHING"}
        clauses["add"] = f" ON CONFLICT (id) DO UPDATE SET n = {self.table}.n + EXCLUDED.n"
        code = "NULL" if self.row.code is None else self.row.code
        values = f"({self.row.id}, {self.row.n}, {code})"
        return f"INSERT INTO {self.table} VALUES {values}{clauses[self.on_conflict]} RETURNING {COLUMNS}"

    def execute(self, view: View) -> Answer:
        there = view.tables[self.table].get(self.row.id)
        if self.on_conflict == "add" and there is not None:
            added = there._replace(n=there.n + self.row.n)
            view.put(self.table, added, there)
            return Answer("INSERT 0 1", (added,))
        duplicates = view.duplicates(self.table, self.row)
        if self.on_conflict == "nothing" and duplicates:
            for row in duplicates:
                view.pass_over(self.table, row)
            return Answer("INSERT 0 0")
        view.put(self.table, self.row)
        return Answer("INSERT 0 1", (self.row,))


@dataclass(frozen=True)
class Transfer:
    """Rows of one table put into the other one, and deleted from the first if they are moved."""

    source: str
    where: Where
    moves: bool

    @property
    def sql(self) -> str:
        if self.moves:
            gone = f"DELETE FROM {self.source}{self.where.sql} RETURNING {COLUMNS}"
            return f"WITH gone AS ({gone}) INSERT INTO {_other(self.source)} SELECT * FROM gone RETURNING {COLUMNS}"
        return f"INSERT INTO {_other(self.source)} SELECT {COLUMNS} FROM {self.source}{self.where.sql} RETURNING {COLUMNS}"

    def execute(self, view: View) -> Answer:
        rows = self.where.of(view.rows(self.source))
        for row in rows:
            if self.moves:
                view.remove(self.source, row)
            view.put(_other(self.source), row)
        return Answer(f"INSERT 0 {len(rows)}", tuple(rows))


# --- Transactions ---


@dataclass
class Transaction:
    """An explicit one. It has no view before its first statement."""

    view: View | None = None
    number: int = 0  # of commits that its view has
    failed: bool = False


@dataclass
class Model:
    """A cluster: what was committed, and the sessions that are in a transaction."""

    state: State
    commits: list[frozenset[Key]] = field(default_factory=list)
    open: dict[int, Transaction] = field(default_factory=dict)

    def answers(self, session: int, command: Statement | str) -> Iterator[Answer]:
        """What a cluster may answer to a statement, BEGIN, COMMIT or ROLLBACK. Two answers only for a COMMIT."""
        if isinstance(command, str):
            yield from self._controls(session, command)
        else:
            yield self._execute(session, command)

    def _controls(self, session: int, command: str) -> Iterator[Answer]:
        transaction = self.open.get(session)
        if command == "BEGIN":
            self.open.setdefault(session, Transaction())
            yield FAILED if transaction is not None and transaction.failed else Answer("BEGIN")
        elif transaction is not None and transaction.failed:
            yield Answer("ROLLBACK")
        elif command == "COMMIT" and transaction is not None and transaction.view is not None:
            since = frozenset[Key]().union(*self.commits[transaction.number :])
            wins = not since & transaction.view.written
            if wins:
                yield Answer("COMMIT")
            if not wins or since & transaction.view.touched:
                yield CONFLICT
        else:
            yield Answer(command)

    def has_failed(self, session: int) -> bool:
        """Whether a session is in a failed transaction."""
        return session in self.open and self.open[session].failed

    def ended(self, session: int, answer: Answer) -> None:
        """A COMMIT or ROLLBACK was answered so."""
        transaction = self.open.pop(session, None)
        if answer.tag == "COMMIT" and transaction is not None and transaction.view is not None:
            self._commit(transaction.view)

    def _commit(self, view: View) -> None:
        """Only what it wrote: the rest of its view may be old."""
        tables = {name: dict(rows) for name, rows in self.state.items()}
        for table, column, value in view.written:
            if column == "id":
                tables[table].pop(value, None)
                if value in view.tables[table]:
                    tables[table][value] = view.tables[table][value]
        self.state = tables
        self.commits.append(view.written)

    def _execute(self, session: int, statement: Statement) -> Answer:
        transaction = self.open.get(session, Transaction())
        if transaction.failed:
            return FAILED
        if transaction.view is None:
            transaction.view, transaction.number = View(self.state), len(self.commits)
        try:
            answer = statement.execute(transaction.view)
        except ValueError:
            transaction.failed = True
            return VIOLATION
        if session not in self.open and not isinstance(statement, Select):  # FOR UPDATE alone holds for no time
            self._commit(transaction.view)
        return answer
