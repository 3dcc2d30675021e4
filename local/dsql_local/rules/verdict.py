"""The verdict on a statement before its execution: accepted, and as what, or refused, and with which error.

`judge` is a pure function of the text. `unsupported` finds what is refused, `catalog_checks` what only the catalog can decide.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

import pgparse  # type: ignore[import-not-found]

from .bulk_insert import condense
from .catalog_checks import CatalogCheck, catalog_checks, qualified
from .datatypes import DataTypes
from .dialect import Translation, first_word, index_method, translate
from .memoize import memoize_by_text
from .objects import ObjectName, named_objects
from .parse_tree import Node, at, nodes, strings
from .quoting import quote_literal
from .rulebook import RULES, StatementError, answer
from .statements import Kind, identifiers, kind_of
from .unsupported import WITH_COLUMNS, Found, check_parameter, find_unsupported

__all__ = ["Class", "Verdict", "judge", "refused_at_startup"]

MAX_PARSED = 1 << 18  # characters; a longer statement is mostly data, and is judged by its first word
MAX_UNCONDENSED = 1 << 12  # characters of an INSERT that is parsed as it is
NAMES_WITHIN = 1 << 10  # characters at the start of an unparsed statement that contain the names of its objects
_DATA = ("INSERT", "UPDATE", "DELETE", "WITH", "SELECT", "VALUES")
_CLASSES: Mapping[str, str] = {node: kind for kind, names in RULES["accepted"].items() for node in names}
_TYPES = DataTypes(RULES["types"])
_AT_STARTUP = frozenset(RULES["parameters"]["startup"])
_GROWING = frozenset(RULES["functions"]["growing"])


class Class(Enum):
    """What a statement is for a transaction."""

    READ = "read"
    DML = "dml"
    DDL = "ddl"
    SESSION = "session"
    CONTROL = "control"
    UNKNOWN = "unknown"  # PostgreSQL will report a syntax error


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict. `execution` is what PostgreSQL executes instead of the statement, `tag` the command tag for the client."""

    kind: Class
    refused: StatementError | None = None
    execution: str | None = None
    tag: str | None = None
    catalog_checks: tuple[CatalogCheck, ...] = ()
    rows: int | None = None  # the maximum of modified rows, None if unknown
    may_grow: bool = False  # it may write more bytes than the client sends
    waits_for_job: bool = False
    objects: frozenset[ObjectName] = frozenset()  # that it names
    renamed: frozenset[ObjectName] = frozenset()  # objects that it renames, or may rename


@memoize_by_text
def judge(sql: str) -> Verdict:
    """The verdict on one statement."""
    if len(sql) <= MAX_UNCONDENSED or first_word(sql) != "INSERT":
        return _judge(sql)
    short, removed = condense(sql)
    verdict = _judge(short)
    return verdict if verdict.rows is None else replace(verdict, rows=verdict.rows + removed)


@memoize_by_text
def _judge(sql: str) -> Verdict:
    word = first_word(sql)
    if len(sql) > MAX_PARSED and word in _DATA:
        names = frozenset(ObjectName(name) for name in identifiers(sql[:NAMES_WITHIN]))
        return Verdict(Class.DML if word in ("INSERT", "UPDATE", "DELETE", "WITH") else Class.READ, objects=names)
    if kind_of(sql) is Kind.SAVEPOINT:
        return Verdict(Class.CONTROL, answer("transaction", word))
    own = translate(sql) if word in ("CREATE", "ALTER", "AWS") else None
    if own is not None and own.plain is None:
        return _mapping(own)
    try:
        tree = pgparse.parse(sql if own is None or own.plain is None else own.plain)
    except pgparse.PGQueryError as error:
        # PostgreSQL reports the same error, unless the statement is executed by an internal function.
        return Verdict(Class.UNKNOWN, None if own is None else StatementError("42601", error.args[0]))
    if len(tree) != 1:
        return Verdict(Class.READ, rows=0)
    ((kind, statement),) = tree[0]["stmt"].items()
    return _accepted(kind, statement, sql, own)


def refused_at_startup(name: str) -> StatementError | None:
    """The error of a configuration parameter in the startup packet, if it is refused."""
    return None if name in _AT_STARTUP or name.startswith("_pq_.") else check_parameter(name)


def _mapping(own: Translation) -> Verdict:
    if own.execution is None:
        return Verdict(Class.UNKNOWN, StatementError("42601", 'syntax error at or near "AWS"'))
    return Verdict(Class.DDL, execution=own.execution, tag=own.tag)


def _accepted(kind: str, statement: Node, sql: str, own: Translation | None) -> Verdict:
    """The verdict on a parsed statement."""
    found = _found(kind, statement, sql, own)
    what = _class_of(kind, statement, found)
    refused = next(find_unsupported(kind, statement, found), None)
    if refused is not None:
        return Verdict(what, refused)
    objects = named_objects(kind, statement, found)
    verdict = Verdict(what, catalog_checks=tuple(catalog_checks(kind, statement, found)), rows=0, objects=objects)
    if kind in ("RenameStmt", "AlterObjectSchemaStmt"):
        return replace(verdict, renamed=objects)
    if what is Class.DML:
        verdict = replace(verdict, rows=_rows(kind, statement, found), may_grow=_may_grow(found))
    if kind == "VariableShowStmt" and statement["name"] in (
        "server_version",
        "server_version_num",
    ):  # DSQL's version, not PostgreSQL's
        return replace(verdict, execution="SELECT current_setting('{name}') AS {name}".format(**statement), tag="SHOW")
    if kind == "VacuumStmt":
        return replace(verdict, execution=_analyze(statement, sql), tag="ANALYZE")
    if kind == "CallStmt":
        return replace(verdict, waits_for_job=strings(at(statement, "funccall.funcname"))[-1] == "wait_for_job")
    if own is not None:
        return replace(verdict, execution=own.execution, tag=own.tag)
    return replace(verdict, execution=_TYPES.with_modifiers(sql, found["ColumnDef"]) if kind in WITH_COLUMNS else None)


def _analyze(statement: Node, sql: str) -> str:
    """ANALYZE by a procedure, which adds a job for each table."""
    relations = (at(named, "VacuumRelation.relation") or {} for named in statement.get("rels", ()))
    names = ", ".join(quote_literal(qualified(relation)) for relation in relations)
    return f"CALL sys._analyze({quote_literal(sql)}, ARRAY[{names}])"


def _found(kind: str, statement: Node, sql: str, own: Translation | None) -> dict[str, list[Node]]:
    """The nodes of a statement by kind, and what its parse tree does not contain: ASYNC and the access method."""
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


# --- How much a statement modifies ---


def _rows(kind: str, statement: Node, found: Found) -> int | None:
    """The maximum of modified rows; known for an INSERT of VALUES."""
    alone = len(found["InsertStmt"]) == 1 and len(found.get("SelectStmt", ())) <= 1 and "withClause" not in statement
    if kind == "InsertStmt" and alone:
        values = at(statement, "selectStmt.SelectStmt.valuesLists")
        return len(values) if values else (1 if not statement.get("selectStmt") else None)
    return None


def _may_grow(found: Found) -> bool:
    """Whether it may write more bytes than its text and parameters contain."""
    calls = {strings(call.get("funcname"))[-1] for call in found.get("FuncCall", ())}
    concatenates = any(strings(expression.get("name")) == ["||"] for expression in found.get("A_Expr", ()))
    selects = any(not select.get("valuesLists") for select in found.get("SelectStmt", ()))
    return bool(calls & _GROWING) or concatenates or selects
