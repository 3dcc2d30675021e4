"""Every driver that people use, by every protocol that it speaks, with TLS verified; each sees a conflict at COMMIT as 40001.

A driver that can dial an address other than the host's does (`hostaddr`); the others are given a resolver of their own.
"""

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
from contextlib import closing
from pathlib import Path

import pg8000.dbapi
import pg8000.native
import pytest

ROOT = Path(__file__).parents[2]
CONFLICT = "40001"
BALANCES = "SELECT balance FROM accounts ORDER BY id"
ADD = "UPDATE accounts SET balance = balance + {} WHERE id = {}"


@pytest.fixture
def trust(dsql):
    """A context that verifies the certificate and the name."""
    context = ssl.create_default_context(cadata=dsql.ca_pem)
    assert context.check_hostname
    return context


@pytest.fixture
def verified(dsql):
    """Asserts at the end that a client has asked for the endpoint by its name, and that no handshake has failed."""
    yield
    assert {event.sni for event in dsql.log if event.kind == "connect"} <= {dsql.endpoint}
    assert not [event for event in dsql.log if event.kind == "tls_failed"]


pytestmark = pytest.mark.usefixtures("verified")


def messages(dsql):
    """The protocol's messages of every flight so far."""
    return [event.messages for event in dsql.log if event.kind == "flight"]


def balances(dsql):
    return [int(row[0]) for row in dsql.execute(BALANCES)]


def stock(module, dsql):
    """Two connections of a DB-API driver on libpq."""
    return closing(module.connect(**dsql.libpq())), closing(module.connect(**dsql.libpq()))


def test_psycopg(dsql):
    """Simple, extended, prepared and pipelined; the losing COMMIT raises SerializationFailure."""
    psycopg = pytest.importorskip("psycopg")
    first, second = stock(psycopg, dsql)
    with first as one, second as two:
        cursor = psycopg.ClientCursor(one)
        assert cursor.execute("SELECT %s + 1", (1,)).fetchone() == (2,)
        assert one.execute("SELECT %s::int + 1", (1,), prepare=False).fetchone() == (2,)
        assert [one.execute("SELECT %s::int + 1", (n,), prepare=True).fetchone() for n in (1, 2)] == [(2,), (3,)]
        with one.pipeline():
            found = [one.execute("SELECT %s::int", (n,)) for n in range(20)]
            assert [cursor.fetchone() for cursor in found] == [(n,) for n in range(20)]
        one.commit()
        one.execute(ADD.format(1, 1))
        two.execute(ADD.format(1, 1))
        one.commit()
        with pytest.raises(psycopg.errors.SerializationFailure, match=r"\(OC000\)") as lost:
            two.commit()
        assert lost.value.sqlstate == CONFLICT
        two.rollback()
        two.execute(ADD.format(1, 1))
        two.commit()
    assert balances(dsql)[0] == 102


def test_psycopg_pipelines_a_conflict(dsql):
    """BEGIN, UPDATE and COMMIT in one pipeline: the error is COMMIT's."""
    psycopg = pytest.importorskip("psycopg")
    first, second = stock(psycopg, dsql)
    with first as one, second as two:
        two.execute("SELECT 1 FROM accounts")
        one.execute(ADD.format(1, 1))
        one.commit()
        with pytest.raises(psycopg.errors.SerializationFailure), two.pipeline():
            two.execute(ADD.format(1, 1))
            two.commit()
        two.rollback()


def test_psycopg_async(dsql):
    """The asynchronous connection, with its own pipeline."""
    psycopg = pytest.importorskip("psycopg")

    async def main():
        async with (
            await psycopg.AsyncConnection.connect(**dsql.libpq()) as one,
            await psycopg.AsyncConnection.connect(**dsql.libpq()) as two,
        ):
            async with one.pipeline():
                assert await (await one.execute("SELECT %s::int", (5,))).fetchone() == (5,)
            await one.commit()
            await one.execute(ADD.format(1, 1))
            await two.execute(ADD.format(1, 1))
            await one.commit()
            with pytest.raises(psycopg.errors.SerializationFailure):
                await two.commit()
            await two.rollback()

    asyncio.run(main())


