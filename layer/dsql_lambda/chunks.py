"""Many rows, written in transactions that each stay below DSQL's limits: `write_in_chunks`.

Knows what became of each chunk. How rows are cut into chunks is known to `row_chunks`, what a statement for many rows looks like
to `multirow`, and what becomes of one transaction to the loop (`runner`).
https://docs.aws.amazon.com/aurora-dsql/latest/userguide/CHAP_quotas.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .cache import source_for
from .claim import ConnectionSource, refuse_inside_transaction
from .decorator import check_call, deadline_of
from .emf import Metrics
from .errors import CommitOutcomeUnknown, ConfigError, DeadlineExceeded, TransactionError
from .fields import check_number
from .idempotency import Idempotency, Keys, part_of
from .multirow import MultiRow
from .once import Once
from .records import StructuredLogger
from .retry import OCCRetryConfig
from .row_chunks import Chunk, Range, chunks_of, merged, said_of
from .runner import run_in_transaction
from .subsegments import Tracer
from .system import SYSTEM
from .telemetry import Telemetry
from .transaction import Transaction

if TYPE_CHECKING:
    from concurrent.futures import Future

MOST_ROWS = 3000
"""DSQL's limit for the rows that a transaction modifies."""

MOST_BYTES = 4 * 1024 * 1024
"""Of values in a chunk. DSQL's limits are 10 MiB for what a transaction modifies, indexes included, and for one message."""

_LARGEST_BYTES = 10 * 1024 * 1024
_MOST_PARALLEL = 100


class WriteInterrupted(TransactionError):
    """`write_in_chunks` stopped, and some of the rows may be committed; what stopped it is the `__cause__`.

    Ranges of rows are pairs: the index of the first row, from 0, and of the one behind the last.
    """

    def __init__(
        self,
        message: str,
        *,
        committed: tuple[tuple[int, int], ...] = (),
        failed: tuple[tuple[int, int], ...] = (),
        unknown: tuple[tuple[int, int], ...] = (),
    ) -> None:
        super().__init__(message)
        self.committed = committed
        """What is committed, in order, an earlier call's included. As `committed=`, it lets another call write the others."""
        self.failed = failed
        """What was under way and was rolled back."""
        self.unknown = unknown
        """What may be committed or not, since COMMIT was not answered. Read the data to find out."""

    @property
    def resume_at(self) -> int:
        """The first row that is not known to be committed: those before it are."""
        return self.committed[0][1] if self.committed and self.committed[0][0] == 0 else 0


def write_in_chunks(
    statement: str,
    rows: Iterable[Any],
    *,
    source: ConnectionSource | None = None,
    max_rows: int = MOST_ROWS,
    max_bytes: int = MOST_BYTES,
    parallel: int = 1,
    committed: Iterable[Range] = (),
    idempotency: Idempotency | None = None,
    event: Any = None,
    retry: OCCRetryConfig | None = None,
    timeout: float | None = None,
    progress: Callable[[int], object] | None = None,
    logger: StructuredLogger | None = None,
    metrics: Metrics | None = None,
    tracer: Tracer | None = None,
) -> int:
    """Write rows by a statement with one `VALUES (...)` list, which is repeated for each row. Returns how many are committed.

    `INSERT INTO t (id, n) VALUES (:id, :n)`, also with ON CONFLICT; `UPDATE t SET n = v.n FROM (VALUES (:id, :n)) AS v (id, n)
    WHERE t.id = v.id`; `DELETE FROM t USING (VALUES (:id)) AS v (id) WHERE t.id = v.id`. A row is a mapping by the placeholders'
    names, or a sequence in their order. `rows` may be a generator: no more of it is held than the chunks that are under way.

    Each chunk, of at most `max_rows` rows and about `max_bytes` bytes of values, is a transaction, retried on conflicts as
    `run_transaction` does. `parallel` chunks at a time are written on connections of a `Pool`, in no certain order. `progress` is
    called with the number of rows committed so far after each chunk, by the thread that called. `timeout` is in seconds for all
    chunks together; inside an invocation its deadline counts too. No chunk is begun that would hardly be answered before it.

    What stops it is the `__cause__` of a `WriteInterrupted`, which says which rows are committed, which are not, and whose COMMIT
    was not answered. Called again with the same rows and `committed=error.committed`, it writes the others. With `idempotency`
    each chunk is written once for the key of `event`: the same call again, with the same rows and limits, passes over what is
    there, and settles an unknown COMMIT. An INSERT with ON CONFLICT DO NOTHING, or DO UPDATE, can be repeated without either.

    Raises `TransactionError` for another statement and inside a transaction, and `ConfigError` for a value out of its bounds,
    before a row is taken; `IdempotencyKeyMissing` for an event without its key.
    """
    check_number("max_rows", max_rows, 1, MOST_ROWS, whole=True)
    check_number("max_bytes", max_bytes, 1, _LARGEST_BYTES, whole=True)
    check_number("parallel", parallel, 1, _MOST_PARALLEL, whole=True)
    check_call(source, retry)
    refuse_inside_transaction()
    many = MultiRow(statement)
    if idempotency is not None:
        max_rows = min(max_rows, MOST_ROWS - 1)  # the key's own row is one more
    if parallel > 1:
        _check_pool(source, parallel)
    source = source_for(None) if source is None else source
    writer = _Writer(
        many,
        source,
        retry=retry,
        deadline_at=deadline_of(source, timeout),
        telemetry=Telemetry(write_in_chunks, logger=logger, metrics=metrics, tracer=tracer),
        key=_key_of(idempotency, event, statement),
        committed=merged(committed),
        progress=progress,
    )
    chunks = chunks_of(many, rows, max_rows=max_rows, max_bytes=max_bytes, committed=writer.committed)
    try:
        if parallel == 1:
            writer.write_all(chunks)
        else:
            writer.write_parallel(chunks, parallel)
    except Exception as error:  # noqa: BLE001 - it is the cause of what is raised
        cause = writer.first_error or error
        raise writer.interrupted(cause) from cause
    except BaseException as error:
        error.add_note(str(writer.interrupted(error)))
        raise
    return writer.count


