"""DSQL's asynchronous jobs: which one a statement has begun, and how it ended. `Job`, `job_of`, `state_of`.

Knows `sys.jobs`, and the catalog where a job is no longer listed (a finished one is, for half an hour). Waits for nothing:
`CALL sys.wait_for_job` would wait inside a transaction, which DSQL ends after 300 s, and an index can take hours to build.
https://docs.aws.amazon.com/aurora-dsql/latest/userguide/working-with-create-index-async.html
"""

from __future__ import annotations

from typing import Final, NamedTuple

from .script import folded, qualified, shape, tokens
from .transaction import Transaction

_RUNNING: Final = frozenset({"submitted", "processing"})


class Job(NamedTuple):
    """The work that an ASYNC statement leaves behind."""

    kind: str
    """`index` or `constraint`."""
    name: str
    """What it builds or validates, without its schema."""
    table: str
    """Its table, as the statement has it: two tables may have constraints of one name."""
    job_id: str = ""
    """Empty where the statement's answer was lost."""


class JobState(NamedTuple):
    """How far a job has come."""

    is_running: bool
    failure: str = ""
    """Why it failed; empty if it did not."""


def job_of(statement: str, answer: list[list[object]] | None = None) -> Job | None:
    """The job of a statement, with its id if the answer is known; None if the statement is not ASYNC."""
    words = shape(statement)
    if "ASYNC" not in words[:4]:
        return None
    written = [statement[start:end] for start, end in tokens(statement)]
    job_id = str(answer[0][0]) if answer and answer[0] else ""
    at = words.index("ASYNC") + 1
    while words[at : at + 1] and words[at] in {"IF", "NOT", "EXISTS", "ONLY"}:
        at += 1
    if words[0] == "CREATE" and "ON" in words[at:]:
        after = words.index("ON", at) + 1
        after += words[after : after + 1] == ("ONLY",)
        return Job("index", folded(written[at]), qualified(written, after), job_id)
    if "VALIDATE" in words[at:] and len(words) > (name := words.index("VALIDATE", at) + 2):
        return Job("constraint", folded(written[name]), qualified(written, at), job_id)
    return None


def state_of(tx: Transaction, job: Job) -> JobState:
    """Whether the job runs, and else whether what it was for is valid. Only the catalog says that for sure."""
    if job.job_id:
        listed = tx.rows("SELECT status, details FROM sys.jobs WHERE job_id = :id", id=job.job_id)
    else:
        listed = tx.rows(
            "SELECT status, details FROM sys.jobs WHERE object_name LIKE :name ORDER BY start_time DESC LIMIT 1",
            name="%." + job.name.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_"),
        )
    status, details = (listed[0]["status"], listed[0]["details"]) if listed else ("", None)
    if status in _RUNNING:
        return JobState(is_running=True)
    if status in {"failed", "cancelled"}:
        return JobState(is_running=False, failure=f"{status}: {details}" if details else status)
    if job.kind == "index":
        invalid = tx.run(
            "SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
            "WHERE c.relname = :name AND i.indrelid = to_regclass(:table) AND NOT i.indisvalid",
            name=job.name,
            table=job.table,
        )
    else:
        invalid = tx.run(
            "SELECT 1 FROM pg_constraint WHERE conname = :name AND conrelid = to_regclass(:table) AND NOT convalidated",
            name=job.name,
            table=job.table,
        )
    return JobState(is_running=False, failure=f"the {job.kind} {job.name} is not valid" if invalid else "")
