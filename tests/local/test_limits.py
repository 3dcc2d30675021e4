"""The limits, each reached by lowering it: its SQLSTATE, its text and its place."""

import struct

import pytest

from dsql_local import Limits, LocalDsql
from dsql_local.frontend.connection_limiter import ConnectionLimiter
from dsql_local.protocol.messages import SYNC, Message, bind, execute, parse, query

FLUSH = Message(b"H")

ROWS = "54000 transaction row limit exceeded"
SIZE = "54000 transaction size limit 10mb exceeded"
AGE = "54000 transaction age limit of 300s exceeded"
SECOND_DDL = "0A000 multiple ddl statements not supported in a transaction"
MIXED = "0A000 ddl and dml are not supported in the same transaction"
FAILED = "25P02 current transaction is aborted, commands ignored until end of transaction block"


class Clock:
    """Time that a test sets forward."""

    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def clock():
    return Clock()


@pytest.fixture(scope="module")
def running(clock):
    with LocalDsql(clock=clock, limits=Limits(rows=5, size=1000, message=5000, flight=20_000)) as dsql:
        yield dsql


@pytest.fixture
def dsql(running):
    running.execute("DROP TABLE IF EXISTS children, things, parts; CREATE TABLE things (id int PRIMARY KEY, note text)")
    return running


@pytest.fixture
def client(dsql, connect, sign, clock):
    return connect(token=sign(dsql.endpoint, at=clock.now))


def count(dsql):
    return int(dsql.execute("SELECT count(*) FROM things")[0][0])


MANY = "INSERT INTO things SELECT generate_series({}, {})"


# --- Inside a transaction ---


@pytest.mark.parametrize("statement", [MANY.format(1, 6), "INSERT INTO things VALUES (1), (2), (3), (4), (5), (6)"])
@pytest.mark.parametrize("begin", [False, True], ids=["outside", "inside"])
def test_too_many_rows_fail_at_their_statement(dsql, client, begin, statement):
    """The statement that crosses the limit fails, and nothing of it or of its transaction stays."""
    if begin:
        client.run("BEGIN")
    assert client.error(statement) == ROWS
    assert client.status == (b"E" if begin else b"I")
    if begin:
        assert client.error("SELECT 1") == FAILED
        assert client.flight("COMMIT") == ["ROLLBACK"]
    assert count(dsql) == 0


def test_rows_add_up(dsql, client):
    """All of a transaction's statements count, up to the limit itself; the next transaction begins at nothing."""
    client.run("BEGIN")
    client.run(MANY.format(1, 3))
    client.run("UPDATE things SET note = 'x' WHERE id < 3")
    assert client.error("DELETE FROM things WHERE id = 1") == ROWS
    client.run("ROLLBACK")
    client.run("BEGIN")
    client.run(MANY.format(1, 5))
    client.run("COMMIT")
    assert count(dsql) == 5


def test_rows_of_one_flight_add_up(dsql, client):
    """So do those of an implicit transaction, by both protocols."""
    client.send(query(f"{MANY.format(1, 3)}; {MANY.format(4, 6)}"))
    assert client.outcomes() == ["INSERT 0 3", "54000"]
    assert client.flight(MANY.format(1, 3), MANY.format(4, 6)) == ["INSERT 0 3", "54000"]
    client.send(query(f"{MANY.format(1, 3)}; {MANY.format(4, 6)}; SELECT 1"))
    assert client.outcomes() == ["INSERT 0 3", "54000"]
    assert count(dsql) == 0


CHILDREN = """
    DROP TABLE IF EXISTS children;
    CREATE TABLE children
        (id int PRIMARY KEY, parent int DEFAULT 2 REFERENCES things ON DELETE {action} ON UPDATE CASCADE, note text);
    DELETE FROM things;
    INSERT INTO things VALUES (1), (2);
    INSERT INTO children SELECT g, 1 FROM generate_series(1, 2) g;
    INSERT INTO children SELECT g, 1 FROM generate_series(3, {children}) g
"""


@pytest.fixture
def children(dsql):
    """Makes things 1 and 2, and so many children of the first."""
    yield lambda action, children: dsql.execute(CHILDREN.format(action=action, children=children))
    dsql.execute("DROP TABLE children")


