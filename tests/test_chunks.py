"""`write_in_chunks`: many rows below DSQL's limits; whatever stops it says which rows are there, and the others can follow."""

import itertools
import threading

import pytest

from dsql_lambda import (
    CommitOutcomeUnknown,
    ConfigError,
    DatabaseError,
    DeadlineExceeded,
    Idempotency,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    OCCRetryConfig,
    OCCRetryExhausted,
    Pool,
    TransactionError,
    WriteInterrupted,
    connect,
    run_transaction,
    write_in_chunks,
)

INSERT = "INSERT INTO items (id, name) VALUES (:id, :name)"
ONCE = Idempotency(key="id")


@pytest.fixture(autouse=True)
def items(dsql):
    """An empty table."""
    dsql.execute("DROP TABLE IF EXISTS items")
    dsql.execute("CREATE TABLE items (id int PRIMARY KEY, name text)")
    dsql.clear_log()


@pytest.fixture
def connection(options):
    with connect(options) as connection:
        yield connection


@pytest.fixture
def pool(options):
    with Pool(options, max_size=4) as pool:
        yield pool


@pytest.fixture
def keys(dsql):
    """The table of keys."""
    dsql.execute("DROP TABLE IF EXISTS dsql_lambda_idempotency")
    dsql.execute(ONCE.create_table())


def rows(count, start=0):
    return ({"id": number, "name": f"item {number}"} for number in range(start, start + count))


def ids(dsql):
    return [int(row[0]) for row in dsql.execute("SELECT id FROM items ORDER BY id")]


def flights(dsql):
    found = [tuple(sql.split()[0] for sql in event.statements) for event in dsql.log if event.kind == "flight"]
    dsql.clear_log()
    return found


# Chunks


def test_each_chunk_is_a_transaction_of_one_flight(dsql, connection):
    """Of at most 3,000 rows, DSQL's limit, which the local DSQL has too; a generator is taken chunk by chunk."""
    done: list[int] = []
    assert write_in_chunks(INSERT, rows(7001), source=connection, progress=done.append) == 7001
    assert flights(dsql) == [("BEGIN", "INSERT", "COMMIT")] * 3
    assert done == [3000, 6000, 7001]
    assert ids(dsql) == list(range(7001))


def test_no_row_is_taken_before_it_is_needed(dsql, connection):
    """Of a generator, no more than a chunk."""
    taken = []

    def counted():
        for number, row in enumerate(rows(10)):
            taken.append(number)
            yield row

    seen = []
    write_in_chunks(INSERT, counted(), source=connection, max_rows=3, progress=lambda count: seen.append((count, len(taken))))
    assert seen == [(3, 3), (6, 6), (9, 9), (10, 10)]


def test_no_rows_are_no_transaction(dsql, connection):
    """Nothing is sent."""
    assert write_in_chunks(INSERT, [], source=connection) == 0
    assert flights(dsql) == []


def test_a_chunk_stays_below_ten_mebibytes(dsql, connection):
    """By `max_bytes`, 4 MiB as a default, which leaves room for indexes; a larger row is a chunk of its own."""
    text = "x" * 900_000
    done: list[int] = []
    assert write_in_chunks(INSERT, [(number, text) for number in range(13)], source=connection, progress=done.append) == 13
    assert done == [4, 8, 12, 13]
    done.clear()
    write_in_chunks(INSERT, [(20, text), (21, "a"), (22, text)], source=connection, max_bytes=1000, progress=done.append)
    assert done == [1, 2, 3]


def test_a_statement_with_many_columns_is_sent_in_parts_of_one_transaction(dsql, connection):
    """65,535 parameters are what a statement takes: 3,000 rows of 30 columns are two of them, in the same flight."""
    columns = [f"c{number}" for number in range(30)]
    dsql.execute("DROP TABLE IF EXISTS wide")
    dsql.execute(f"CREATE TABLE wide ({', '.join(f'{name} int' for name in columns)})")
    statement = f"INSERT INTO wide VALUES ({', '.join(f':{name}' for name in columns)})"
    dsql.clear_log()
    assert write_in_chunks(statement, itertools.repeat(range(30), 3000), source=connection) == 3000
    assert flights(dsql) == [("BEGIN", "INSERT", "INSERT", "COMMIT")]
    assert dsql.execute("SELECT count(*), sum(c29) FROM wide") == [["3000", "87000"]]


