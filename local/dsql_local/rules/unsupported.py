"""What DSQL refuses in a statement, by its parse tree alone, in the order in which a cluster checks.

Pure: `rules.toml` has the messages.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import pgparse  # type: ignore[import-not-found]

from .datatypes import DataTypes
from .parse_tree import Node, at, fits, nodes, strings
from .rulebook import RULES, StatementError, answer

__all__ = ["WITH_COLUMNS", "Found", "check_parameter", "find_unsupported", "matches", "rule_error"]

Found = Mapping[str, list[Node]]  # the nodes of a statement by their kinds
WITH_COLUMNS = ("CreateStmt", "AlterTableStmt", "CreateSchemaStmt")

_TYPES = DataTypes(RULES["types"])
_ACCEPTED = frozenset(node for names in RULES["accepted"].values() for node in names)
_SETTABLE = frozenset(RULES["parameters"]["settable"])
_SETTABLE_LOCALLY = frozenset(RULES["parameters"]["settable_locally"])
_RESETTABLE = frozenset(RULES["parameters"]["resettable"])
_REFUSED_FUNCTION = re.compile(RULES["functions"]["refused"])
_ALTER: Mapping[str, Any] = RULES["alter_table"]
_SIZES: Mapping[str, Any] = RULES["sizes"]
_BY_NODE: dict[str, list[tuple[int, Mapping[str, Any]]]] = defaultdict(list)
for _place, _rule in enumerate(RULES["refuse"]):
    _BY_NODE[_rule["node"]].append((_place, _rule))


def find_unsupported(kind: str, statement: Node, found: Found) -> Iterator[StatementError]:
    """All errors of a statement; the first one is the answer."""
    explained = next(iter(statement.get("query", ()))) if kind == "ExplainStmt" else kind
    rules = [(rule, node) for rule, node in matches(kind, found) if "lookup" not in rule]
    if explained not in _ACCEPTED:
        yield from (rule_error(rule, node) for rule, node in rules if rule["node"] == explained)
        yield answer("unsupported", explained.removesuffix("Stmt"))
    yield from (rule_error(rule, node) for rule, node in rules)
    if kind == "AlterTableStmt":
        yield from _alter_table(found.get("AlterTableCmd", []))
    if kind == "TransactionStmt":
        yield from _transaction(statement)
    yield from _parameters(kind, found)
    yield from _columns(kind, found)
    yield from _keys(kind, found)
    yield from _sequences(kind, statement)
    yield from _functions(found)
    if kind == "CreateFunctionStmt":
        yield from _function(statement, found)


def matches(kind: str, found: Found) -> Iterator[tuple[Mapping[str, Any], Node]]:
    """The matching rules with their nodes, in the order of the file."""
    candidates = sorted((candidate for name in found for candidate in _BY_NODE.get(name, ())), key=lambda each: each[0])
    for _, rule in candidates:
        if rule.get("in", kind) == kind:
            yield from ((rule, node) for node in found[rule["node"]] if fits(node, rule.get("where", {})))


def rule_error(rule: Mapping[str, Any], node: Node, **more: str) -> StatementError:
    """The error of a rule, with values of the node in its message."""
    message = re.sub(r"\{([\w.]+)\}", lambda name: more.get(name[1]) or str(at(node, name[1])), rule["message"])
    return StatementError(rule.get("sqlstate", "0A000"), message)


def check_parameter(name: str, *, local: bool = False) -> StatementError | None:
    """The error of a configuration parameter that cannot be set, if it cannot."""
    folded = name.lower()
    return None if folded in _SETTABLE or (local and folded in _SETTABLE_LOCALLY) else answer("parameter", name)


# --- Statements ---


def _alter_table(actions: list[Node]) -> Iterator[StatementError]:
    for action in actions:
        name = action["subtype"]
        if name == "AT_AddColumn" and (at(action, "def.ColumnDef.constraints") or at(action, "def.ColumnDef.identity")):
            yield StatementError("0A000", _ALTER["added_column"])
        if name == "AT_AddIdentity":
            yield from _cache(at(action, "def.Constraint.options"), "identity column")
        if name == "AT_SetIdentity":
            yield from _cache(at(action, "def.List.items"))
        if name not in _ALTER["accepted"]:
            yield StatementError("0A000", _ALTER["message"].format(_ALTER["names"].get(name, name)))


def _transaction(statement: Node) -> Iterator[StatementError]:
    if statement["kind"] in ("TRANS_STMT_PREPARE", "TRANS_STMT_COMMIT_PREPARED", "TRANS_STMT_ROLLBACK_PREPARED"):
        words = statement["kind"].removeprefix("TRANS_STMT_").replace("_", " ")
        yield answer("transaction", "PREPARE TRANSACTION" if words == "PREPARE" else words)
    yield from _isolation(statement.get("options"))


def _isolation(options: Any) -> Iterator[StatementError]:
    for option in options or ():
        level = at(option, "DefElem.arg.A_Const.sval.sval")
        if at(option, "DefElem.defname") == "transaction_isolation" and level != "repeatable read":
            yield answer("isolation", str(level).upper())


def _parameters(kind: str, found: Found) -> Iterator[StatementError]:
    for setting in found.get("VariableSetStmt", ()):
        name, how = setting.get("name"), setting["kind"]
        if name == "SESSION CHARACTERISTICS":
            yield from _isolation(setting.get("args"))
        elif name is None or (how in ("VAR_RESET", "VAR_SET_DEFAULT") and (kind == "AlterRoleSetStmt" or name in _RESETTABLE)):
            continue
        elif (refused := check_parameter(name, local=bool(setting.get("is_local")))) is not None:
            yield refused


def _sequences(kind: str, statement: Node) -> Iterator[StatementError]:
    if kind == "CreateSeqStmt":
        yield from _cache(statement.get("options"), "CREATE SEQUENCE")
    elif kind == "AlterSeqStmt":
        yield from _cache(statement.get("options"))
    else:
        return
    for option in statement.get("options", ()):
        if at(option, "DefElem.defname") == "as":
            name = _TYPES.display(at(option, "DefElem.arg.TypeName"))
            yield from () if name == "bigint" else (answer("sequence_type"),)


def _cache(options: Any, needed_by: str | None = None) -> Iterator[StatementError]:
    """Check the CACHE option of a sequence: its size, and that there is one if `needed_by` needs it."""
    named = [option for option in options or () if at(option, "DefElem.defname") == "cache"]
    if not named and needed_by is not None:
        yield answer("cache", needed_by)
    for option in named:
        size = at(option, "DefElem.arg.Integer.ival") or at(option, "DefElem.arg.Float.fval") or 0
        if int(size) != 1 and int(size) < _SIZES["smallest_cache"]:
            yield answer("cache_size", size)


def _functions(found: Found) -> Iterator[StatementError]:
    for call in found.get("FuncCall", ()):
        *schema, name = strings(call.get("funcname"))
        if schema not in ([], ["pg_catalog"]):
            continue
        if _TYPES.never(name):
            yield answer("datatype", name)
        if _REFUSED_FUNCTION.fullmatch(name):
            yield answer("function", name)
        setting = at(next(iter(call.get("args") or ()), None), "A_Const.sval.sval") if name == "set_config" else None
        refused = check_parameter(setting, local=True) if setting is not None else None
        yield from () if refused is None else (refused,)
    for cast in found.get("TypeName", ()):
        if _TYPES.refused_anywhere(cast):
            yield answer("datatype", _TYPES.display(cast))


def _function(statement: Node, found: Found) -> Iterator[StatementError]:
    """The types that a function gives back, and the statements of its body."""
    columns = [each for each in found.get("FunctionParameter", ()) if each.get("mode") in ("FUNC_PARAM_OUT", "FUNC_PARAM_TABLE")]
    for type_name in [statement.get("returnType") or {}, *(at(column, "argType") or {} for column in columns)]:
        if _TYPES.refused_as_result(type_name):
            yield answer("datatype", _TYPES.display(type_name))
    for option in found.get("DefElem", ()):
        if option.get("defname") == "as":
            yield from _body(next(iter(strings(at(option, "arg.List.items"))), ""))


def _body(text: str) -> Iterator[StatementError]:
    try:
        parsed = [tree["stmt"] for tree in pgparse.parse(text)]
    except pgparse.PGQueryError:  # PostgreSQL reports the same error
        return
    for tree in parsed:
        ((kind, statement),) = tree.items()
        inside: dict[str, list[Node]] = defaultdict(list)
        for name, node in nodes(tree):
            if name != "FuncCall":  # a cluster checks the calls in a function only when it is called
                inside[name].append(node)
        yield from find_unsupported(kind, statement, inside)


# --- Columns and keys ---


def _columns(kind: str, found: Found) -> Iterator[StatementError]:
    columns = (
        found.get("ColumnDef", ()) if kind in WITH_COLUMNS else ()
    )  # the ColumnDefs of a function's result are not columns of a table
    for column in columns:
        type_name = column.get("typeName", {})
        yield from _column_type(type_name)
        for constraint in column.get("constraints", ()):
            identity = constraint.get("Constraint", {})
            if identity.get("contype") == "CONSTR_IDENTITY":
                yield from _cache(identity.get("options"), "identity column")
                if _TYPES.display(type_name) != "bigint":
                    yield answer("identity_type", _TYPES.display(type_name))
    if kind == "CreateDomainStmt":
        yield from _column_type(found["TypeName"][0])
    if len(columns) > _SIZES["columns"]:
        keyed = any(constraint["contype"] == "CONSTR_PRIMARY" for constraint in found.get("Constraint", ()))
        yield answer("columns_in_key" if keyed else "columns")


def _column_type(type_name: Node) -> Iterator[StatementError]:
    refused, too_long = _TYPES.refused_as_column(type_name), _TYPES.too_long(type_name)
    if refused is not None:
        yield answer(*refused)
    if too_long is not None:
        yield answer("length", *too_long)


def _keys(kind: str, found: Found) -> Iterator[StatementError]:
    """The errors of keys of a new table or index. `catalog_checks` finds the column types of an index."""
    types = {str(column.get("colname")): column.get("typeName", {}) for column in found.get("ColumnDef", ())}
    keys = [[str(column.get("colname"))] for column in found.get("ColumnDef", ()) if _is_key(column)]
    keys += [strings(constraint.get("keys")) for constraint in found.get("Constraint", ()) if constraint.get("keys")]
    for key in keys:
        parts = [types[name] for name in key if name in types]
        yield from (answer("key_type", _TYPES.display(part)) for part in parts if _TYPES.refused_in_key(part))
        if sum(_TYPES.length(part) or 0 for part in parts) > _SIZES["key"]:
            yield answer("key_size")
    widths = [len(key) for key in keys] + ([len(found.get("IndexElem", ()))] if kind == "IndexStmt" else [])
    if any(width > _SIZES["key_columns"] for width in widths):
        yield answer("key_columns")


def _is_key(column: Node) -> bool:
    contypes = {at(constraint, "Constraint.contype") for constraint in column.get("constraints", ())}
    return not contypes.isdisjoint({"CONSTR_PRIMARY", "CONSTR_UNIQUE"})
