"""Transactions of several sessions in any order: every answer, COMMIT and row in the end is that of a model of DSQL.

The model (`dsql_model`) is a few dictionaries: each transaction sees a committed state and its own writes, and who first commits
a row or a unique value wins. What agrees with it has a serial order of snapshot-isolated transactions, that of the commits.

    DSQL_INTERLEAVINGS=5000 python -m pytest tests/local/test_interleavings.py     # a campaign: other ones each time
"""

import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from dsql_local.protocol.messages import SYNC, Message, bind, data_row, error_fields, execute, parse, query

sys.path.insert(0, str(Path(__file__).parents[2]))  # `tests` is a folder of the repository, not installed

from tests.local.dsql_model import (
    COLUMNS,
    SCHEMA,
    TABLES,
    Answer,
    Delete,
    Insert,
    Model,
    Row,
    Select,
    Statement,
    Totals,
    Transfer,
    Update,
    Where,
)

CAMPAIGN = os.environ.get("DSQL_INTERLEAVINGS")
FIRST = {"stock": {1: Row(1, 10, 1), 2: Row(2, 20, None)}, "orders": {1: Row(1, 5, None), 3: Row(3, 30, 3)}}

Command = Statement | str
Step = tuple[int, bool, list[Command]]  # session, by a simple Query, what it sends in one flight

tables, ids, amounts = st.sampled_from(TABLES), st.integers(1, 3), st.integers(1, 9)
codes = st.sampled_from([None, None, 1, 2, 3])
one = st.builds(Where, id=ids)
some = st.one_of(one, one, one, st.builds(Where, below=st.sampled_from([15, 25])), st.just(Where()))
reads = st.one_of(
    st.builds(Select, tables, some),
    st.builds(Select, tables, some, st.just(True)),  # FOR UPDATE
    st.just(Totals()),
)
writes = st.one_of(
    st.builds(Update, tables, some, st.just("n"), st.just("add"), amounts),
    st.builds(Update, tables, one, st.just("n"), st.just("read")),  # see `computed`
    st.builds(Update, tables, some, st.just("n"), st.just("other")),
    st.builds(Update, tables, one, st.just("code"), st.just("set"), codes),
    st.builds(Update, tables, one, st.just("id"), st.just("set"), ids),
    st.builds(Insert, tables, st.builds(Row, ids, amounts, codes), st.sampled_from(["", "", "nothing", "add"])),
    st.builds(Delete, tables, one),
    st.builds(Delete, tables, some),
    st.builds(Transfer, tables, one, st.booleans()),
)
statements = st.one_of(reads, writes, writes)


@st.composite
def interleavings(draw: st.DrawFn) -> list[Step]:
    """What two to five sessions send, flight by flight: most of it in transactions of some statements."""
    sessions = range(draw(st.integers(2, 5)))
    inside = dict.fromkeys(sessions, False)
    steps: list[Step] = []
    for _ in range(draw(st.integers(12, 40))):
        session = draw(st.sampled_from(sessions))
        if not inside[session] and draw(st.integers(0, 4)) == 0:
            steps.append((session, draw(st.booleans()), [draw(statements)]))
            continue
        flight: list[Command] = [] if inside[session] else ["BEGIN"]
        flight += draw(st.lists(statements, min_size=1 - len(flight), max_size=2))
        inside[session] = draw(st.integers(0, 4)) > 0
        if not inside[session]:
            flight.append(draw(st.sampled_from(["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"])))
        if draw(st.booleans()):
            steps.append((session, False, flight))
        else:
            steps += [(session, True, [command]) for command in flight]
    ends: list[Step] = [(session, True, ["COMMIT"]) for session in draw(st.permutations(sessions))]
    return steps + ends


def as_number(value: bytes | str | None) -> int | None:
    return None if value is None else int(value)


def is_error(answer: Answer) -> bool:
    """Whether it is an SQLSTATE."""
    return len(answer.tag) == 5


def answers(replies: list[Message]) -> list[Answer]:
    """What one flight was answered, execution by execution; an error ends it."""
    found, rows = list[Answer](), list[Any]()
    for message in replies:
        if message.kind == b"D":
            rows.append(tuple(map(as_number, data_row(message))))
        elif message.kind == b"C":
            found.append(Answer(message.body[:-1].decode(), tuple(sorted(rows))))
            rows = []
        elif message.kind == b"E":
            found.append(Answer(error_fields(message)["C"]))
    return found


def computed(command: Command, read: int) -> Command:
    """A client that computes: it writes what it read before, and one more."""
    if isinstance(command, Update) and command.how == "read":
        return replace(command, how="set", value=read + 1)
    return command


def as_values(rows: Iterable[Row]) -> str:
    """Rows as SQL has them behind VALUES."""
    return ", ".join(f"({row.id}, {row.n}, {'NULL' if row.code is None else row.code})" for row in rows)


@settings(max_examples=int(CAMPAIGN or 400), deadline=None, derandomize=not CAMPAIGN, suppress_health_check=list(HealthCheck))
@given(steps=interleavings())
def test_every_answer_is_the_models(dsql, connect, sessions, steps):
    """Reads, writes, duplicates, COMMITs and what is left: as if there were no locks, and the earliest COMMIT wins."""
    dsql.execute("; ".join(f"DELETE FROM {name}; INSERT INTO {name} VALUES {as_values(FIRST[name].values())}" for name in TABLES))
    try:
        replay(steps, sessions, model := Model(FIRST))
        for name in TABLES:
            left = dsql.execute(f"SELECT {COLUMNS} FROM {name} ORDER BY id")
            assert [tuple(map(as_number, row)) for row in left] == sorted(model.state[name].values())
    except BaseException:  # whatever they were in the middle of
        for client in sessions:
            client.close()
        sessions[:] = [connect() for _ in sessions]
        raise


def send(client, sql, simple):
    """Statements one by one, or all of them in one flight, and what they were answered."""
    flights = [[query(text)] for text in sql]
    if not simple:
        flights = [[*(part for text in sql for part in (parse("", text), bind("", ""), execute(""))), SYNC]]
    found = []
    for flight in flights:
        client.send(*flight)
        found += answers(client.replies())
    return found


def replay(steps, sessions, model):
    """Send all of it, and ask the model about each answer."""
    read = dict.fromkeys(range(len(sessions)), 0)
    story = list[str]()
    for session, simple, flight in steps:
        noticed: list[Command] = ["ROLLBACK", "BEGIN"] if simple and model.has_failed(session) else []
        commands = [*noticed, *(computed(command, read[session]) for command in flight)]
        sql = [command if isinstance(command, str) else command.sql for command in commands]
        observed = send(sessions[session], sql, simple)
        assert len(observed) == len(commands) or is_error(observed[-1])
        for command, text, answer in zip(commands, sql, observed, strict=False):
            expected = list(model.answers(session, command))
            story.append(f"{session}: {text} -> {' '.join(map(str, answer))}")
            assert answer in expected, "\n".join((*story, f"the model: {expected}"))
            if command in ("COMMIT", "ROLLBACK"):
                model.ended(session, answer)
                event(answer.tag)
            elif isinstance(command, Select) and answer.rows:
                read[session] = answer.rows[0][1] or 0


@pytest.fixture
def sessions(dsql, connect):
    dsql.execute(f"DROP TABLE IF EXISTS {', '.join(TABLES)}; {SCHEMA}")
    yield [connect() for _ in range(5)]
    dsql.execute(f"DROP TABLE {', '.join(TABLES)}")
