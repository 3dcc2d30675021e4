"""DB-API and SQLAlchemy: pg8000's own, with the same TLS, token and flights."""

import pg8000.dbapi
import psycopg
import pytest
import sqlalchemy
from sqlalchemy import orm

from dsql_lambda import ConnectError, DatabaseError, OCCRetryConfig, OCCRetryExhausted, dbapi, retry_on_occ
from dsql_lambda.credentials import Credentials


@pytest.fixture
def connection(options):
    connection = dbapi.connect(options)
    yield connection
    connection.close()


@pytest.fixture
def engine(options):
    engine = sqlalchemy.create_engine("postgresql+pg8000://", creator=lambda: dbapi.connect(options))
    yield engine
    engine.dispose()


class Base(orm.DeclarativeBase):
    """The models' base."""


class Account(Base):
    """A row of the accounts."""

    __tablename__ = "accounts"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    balance: orm.Mapped[int]


def test_it_is_pg8000s_connection(dsql, connection):
    """Cursors, commit, rollback; one flight for a statement where stock pg8000 takes three."""
    assert isinstance(connection, pg8000.dbapi.Connection)
    cursor = connection.cursor()
    dsql.clear_log()
    cursor.execute("SELECT balance FROM accounts WHERE id = %s", (1,))
    assert cursor.fetchall() == ([100],)
    assert cursor.description[0][0] == "balance"
    connection.commit()
    assert [event.statements for event in dsql.log if event.kind == "flight"] == [
        ("begin transaction",),
        ("SELECT balance FROM accounts WHERE id = $1",),
        ("commit",),
    ]
    cursor.execute("UPDATE accounts SET balance = 0")
    connection.rollback()
    cursor.execute("SELECT sum(balance) FROM accounts")
    assert cursor.fetchone() == [300]
    connection.rollback()


def test_the_module_is_pep_249s():
    """What it does not define is pg8000's."""
    for name in ("Error", "InterfaceError", "Date", "Binary", "STRING"):
        assert getattr(dbapi, name) is getattr(pg8000.dbapi, name)
    assert (dbapi.apilevel, dbapi.paramstyle) == ("2.0", "format")


def test_errors_are_of_the_class_that_psycopg_gives_them():
    """By SQLSTATE, each a subclass of pg8000's class of that name, and of `DatabaseError`."""
    for sqlstate, of_psycopg in psycopg.errors._sqlcodes.items():
        if len(sqlstate) == 5 and sqlstate[:2].isalnum() and psycopg.errors.lookup(sqlstate) is of_psycopg:
            names = [each.__name__ for each in of_psycopg.__mro__ if each.__module__ == "psycopg"]
            error = dbapi.specific(DatabaseError({"C": sqlstate, "M": "no"}))
            assert type(error).__name__ == names[0], sqlstate
            assert isinstance(error, (getattr(pg8000.dbapi, names[0]), DatabaseError))


def test_many_statements_are_one_flight(dsql, connection):
    """256 of an `executemany`; `rowcount` is the sum, and a failure is that statement's."""
    cursor = connection.cursor()
    dsql.clear_log()
    cursor.executemany("INSERT INTO accounts VALUES (%s, %s)", [(number, 1) for number in range(10, 310)])
    assert cursor.rowcount == 300
    flights = [event.statements for event in dsql.log if event.kind == "flight"]
    assert [len(each) for each in flights] == [1, 256, 44]
    cursor.executemany("UPDATE accounts SET balance = %s WHERE id = %s", [])
    with pytest.raises(dbapi.IntegrityError) as caught:
        cursor.executemany("INSERT INTO accounts VALUES (%s, %s)", [(400, 1), (1, 1), (401, 1)])
    assert caught.value.statement == "INSERT INTO accounts VALUES (%s, %s)"
    connection.rollback()
    assert dsql.execute("SELECT count(*) FROM accounts") == [["3"]]


def test_refusals_are_the_same(options):
    """`ConnectError`, and nothing secret in it."""
    with pytest.raises(ConnectError, match="access denied"):
        dbapi.connect(options, credentials=Credentials(access_key="defaultkey", secret_key="wrong"))


def test_a_sqlalchemy_session_retries_its_transaction(dsql, engine):
    """A conflict at COMMIT is known through SQLAlchemy's wrapper; applied once."""
    attempts = []

    def add():
        attempts.append(1)
        with orm.Session(engine) as session, session.begin():
            account = session.get(Account, 1)
            assert account is not None
            account.balance += 5

    dsql.conflict_next(2)
    retry_on_occ(add)
    assert len(attempts) == 3
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["105"]]
    dsql.conflict_next(2)
    with pytest.raises(OCCRetryExhausted):
        retry_on_occ(add, OCCRetryConfig(max_attempts=2))


def test_sqlalchemys_errors_are_sqlalchemys(engine):
    """By DB-API's names."""
    with pytest.raises(sqlalchemy.exc.DBAPIError) as caught, engine.begin() as session:
        session.execute(sqlalchemy.text("UPDATE accounts SET balance = -1"))
    assert caught.value.orig is not None
    assert getattr(caught.value.orig, "sqlstate", None) == "23514"


def test_a_write_conflict_is_retried_and_nothing_is_lost(dsql, engine):
    """A real write-write conflict."""
    once = iter([None])

    def add():
        with orm.Session(engine) as session, session.begin():
            account = session.get(Account, 1)
            assert account is not None
            for _ in once:
                dsql.execute("UPDATE accounts SET balance = balance + 10 WHERE id = 1")
            account.balance += 1

    retry_on_occ(add)
    assert dsql.execute("SELECT balance FROM accounts WHERE id = 1") == [["111"]]
