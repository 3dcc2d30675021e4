"""Memory stays flat over many transactions: nothing of one is kept when it has ended."""

import gc
import tracemalloc

GROWTH = 256 * 1024  # bytes that caches of a fixed size, and the allocator, may still gain


def grown(work):
    """How many bytes more are held after `work` than before."""
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    work()
    gc.collect()
    return tracemalloc.get_traced_memory()[0] - before


def test_memory_stays_flat_over_many_transactions(dsql, connect):
    """Each statement's text is another one, some fail, some lose; the log is emptied, as its bound would do later."""
    client = connect()

    def transactions(count, start):
        for number in range(start, start + count):
            client.flight("BEGIN", f"UPDATE accounts SET balance = {number} WHERE id = 1")
            if number % 10 == 0:
                client.flight(f"SELECT {number} / 0")
            if number % 10 == 1:
                dsql.conflict_next(1)
            client.flight("COMMIT")
        dsql.clear_log()

    transactions(4500, 0)  # the caches of judged and parsed statements are full
    tracemalloc.start()
    try:
        transactions(200, 4500)
        assert grown(lambda: transactions(1000, 5000)) < GROWTH
    finally:
        tracemalloc.stop()


def test_memory_stays_flat_over_many_connections(dsql, connect):
    """A connection that has ended leaves nothing behind."""

    def connections(count):
        for _ in range(count):
            client = connect()
            client.run("SELECT 1")
            client.close()
        dsql.close_connections()
        dsql.clear_log()

    connections(20)
    tracemalloc.start()
    try:
        connections(10)
        assert grown(lambda: connections(50)) < GROWTH
    finally:
        tracemalloc.stop()
