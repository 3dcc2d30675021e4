"""What a cluster thinks of a statement before it executes it: accepted, and as what, or refused, and in which words.

`judge` is a pure function of the text. What is refused, `refusals` finds, what only the catalog knows, `lookups`, and the rules
themselves are data, in `rules.toml`. Nothing here executes anything.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

import pgparse  # type: ignore[import-not-found]

from .bulk_insert import condensed
from .catalog_checks import CatalogCheck, lookups, qualified
from .datatypes import DataTypes
from .dialect import Translated, first_word, index_method, translate
from .memoize import memoize_by_text
from .objects import ObjectName, named_objects
from .parse_tree import Node, at, nodes, strings
from .quoting import quote_literal
from .rulebook import RULES, StatementError, answer
from .statements import Kind, identifiers, kind_of
from .unsupported import WITH_COLUMNS, Found, parameter, refusals

__all__ = ["Class", "Verdict", "judge", "refused_at_startup"]

LONGEST_PARSED = 1 << 18  # characters of SQL; what is longer is data to insert, and is taken for what its first word says
LONGEST_WHOLE = 1 << 12  # of an INSERT that is read as it is
LONGEST_BEGINNING = 1 << 10  # of such a one, in which the objects that it names stand
_DATA = ("INSERT", "UPDATE", "DELETE", "WITH", "SELECT", "VALUES")
_CLASSES: Mapping[str, str] = {node: kind for kind, names in RULES["accepted"].items() for node in names}
_TYPES = DataTypes(RULES["types"])
_AT_STARTUP = frozenset(RULES["parameters"]["startup"])
_GROWING = frozenset(RULES["functions"]["growing"])


class Class(Enum):
    """What an accepted statement is to a transaction."""

    READ = "read"
    DML = "dml"
    DDL = "ddl"
    SESSION = "session"
    CONTROL = "control"
    UNKNOWN = "unknown"  # PostgreSQL will find its syntax wrong


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a statement is. `execution` and `tag` are what PostgreSQL is told instead, and what its command tag becomes."""

    kind: Class
    refused: StatementError | None = None
    execution: str | None = None
    tag: str | None = None
    lookups: tuple[CatalogCheck, ...] = ()
    rows: int | None = None  # it modifies no more rows than this; None: its text does not say
    grows: bool = False  # it may write more bytes than it brings
    waits: bool = False  # for a job
    objects: frozenset[ObjectName] = frozenset()  # that it names
    renamed: frozenset[ObjectName] = frozenset()  # those that have another name afterwards, or may have


@memoize_by_text
def judge(sql: str) -> Verdict:
    """The verdict on one statement."""
    if len(sql) <= LONGEST_WHOLE or first_word(sql) != "INSERT":
        return _judge(sql)
    short, left_out = condensed(sql)
    verdict = _judge(short)
    return verdict if verdict.rows is None else replace(verdict, rows=verdict.rows + left_out)


@memoize_by_text
def _judge(sql: str) -> Verdict:
    word = first_word(sql)
    if len(sql) > LONGEST_PARSED and word in _DATA:
        names = frozenset(ObjectName(name) for name in identifiers(sql[:LONGEST_BEGINNING]))
        return Verdict(Class.DML if word in ("INSERT", "UPDATE", "DELETE", "WITH") else Class.READ, objects=names)
    if kind_of(sql) is Kind.SAVEPOINT:
        return Verdict(Class.CONTROL, answer("transaction", word))
    own = translate(sql) if word in ("CREATE", "ALTER", "AWS") else None
    if own is not None and own.plain is None:
        return _mapping(own)
    try:
        tree = pgparse.parse(sql if own is None or own.plain is None else own.plain)
    except pgparse.PGQueryError as error:
        # PostgreSQL finds the same in its own words; only what is called by a function of ours would hide it.
        return Verdict(Class.UNKNOWN, None if own is None else StatementError("42601", error.args[0]))
    if len(tree) != 1:
        return Verdict(Class.READ, rows=0)
    ((kind, statement),) = tree[0]["stmt"].items()
    return _accepted(kind, statement, sql, own)


def refused_at_startup(name: str) -> StatementError | None:
    """The same for one that stands in the startup packet."""
    return None if name in _AT_STARTUP or name.startswith("_pq_.") else parameter(name)