def test_psycopg2(dsql):
    """It speaks the simple protocol alone."""
    psycopg2 = pytest.importorskip("psycopg2")
    first, second = stock(psycopg2, dsql)
    with first as one, second as two:
        with one.cursor() as cursor:
            cursor.execute("SELECT %s + 1", (1,))
            assert cursor.fetchall() == [(2,)]
            cursor.execute(ADD.format(1, 1))
        with two.cursor() as cursor:
            cursor.execute(ADD.format(1, 1))
        one.commit()
        with pytest.raises(psycopg2.errors.SerializationFailure) as lost:
            two.commit()
        assert lost.value.pgcode == CONFLICT
        two.rollback()
    assert set(messages(dsql)) == {("Query",)}


class Resolving(asyncio.SelectorEventLoop):
    """An event loop that knows where one endpoint is."""

    def __init__(self, endpoint):
        super().__init__()
        self.endpoint = endpoint

    async def getaddrinfo(self, host, port, **options):
        return await super().getaddrinfo("127.0.0.1" if host == self.endpoint else host, port, **options)


@pytest.mark.parametrize("direct", [False, True], ids=["ssl_request", "direct"])
def test_asyncpg(dsql, trust, direct):
    """Simple, extended and prepared, by SSLRequest and by direct TLS; its pool works too."""
    asyncpg = pytest.importorskip("asyncpg")
    trust.set_alpn_protocols(["postgresql"])
    where = {"host": dsql.endpoint, "port": dsql.port, "user": "admin", "database": "postgres", "password": dsql.token()}
    where |= {"ssl": trust, "direct_tls": direct}

    async def main():
        one, two = await asyncpg.connect(**where), await asyncpg.connect(**where)
        assert await one.fetchval("SELECT $1::int + 1", 1) == 2
        prepared = await one.prepare("SELECT $1::int + $2::int")
        assert [await prepared.fetchval(1, n) for n in (1, 2)] == [2, 3]
        assert await one.execute("SELECT 1; SELECT 2") == "SELECT 1"
        await one.executemany("UPDATE accounts SET balance = $1 WHERE id = $2", [(7, 2), (8, 3)])
        first, second = one.transaction(), two.transaction()
        await first.start()
        await second.start()
        await one.execute(ADD.format(1, 1))
        await two.execute(ADD.format(1, 1))
        await first.commit()
        with pytest.raises(asyncpg.SerializationError, match=r"\(OC000\)") as lost:
            await second.commit()
        assert lost.value.sqlstate == CONFLICT
        await one.close()
        await two.close()

    with asyncio.Runner(loop_factory=lambda: Resolving(dsql.endpoint)) as runner:
        runner.run(main())
    assert balances(dsql) == [101, 7, 8]
    assert {event.negotiation for event in dsql.log if event.kind == "connect"} == {"direct" if direct else "ssl_request"}


def over_pg8000(connect, dsql, trust):
    """A connection over a socket that was dialled for it."""
    link = socket.create_connection((dsql.host, dsql.port))
    try:
        return connect("admin", sock=link, host=dsql.endpoint, database="postgres", password=dsql.token(), ssl_context=trust)
    except BaseException:
        link.close()
        raise


