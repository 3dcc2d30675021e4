"""SQLAlchemy: engines on our driver, sessions that are retried, and sessions inside of `tx`, whose COMMIT is not theirs."""

import threading
import tomllib
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import orm

from dsql_lambda import (
    CommitOutcomeUnknown,
    ConfigError,
    ConnectError,
    DeadlineExceeded,
    OCCRetryConfig,
    OCCRetryExhausted,
    Pool,
    TransactionError,
    connect,
    dbapi,
    run_transaction,
    with_dsql_transaction,
)
from dsql_lambda.credentials import Credentials
from dsql_lambda.sqlalchemy import create_engine, run_in_session, session_in

ROOT = Path(__file__).parents[1]


class Base(orm.DeclarativeBase):
    """The models' base."""


class Account(Base):
    """A row of the accounts."""

    __tablename__ = "accounts"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True, autoincrement=False)
    balance: orm.Mapped[int]


class Note(Base):
    """A row with an identity key."""

    __tablename__ = "notes"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    text: orm.Mapped[str] = orm.mapped_column(index=True)


@pytest.fixture
def engine(options):
    engine = create_engine(options)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(options):
    with connect(options) as connection:
        yield connection


@pytest.fixture(params=["engine", "pool", "connection"])
def source(request, options):
    """Each source that `run_in_session` takes."""
    if request.param == "engine":
        engine = create_engine(options)
        yield engine
        engine.dispose()
    elif request.param == "pool":
        with Pool(options) as pool:
            yield pool
    else:
        with connect(options) as connection:
            yield connection


def balances(dsql):
    return [int(row[0]) for row in dsql.execute("SELECT balance FROM accounts ORDER BY id")]


def flights(dsql):
    found = [tuple(sql.split()[0].upper() for sql in event.statements) for event in dsql.log if event.kind == "flight"]
    dsql.clear_log()
    return found


def add(amount):
    def add(session):
        account = session.get(Account, 1)
        account.balance += amount
        return account

    return add


# Engines


def test_an_engine_is_on_our_driver_with_awss_dialect(engine, options):
    """REPEATABLE READ, a pool for DSQL, and an application name that says who it is."""
    assert (engine.dialect.name, engine.dialect.driver) == ("auroradsql", "dsql_lambda")
    assert engine.url.render_as_string() == f"auroradsql+dsql_lambda://admin@{options.host}:{options.port}/postgres"
    assert isinstance(engine.pool, sqlalchemy.QueuePool)
    with engine.connect() as connection:
        assert isinstance(connection.connection.dbapi_connection, dbapi.Connection)
        assert connection.get_isolation_level() == connection.default_isolation_level == "REPEATABLE READ"
        assert connection.exec_driver_sql("SHOW transaction_isolation").scalar() == "repeatable read"
        assert connection.exec_driver_sql("SHOW application_name").scalar().startswith("sqlalchemy:dsql-lambda/")


def test_options_and_keywords_of_sqlalchemys(options):
    """The ones are `connect`'s, the others its `create_engine`'s; what neither knows is refused."""
    engine = create_engine(options, application_name="reports", connect_timeout=3, pool_size=2, echo=False)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW application_name").scalar() == "reports"
    assert engine.pool.size() == 2  # type: ignore[attr-defined]
    engine.dispose()
    with pytest.raises(TypeError, match="pool_sise"):
        create_engine(options, pool_sise=2)
    with pytest.raises(ConfigError, match="port"):
        create_engine(options, port=0)
    refused = create_engine(options, credentials=Credentials(access_key="defaultkey", secret_key="wrong"))
    with pytest.raises(ConnectError, match="access denied"):
        refused.connect()


def test_a_url_is_enough_for_tools_that_want_one(dsql, options):
    """Alembic's and pandas' way; `postgresql+dsql_lambda` is the same driver with SQLAlchemy's stock dialect."""
    for name in ("auroradsql", "postgresql"):
        url = f"{name}+dsql_lambda://admin@{options.host}:{options.port}/postgres?hostaddr={options.hostaddr}"
        engine = sqlalchemy.create_engine(
            url, connect_args={"credentials": options.credentials, "sslrootcert": options.sslrootcert}
        )
        with engine.connect() as connection:
            assert connection.execute(sqlalchemy.select(Account.balance).order_by(Account.id)).scalars().all() == [100] * 3
        assert engine.dialect.name == name
        assert engine.pool._pre_ping
        engine.dispose()
    engine = sqlalchemy.create_engine(f"postgresql+dsql_lambda://admin:secret@{options.host}/postgres")
    with pytest.raises(ConfigError, match="has a password") as refused:
        engine.connect()
    assert "secret" not in str(refused.value)