def _mapping(own: Translated) -> Verdict:
    if own.execution is None:
        return Verdict(Class.UNKNOWN, StatementError("42601", 'syntax error at or near "AWS"'))
    return Verdict(Class.DDL, execution=own.execution, tag=own.tag)


def _accepted(kind: str, statement: Node, sql: str, own: Translated | None) -> Verdict:
    """The verdict on a statement that the parser took."""
    found = _found(kind, statement, sql, own)
    what = _class_of(kind, statement, found)
    refused = next(refusals(kind, statement, found), None)
    if refused is not None:
        return Verdict(what, refused)
    objects = named_objects(kind, statement, found)
    verdict = Verdict(what, lookups=tuple(lookups(kind, statement, found)), rows=0, objects=objects)
    if kind in ("RenameStmt", "AlterObjectSchemaStmt"):
        return replace(verdict, renamed=objects)
    if what is Class.DML:
        verdict = replace(verdict, rows=_rows(kind, statement, found), grows=_grows(found))
    if kind == "VariableShowStmt" and statement["name"] in ("server_version", "server_version_num"):  # not PostgreSQL's own
        return replace(verdict, execution="SELECT current_setting('{name}') AS {name}".format(**statement), tag="SHOW")
    if kind == "VacuumStmt":
        return replace(verdict, execution=_analyze(statement, sql), tag="ANALYZE")
    if kind == "CallStmt":
        return replace(verdict, waits=strings(at(statement, "funccall.funcname"))[-1] == "wait_for_job")
    if own is not None:
        return replace(verdict, execution=own.execution, tag=own.tag)
    return replace(verdict, execution=_TYPES.with_modifiers(sql, found["ColumnDef"]) if kind in WITH_COLUMNS else None)


def _analyze(statement: Node, sql: str) -> str:
    """ANALYZE as a procedure does it, which lists a job for each table."""
    relations = (at(named, "VacuumRelation.relation") or {} for named in statement.get("rels", ()))
    names = ", ".join(quote_literal(qualified(relation)) for relation in relations)
    return f"CALL sys._analyze({quote_literal(sql)}, ARRAY[{names}])"


def _found(kind: str, statement: Node, sql: str, own: Translated | None) -> dict[str, list[Node]]:
    """The nodes of a statement by their kinds, and with them what the parser does not tell."""
    found: dict[str, list[Node]] = defaultdict(list)
    for name, node in nodes({kind: statement}):
        found[name].append(node)
    for name in ("IndexStmt", "AlterTableCmd"):
        if name in found:
            found[name] = [{**node, "asynchronous": own is not None} for node in found[name]]
    method = index_method(sql if own is None else own.plain or "")[0] if kind == "IndexStmt" else None
    if method is not None:
        found["AccessMethod"] = [{"name": method}]
    return found


def _class_of(kind: str, statement: Node, found: Found) -> Class:
    if kind == "ExplainStmt" and not any(at(option, "defname") == "analyze" for option in found.get("DefElem", ())):
        return Class.READ
    if any(name in found for name in RULES["accepted"]["dml"]) or (kind == "CopyStmt" and statement.get("is_from")):
        return Class.DML if kind != "CreateFunctionStmt" else Class.DDL
    return Class(_CLASSES.get(kind, "unknown"))


# --- How much it modifies ---


def _rows(kind: str, statement: Node, found: Found) -> int | None:
    """How many rows it modifies at most, if its text says so: an INSERT of VALUES does."""
    alone = len(found["InsertStmt"]) == 1 and len(found.get("SelectStmt", ())) <= 1 and "withClause" not in statement
    if kind == "InsertStmt" and alone:
        values = at(statement, "selectStmt.SelectStmt.valuesLists")
        return len(values) if values else (1 if not statement.get("selectStmt") else None)
    return None


def _grows(found: Found) -> bool:
    """Whether it may write more bytes than its text and parameters have."""
    calls = {strings(call.get("funcname"))[-1] for call in found.get("FuncCall", ())}
    concatenates = any(strings(expression.get("name")) == ["||"] for expression in found.get("A_Expr", ()))
    selects = any(not select.get("valuesLists") for select in found.get("SelectStmt", ()))
    return bool(calls & _GROWING) or concatenates or selects