def test_updates_deletes_and_upserts(dsql, connection):
    """By a VALUES list that is joined; a row that is there is written again by ON CONFLICT."""
    write_in_chunks(INSERT, rows(5), source=connection)
    update = "UPDATE items SET name = v.name FROM (VALUES (:id, :name)) AS v (id, name) WHERE items.id = v.id"
    write_in_chunks(update, [(0, "a"), (1, None), (99, "nobody")], source=connection)
    upsert = f"{INSERT} ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name"
    write_in_chunks(upsert, [(2, "c"), (5, "f")], source=connection)
    write_in_chunks("DELETE FROM items USING (VALUES (:id)) AS v (id) WHERE items.id = v.id", [(3,), (4,)], source=connection)
    found = dsql.execute("SELECT id, name FROM items ORDER BY id")
    assert found == [["0", "a"], ["1", None], ["2", "c"], ["5", "f"]]


# Retries


def test_a_conflict_is_retried_chunk_by_chunk(dsql, connection):
    """What was committed before stays; nothing is doubled."""
    dsql.conflict_next(2)
    assert write_in_chunks(INSERT, rows(10), source=connection, max_rows=4) == 10
    assert ids(dsql) == list(range(10))


def test_a_lost_connection_before_commit_is_retried(dsql, options):
    """On another one. (Where COMMIT leaves in a flight of its own: else it may have been in what was lost.)"""
    with Pool(options, pipeline=False) as pool:
        dsql.cut("before-commit")
        assert write_in_chunks(INSERT, rows(10), source=pool, max_rows=4) == 10
    assert ids(dsql) == list(range(10))


# What stops it


def test_a_failed_chunk_says_what_is_committed_and_what_is_not(dsql, connection):
    """The chunks before it are, it is not, and nothing is unknown; the cause is the server's own error."""
    dsql.execute("INSERT INTO items VALUES (7, 'there')")
    with pytest.raises(WriteInterrupted) as stopped:
        write_in_chunks(INSERT, rows(20), source=connection, max_rows=3)
    error = stopped.value
    assert (error.committed, error.failed, error.unknown, error.resume_at) == (((0, 6),), ((6, 9),), (), 6)
    assert isinstance(error.__cause__, DatabaseError)
    assert error.__cause__.sqlstate == "23505"
    assert error.__cause__.statement == INSERT
    assert str(error) == ("writing in chunks stopped (DatabaseError): rows 0 to 5 are committed; rows 6 to 8 were rolled back")
    assert ids(dsql) == [0, 1, 2, 3, 4, 5, 7]


def test_it_goes_on_where_it_stopped(dsql, connection):
    """With what the error says is committed, the other rows follow, and no row is written twice."""
    dsql.execute("INSERT INTO items VALUES (7, 'there')")
    with pytest.raises(WriteInterrupted) as stopped:
        write_in_chunks(INSERT, rows(20), source=connection, max_rows=3)
    dsql.execute("DELETE FROM items WHERE id = 7")
    done = write_in_chunks(INSERT, rows(20), source=connection, max_rows=3, committed=stopped.value.committed)
    assert done == 14
    assert ids(dsql) == list(range(20))


def test_rows_in_the_middle_that_are_committed_are_passed_over(dsql, connection):
    """In any order; no chunk reaches across them."""
    sizes: list[int] = []
    write_in_chunks(INSERT, rows(12), source=connection, committed=[(8, 10), (2, 4), (4, 5)], progress=sizes.append)
    assert sizes == [2, 5, 7]
    assert ids(dsql) == [0, 1, 5, 6, 7, 10, 11]


def test_a_lost_commit_is_unknown(dsql, connection):
    """The rows of that chunk may be there; those before it are."""

    def cut_next(count):
        if count == 6:
            dsql.cut("after-commit-sent")

    with pytest.raises(WriteInterrupted) as stopped:
        write_in_chunks(INSERT, rows(20), source=connection, max_rows=3, progress=cut_next)
    error = stopped.value
    assert (error.committed, error.failed, error.unknown, error.resume_at) == (((0, 6),), (), ((6, 9),), 6)
    assert isinstance(error.__cause__, CommitOutcomeUnknown)
    assert "rows 6 to 8 may be committed or not" in str(error)


