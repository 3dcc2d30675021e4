"""What a cluster thinks of a statement before it executes it: accepted, and as what, or refused, and in which words.

`judge` is a pure function of the text; the rules are data, in `rules.toml`, and this module knows how to read them. Where a
rule depends on the catalog, the verdict carries the question, for `session` to ask. Nothing here executes anything.
"""

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

import pgparse  # type: ignore[import-not-found]

from .datatypes import DataTypes
from .matching import Node, at, fits, nodes, strings
from .statements import Kind, kind_of
from .syntax import Translated, first_word, literal, translate

__all__ = ["ANSWERS", "LIMITS", "SHOWN", "Class", "Lookup", "Refused", "Verdict", "answer", "judge", "refused_at_startup"]

_RULES: Mapping[str, Any] = tomllib.loads(Path(__file__).with_name("rules.toml").read_text(encoding="utf-8"))
LIMITS: Mapping[str, Any] = _RULES["limits"]
SHOWN: Mapping[str, str] = _RULES["shown"]
ANSWERS: Mapping[str, tuple[str, str]] = {name: tuple(answer) for name, answer in _RULES["answers"].items()}

LONGEST_PARSED = 1 << 18  # characters of SQL; what is longer is data to insert, and is taken for what its first word says
_DATA = ("INSERT", "UPDATE", "DELETE", "WITH", "SELECT", "VALUES")
_ACCEPTED: Mapping[str, str] = {node: kind for kind, names in _RULES["accepted"].items() for node in names}
_TYPES = DataTypes(_RULES["types"])
_SETTABLE = frozenset(_RULES["parameters"]["settable"])
_SETTABLE_LOCALLY = frozenset(_RULES["parameters"]["settable_locally"])
_AT_STARTUP = frozenset(_RULES["parameters"]["startup"])
_REFUSED_FUNCTION = re.compile(_RULES["functions"]["refused"])
_GROWING = frozenset(_RULES["functions"]["growing"])
_INDEX: Mapping[str, str] = _RULES["index"]
_ALTER: Mapping[str, Any] = _RULES["alter_table"]
_LARGEST_REFUSED_CACHE = 65535
_BY_NODE: dict[str, list[tuple[int, Mapping[str, Any]]]] = defaultdict(list)
for _place, _rule in enumerate(_RULES["refuse"]):
    _BY_NODE[_rule["node"]].append((_place, _rule))


class Class(Enum):
    """What an accepted statement is to a transaction."""

    READ = "read"
    DML = "dml"
    DDL = "ddl"
    SESSION = "session"
    CONTROL = "control"
    UNKNOWN = "unknown"  # PostgreSQL will find its syntax wrong


@dataclass(frozen=True, slots=True)
class Refused:
    """A statement's error."""

    sqlstate: str
    message: str


