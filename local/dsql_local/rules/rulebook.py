"""The rules of `rules.toml`, and its error messages by name. It knows no statement and no parser."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ANSWERS", "LIMITS", "RULES", "SHOWN", "StatementError", "answer"]

RULES: Mapping[str, Any] = tomllib.loads(Path(__file__).with_name("rules.toml").read_text(encoding="utf-8"))
LIMITS: Mapping[str, Any] = RULES["limits"]
SHOWN: Mapping[str, str] = RULES["shown"]
ANSWERS: Mapping[str, tuple[str, str]] = {name: tuple(answer) for name, answer in RULES["answers"].items()}


@dataclass(frozen=True, slots=True)
class StatementError:
    """The error of a statement."""

    sqlstate: str
    message: str


def answer(name: str, *values: object) -> StatementError:
    """The error of this name in the rules, with `values` in its text."""
    sqlstate, message = ANSWERS[name]
    return StatementError(sqlstate, message.format(*values))