@pytest.mark.parametrize("begin", [False, True], ids=["outside", "inside"])
@pytest.mark.parametrize(
    ("action", "statement"),
    [
        ("CASCADE", "DELETE FROM things WHERE id = 1"),
        ("SET NULL", "DELETE FROM things WHERE id = 1"),
        ("SET DEFAULT", "DELETE FROM things WHERE id = 1"),
        ("CASCADE", "UPDATE things SET id = 3 WHERE id = 1"),
        ("CASCADE", "WITH gone AS (DELETE FROM children RETURNING id) INSERT INTO things SELECT 9 FROM gone LIMIT 1"),
        ("CASCADE", "WITH gone AS (DELETE FROM children RETURNING id) SELECT count(*) FROM gone LIMIT (SELECT 1)"),
    ],
)
def test_rows_that_no_command_tag_tells_count(dsql, children, connect, sign, clock, begin, action, statement):
    """What a foreign key's action or a WITH modifies counts like the rest, up to the limit itself."""
    of_its_own = 0 if "count(*)" in statement else 1
    for number in (5 - of_its_own, 6 - of_its_own):
        children(action, number)
        client = connect(token=sign(dsql.endpoint, at=clock.now))
        if begin:
            client.run("BEGIN")
        if number > 5 - of_its_own:
            assert client.error(statement) == ROWS
        else:
            client.run(statement)
        client.run("ROLLBACK")


@pytest.mark.parametrize("begin", [False, True], ids=["outside", "inside"])
def test_bytes_that_a_foreign_keys_action_writes_count(dsql, children, connect, sign, clock, begin):
    """Rows that it has changed are measured at COMMIT."""
    children("SET NULL", 2)
    for child in (1, 2):
        dsql.execute(f"UPDATE children SET note = '{'x' * 600}' WHERE id = {child}")
    client = connect(token=sign(dsql.endpoint, at=clock.now))
    if begin:
        client.run("BEGIN")
        client.run("DELETE FROM things WHERE id = 1")
    assert client.error("COMMIT" if begin else "DELETE FROM things WHERE id = 1") == SIZE
    assert dsql.execute("SELECT count(*) FROM children WHERE parent = 1") == [["2"]]


def test_rows_before_a_sync_count(dsql, client):
    """An implicit transaction of which a Flush has asked for answers is counted like any other."""
    client.send(parse("", MANY.format(1, 3)), bind("", ""), execute(""), FLUSH)
    assert [client.receive().kind for _ in range(3)] == [b"1", b"2", b"C"]
    client.send(parse("", MANY.format(4, 6)), bind("", ""), execute(""), SYNC)
    assert client.outcomes() == ["54000"]
    client.send(parse("", f"INSERT INTO things VALUES (1, '{'x' * 1100}')"), bind("", ""), execute(""), FLUSH)
    assert [client.receive().kind for _ in range(3)] == [b"1", b"2", b"C"]
    client.send(SYNC)
    assert (client.outcomes(), count(dsql)) == (["54000"], 0)


def test_rows_of_a_copy_count(dsql, client):
    """COPY FROM STDIN is no way around."""
    client.send(query("COPY things FROM STDIN"))
    assert client.receive().kind == b"G"
    client.send(*(Message(b"d", f"{number}\tx\n".encode()) for number in range(6)), Message(b"c"))
    assert client.outcomes() == ["54000"]
    assert count(dsql) == 0


@pytest.mark.parametrize("value", ["'" + "x" * 1100 + "'", "repeat('x', 1100)"], ids=["sent", "computed"])
@pytest.mark.parametrize("begin", [False, True], ids=["outside", "inside"])
def test_too_many_bytes_fail_at_commit(dsql, client, begin, value):
    """Bytes are counted whether the client sent them or a function made them: the statement answers, COMMIT fails."""
    if begin:
        client.run("BEGIN")
        client.run(f"INSERT INTO things VALUES (1, {value})")
        assert client.error("COMMIT") == SIZE
    else:
        assert client.error(f"INSERT INTO things VALUES (1, {value})") == SIZE
    assert (client.status, count(dsql)) == (b"I", 0)


@pytest.mark.parametrize("statement", ["SELECT 1", "UPDATE things SET note = ''", "COMMIT"])
def test_an_old_transaction_fails_at_its_next_statement(client, clock, statement):
    """After 300 seconds by the cluster's clock, a read, a write or COMMIT."""
    client.run("BEGIN")
    client.run("SELECT 1")
    clock.now += 300
    client.run("SELECT 1")
    clock.now += 1
    assert client.error(statement) == AGE
    assert client.status == (b"I" if statement == "COMMIT" else b"E")
    client.run("ROLLBACK")
    assert client.run("SELECT 1") == [["1"]]


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [
        ("CREATE TABLE parts (id int)", "CREATE TABLE more (id int)", SECOND_DDL),
        ("CREATE TABLE parts (id int)", "CREATE INDEX ASYNC ON parts (id)", SECOND_DDL),
        ("CREATE TABLE parts (id int)", "INSERT INTO things VALUES (1)", MIXED),
        ("INSERT INTO things VALUES (1)", "CREATE TABLE parts (id int)", MIXED),
    ],
)
@pytest.mark.parametrize("form", ["explicit", "one Query", "one flight"])
def test_ddl_stands_alone(dsql, client, form, first, second, error):
    """One DDL statement a transaction and no DML with it, explicit or implicit; nothing of the transaction stays."""
    if form == "explicit":
        client.run("BEGIN")
        client.run(first)
        assert client.error(second) == error
        client.run("ROLLBACK")
    elif form == "one Query":
        assert client.error(f"{first}; {second}") == error
    else:
        assert client.flight(first, second)[-1] == error[:5]
    assert count(dsql) == 0
    assert dsql.execute("SELECT to_regclass('parts')") == [[None]]


