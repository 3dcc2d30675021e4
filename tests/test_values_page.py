"""docs/values.md says what is: each row of its tables is asked of PostgreSQL, through the layer and through psycopg 3."""

import datetime
import decimal
import re
from pathlib import Path

import psycopg
import pytest

from dsql_lambda import Connection, DatabaseError
from dsql_local.postgres.server import Postgres
from dsql_local.postgres.template import SUPERUSER

PAGE = (Path(__file__).parents[1] / "docs" / "values.md").read_text()
NAMES = {"Decimal": decimal.Decimal, "date": datetime.date, "datetime": datetime.datetime, "timedelta": datetime.timedelta}


@pytest.fixture(scope="module")
def postgres():
    postgres = Postgres()
    postgres.start()
    yield postgres
    postgres.stop()


@pytest.fixture(scope="module")
def connection(postgres):
    with Connection(SUPERUSER, unix_sock=str(postgres.socket), database="postgres", ssl_context=False) as connection:
        yield connection


def table(heading):
    """The rows of the table below a heading, without the marks of code."""
    text = PAGE.split(f"## {heading}")[1].split("\n## ")[0]
    rows = [re.split(r" \| ", row) for row in re.findall(r"^\| (.*) \|$", text, re.MULTILINE)][2:]
    return [pytest.param(*(cell.strip("`") for cell in row), id=row[0].strip("`")) for row in rows]


def shown(connection, sql, **params):
    """The value's `repr`, or the error's name."""
    try:
        return repr(connection.run(f"SELECT {sql}", **params)[0][0]).replace("datetime.datetime", "datetime")
    except DatabaseError:
        return "DatabaseError"


@pytest.mark.parametrize(("sql", "here", "there"), table("Where psycopg 3 gives something else"))
def test_a_difference_from_psycopg_is_as_the_page_says(postgres, connection, sql, here, there):
    """Both are asked."""
    assert shown(connection, sql) == here
    with psycopg.connect(host=str(postgres.folder), user=SUPERUSER, dbname="postgres", autocommit=True) as other:
        try:
            (value,) = other.execute(f"SELECT {sql}").fetchone() or [None]
        except psycopg.DataError:
            assert there == "DataError"
        else:
            assert repr(value) == there


@pytest.mark.parametrize(("without", "values", "wrong", "cast", "right"), table("The type of a parameter"))
def test_a_cast_gives_what_the_page_says(connection, without, values, wrong, cast, right):
    """And without it, the answer is the other one."""
    params = dict(zip("ab", eval(f"[{values}]", NAMES), strict=False))
    assert shown(connection, without, **params) == wrong
    assert shown(connection, cast, **params) == right


def test_a_type_from_outside_says_the_same(connection):
    """The argument `types`, by the type's OID."""
    assert connection.run("SELECT jsonb '[7, 8]' -> :a", types={"a": 23}, a=0) == [[7]]
    assert connection.run("SELECT :a > :b", types={"a": 23, "b": 23}, a=10, b=9) == [[True]]