def test_the_names_that_an_installation_registers_are_there():
    """What pyproject.toml says, as SQLAlchemy looks it up."""
    registered = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["sqlalchemy.dialects"]
    assert set(registered) == {"auroradsql.dsql_lambda", "postgresql.dsql_lambda"}
    for where in registered.values():
        module, _, name = where.partition(":")
        assert getattr(import_module(module), name).driver == "dsql_lambda"


def test_another_isolation_level_is_refused(engine):
    """By SQLAlchemy, with what there is; AUTOCOMMIT begins no transaction."""
    with pytest.raises(sqlalchemy.exc.ArgumentError, match="REPEATABLE READ, AUTOCOMMIT"):
        engine.connect().execution_options(isolation_level="SERIALIZABLE")


def test_autocommit_begins_no_transaction(dsql, engine):
    """A flight for a statement."""
    with engine.connect():
        dsql.clear_log()
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 2")
    assert flights(dsql) == [("SELECT",), ("BEGIN",), ("SELECT",), ("ROLLBACK",)]


def test_a_connection_in_use_lately_is_checked_without_a_round_trip(dsql, options, wall_clock):
    """One that was idle for a minute by a statement of its own; one that the server has closed is replaced."""
    engine = create_engine(options)

    def one():
        with engine.connect() as connection:
            return connection.exec_driver_sql("SELECT 1").scalar()

    assert one() == 1
    dsql.clear_log()
    assert one() == 1
    assert flights(dsql) == [("BEGIN",), ("SELECT",), ("ROLLBACK",)]
    dsql.restart()
    dsql.clear_log()
    assert one() == 1
    assert sum(event.kind == "connect" for event in dsql.log) == 1
    engine.dispose()
    impatient = create_engine(options, probe_after_secs=0)
    for _ in range(2):
        with impatient.connect():
            dsql.clear_log()
    assert flights(dsql) == []
    with impatient.connect():
        assert flights(dsql) == [("SELECT",)]
    impatient.dispose()


def test_connections_are_recycled_before_dsql_cuts_them(engine):
    """After 45 to 55 minutes, by jitter."""
    assert 2700 <= engine.pool._recycle <= 3300
    assert engine.pool.recreate()._recycle == engine.pool._recycle


def test_each_new_connection_has_a_fresh_token(options, engine):
    """Signed when it is opened."""
    signed = []

    def credentials():
        signed.append(1)
        return options.credentials

    engine = create_engine(options, credentials=credentials)
    with engine.connect(), engine.connect():
        assert len(signed) == 2
    engine.dispose()


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("INSERT INTO accounts VALUES (1, 1)", sqlalchemy.exc.IntegrityError),
        ("SELECT * FROM nowhere", sqlalchemy.exc.ProgrammingError),
        ("SELECT 1 / 0", sqlalchemy.exc.DataError),
        ("CREATE TEMP TABLE t (id int)", sqlalchemy.exc.NotSupportedError),
    ],
)
def test_errors_have_pep_249s_classes(engine, connection, statement, kind):
    """In an engine and in `tx` alike, with the server's SQLSTATE."""
    with pytest.raises(kind) as caught, engine.begin() as session:
        session.exec_driver_sql(statement)

    def work(tx):
        with session_in(tx) as session:
            session.execute(sqlalchemy.text(statement))

    with pytest.raises(kind) as joined:
        run_transaction(work, source=connection)
    assert joined.value.orig.sqlstate == caught.value.orig.sqlstate


def test_a_dead_connection_is_an_error_once(dsql, engine):
    """It is thrown away with the others of its age, and the pool goes on."""
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        dsql.restart()
        with pytest.raises(sqlalchemy.exc.InterfaceError) as lost:
            connection.exec_driver_sql("SELECT 1")
        assert lost.value.connection_invalidated
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1


