"""`LocalDsql(seed=…)`: what one thread meets that drives several connections, it meets again."""

import asyncio
import contextlib

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dsql_local import LocalDsql


def connection(dsql):
    return psycopg.connect(make_conninfo(**dsql.libpq()))


def outcome(call, *arguments):
    """What a call came to: its rows, or its error."""
    try:
        cursor = call(*arguments)
    except psycopg.Error as failed:
        return f"{failed.sqlstate} {failed}"
    return cursor.fetchall() if cursor is not None and cursor.description else "done"


def rates(dsql):
    """Which COMMITs meet a conflict."""
    dsql.conflict_rate(0.5)
    with connection(dsql) as one, connection(dsql) as two:
        for number in range(12):
            each = (one, two)[number % 2]
            each.execute("UPDATE counters SET n = n + 1")
            yield outcome(each.commit)
    dsql.conflict_rate(0)


def jobs(dsql):
    """The ids of jobs, and when each begins."""
    with connection(dsql) as one, connection(dsql) as two:
        one.autocommit = two.autocommit = True
        for number in range(4):
            yield outcome(one.execute, f"CREATE INDEX ASYNC ON counters (n, note) /* {number} */")
            for each in (two, one) * 3:
                yield outcome(each.execute, "SELECT job_id, status FROM sys.jobs ORDER BY job_id")
        two.execute("DROP TABLE dropped")
        yield outcome(two.execute, "SELECT job_id FROM sys.jobs WHERE job_type = 'DROP'")


def random_numbers(dsql):
    """PostgreSQL's own."""
    for _ in range(2):
        with connection(dsql) as one:
            yield outcome(one.execute, "SELECT random()")


def races(dsql):
    """Two statements in flight at once on one row, and two COMMITs: who wins."""

    async def race():
        found = []
        for _ in range(10):
            async with contextlib.AsyncExitStack() as opened:
                both = [
                    await opened.enter_async_context(await psycopg.AsyncConnection.connect(make_conninfo(**dsql.libpq())))
                    for _ in range(2)
                ]
                for each in both:
                    await each.execute("SELECT 1 FROM counters")
                await asyncio.gather(*(each.execute("UPDATE counters SET n = n + 1 WHERE id = 1") for each in both))
                ended = await asyncio.gather(*(each.commit() for each in both), return_exceptions=True)
                found.append([None if end is None else str(end) for end in ended])
        return found

    yield asyncio.run(race())


@pytest.mark.parametrize("part", [rates, jobs, random_numbers, races])
def test_a_run_is_repeated(part):
    """The same seed gives the same, from the first connection on."""

    def run(seed):
        with LocalDsql(seed=seed) as dsql:
            dsql.execute("CREATE TABLE counters (id int PRIMARY KEY, n int, note text); INSERT INTO counters VALUES (1, 0)")
            dsql.execute("CREATE TABLE dropped (id int PRIMARY KEY)")
            return list(part(dsql))

    assert run(7) == run(7)
    if part is not races:
        assert run(7) != run(8)


def test_flights_are_executed_in_the_order_in_which_they_come(connect):
    """One at a time; but while the data of a COPY is waited for, the others go on."""
    with LocalDsql(seed=1) as dsql:
        dsql.execute("CREATE TABLE counters (id int PRIMARY KEY, n int)")
        with connection(dsql) as one, connection(dsql) as two:
            with one.cursor().copy("COPY counters FROM STDIN") as copy:
                copy.write("1\t1\n")
                assert two.execute("SELECT count(*) FROM counters").fetchone() == (0,)
                copy.write("2\t2\n")
            one.commit()
            two.commit()
            assert two.execute("SELECT sum(n) FROM counters").fetchone() == (3,)


def test_a_job_may_still_have_its_delay():
    """A delay that is asked for is time, also with a seed: here it waits until somebody does."""
    with LocalDsql(seed=1, job_delay=3600) as dsql, connection(dsql) as one:
        one.autocommit = True
        one.execute("CREATE TABLE counters (id int PRIMARY KEY, n int)")
        ((job,),) = one.execute("CREATE INDEX ASYNC ON counters (n)").fetchall()
        for _ in range(20):
            assert one.execute("SELECT status FROM sys.jobs WHERE job_id = %s", (job,)).fetchone() == ("submitted",)
        assert one.execute("CALL sys.wait_for_job(%s)", (job,)).fetchone() == (True,)