def test_ddl_and_reads_go_together(client):
    """A read beside one DDL statement is no mix."""
    client.run("BEGIN")
    client.run("SELECT * FROM things")
    client.run("CREATE TABLE parts (id int)")
    client.run("SELECT 1")
    client.run("COMMIT")
    client.run("DROP TABLE parts")


# --- Connections and messages ---


@pytest.mark.parametrize(
    "messages", [(query("SELECT '" + "x" * 6000 + "'"),), (parse("", "SELECT $1"), bind("", ""), Message(b"d", b"x" * 6000))]
)
def test_a_message_that_is_too_long_ends_the_connection(client, messages):
    """FATAL 08P01 as soon as its length is known."""
    client.send(*messages)
    with pytest.raises(Exception, match="08P01 invalid message length") as failed:
        client.replies_or_error()
    assert vars(failed.value)["fields"]["S"] == "FATAL"


def test_a_client_that_never_sends_a_sync_is_bounded(client):
    """What it has sent is kept up to a limit: FATAL 54000."""
    with pytest.raises(Exception, match="54000 more than 20000 bytes of messages before a Sync") as failed:
        for _ in range(10):
            client.send(parse("", "SELECT '" + "x" * 4000 + "'"))
        client.replies_or_error()
    assert vars(failed.value)["fields"]["S"] == "FATAL"


def test_prepared_statements_are_bounded(client):
    """Their texts are kept up to the same limit; a statement that is closed, or prepared anew, takes no room."""
    text = "SELECT '" + "x" * 4000 + "'"
    for number in range(10):
        client.send(parse("same", text), SYNC, Message(b"C", b"Ssame\0"), parse(f"s{number}", "SELECT 1"), SYNC)
        client.replies()
        client.replies()
    with pytest.raises(Exception, match="54000 more than 20000 bytes of prepared statements"):
        for number in range(10):
            client.send(parse(f"long{number}", text), SYNC)
            client.replies_or_error()


def test_a_connection_ends_after_its_hour(dsql, connect, sign, clock):
    """Without a word, also while it is idle by the clock; a new one opens."""
    client = connect(token=sign(dsql.endpoint, at=clock.now))
    clock.now += 3600
    assert client.run("SELECT 1") == [["1"]]
    clock.now += 1
    client.send(parse("", "SELECT 1"), bind("", ""), execute(""), SYNC)
    with pytest.raises(Exception, match="fin"):
        client.receive()
    assert connect(token=sign(dsql.endpoint, at=clock.now)).run("SELECT 1") == [["1"]]


def test_a_connection_is_cut_while_it_waits(connect):
    """The end comes by itself, too."""
    with LocalDsql(limits=Limits(connection_age=0.2)) as dsql:
        client = connect(to=dsql, trust=dsql.ca_pem)
        with pytest.raises(Exception, match="fin"):
            client.receive()
        dsql.close_connections()  # returns when all have ended
        assert [event.reason for event in dsql.log if event.kind == "close"] == ["age"]


@pytest.mark.parametrize(
    ("limits", "refusal"),
    [
        (Limits(connections=2), "53300 Unable to accept connection, too many open connections."),
        (Limits(connection_burst=2, connection_rate=0.001), "53400 Unable to accept connection, rate exceeded."),
    ],
    ids=["open", "a second"],
)
def test_connections_are_counted(connect, limits, refusal):
    """Too many at once, and too many a second: FATAL before the password."""
    with LocalDsql(limits=limits) as dsql:
        opened = [connect(to=dsql, trust=dsql.ca_pem) for _ in range(2)]
        with pytest.raises(Exception, match="^[0-9A-Z]{5} ") as failed:
            connect(to=dsql, trust=dsql.ca_pem)
        assert str(failed.value) == refusal
        assert opened[0].run("SELECT 1") == [["1"]]


def test_admission_by_the_clock():
    """A burst empties the bucket, time fills it at the rate and never beyond the burst; whoever leaves makes room."""
    clock = Clock()
    admission = ConnectionLimiter(Limits(connections=5, connection_burst=3, connection_rate=2), clock)
    assert [admission.acquire() for _ in range(4)] == [None, None, None, "rate"]
    clock.now += 0.5
    assert [admission.acquire() for _ in range(2)] == [None, "rate"]
    clock.now += 60
    assert [admission.acquire() for _ in range(2)] == [None, "connections"]
    admission.release()
    assert admission.acquire() is None