@pytest.mark.parametrize("module", [pg8000.native, pg8000.dbapi], ids=["native", "dbapi"])
def test_pg8000(dsql, trust, module):
    """Simple and extended, prepared where it can; a socket that was dialled for it."""
    connect = module.Connection if module is pg8000.native else module.connect
    first, second = (closing(over_pg8000(connect, dsql, trust)) for _ in range(2))
    with first as one, second as two:
        if module is pg8000.native:
            assert one.run("SELECT CAST(:n AS int) + 1", n=1) == [[2]]
            prepared = one.prepare("SELECT CAST(:n AS int) + 1")
            assert [prepared.run(n=n) for n in (1, 2)] == [[[2]], [[3]]]
            run = {one: one.run, two: two.run}
            one.run("BEGIN")
            two.run("BEGIN")
        else:
            run = {each: each.cursor().execute for each in (one, two)}
            cursor = one.cursor()
            cursor.execute("SELECT CAST(%s AS int) + 1", (1,))
            assert cursor.fetchall() == ([2],)
        run[one](ADD.format(1, 1))
        run[two](ADD.format(1, 1))
        run[one]("COMMIT")
        with pytest.raises(module.DatabaseError) as lost:
            run[two]("COMMIT")
        assert lost.value.args[0]["C"] == CONFLICT


@pytest.mark.parametrize("dialect", ["psycopg", "psycopg2", "pg8000"])
def test_sqlalchemy(dsql, trust, dialect):
    """Core and ORM over each driver: the loser's COMMIT is a DBAPIError whose cause has the SQLSTATE."""
    sqlalchemy = pytest.importorskip("sqlalchemy")
    pytest.importorskip(dialect)
    url = sqlalchemy.URL.create(f"postgresql+{dialect}", "admin", host=dsql.endpoint, database="postgres")
    if dialect == "pg8000":
        opened: dict[str, object] = {"creator": lambda: over_pg8000(pg8000.dbapi.connect, dsql, trust)}
    else:  # its search for hstore takes a savepoint with psycopg, and DSQL has neither
        opened = {"connect_args": dsql.libpq(), "use_native_hstore": False}
    engine = sqlalchemy.create_engine(url, **opened)
    table = sqlalchemy.Table("accounts", sqlalchemy.MetaData(), autoload_with=engine)
    assert [column.name for column in table.columns] == ["id", "balance"]
    add = table.update().where(table.c.id == 1).values(balance=table.c.balance + 1)
    with engine.connect() as one, engine.connect() as two:
        assert one.execute(sqlalchemy.select(table.c.balance).order_by(table.c.id)).scalars().all() == [100, 100, 100]
        one.rollback()
        one.execute(add)
        two.execute(add)
        one.commit()
        with pytest.raises(sqlalchemy.exc.DBAPIError) as lost:
            two.commit()
        cause = lost.value.orig
        state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or cause.args[0]["C"]
        assert state == CONFLICT
        two.rollback()
    engine.dispose()