def test_tables_with_identity_keys_and_async_indexes(dsql, engine):
    """AWS's dialect writes DSQL's DDL, each statement a transaction; and it reads what there is."""
    dsql.execute("DROP TABLE IF EXISTS notes")
    dsql.clear_log()
    Base.metadata.create_all(engine, tables=[Base.metadata.tables["notes"]])
    said = [sql for event in dsql.log if event.kind == "flight" for sql in event.statements if sql.lstrip().startswith("CREATE")]
    assert ["IDENTITY" in each for each in said] == [True, False]
    assert said[1].startswith("CREATE INDEX ASYNC ix_notes_text")
    patient = OCCRetryConfig.for_lambda()  # the index is being built meanwhile
    run_in_session(lambda session: session.add_all([Note(text=f"note {n}") for n in range(5)]), engine, retry=patient)
    with orm.Session(engine) as session:
        assert session.scalar(sqlalchemy.select(sqlalchemy.func.count(Note.id))) == 5
    inspector = sqlalchemy.inspect(engine)
    assert [column["name"] for column in inspector.get_columns("notes")] == ["id", "text"]
    assert [index["name"] for index in inspector.get_indexes("notes")] == ["ix_notes_text"]
    dsql.execute("DROP TABLE notes")


def test_many_rows_of_an_update_are_one_flight(dsql, engine):
    """An `executemany` waits once, where pg8000's waits for each."""
    with orm.Session(engine) as session, session.begin():
        accounts = session.scalars(sqlalchemy.select(Account)).all()
        for account in accounts:
            account.balance += account.id
        dsql.clear_log()
        session.flush()
        assert flights(dsql) == [("UPDATE", "UPDATE", "UPDATE")]
    assert balances(dsql) == [101, 102, 103]


# Sessions that are retried


def test_a_session_is_run_again_on_conflicts(dsql, source):
    """Each attempt in a session of its own; applied once, and what it returns can be read."""
    sessions = []

    def work(session):
        sessions.append(session)
        return add(5)(session)

    dsql.conflict_next(2)
    account = run_in_session(work, source, retry=OCCRetryConfig())
    assert account.balance == 105
    assert len({id(each) for each in sessions}) == 3
    assert balances(dsql) == [105, 100, 100]


def test_begin_leaves_with_the_first_statement(dsql, engine):
    """And nothing is sent where nothing is done."""
    run_in_session(lambda session: None, engine)
    dsql.clear_log()
    run_in_session(add(1), engine)
    run_in_session(lambda session: None, engine)
    assert flights(dsql) == [("BEGIN", "SELECT"), ("UPDATE",), ("COMMIT",)]


def test_a_conflict_with_another_transaction_is_retried(dsql, engine):
    """Nothing is lost."""
    others = iter([None])

    def work(session):
        account = session.get(Account, 1)
        for _ in others:
            dsql.execute("UPDATE accounts SET balance = balance + 10 WHERE id = 1")
        account.balance += 1

    run_in_session(work, engine)
    assert balances(dsql)[0] == 111


def test_exhausted_retries_and_unknown_outcomes_are_ours(dsql, engine, stage):
    """With what `run_transaction` logs."""
    dsql.conflict_next(2)
    with pytest.raises(OCCRetryExhausted):
        run_in_session(add(1), engine, retry=OCCRetryConfig(max_attempts=2), logger=stage.logger)
    assert stage.logger.messages == ["OCC conflict, retrying", "OCC retry exhausted"]
    dsql.cut("after-commit-sent")
    with pytest.raises(CommitOutcomeUnknown):
        run_in_session(add(1), engine)
    assert balances(dsql)[0] == 101
    assert engine.pool.checkedout() == 0


@pytest.mark.parametrize("source", ["engine", "pool"], indirect=True)
def test_a_lost_connection_is_replaced(dsql, source):
    """Before COMMIT was sent, nothing was committed."""
    dsql.cut("before-commit")
    run_in_session(add(1), source)
    assert balances(dsql)[0] == 101


def test_the_deadline_holds(dsql, engine):
    """In the statements of the session, and while a connection is opened."""

    def sleep(session):
        session.execute(sqlalchemy.text("SELECT pg_sleep(5)"))

    with pytest.raises(DeadlineExceeded):
        run_in_session(sleep, engine, timeout=0.3)
    dsql.refuse_connections(100)
    with pytest.raises(DeadlineExceeded) as late:
        run_in_session(add(1), engine, timeout=0.3)
    assert late.value.phase == "connect"
    assert engine.pool.checkedout() == 0