def test_the_defaults_are_the_clusters():
    """3,000 rows, 10 MiB, 300 s, an hour, 10,000 connections, 100 a second after a burst of 1,000, messages of 10 MiB."""
    assert Limits() == Limits(
        rows=3000,
        size=10 << 20,
        age=300,
        connection_age=3600,
        connections=10_000,
        connection_rate=100,
        connection_burst=1000,
        message=10 << 20,
    )
    with pytest.raises(ValueError, match="rows must be more than 0"):
        Limits(rows=0)


# --- Keys ---


@pytest.fixture(scope="module")
def keys_running():
    with LocalDsql(limits=Limits(size=10_000)) as dsql:
        dsql.execute(
            "CREATE TABLE words (word text PRIMARY KEY, other text, n int); CREATE INDEX ASYNC ON words (other);"
            "CREATE TABLE pairs (a varchar(900), b varchar(900), PRIMARY KEY (a, b));"
            "CREATE TABLE numbers (id int PRIMARY KEY, word text)"
        )
        yield dsql


LONG_KEY = "54000 key size too large"


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("INSERT INTO words (word) VALUES ('{}')", LONG_KEY),
        ("INSERT INTO words (word) VALUES (repeat('x', 1025))", LONG_KEY),
        ("INSERT INTO words VALUES ('a', '{}')", LONG_KEY),
        ("INSERT INTO pairs VALUES ('{0:.500}', '{0:.525}')", LONG_KEY),
        ("INSERT INTO pairs VALUES ('{0:.500}', '{0:.524}')", None),
        ("INSERT INTO words (word) VALUES ('{0:.1024}')", None),
        ("INSERT INTO numbers VALUES (1, '{}')", None),
    ],
)
@pytest.mark.parametrize("explicit", [False, True], ids=["outside of a transaction", "inside"])
def test_a_key_is_bounded(keys_running, connect, sql, error, explicit):
    """1 KiB of values, of a primary key and of an index, at the statement; nothing of it stays."""
    client = connect(to=keys_running, trust=keys_running.ca_pem)
    client.run("BEGIN" if explicit else "SELECT 1")
    sql = sql.format("k" * 1025)
    assert (client.error(sql) if error else client.run(sql)) == (error or [])
    assert client.status == ((b"E" if error else b"T") if explicit else b"I")
    client.run("ROLLBACK")
    keys_running.execute("DELETE FROM words; DELETE FROM pairs; DELETE FROM numbers")


def test_a_key_in_a_parameter_and_in_copy_is_bounded(keys_running, connect):
    """However its value comes."""
    client = connect(to=keys_running, trust=keys_running.ca_pem)
    value = b"k" * 1025
    given = Message(b"B", b"\0\0" + b"\0\0" + b"\0\1" + struct.pack("!i", len(value)) + value + b"\0\0")
    client.send(parse("", "INSERT INTO words (word) VALUES ($1)"), given, execute(""), SYNC)
    assert client.outcomes() == ["54000"]
    client.send(query("COPY words (word) FROM STDIN"))
    assert client.receive().kind == b"G"
    client.send(Message(b"d", value + b"\n"), Message(b"c"))
    assert client.outcomes() == ["54000"]
    assert keys_running.execute("SELECT count(*) FROM words") == [["0"]]


def test_postgresqls_own_limit_of_a_key_has_the_same_words(keys_running, connect):
    """It comes first where a key is very long and cannot be compressed."""
    client = connect(to=keys_running, trust=keys_running.ca_pem)
    noise = "(SELECT string_agg(gen_random_uuid()::text, '') FROM generate_series(1, 200))"
    assert client.error(f"INSERT INTO words (word) SELECT {noise}") == LONG_KEY


def test_locked_keys_count_as_written(keys_running, connect):
    """FOR UPDATE: the keys of the rows that it locks, at COMMIT; each row once, whatever else it holds."""
    for first in (1, 31, 61):
        many = f"generate_series({first}, {first + 29})"
        keys_running.execute(f"INSERT INTO words SELECT repeat('k', 95) || g, repeat('o', 200), 0 FROM {many} g")
    client = connect(to=keys_running, trust=keys_running.ca_pem)
    for locks in (1, 2):
        client.run("BEGIN")
        for _ in range(locks):
            client.run("SELECT word FROM words FOR UPDATE")
        client.run("COMMIT")
    keys_running.execute("INSERT INTO words SELECT repeat('l', 95) || g, NULL, 0 FROM generate_series(1, 90) g")
    client.run("BEGIN")
    client.run("SELECT word FROM words FOR UPDATE")
    assert client.error("COMMIT") == SIZE
    keys_running.execute("DELETE FROM words")
