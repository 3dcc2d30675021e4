"""Fault commands: the words that ask for a fault, in an SQL comment or on the command line.

    UPDATE accounts SET balance = 1 /* dsql: conflict OC000 */
    python -m dsql_local fault cut before-commit how=fin n=2

A command is a word, then values in the order of its parameters, or `name=value`. It names a method of `LocalDsql` and its
arguments, as the table `COMMANDS` says. Pure: `frontend` and `cli` execute commands.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ..rules.statements import comments
from .table import COMMANDS

__all__ = ["FaultCommand", "InvalidFaultCommand", "extract_commands", "parse_command"]

_COMMENT = re.compile(r"/\*\s*dsql:(.*?)\*/", re.DOTALL)


class InvalidFaultCommand(ValueError):
    """A command that cannot be understood; the message names what is accepted."""


@dataclass(frozen=True, slots=True)
class FaultCommand:
    """A method of `LocalDsql` and its arguments."""

    word: str
    arguments: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def method(self) -> str:
        """The method's name."""
        return COMMANDS[self.word].method

    @property
    def is_server_wide(self) -> bool:
        """Whether it concerns the whole server, also when a connection's comment asks for it."""
        return COMMANDS[self.word].server_wide

    def __str__(self) -> str:
        return " ".join((self.word, *(f"{name}={value}" for name, value in self.arguments.items())))


def parse_command(text: str, *, in_comment: bool = False) -> FaultCommand:
    """The command that these words make. Raises `InvalidFaultCommand`."""
    name, *rest = text.split() or [""]
    spec = COMMANDS.get(name)
    if spec is None:
        raise InvalidFaultCommand(f"there is no fault {name!r}; there are {', '.join(COMMANDS)}")
    left = list(spec.parameters)
    arguments: dict[str, object] = {"n": 1} if spec.once_in_comment and in_comment else {}
    for each in rest:
        parameter, equals, value = each.partition("=")
        if not equals and left:
            parameter, value = left[0], each
        if parameter not in left:
            raise InvalidFaultCommand(f"{name} takes {', '.join(spec.parameters) or 'nothing'}, not {each!r}")
        left.remove(parameter)
        try:
            arguments[parameter] = spec.parameters[parameter](value)
        except ValueError as wrong:
            raise InvalidFaultCommand(f"{name}: {parameter} cannot be {value!r}: {wrong}") from wrong
    return FaultCommand(name, arguments)


def extract_commands(sql: str) -> tuple[str, list[str]]:
    """The SQL without its fault comments, and the text of each. What looks like a comment inside a string stays."""
    kept, commands, at = list[str](), list[str](), 0
    for text, start, end in comments(sql):
        comment = _COMMENT.fullmatch(text)
        if comment is not None:
            commands.append(comment[1].strip())
            kept += (sql[at:start], " ")
            at = end
    return "".join((*kept, sql[at:])), commands