def test_what_the_callers_own_code_raises_is_the_cause(dsql, connection):
    """The rows' iterator and the callback; the chunk that was written is committed."""

    def broken():
        yield from rows(5)
        raise OSError("the file ended")

    with pytest.raises(WriteInterrupted) as stopped:
        write_in_chunks(INSERT, broken(), source=connection, max_rows=3)
    assert isinstance(stopped.value.__cause__, OSError)
    assert (stopped.value.committed, stopped.value.failed) == (((0, 3),), ())

    def refuse(count):
        raise ValueError("no more")

    with pytest.raises(WriteInterrupted) as stopped:
        write_in_chunks(INSERT, rows(5, start=10), source=connection, max_rows=3, progress=refuse)
    assert isinstance(stopped.value.__cause__, ValueError)
    assert stopped.value.committed == ((0, 3),)
    assert ids(dsql) == [0, 1, 2, 10, 11, 12]


def test_a_wrong_row_names_its_index(dsql, connection):
    """And nothing of its chunk is written."""
    with pytest.raises(WriteInterrupted) as stopped:
        write_in_chunks(INSERT, [(1, "a"), (2,)], source=connection)
    assert "row 1 has 1 values" in str(stopped.value.__cause__)
    assert ids(dsql) == []


def test_an_interruption_stays_what_it_is_and_has_a_note(dsql, connection):
    """Ctrl-C is no error of ours; its note says how far it was."""

    def interrupt(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        write_in_chunks(INSERT, rows(5), source=connection, max_rows=3, progress=interrupt)
    assert stopped.value.__notes__ == ["writing in chunks stopped (KeyboardInterrupt): rows 0 to 2 are committed"]


def test_the_deadline_bounds_all_chunks_together(dsql, connection):
    """None is begun that would hardly be answered before it, for a COMMIT that is not answered is an unknown outcome."""
    dsql.delay(300)
    with pytest.raises(WriteInterrupted) as stopped:
        write_in_chunks(INSERT, rows(100), source=connection, max_rows=1, timeout=2)
    dsql.clear_faults()
    error = stopped.value
    assert isinstance(error.__cause__, DeadlineExceeded)
    assert (error.failed, error.unknown) == ((), ())
    assert 0 < error.resume_at <= 6
    assert ids(dsql) == list(range(error.resume_at))


def test_the_invocations_deadline_counts(dsql, connection):
    """Of the handler that calls it."""

    class Context:
        def get_remaining_time_in_millis(self):
            return 2000

    def handler(event, context):
        return write_in_chunks(INSERT, rows(100), source=connection, max_rows=1)

    dsql.delay(300)
    with pytest.raises(WriteInterrupted) as stopped:
        handler({}, Context())
    assert isinstance(stopped.value.__cause__, DeadlineExceeded)
    assert 0 < stopped.value.resume_at <= 6


def test_the_retry_and_the_logger_that_were_given_count(dsql, connection, stage):
    """As for one transaction."""
    dsql.conflict_next(2)
    with pytest.raises(WriteInterrupted) as stopped:
        write_in_chunks(INSERT, rows(2), source=connection, retry=OCCRetryConfig(max_attempts=2), logger=stage.logger)
    assert isinstance(stopped.value.__cause__, OCCRetryExhausted)
    assert stage.logger.messages == ["OCC conflict, retrying", "OCC retry exhausted"]


# In parallel


def test_chunks_are_written_in_parallel_on_a_pool(dsql, pool):
    """As many at a time as were asked for; progress is told by the thread that called."""
    told = []

    def progress(count):
        told.append((count, threading.current_thread() is threading.main_thread()))

    assert write_in_chunks(INSERT, rows(2000), source=pool, parallel=4, max_rows=100, progress=progress) == 2000
    assert pool.statistics.opened == 4
    assert [count for count, _ in told] == list(range(100, 2001, 100))
    assert all(is_main for _, is_main in told)
    assert ids(dsql) == list(range(2000))


def test_a_failure_in_parallel_waits_for_what_is_under_way(dsql, pool):
    """What it says of each chunk is so, and the rest follows."""
    dsql.execute("INSERT INTO items VALUES (250, 'there')")
    with pytest.raises(WriteInterrupted) as stopped:
        write_in_chunks(INSERT, rows(2000), source=pool, parallel=4, max_rows=100)
    error = stopped.value
    assert error.failed == ((200, 300),)
    there = {number for start, end in error.committed for number in range(start, end)}
    assert set(ids(dsql)) == there | {250}
    dsql.execute("DELETE FROM items WHERE id = 250")
    write_in_chunks(INSERT, rows(2000), source=pool, parallel=4, max_rows=100, committed=error.committed)
    assert ids(dsql) == list(range(2000))


# Exactly once


@pytest.mark.parametrize("lookup", ["first", "ride"])
def test_with_a_key_a_second_call_writes_nothing(dsql, connection, keys, lookup):
    """Each chunk has a row of its own beside its rows, so it has one row less than DSQL takes."""
    once = ONCE.replace(lookup=lookup)
    for _ in range(2):
        assert write_in_chunks(INSERT, rows(4000), source=connection, idempotency=once, event={"id": "file-1"}) == 4000
    assert ids(dsql) == list(range(4000))
    assert dsql.execute("SELECT result FROM dsql_lambda_idempotency ORDER BY result") == [["1001"], ["2999"]]


def test_with_a_key_a_lost_commit_is_settled(dsql, pool, keys):
    """No row is missing and none is doubled."""
    dsql.cut("after-commit-sent")
    assert write_in_chunks(INSERT, rows(10), source=pool, max_rows=4, idempotency=ONCE, event={"id": "file-1"}) == 10
    assert ids(dsql) == list(range(10))


def test_with_a_key_a_call_that_stopped_is_made_again_as_it_was(dsql, connection, keys):
    """What is there is passed over."""
    dsql.execute("INSERT INTO items VALUES (7, 'there')")

    def write():
        return write_in_chunks(INSERT, rows(20), source=connection, max_rows=3, idempotency=ONCE, event={"id": "file-1"})

    with pytest.raises(WriteInterrupted):
        write()
    dsql.execute("DELETE FROM items WHERE id = 7")
    assert write() == 20
    assert ids(dsql) == list(range(20))


def test_another_statement_has_keys_of_its_own(dsql, connection, keys):
    """The same rows of the same event, written to another table, or in another way."""
    both = f"{INSERT} ON CONFLICT (id) DO UPDATE SET name = 'again'"
    for statement in (INSERT, both):
        write_in_chunks(statement, rows(3), source=connection, idempotency=ONCE, event={"id": "file-1"})
    assert dsql.execute("SELECT DISTINCT name FROM items") == [["again"]]


def test_other_rows_under_the_same_key_are_refused(dsql, connection, keys):
    """They are another import."""
    write_in_chunks(INSERT, rows(3), source=connection, idempotency=ONCE, event={"id": "file-1"})
    with pytest.raises(WriteInterrupted) as stopped:
        write_in_chunks(INSERT, rows(3, start=5), source=connection, idempotency=ONCE, event={"id": "file-1"})
    assert isinstance(stopped.value.__cause__, IdempotencyKeyReused)
    with pytest.raises(IdempotencyKeyMissing):
        write_in_chunks(INSERT, rows(3), source=connection, idempotency=ONCE, event={})


# What is refused before a row is taken


def test_wrong_arguments_are_refused_before_anything_is_taken(dsql, options, connection, pool):
    """Each by a sentence that says what is accepted."""
    untouched = iter([(1, "a")])
    for changes, kind, said in [
        ({"max_rows": 3001}, ConfigError, "at most 3000"),
        ({"max_rows": 0}, ConfigError, "at least 1"),
        ({"max_bytes": 11 * 1024 * 1024}, ConfigError, "at most 10485760"),
        ({"parallel": 2}, ConfigError, "need a Pool as source"),
        ({"parallel": 5, "source": pool}, ConfigError, "at most 4 connections"),
        ({"committed": [(3, 2)]}, ConfigError, "is no range of rows"),
        ({"timeout": 0}, ConfigError, "timeout"),
        ({"retry": 3}, TypeError, "OCCRetryConfig"),
        ({"source": options}, TypeError, "must be a Connection or a Pool"),
        ({"statement": "SELECT 1"}, TransactionError, "only INSERT, UPDATE and DELETE"),
    ]:
        given = {"statement": INSERT, "source": connection, **changes}
        with pytest.raises(kind, match=said):
            write_in_chunks(rows=untouched, **given)
    with pytest.raises(TransactionError, match="no savepoints"):
        run_transaction(lambda tx: write_in_chunks(INSERT, untouched, source=pool), source=connection)
    assert next(untouched) == (1, "a")
    assert flights(dsql) == []
