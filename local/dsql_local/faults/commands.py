"""The faults that can be asked for, in ONE table, and the words that ask for them: in an SQL comment, or on a command line.

    UPDATE accounts SET balance = 1 /* dsql: conflict OC000 */
    python -m dsql_local fault cut before-commit how=fin n=2

An order is a word, values in the order of its method's parameters, and `name=value`. It names a method of `LocalDsql` and what to
call it with. Pure: what is carried out where is the business of `front` and `control`. The page's table is made of this one.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ..rules.statements import comments

__all__ = ["FAULTS", "WORDS", "Fault", "FaultCommand", "InvalidFaultCommand", "extract_commands", "parse_command"]

_MARK = re.compile(r"/\*\s*dsql:(.*?)\*/", re.DOTALL)


class InvalidFaultCommand(ValueError):
    """An order that nobody understands; the sentence names what there is."""


@dataclass(frozen=True, slots=True)
class Word:
    """What a word stands for: a method, and how its parameters are read."""

    method: str
    parameters: Mapping[str, Callable[[str], object]]
    once: bool = False  # in a comment it strikes once unless n says otherwise
    here: bool = True  # in a comment it strikes the connection that sent it; else it is the whole server's


@dataclass(frozen=True, slots=True)
class FaultCommand:
    """A method of `LocalDsql` and its arguments."""

    word: str
    arguments: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def method(self) -> str:
        """The method's name."""
        return WORDS[self.word].method

    @property
    def here(self) -> bool:
        """Whether it can strike one connection alone."""
        return WORDS[self.word].here

    def __str__(self) -> str:
        return " ".join((self.word, *(f"{name}={value}" for name, value in self.arguments.items())))


@dataclass(frozen=True, slots=True)
class Fault:
    """A row of the table: how it is asked for in Python and in words, what a client sees, what happens to its work."""

    call: str
    words: str
    sees: str
    happens: str


def _truth(text: str) -> bool:
    if text not in ("yes", "no", "true", "false"):
        raise ValueError("it is yes or no")
    return text in ("yes", "true")


WORDS: Mapping[str, Word] = {
    "conflict": Word("conflict_next", {"code": str, "n": int, "at": str}),
    "conflict-rate": Word("conflict_rate", {"p": float, "seed": int, "code": str}, here=False),
    "cut": Word("cut", {"at": str, "n": int, "applied": _truth, "how": str}),
    "delay": Word("delay", {"ms": float, "n": int}, once=True),
    "unavailable": Word("unavailable", {"n": int, "at": str, "applied": _truth}),
    "refuse": Word("refuse_connections", {"reason": str, "n": int}, here=False),
    "expire-tokens": Word("expire_tokens", {}, here=False),
    "close-connections": Word("close_connections", {"how": str}, here=False),
    "restart": Word("restart", {"down": float}, here=False),
    "clear": Word("clear_faults", {}, here=False),
}

