"""The one table of faults. The parser of commands, the help of the command line and docs/local-dsql.md are made from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["COMMANDS", "FaultSpec"]


@dataclass(frozen=True, slots=True)
class FaultSpec:
    """What a word stands for: a method of `LocalDsql`, and the parser of each parameter."""

    word: str
    method: str
    parameters: Mapping[str, Callable[[str], object]]
    examples: tuple[tuple[str, str, str], ...] = ()  # arguments, what the client sees, what happens to its transaction
    once_in_comment: bool = False  # in a comment, n defaults to 1
    server_wide: bool = False  # it cannot concern one connection alone


def _boolean(text: str) -> bool:
    if text not in ("yes", "no", "true", "false"):
        raise ValueError("it must be yes or no")
    return text in ("yes", "true")


_SPECS = (
    FaultSpec(
        "conflict",
        "conflict_next",
        {"code": str, "n": int, "at": str},
        (
            ("OC000 n=2", "COMMIT fails: 40001 `change conflicts with another transaction (OC000)`", "rolled back"),
            ("OC001", "COMMIT fails: 40001 `schema has been updated by another transaction (OC001)`", "rolled back"),
            ("OC001 at=statement", "the next statement fails, even a read: 40001", "the transaction is in the failed state"),
            ("40001", "COMMIT fails: 40001 without an OC code", "rolled back"),
        ),
    ),
    FaultSpec(
        "conflict-rate",
        "conflict_rate",
        {"p": float, "seed": int, "code": str},
        (
            (
                "0.3 seed=7",
                "each COMMIT fails with this probability; the same seed fails the same COMMITs",
                "rolled back",
            ),
        ),
        server_wide=True,
    ),
    FaultSpec(
        "cut",
        "cut",
        {"at": str, "n": int, "applied": _boolean, "how": str},
        (
            ("on-connect", "the connection is cut before TLS", ""),
            ("after-tls", "it is cut after the TLS handshake", ""),
            ("after-startup", "it is cut instead of the request for the token", ""),
            ("after-password", "it is cut after the client has sent its token", ""),
            ("before-ready", "it is cut after the token was accepted, before ReadyForQuery", ""),
            (
                "at-parse",
                "it is cut when the next Parse message arrives",
                "not executed; an open transaction is rolled back",
            ),
            ("before-first-flight", "it is cut at the next flight outside a transaction", "not executed"),
            (
                "before-commit",
                "it is cut at the next flight of a transaction that has no COMMIT",
                "rolled back",
            ),
            ("after-commit-sent", "it is cut at the next flight with a COMMIT", "committed"),
            ("after-commit-sent applied=no", "the same", "rolled back"),
            (
                "mid-reply",
                "it is cut after half of the answer to the next flight",
                "executed; an open transaction is rolled back",
            ),
            (
                "after-reply",
                "it is cut after the answer to the next flight",
                "executed; an open transaction is rolled back",
            ),
            ("before-commit how=fin", "the end of the stream (FIN) instead of a reset (RST)", "rolled back"),
            ("before-commit how=silence", "no answer, and no end of the connection", "rolled back"),
        ),
    ),
    FaultSpec(
        "delay",
        "delay",
        {"ms": float, "n": int},
        (
            (
                "50",
                "every flight takes 50 ms longer; `n=` limits how many",
                "executed normally",
            ),
        ),
        once_in_comment=True,
    ),
    FaultSpec(
        "unavailable",
        "unavailable",
        {"n": int, "at": str, "applied": _boolean},
        (
            ("2", "COMMIT fails: XX000 `server unavailable`", "rolled back"),
            ("applied=yes", "the same", "committed"),
            ("at=statement", "the next statement fails: XX000", "not executed"),
        ),
    ),
    FaultSpec(
        "refuse",
        "refuse_connections",
        {"reason": str, "n": int},
        (
            ("rate n=3", "FATAL 53400 `Unable to accept connection, rate exceeded.`", ""),
            (
                "connections",
                "FATAL 53300 `Unable to accept connection, too many open connections.`",
                "",
            ),
            ("waking", "FATAL 08006 `… waking up cluster, please retry later`", ""),
            ("access", "FATAL 08006 with the hint `User: … is not authorized to perform: dsql:DbConnect…`", ""),
            ("53400 n=3", "the same reason by its SQLSTATE: 53400 rate, 53300 connections, 08006 access", ""),
        ),
        server_wide=True,
    ),
    FaultSpec(
        "expire-tokens",
        "expire_tokens",
        {},
        (
            (
                "",
                "FATAL 08006 with the hint `Signature expired: …` for every token signed so far",
                "open connections stay open",
            ),
        ),
        server_wide=True,
    ),
    FaultSpec(
        "close-connections",
        "close_connections",
        {"how": str},
        (("", "every connection ends without an error, as after 60 minutes", "rolled back"),),
        server_wide=True,
    ),
    FaultSpec(
        "restart",
        "restart",
        {"down": float},
        (
            (
                "0.5",
                "every connection is reset, and none is accepted for 0.5 s",
                "rolled back; a COMMIT in flight is applied or not",
            ),
        ),
        server_wide=True,
    ),
    FaultSpec("clear", "clear_faults", {}, server_wide=True),
)
COMMANDS: Mapping[str, FaultSpec] = {spec.word: spec for spec in _SPECS}