def test_a_connection_is_waited_for_within_the_deadline(options):
    """Or for `pool_timeout`, if that is less."""
    engine = create_engine(options, pool_size=1, max_overflow=0, pool_timeout=0.2)
    with engine.connect(), pytest.raises(ConnectError, match="raise pool_size"):
        run_in_session(add(1), engine)
    engine.dispose()
    engine = create_engine(options, pool_size=1, max_overflow=0)
    with engine.connect(), pytest.raises(DeadlineExceeded) as late:
        run_in_session(add(1), engine, timeout=0.2)
    assert late.value.phase == "connect"
    run_in_session(add(1), engine)
    engine.dispose()


def test_a_rollback_of_the_session_commits_nothing(dsql, engine):
    """The value is returned all the same."""

    def work(session):
        session.get_one(Account, 1).balance = 0
        session.flush()
        session.rollback()
        return "undone"

    assert run_in_session(work, engine) == "undone"
    assert balances(dsql) == [100] * 3


def test_a_constraint_that_was_violated_can_be_answered(dsql, engine):
    """By a rollback of the session; without one the error is raised, for nothing was committed."""

    def work(session, rolls_back):
        session.add(Account(id=1, balance=1))
        try:
            session.flush()
        except sqlalchemy.exc.IntegrityError:
            if rolls_back:
                session.rollback()
            return 409

    assert run_in_session(lambda session: work(session, True), engine) == 409
    with pytest.raises(Exception, match="duplicate key"):
        run_in_session(lambda session: work(session, False), engine)


def test_a_conflict_that_was_swallowed_is_retried(dsql, engine):
    """As everywhere."""
    answers = []

    def work(session):
        try:
            session.execute(sqlalchemy.text("UPDATE accounts SET balance = balance + 1 WHERE id = 1"))
        except sqlalchemy.exc.DBAPIError:
            answers.append("failed")

    dsql.conflict_next(1, at="statement")
    run_in_session(work, engine)
    assert answers == ["failed"]
    assert balances(dsql)[0] == 101


def test_threads_share_an_engine(dsql, engine):
    """Nothing is lost among them."""
    threads = [
        threading.Thread(target=run_in_session, args=(add(1), engine), kwargs={"retry": OCCRetryConfig.for_lambda()})
        for _ in range(4)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert balances(dsql)[0] == 104


def test_an_engine_of_another_driver_is_refused(options):
    """With what to use instead; and what is no source at all."""
    engine = sqlalchemy.create_engine("sqlite://")
    with pytest.raises(TransactionError, match="retry_on_occ"):
        run_in_session(add(1), engine)
    engine.dispose()
    with pytest.raises(TypeError, match="must be a Connection or a Pool"):
        run_in_session(add(1), options)
    with pytest.raises(TypeError, match="OCCRetryConfig"):
        run_in_session(add(1), engine, retry=3)  # type: ignore[arg-type]


# A session inside of `tx`


def test_a_session_in_a_handler_is_part_of_its_transaction(dsql, options):
    """What `tx` and the session write is committed together, by the decorator."""

    @with_dsql_transaction(options=options)
    def handler(event, context, tx):
        tx.defer("UPDATE accounts SET balance = balance + 1 WHERE id = 2")
        with session_in(tx) as session:
            session.get_one(Account, 1).balance += 5
            session.add(Account(id=4, balance=7))
        return tx.value("SELECT count(*) FROM accounts")

    dsql.clear_log()
    assert handler({}, None) == 4
    assert balances(dsql) == [105, 101, 100, 7]
    assert flights(dsql) == [("BEGIN", "UPDATE", "SELECT"), ("UPDATE",), ("INSERT",), ("SELECT",), ("COMMIT",)]


def test_a_conflict_runs_the_handler_again(dsql, options):
    """With another session."""
    attempts = []

    @with_dsql_transaction(options=options)
    def handler(event, context, tx):
        attempts.append(tx.attempt)
        with session_in(tx) as session:
            session.get_one(Account, 1).balance += 5

    dsql.conflict_next(2)
    handler({}, None)
    assert attempts == [1, 2, 3]
    assert balances(dsql)[0] == 105


def test_what_is_pending_is_flushed_when_the_block_ends(dsql, connection):
    """So nothing that was added is lost."""

    def work(tx):
        with session_in(tx) as session:
            session.add(Account(id=4, balance=7))

    run_transaction(work, source=connection)
    assert balances(dsql) == [100, 100, 100, 7]


def test_the_sessions_commit_commits_nothing(dsql, connection):
    """It flushes and expires, as `commit` does, so code that commits and refreshes works; the function's error undoes it."""

    def work(tx, fails):
        with session_in(tx) as session:
            account = Account(id=4, balance=7)
            session.add(account)
            session.commit()
            session.refresh(account)
            assert dsql.execute("SELECT count(*) FROM accounts") == [["3"]]
            session.connection().commit()
            account.balance += 1
            session.commit()
        if fails:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_transaction(lambda tx: work(tx, fails=True), source=connection)
    assert balances(dsql) == [100] * 3
    run_transaction(lambda tx: work(tx, fails=False), source=connection)
    assert balances(dsql) == [100, 100, 100, 8]


def test_statements_that_would_end_the_transaction_are_refused(dsql, connection):
    """In any spelling; and AUTOCOMMIT is not to be had."""

    def work(tx, statement):
        with session_in(tx) as session:
            session.get_one(Account, 1).balance = 0
            session.flush()
            session.execute(sqlalchemy.text(statement))

    for statement in ("COMMIT", "/* x */ rollback", "PREPARE TRANSACTION 'x'"):
        with pytest.raises(TransactionError, match="is not for this connection"):
            run_transaction(partial(work, statement=statement), source=connection)

    def autocommit(tx):
        with session_in(tx) as session:
            session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})

    with pytest.raises(sqlalchemy.exc.InvalidRequestError):
        run_transaction(autocommit, source=connection)
    assert balances(dsql) == [100] * 3