_OPENING = "the link ends while it connects"
FAULTS: tuple[Fault, ...] = (
    Fault(
        'conflict_next(2, "OC000")',
        "conflict OC000 n=2",
        "COMMIT: 40001 `change conflicts with another transaction (OC000)`",
        "rolled back",
    ),
    Fault(
        'conflict_next(1, "OC001")',
        "conflict OC001",
        "COMMIT: 40001 `schema has been updated by another transaction (OC001)`",
        "rolled back",
    ),
    Fault(
        'conflict_next(1, "OC001", at="statement")',
        "conflict OC001 at=statement",
        "the next statement, also a read: 40001",
        "the transaction has failed",
    ),
    Fault('conflict_next(1, "40001")', "conflict 40001", "COMMIT: 40001 without a marker", "rolled back"),
    Fault(
        "conflict_rate(0.3, seed=7)",
        "conflict-rate 0.3 seed=7",
        "each COMMIT with this probability: 40001, the same ones for the same seed",
        "rolled back",
    ),
    Fault('cut("on-connect")', "cut on-connect", f"{_OPENING}: before TLS", ""),
    Fault('cut("after-tls")', "cut after-tls", f"{_OPENING}: TLS is there, nothing was said", ""),
    Fault('cut("after-startup")', "cut after-startup", f"{_OPENING}: instead of being asked for the token", ""),
    Fault('cut("after-password")', "cut after-password", f"{_OPENING}: its token was sent", ""),
    Fault('cut("before-ready")', "cut before-ready", f"{_OPENING}: it is let in, and never told so", ""),
    Fault(
        'cut("at-parse")',
        "cut at-parse",
        "the link ends when the next Parse comes; likewise `at-bind`, `at-describe`, `at-execute`, `at-close`, `at-flush`, "
        "`at-sync`, `at-query`, `at-copy-data`, `at-copy-done`",
        "the flight is not executed; what was open is rolled back",
    ),
    Fault(
        'cut("before-first-flight")',
        "cut before-first-flight",
        "the link ends at the next flight outside a transaction",
        "nothing was executed",
    ),
    Fault(
        'cut("before-commit")',
        "cut before-commit",
        "the link ends at the next flight in a transaction without COMMIT, or with BEGIN and a statement but no COMMIT",
        "rolled back",
    ),
    Fault('cut("after-commit-sent")', "cut after-commit-sent", "the link ends at the next flight with a COMMIT", "committed"),
    Fault('cut("after-commit-sent", applied=False)', "cut after-commit-sent applied=no", "the same", "rolled back"),
    Fault(
        'cut("mid-reply")',
        "cut mid-reply",
        "half of the bytes of the next flight's answer, then the link ends",
        "executed; what is open is rolled back",
    ),
    Fault(
        'cut("after-reply")',
        "cut after-reply",
        "the next flight's answer, then the link ends",
        "executed; what is open is rolled back",
    ),
    Fault('cut("before-commit", how="fin")', "cut before-commit how=fin", "the end of the stream instead of a reset", ""),
    Fault('cut("before-commit", how="silence")', "cut before-commit how=silence", "nothing at all, ever", ""),
    Fault(
        "delay(50)",
        "delay 50",
        "every flight takes 50 ms longer; `n=` says how many do (in a comment: the one that carries it)",
        "as without it",
    ),
    Fault("unavailable(2)", "unavailable 2", "COMMIT: XX000 `server unavailable`", "rolled back"),
    Fault("unavailable(1, applied=True)", "unavailable applied=yes", "the same", "committed"),
    Fault('unavailable(1, at="statement")', "unavailable at=statement", "the next statement: XX000", "not executed"),
    Fault(
        'refuse_connections(3, "rate")',
        "refuse rate n=3",
        "FATAL 53400 `Unable to accept connection, rate exceeded.`, before the password",
        "",
    ),
    Fault(
        'refuse_connections(1, "connections")',
        "refuse connections",
        "FATAL 53300 `Unable to accept connection, too many open connections.`, before the password",
        "",
    ),
    Fault(
        'refuse_connections(1, "waking")',
        "refuse waking",
        "FATAL 08006 `… waking up cluster, please retry later`, before the password",
        "",
    ),
    Fault(
        'refuse_connections(1, "access")',
        "refuse access",
        "FATAL 08006, the hint `User: … is not authorized to perform: dsql:DbConnect…`",
        "",
    ),
    Fault(
        'refuse_connections(3, "53400")',
        "refuse 53400 n=3",
        "the same by SQLSTATE: `53400` is rate, `53300` connections, `08006` access",
        "",
    ),
    Fault(
        "expire_tokens()",
        "expire-tokens",
        "FATAL 08006, the hint `Signature expired: …`, for every token signed so far",
        "one signed in the same second is refused once",
    ),
    Fault(
        "close_connections()", "close-connections", "every link ends, without an error, as after 60 minutes", "all rolled back"
    ),
    Fault(
        "restart(down=0.5)",
        "restart 0.5",
        "every link is reset, and for so many seconds no connection is accepted",
        "all rolled back; what was committed stays, and a COMMIT under way is applied or not",
    ),
)


def parse_command(text: str, *, in_comment: bool = False) -> FaultCommand:
    """The order that these words are. Raises `BadOrder`."""
    name, *rest = text.split() or [""]
    word = WORDS.get(name)
    if word is None:
        raise InvalidFaultCommand(f"there is no fault {name!r}; there are {', '.join(WORDS)}")
    left = list(word.parameters)
    arguments: dict[str, object] = {"n": 1} if word.once and in_comment else {}
    for each in rest:
        parameter, mark, value = each.partition("=")
        if not mark and left:
            parameter, value = left[0], each
        if parameter not in left:
            raise InvalidFaultCommand(f"{name} takes {', '.join(word.parameters) or 'nothing'}, not {each!r}")
        left.remove(parameter)
        try:
            arguments[parameter] = word.parameters[parameter](value)
        except ValueError as wrong:
            raise InvalidFaultCommand(f"{name}: {parameter} cannot be {value!r}: {wrong}") from wrong
    return FaultCommand(name, arguments)


def extract_commands(sql: str) -> tuple[str, list[str]]:
    """The SQL without the comments that ask for a fault, and what these say. A string that looks like one stays."""
    kept, orders, at = list[str](), list[str](), 0
    for text, start, end in comments(sql):
        mark = _MARK.fullmatch(text)
        if mark is not None:
            orders.append(mark[1].strip())
            kept += (sql[at:start], " ")
            at = end
    return "".join((*kept, sql[at:])), orders
