"""The chapters of docs/reliability.md on what `make soak` does: the bank, contention, durable steps. Made of figures alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.tables import table

BANK_KINDS = {
    "cut": "the link is cut at a message of the protocol, or within or after an answer",
    "lost commit": "it is cut when COMMIT has arrived: applied, or not",
    "cut at a byte": "it is cut by a proxy at a random byte",
    "unavailable": "XX000 answers COMMIT: applied, or not",
    "conflict": "OC000",
    "schema": "OC001, at a statement or at COMMIT",
    "refuse": "53400, 53300, or the cluster wakes up",
    "expire": "08006: every token has expired",
    "delay": "five flights are late",
    "close": "the server closes every connection",
    "restart": "the server restarts",
    "freeze": "a worker is stopped for 0.3 s",
    "kill": "a worker is killed and started again",
    "thaw": "all are stopped, the wall clock jumps two hours, and they go on: by another connection, of a new token",
    "provisioned": "provisioned concurrency: connected at init, first invoked two hours later",
    "restored": "SnapStart: restored from a snapshot of a warm process, two at a time",
    "forked": "a child of a warm process delivers, and so does its parent",
    "frozen": "an invocation is stopped at a random moment until its deadline is over; the next one finds it clean",
    "overrun": "a function goes on after its deadline: it is not committed, and the next invocation finds it clean",
    "alarm": "a signal handler raises at a random moment",
}
"""What the faults of `tests.bank` are."""

BANK = """## The bank

`make soak`. 16 processes transfer money between {many:,} accounts, then between {few}. Each transfer has an idempotency key and
is delivered one to three times, to one process or to several at once, and again to some that were forked or restored; a failed
delivery is repeated, as Lambda does. Money must be conserved, each key be applied once, each answer be what is stored for its
key, and no update be lost from the history (`tests/history.py`). A minute of it is in every run of the suite:
`tests/test_bank.py`.

{banks}

{kinds}

*Survived*: of what a process met, this process gave an answer afterwards; of what struck links and the server, every worker ended
with an answer. In {killed} cases the process was killed before it could answer. Deliveries that failed, and were repeated:
{errors}.
"""

CONTENTION = """## Contention

`make soak`. {workers} processes, each beginning its next handler when one has ended; a handler has ten seconds. Processes and
server share this machine. TPC-B reads an account, updates account, teller and branch, and inserts a row of history: 4 branches,
40 tellers, 2,000 accounts. On the hot row everybody reads one row and writes it. *First* and *ride* are the lookups of an
idempotency key. A short one is in every run of the suite: `tests/test_contention.py`.

{rounds}
"""

DURABLE = """## Durable steps

`make soak`. {executions:,} executions of {steps_each} steps, by the SDK's testing package. At every second checkpoint the
function dies, before the checkpoint was recorded or just after; every step's transaction meets a fault. Every run of the suite
does 10,000 steps, with a fault in each sixth, and kills the durable order at each of its checkpoints, with a cut at each message
of COMMIT: `tests/test_durable.py`.

{totals}

{kinds}
"""


def bank_chapter(figures: list[dict[str, Any]]) -> str:
    """Both banks, however many rounds they took."""
    banks: dict[int, list[dict[str, Any]]] = {}
    for each in figures:
        banks.setdefault(each["accounts"], []).append(each)
    injected, survived = Counter[str](), Counter[str]()
    for each in figures:
        for kind, (met, answered) in each["kinds"].items():
            injected[kind] += met
            survived[kind] += answered
    errors = sum((Counter(each["errors"]) for each in figures), Counter[str]())
    names = [*BANK_KINDS, *(kind for kind in injected if kind not in BANK_KINDS)]
    rows = [(kind, injected[kind], survived[kind], BANK_KINDS.get(kind, "")) for kind in names if injected[kind]]
    rows.append(("**all**", injected.total(), survived.total(), ""))
    return BANK.format(
        many=max(banks),
        few=min(banks),
        banks=table(
            ("accounts", "transfers", "answers", "a second", "lost", "doubled", "other answers", "other faults"),
            [_bank_row(f"{accounts:,}", each) for accounts, each in banks.items()] + [_bank_row("**both**", figures)],
        ),
        kinds=table(("fault", "injected", "survived", "what it is"), [(a, f"{b:,}", f"{c:,}", d) for a, b, c, d in rows]),
        errors=", ".join(f"{name} {count:,}" for name, count in errors.most_common()) or "none",
        killed=f"{injected.total() - survived.total():,}",
    ).rstrip()


def _bank_row(name: str, figures: list[dict[str, Any]]) -> tuple[str, ...]:
    sums = {
        key: sum(each[key] for each in figures)
        for key in ("transfers", "answers", "seconds", "lost", "doubled", "answers_that_differ", "broken")
    }
    rate = sums["transfers"] / max(sums["seconds"], 0.1)
    numbers = (sums["transfers"], sums["answers"], round(rate))
    return name, *(
        f"{each:,}" for each in (*numbers, *(sums[key] for key in ("lost", "doubled", "answers_that_differ", "broken")))
    )


def contention_chapter(figures: list[dict[str, Any]]) -> str:
    """Each workload in each mode."""
    keys = ("handlers", "failed", "lost", "doubled", "attempts_per_commit", "most_attempts", "p50_ms", "p99_ms", "longest_ms")
    names = [key.replace("_per_", " a ").replace("_ms", ", ms").replace("_", " ") for key in keys]
    rows = [(each["workload"], each["mode"], *(f"{each[key]:,}" for key in keys)) for each in figures]
    head = ("workload", "key", *names)
    return CONTENTION.format(workers=max(each["workers"] for each in figures), rounds=table(head, rows)).rstrip()


def durable_chapter(figures: list[dict[str, Any]]) -> str:
    """All processes together."""
    kinds = sum((Counter(each["kinds"]) for each in figures), Counter[str]())
    totals = [f"{sum(each[key] for each in figures):,}" for key in ("steps", "lost", "doubled")]
    kills = sum(count for kind, count in kinds.items() if kind.startswith("killed"))
    steps, each_steps = sum(each["steps"] for each in figures), figures[0]["steps_an_execution"]
    return DURABLE.format(
        executions=steps // each_steps,
        steps_each=each_steps,
        totals=table(("steps", "lost", "doubled", "kills", "faults"), [(*totals, f"{kills:,}", f"{kinds.total() - kills:,}")]),
        kinds=table(("fault", "times"), [(kind, f"{count:,}") for kind, count in kinds.most_common()]),
    ).rstrip()