class _Writer:
    """Writes chunks, and keeps what became of each. A fact is noted where no interruption can come between it and its note."""

    def __init__(
        self,
        many: MultiRow,
        source: ConnectionSource,
        *,
        retry: OCCRetryConfig | None,
        deadline_at: float,
        telemetry: Telemetry,
        key: Callable[[Chunk], Once] | None,
        committed: list[Range],
        progress: Callable[[int], object] | None,
    ) -> None:
        self.committed = committed
        """What an earlier call had written."""
        self.first_error: Exception | None = None
        self.count = 0
        """Rows committed by this call."""
        self._many = many
        self._source = source
        self._retry = retry
        self._deadline_at = deadline_at
        self._telemetry = telemetry
        self._key = key
        self._progress = progress
        self._longest = 0.0  # seconds that a chunk took
        self._begun: dict[
            int, Range
        ] = {}  # by the first row, noted before the chunk is sent; it has no other ending until one is
        self._done: dict[int, Range] = {}
        self._failed: dict[int, Range] = {}

    def write_all(self, chunks: Iterable[Chunk]) -> None:
        """One after the other."""
        for chunk in chunks:
            self._write(chunk)
            self._report(chunk)

    def write_parallel(self, chunks: Iterable[Chunk], parallel: int) -> None:
        """So many at a time, each in a thread. After a failure no other is begun, and those under way are waited for."""
        from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait  # noqa: PLC0415 - where it is asked for

        running: dict[Future[None], Chunk] = {}

        def take(*, at_most: int) -> None:
            while len(running) > at_most:
                for each in wait(running, return_when=FIRST_COMPLETED).done:
                    chunk = running.pop(each)
                    each.result()
                    self._report(chunk)

        with ThreadPoolExecutor(parallel, thread_name_prefix="dsql-chunks") as threads:  # its end waits for all
            for chunk in chunks:
                running[threads.submit(self._write, chunk)] = chunk
                take(at_most=parallel - 1)
            take(at_most=0)

    def interrupted(self, cause: BaseException) -> WriteInterrupted:
        """What is known of the rows now."""
        committed = merged([*self.committed, *self._done.values()])
        failed = merged([each for start, each in self._failed.items() if start not in self._done])
        unknown = merged([each for start, each in self._begun.items() if start not in self._done and start not in self._failed])
        said = [
            f"rows {said_of(ranges)} {meaning}"
            for ranges, meaning in (
                (committed, "are committed"),
                (failed, "were rolled back"),
                (unknown, "may be committed or not"),
            )
            if ranges
        ]
        return WriteInterrupted(
            f"writing in chunks stopped ({type(cause).__name__}): {'; '.join(said) or 'no row is committed'}",
            committed=tuple(committed),
            failed=tuple(failed),
            unknown=tuple(unknown),
        )

    def _write(self, chunk: Chunk) -> None:
        """In one transaction, attempted until it ends for good. One that would hardly be answered in time is not begun."""
        statements = list(self._many.statements(chunk.rows))
        began_at = SYSTEM.monotonic()
        if self._deadline_at - began_at < self._longest:
            raise DeadlineExceeded(
                f"no time was left before the deadline for another chunk: one has taken {self._longest:.3f} s", phase="begin"
            )

        def work(tx: Transaction) -> int:
            for each in statements:
                tx.queue(each)
            tx.after_commit(self._note, chunk)
            return len(chunk.rows)

        self._begun[chunk.start] = chunk.range
        try:
            run_in_transaction(
                work,
                self._source,
                retry=self._retry,
                deadline_at=self._deadline_at,
                telemetry=self._telemetry,
                once=self._key(chunk) if self._key is not None else None,
            )
            self._note(chunk)
            self._longest = max(self._longest, SYSTEM.monotonic() - began_at)
        except Exception as error:
            self.first_error = self.first_error or error
            if not isinstance(error, CommitOutcomeUnknown):
                self._failed[chunk.start] = chunk.range
            raise

    def _note(self, chunk: Chunk) -> None:
        self._done[chunk.start] = chunk.range

    def _report(self, chunk: Chunk) -> None:
        self.count += len(chunk.rows)
        if self._progress is not None:
            self._progress(self.count)


def _check_pool(source: object, parallel: int) -> None:
    from .pool import Pool  # noqa: PLC0415 - whoever passes one has loaded it

    if not isinstance(source, Pool):
        raise ConfigError(f"parallel is {parallel}: that many transactions at a time need a Pool as source")
    if parallel > source.max_size:
        raise ConfigError(f"parallel is {parallel}, and the pool has at most {source.max_size} connections: raise its max_size")


def _key_of(idempotency: Idempotency | None, event: Any, statement: str) -> Callable[[Chunk], Once] | None:
    """What makes the key of a chunk. Raises `IdempotencyKeyMissing` for an event without one."""
    if idempotency is None:
        return None
    key, _ = Keys(idempotency, write_in_chunks).of(event)
    return lambda chunk: Once(idempotency, *part_of(key, [statement, chunk.start], chunk.rows))
