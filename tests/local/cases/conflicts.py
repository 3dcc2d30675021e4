"""Conflicts of two sessions: no statement waits, the first COMMIT wins, and the other one fails.

What conflicts was recorded with two sessions in a race, so that either of them could lose; here the order of the COMMITs decides.
"""

from . import CONCURRENCY, RECORDED, Script, Step

CONFLICT = "40001 change conflicts with another transaction (OC000)"


def concurrent(name: str, source: str, first: tuple[str, str], second: tuple[str, str], loses: bool) -> list[Script]:
    """Two statements in transactions that overlap, each with its tag, in both orders; whether the later COMMIT fails."""
    return [
        Script(
            f"{name}, {order}",
            source,
            [
                Step("A", "BEGIN", ("BEGIN",)),
                Step("B", "BEGIN", ("BEGIN",)),
                Step("A", winner[0], (winner[1],)),
                Step("B", loser[0], (loser[1],)),
                Step("A", "COMMIT", ("COMMIT",)),
                Step("B", "COMMIT", (CONFLICT if loses else "COMMIT",)),
            ],
        )
        for order, winner, loser in (("in this order", first, second), ("in the other order", second, first))
    ]


SPEND = ("UPDATE account SET balance = balance - 1 WHERE id = 2", "UPDATE 1")
RENAME = ("UPDATE account SET holder = 'Beata' WHERE id = 2", "UPDATE 1")
DELETE = ("DELETE FROM account WHERE id = 2", "DELETE 1")
REWRITE = "UPDATE {} SET words = 'y' WHERE id = 1"

SCRIPTS = [
    *concurrent("two writers of a row", CONCURRENCY, SPEND, RENAME, loses=True),
    *concurrent("writers of two rows", RECORDED, SPEND, ("UPDATE account SET balance = 0 WHERE id = 3", "UPDATE 1"), loses=False),
    *concurrent("a writer and a deletion", CONCURRENCY, SPEND, DELETE, loses=True),
    *concurrent(
        "FOR UPDATE and a write", RECORDED, ("SELECT balance FROM account WHERE id = 2 FOR UPDATE", "SELECT 1"), SPEND, loses=True
    ),
    *concurrent(
        "FOR KEY SHARE and a deletion",
        RECORDED,
        ("SELECT id FROM account WHERE holder = 'Bela' FOR KEY SHARE", "SELECT 1"),
        DELETE,
        loses=True,
    ),
    *concurrent("a plain read and a write", CONCURRENCY, ("SELECT balance FROM account", "SELECT 4"), SPEND, loses=False),
    *concurrent("a reference and a deletion", RECORDED, ("INSERT INTO payment VALUES (1, 2)", "INSERT 0 1"), DELETE, loses=True),
    *concurrent(
        "a reference and a change of another column",
        RECORDED,
        ("INSERT INTO payment VALUES (1, 2)", "INSERT 0 1"),
        RENAME,
        loses=False,
    ),
    *concurrent("ON DELETE CASCADE and a write of the row", RECORDED, DELETE, (REWRITE.format("memo"), "UPDATE 1"), loses=True),
    *concurrent("ON DELETE SET NULL and a write of the row", RECORDED, DELETE, (REWRITE.format("stamp"), "UPDATE 1"), loses=True),
    *concurrent(
        "ON DELETE SET DEFAULT and a write of the row", RECORDED, DELETE, (REWRITE.format("invoice"), "UPDATE 1"), loses=True
    ),
    Script(
        "a row that is changed after a transaction's snapshot",
        CONCURRENCY,
        [
            Step("A", "BEGIN", ("BEGIN",)),
            Step("A", "SELECT balance FROM account WHERE id = 2", ("SELECT 1",)),
            Step("B", SPEND[0], (SPEND[1],)),
            Step("A", "SELECT balance FROM account WHERE balance = 99", ("SELECT 0",)),
            Step("A", SPEND[0], (SPEND[1],)),
            Step("A", "COMMIT", (CONFLICT,)),
            Step("A", "SELECT balance FROM account WHERE balance = 99", ("SELECT 1",)),
        ],
    ),
]