def test_psql(dsql):
    """Scripts, variables, and the code of a failed COMMIT."""
    psql = shutil.which("psql")
    if psql is None:
        pytest.skip("psql is not on this machine")
    names = {"dbname": "DATABASE"}
    given = {f"PG{names.get(name, name.upper())}": value for name, value in dsql.libpq().items()}
    dsql.conflict_next(1)
    script = (
        "\\set VERBOSITY sqlstate\nSELECT :amount + 1;\nSELECT $1 + 1 \\bind 41 \\g\n\\d accounts\n"
        "BEGIN;\nUPDATE accounts SET balance = 1;\nCOMMIT;\n"
    )
    version = subprocess.run([psql, "--version"], capture_output=True, text=True, check=True).stdout
    if int("".join(c for c in version.split()[2].split(".")[0] if c.isdigit())) < 16:
        script = script.replace("SELECT $1 + 1 \\bind 41 \\g\n", "SELECT 42;\n")
    command = [psql, "--no-psqlrc", "-Atq", "-v", "amount=40"]
    done = subprocess.run(command, input=script, env={**os.environ, **given}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["41", "42"]
    assert "balance|integer" in done.stdout
    assert done.stderr.split() == ["ERROR:", CONFLICT]


NODE = """
const { Client, Pool } = require('pg');
const net = require('net');
const about = JSON.parse(process.env.ABOUT);
const stream = () => {
  const socket = new net.Socket();
  const connect = socket.connect;
  const found = { address: about.hostaddr, family: 4 };
  const lookup = (host, options, done) => options.all ? done(null, [found]) : done(null, found.address, found.family);
  socket.connect = (port, host) => connect.call(socket, { port, host, lookup });
  return socket;
};
const config = {
  host: about.host, port: about.port, user: 'admin', database: 'postgres', password: about.password, stream,
  ssl: { ca: about.ca, rejectUnauthorized: true },
};
(async () => {
  const one = new Client(config), two = new Client(config), said = {};
  await one.connect();
  await two.connect();
  said.simple = (await one.query('SELECT 1 + 1 AS sum')).rows[0].sum;
  said.extended = (await one.query('SELECT $1::int + 1 AS sum', [1])).rows[0].sum;
  for (const n of [1, 2]) {
    const prepared = { name: 'add', text: 'SELECT $1::int + 1 AS sum', values: [n] };
    said['prepared' + n] = (await one.query(prepared)).rows[0].sum;
  }
  for (const client of [one, two]) {
    await client.query('BEGIN');
    await client.query('UPDATE accounts SET balance = balance + 1 WHERE id = 1');
  }
  await one.query('COMMIT');
  try { await two.query('COMMIT'); } catch (error) { said.code = error.code; said.message = error.message; }
  await one.end();
  await two.end();
  const pool = new Pool({ ...config, max: 4 });
  said.pool = (await Promise.all([1, 2, 3, 4, 5].map(n => pool.query('SELECT $1::int AS n', [n])))).map(r => r.rows[0].n);
  await pool.end();
  console.log(JSON.stringify(said));
})();
"""


def test_node_postgres(dsql, tmp_path):
    """`pg`, whose socket is given a resolver: simple, extended, prepared, and a pool."""
    node = shutil.which("node")
    folders = [*filter(None, os.environ.get("NODE_PATH", "").split(os.pathsep)), str(ROOT / ".venv" / "node" / "node_modules")]
    found = [folder for folder in folders if (Path(folder) / "pg").is_dir()]
    if node is None or not found:
        pytest.skip("node with its module pg is in neither NODE_PATH nor .venv/node: npm install --prefix .venv/node pg")
    about = {**dsql.libpq(), "ca": dsql.ca_pem}
    environment = {**os.environ, "NODE_PATH": found[0], "ABOUT": json.dumps(about)}
    done = subprocess.run([node, "-e", NODE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["simple"], said["extended"], said["prepared1"], said["prepared2"]) == (2, 2, 2, 3)
    assert said["code"] == CONFLICT
    assert "(OC000)" in said["message"]
    assert said["pool"] == [1, 2, 3, 4, 5]


def test_aws_own_connector(dsql, monkeypatch):
    """It signs its own tokens; its pool runs the function again after a conflict."""
    connector = pytest.importorskip("aurora_dsql_psycopg")
    for name, value in dsql.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    about = {name: value for name, value in dsql.libpq().items() if name != "password"}
    with closing(connector.connect(**about)) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("admin",)
    with connector.create_pool(min_size=1, max_size=2, open=True, retry=True, kwargs=about) as pool:
        dsql.conflict_next(2)
        attempts = []

        def add(connection):
            attempts.append(1)
            connection.execute(ADD.format(5, 1))

        pool.run_transaction(add)
    assert len(attempts) == 3
    assert balances(dsql)[0] == 105


def test_a_foreign_certificate_is_refused(dsql, trust):
    """TLS is verified indeed: with other roots a driver does not come in."""
    with pytest.raises(ssl.SSLCertVerificationError):
        over_pg8000(pg8000.native.Connection, dsql, ssl.create_default_context())
    with closing(over_pg8000(pg8000.native.Connection, dsql, trust)):
        dsql.clear_log()  # of the failed handshake, which `verified` does not want
    with closing(over_pg8000(pg8000.native.Connection, dsql, trust)):
        pass