def test_a_block_of_the_session_that_fails_undoes_all(dsql, connection):
    """What SQLAlchemy has rolled back is not committed, though the function goes on."""

    def work(tx):
        tx.run("UPDATE accounts SET balance = 1 WHERE id = 2")
        with session_in(tx) as session:
            try:
                with session.begin():
                    session.get_one(Account, 1).balance = 0
                    session.flush()
                    raise ValueError("no")
            except ValueError:
                pass
        return "went on"

    assert run_transaction(work, source=connection) == "went on"
    assert balances(dsql) == [100] * 3


def test_after_a_rollback_nothing_can_be_written(dsql, connection):
    """It is an error, not a loss."""

    def work(tx):
        with session_in(tx) as session:
            session.get_one(Account, 1).balance = 0
            session.rollback()
            session.add(Account(id=5, balance=1))

    with pytest.raises(TransactionError, match="has ended"):
        run_transaction(work, source=connection)
    assert balances(dsql) == [100] * 3


def test_a_session_kept_beyond_its_block_does_nothing(dsql, connection):
    """It can't reach the transaction any more."""

    def work(tx):
        with session_in(tx) as session:
            kept = session
        with pytest.raises(Exception, match="block|closed"):
            kept.scalar(sqlalchemy.text("SELECT 1"))
        tx.run("UPDATE accounts SET balance = 1 WHERE id = 2")

    run_transaction(work, source=connection)
    assert balances(dsql) == [100, 1, 100]


def test_a_second_session_sees_the_first_ones_work(dsql, connection):
    """Both are in one transaction."""

    def work(tx):
        with session_in(tx) as first:
            first.get_one(Account, 1).balance = 5
        with session_in(tx) as second:
            return second.get_one(Account, 1).balance

    assert run_transaction(work, source=connection) == 5


def test_values_are_those_of_the_dialect(connection, engine):
    """Each type as an engine gives it."""
    statement = sqlalchemy.select(
        sqlalchemy.literal({"a": [1]}, sqlalchemy.JSON),
        sqlalchemy.cast("1.50", sqlalchemy.Numeric(5, 2)),
        sqlalchemy.cast("2026-01-02", sqlalchemy.Date),
        sqlalchemy.literal(True),
        sqlalchemy.literal("per % cent"),
        sqlalchemy.literal(b"\x00\xff", sqlalchemy.LargeBinary),
    )

    def work(tx):
        with session_in(tx) as session:
            return tuple(session.execute(statement).one())

    with engine.connect() as other:
        assert run_transaction(work, source=connection) == tuple(other.execute(statement).one())