@dataclass(frozen=True, slots=True)
class Lookup:
    """A question to the catalog: if it has any row, the statement is refused."""

    sql: str
    refused: Refused


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a statement is. `execution` and `tag` are what PostgreSQL is told instead, and what its command tag becomes."""

    kind: Class
    refused: Refused | None = None
    execution: str | None = None
    tag: str | None = None
    lookups: tuple[Lookup, ...] = ()
    rows: int | None = None  # it modifies no more rows than this; None: its text does not say
    grows: bool = False  # it may write more bytes than it brings


@lru_cache(maxsize=4096)
def judge(sql: str) -> Verdict:
    """The verdict on one statement."""
    word = first_word(sql)
    if len(sql) > LONGEST_PARSED and word in _DATA:
        return Verdict(Class.DML if word in ("INSERT", "UPDATE", "DELETE", "WITH") else Class.READ)
    if kind_of(sql) is Kind.SAVEPOINT:
        return Verdict(Class.CONTROL, answer("transaction", word))
    own = translate(sql) if word in ("CREATE", "ALTER", "AWS") else None
    if own is not None and own.plain is None:
        return _mapping(own)
    try:
        tree = pgparse.parse(sql if own is None or own.plain is None else own.plain)
    except pgparse.PGQueryError as error:
        # PostgreSQL finds the same in its own words; only what is called by a function of ours would hide it.
        return Verdict(Class.UNKNOWN, None if own is None else Refused("42601", error.args[0]))
    if len(tree) != 1:
        return Verdict(Class.READ, rows=0)
    ((kind, statement),) = tree[0]["stmt"].items()
    return _accepted(kind, statement, sql, own)


def _refused_parameter(name: str, *, local: bool = False) -> Refused | None:
    """The refusal of a configuration parameter, if it cannot be set."""
    folded = name.lower()
    return None if folded in _SETTABLE or (local and folded in _SETTABLE_LOCALLY) else answer("parameter", name)


def refused_at_startup(name: str) -> Refused | None:
    """The same for one that stands in the startup packet."""
    return None if name in _AT_STARTUP or name.startswith("_pq_.") else _refused_parameter(name)


def answer(name: str, *values: str) -> Refused:
    """The answer of this name in the rules, `values` put into its text."""
    sqlstate, message = ANSWERS[name]
    return Refused(sqlstate, message.format(*values))


def _mapping(own: Translated) -> Verdict:
    if own.execution is None:
        return Verdict(Class.UNKNOWN, Refused("42601", 'syntax error at or near "AWS"'))
    return Verdict(Class.DDL, execution=own.execution, tag=own.tag)


def _accepted(kind: str, statement: Node, sql: str, own: Translated | None) -> Verdict:
    """The verdict on a statement that the parser took."""
    found: dict[str, list[Node]] = defaultdict(list)
    for name, node in nodes({kind: statement}):
        found[name].append(node)
    refused = next(_refusals(kind, statement, found, sql, asynchronous=own is not None), None)
    if refused is not None:
        return Verdict(_class_of(kind, statement, found), refused)
    what = _class_of(kind, statement, found)
    verdict = Verdict(what, lookups=tuple(_lookups(kind, statement, found)), rows=0)
    if what is Class.DML:
        verdict = replace(verdict, rows=_rows(kind, statement, found), grows=_grows(found))
    if kind == "VariableShowStmt" and statement["name"] in ("server_version", "server_version_num"):  # not PostgreSQL's own
        return replace(verdict, execution="SELECT current_setting('{name}') AS {name}".format(**statement), tag="SHOW")
    return verdict if own is None else replace(verdict, execution=own.execution, tag=own.tag)


def _class_of(kind: str, statement: Node, found: Mapping[str, list[Node]]) -> Class:
    if kind == "ExplainStmt" and not any(at(option, "defname") == "analyze" for option in found.get("DefElem", ())):
        return Class.READ
    if any(name in found for name in _RULES["accepted"]["dml"]) or (kind == "CopyStmt" and statement.get("is_from")):
        return Class.DML if kind != "CreateFunctionStmt" else Class.DDL
    return Class(_ACCEPTED.get(kind, "unknown"))


# --- Refusals ---


def _refusals(kind: str, statement: Node, found: Mapping[str, list[Node]], sql: str, *, asynchronous: bool) -> Iterator[Refused]:
    """All that is wrong with a statement, the first of which is answered."""
    yield from _index(sql) if kind == "IndexStmt" else ()
    yield from (_refusal(rule, node) for rule, node in _matches(kind, found) if "lookup" not in rule)
    if kind == "IndexStmt" and not asynchronous:
        yield Refused("0A000", _INDEX["mode"])
    if kind == "AlterTableStmt":
        yield from _alter_table(found, asynchronous=asynchronous)
    if kind not in _ACCEPTED:
        yield answer("unsupported", kind.removesuffix("Stmt"))
    if kind == "TransactionStmt":
        yield from _transaction(statement)
    yield from _parameters(found)
    yield from _columns(kind, found)
    yield from _sequences(kind, statement)
    yield from _functions(found)


def _matches(kind: str, found: Mapping[str, list[Node]]) -> Iterator[tuple[Mapping[str, Any], Node]]:
    """The rules that fit, with their nodes, in the order of the file."""
    candidates = sorted((candidate for name in found for candidate in _BY_NODE.get(name, ())), key=lambda each: each[0])
    for _, rule in candidates:
        if rule.get("in", kind) == kind:
            yield from ((rule, node) for node in found[rule["node"]] if fits(node, rule.get("where", {})))


def _refusal(rule: Mapping[str, Any], node: Node, **more: str) -> Refused:
    message = re.sub(r"\{([\w.]+)\}", lambda name: more.get(name[1]) or str(at(node, name[1])), rule["message"])
    return Refused(rule.get("sqlstate", "0A000"), message)


def _index(sql: str) -> Iterator[Refused]:
    """An access method is refused before anything else; the parser does not say whether one was named."""
    method = re.search(r"\bUSING\s+(\w+)\s*\(", sql, re.IGNORECASE)
    if method is not None and method[1].lower() != _INDEX["method"]:
        yield Refused("0A000", _INDEX["using"])


def _alter_table(found: Mapping[str, list[Node]], *, asynchronous: bool) -> Iterator[Refused]:
    for action in found["AlterTableCmd"]:
        name = action["subtype"]
        if name == "AT_AddColumn" and (at(action, "def.ColumnDef.constraints") or at(action, "def.ColumnDef.identity")):
            yield Refused("0A000", _ALTER["added_column"])
        if name == "AT_AddIdentity" and not _cached(at(action, "def.Constraint.options")):
            yield answer("cache", "identity column")
        if name not in _ALTER["accepted"] and not (asynchronous and name in _ALTER["only_async"]):
            spelt = _ALTER["names"].get(name) or re.sub(r"(?<!^)(?=[A-Z])", " ", name.removeprefix("AT_")).upper()
            yield Refused("0A000", _ALTER["message"].format(spelt))


def _transaction(statement: Node) -> Iterator[Refused]:
    if statement["kind"] in ("TRANS_STMT_PREPARE", "TRANS_STMT_COMMIT_PREPARED", "TRANS_STMT_ROLLBACK_PREPARED"):
        words = statement["kind"].removeprefix("TRANS_STMT_").replace("_", " ")
        yield answer("transaction", "PREPARE TRANSACTION" if words == "PREPARE" else words)
    yield from _isolation(statement.get("options"))


def _isolation(options: Any) -> Iterator[Refused]:
    for option in options or ():
        level = at(option, "DefElem.arg.A_Const.sval.sval")
        if at(option, "DefElem.defname") == "transaction_isolation" and level != "repeatable read":
            yield answer("isolation", str(level).upper())


def _parameters(found: Mapping[str, list[Node]]) -> Iterator[Refused]:
    for setting in found.get("VariableSetStmt", ()):
        name = setting.get("name")
        if name == "SESSION CHARACTERISTICS":
            yield from _isolation(setting.get("args"))
        elif name is not None:
            refused = _refused_parameter(name, local=bool(setting.get("is_local")) or setting["kind"] == "VAR_RESET")
            yield from () if refused is None else (refused,)


def _columns(kind: str, found: Mapping[str, list[Node]]) -> Iterator[Refused]:
    for column in found.get("ColumnDef", ()):
        type_name = column.get("typeName", {})
        refused = _TYPES.refused_as_column(type_name)
        if refused is not None:
            yield answer(refused[0], refused[1])
        for constraint in column.get("constraints", ()):
            identity = constraint.get("Constraint", {})
            if identity.get("contype") == "CONSTR_IDENTITY":
                if not _cached(identity.get("options")):
                    yield answer("cache", "identity column")
                if _TYPES.display(type_name) != "bigint":
                    yield answer("identity_type", _TYPES.display(type_name))
    if kind == "CreateDomainStmt":
        refused = _TYPES.refused_as_column(found["TypeName"][0])
        if refused is not None:
            yield answer(refused[0], refused[1])


def _sequences(kind: str, statement: Node) -> Iterator[Refused]:
    if kind not in ("CreateSeqStmt", "AlterSeqStmt"):
        return
    options = statement.get("options")
    named = any(at(option, "DefElem.defname") == "cache" for option in options or ())
    if (named or kind == "CreateSeqStmt") and not _cached(options):
        yield answer("cache", "CREATE SEQUENCE" if kind == "CreateSeqStmt" else "ALTER SEQUENCE")
    for option in options or ():
        if at(option, "DefElem.defname") == "as":
            name = _TYPES.display(at(option, "DefElem.arg.TypeName"))
            yield from () if name == "bigint" else (answer("sequence_type", name),)


def _cached(options: Any) -> bool:
    """Whether the options of a sequence give it a cache that DSQL takes."""
    sizes = [at(option, "DefElem.arg.Integer.ival") for option in options or () if at(option, "DefElem.defname") == "cache"]
    sizes = [size if size is not None else at(options[0], "DefElem.arg.Float.fval") for size in sizes]
    return bool(sizes) and all(size is not None and (int(size) == 1 or int(size) > _LARGEST_REFUSED_CACHE) for size in sizes)


def _functions(found: Mapping[str, list[Node]]) -> Iterator[Refused]:
    for call in found.get("FuncCall", ()):
        name = strings(call.get("funcname"))[-1]
        if _TYPES.never(name):
            yield answer("datatype", name)
        if _REFUSED_FUNCTION.fullmatch(name):
            yield answer("function", name)
        setting = at(next(iter(call.get("args") or ()), None), "A_Const.sval.sval") if name == "set_config" else None
        refused = _refused_parameter(setting, local=True) if setting is not None else None
        yield from () if refused is None else (refused,)
    for cast in found.get("TypeName", ()):
        if _TYPES.refused_anywhere(cast):
            yield answer("datatype", _TYPES.display(cast))


# --- What the text alone does not say ---


def _lookups(kind: str, statement: Node, found: Mapping[str, list[Node]]) -> Iterator[Lookup]:
    for rule, node in _matches(kind, found):
        if "lookup" not in rule:
            continue
        for role in [at(role, "RoleSpec.rolename") or "" for role in node.get("roles", ())] or [""]:
            values = {"table": _table(statement), "name": str(node.get("name") or ""), "role": role}
            sql = rule["lookup"].format(**{name: literal(value) for name, value in values.items()})
            yield Lookup(sql, _refusal(rule, node, role=role))


def _table(statement: Node) -> str:
    """A statement's relation, as `to_regclass` reads it."""
    relation = statement.get("relation") or {}
    parts = (relation.get("schemaname"), relation.get("relname"))
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts if part)


def _rows(kind: str, statement: Node, found: Mapping[str, list[Node]]) -> int | None:
    """How many rows it modifies at most, if its text says so: an INSERT of VALUES does."""
    alone = len(found["InsertStmt"]) == 1 and len(found.get("SelectStmt", ())) <= 1 and "withClause" not in statement
    if kind == "InsertStmt" and alone:
        values = at(statement, "selectStmt.SelectStmt.valuesLists")
        return len(values) if values else (1 if not statement.get("selectStmt") else None)
    return None


def _grows(found: Mapping[str, list[Node]]) -> bool:
    """Whether it may write more bytes than its text and parameters have."""
    calls = {strings(call.get("funcname"))[-1] for call in found.get("FuncCall", ())}
    concatenates = any(strings(expression.get("name")) == ["||"] for expression in found.get("A_Expr", ()))
    selects = any(not select.get("valuesLists") for select in found.get("SelectStmt", ()))
    return bool(calls & _GROWING) or concatenates or selects
