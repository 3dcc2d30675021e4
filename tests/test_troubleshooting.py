"""docs/troubleshooting.md has an entry for each message that a user can meet, by what the source itself says.

The messages are read out of the source: the first argument of each error that is made, with `…` for what is put in. A heading
of the page is the beginning of one or more of them.
"""

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import dsql_lambda

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
PACKAGE = ROOT / "layer" / "dsql_lambda"
SOURCES = [
    *sorted(PACKAGE.rglob("*.py")),
    *(ROOT / "layer" / name for name in ("build.py", "lean.py")),
    *sorted((ROOT / "deploy").glob("*.py")),
    *(
        each
        for part in ("api", "cli", "faults", "postgres", "rules", "sam")
        for each in sorted((ROOT / "local/dsql_local" / part).glob("*.py"))
    ),
]
SAY = {"_fail", "fail", "error", "exit", "kind", "add_note", "warn"}  # calls besides errors whose first argument is a message
SHOWN_AS = {
    "_BadType": "TypeError",
    "_BadValue": "ValueError",
    "Unreachable": "ConnectError",
    "ConnectionLost": "InterfaceError",
    "DeadlineReached": "InterfaceError",
}
LEAST = 10  # characters of a heading that are not put in, so that none fits everything

# What no user meets: it is caught and said in other words, or is somebody else's sentence.
INNER = {
    "rows.py": ("a row",),  # a ProtocolError of session.py
    "values.py": ("not a range",),  # the same
    "dial.py": ("the server closed the connection",),  # a ConnectError of refusal.py
    "system.py": ("… has no address",),  # the same
    "json_text.py": ("… is not JSON serializable",),  # json.dumps' own, a ResponseError
    "table.py": ("it must be yes or no",),  # the reason in `… cannot be …`
    "backend.py": ("PostgreSQL closed the connection",),  # ends the client's connection
    "main.py": ("unrecognized arguments",),  # argparse's own
    "serve.py": ("# Stop it", "# The local DSQL serves"),  # no error
    "transaction.py": ("The statement: …",),  # a note that needs no explanation
}
NO_WORDS_OF_OURS = re.compile(r"module … has no attribute|dsql_local( [a-z-]+)?: …$")  # Python's own; and what only hands on
BEGUN = {"parameters.py": "parameter …: "}  # what every message of a module begins with when it is raised


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in SOURCES:
        yield path, ast.parse(path.read_text())


def errors() -> set[str]:
    """The names of all error classes: Python's, and those that the source defines."""
    known = {name for name, each in vars(builtins).items() if isinstance(each, type) and issubclass(each, BaseException)}
    defined = {
        each.name: {ast.unparse(base).rpartition(".")[2] for base in each.bases}
        for _, tree in trees()
        for each in ast.walk(tree)
        if isinstance(each, ast.ClassDef)
    }
    while more := {
        name for name, bases in defined.items() if name not in known and bases & {*known, "DatabaseError", "InterfaceError"}
    }:
        known |= more
    return known


ERRORS = errors()


def texts(node: ast.AST, tree: ast.Module, inside: ast.AST, seen: frozenset[str] = frozenset()) -> list[str]:
    """What a message can be: text as it is, `…` for a value; both branches of a choice; what a function of the module returns.

    `seen` are the names that were followed to come here.
    """
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            found = [""]
            for part in parts:
                value = part.value if isinstance(part, ast.FormattedValue) else part
                said = texts(value, tree, inside, seen) if isinstance(value, ast.Name | ast.Constant) else []
                found = [begun + more for begun in found for more in (said if len(said) == 1 else ["…"])]
            return [re.sub("…+", "…", each) for each in found]
        case ast.IfExp():
            return texts(node.body, tree, inside, seen) + texts(node.orelse, tree, inside, seen)
        case ast.Name(id=name) if name not in seen:
            values = [
                each.value
                for each in ast.walk(inside)
                if isinstance(each, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in each.targets)
            ]
            return texts(values[0], tree, inside, seen | {name}) if len(values) == 1 else []
        case ast.Call(func=ast.Name(id=name)) if name not in seen:
            functions = [each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == name]
            returned = [each.value for function in functions for each in ast.walk(function) if isinstance(each, ast.Return)]
            return [text for value in returned if value for text in texts(value, tree, functions[0], seen | {name})]
    return []


def made(path: Path, tree: ast.Module) -> Iterator[tuple[str, ast.Call, list[str]]]:
    """Each call in a module that makes an error or says a message: the class, the call, what it can say."""
    functions = [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)]
    for function in [tree, *functions]:
        for node in _own(function):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func).rpartition(".")[2]
                says = name in ERRORS or name in SAY
                if name == "print" and any(ast.unparse(each) == "file=sys.stderr" for each in node.keywords):
                    says = path.parent.name == "cli"
                if says and node.args:
                    yield name, node, texts(node.args[0], tree, function)


def _own(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function without those of the functions in it."""
    waiting = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef):
            waiting += ast.iter_child_nodes(node)


def messages() -> list[tuple[str, str, str]]:
    """Class, message and place of each, from the source, from the log records and from the Makefiles."""
    found = []
    for path, tree in trees():
        for name, node, said in made(path, tree):
            for text in said:
                begun, line = BEGUN.get(path.name, ""), text.partition("\n")[0]
                line = line if line.startswith(begun) else begun + line
                is_inner = line.startswith(INNER.get(path.name, ("\n",))) or NO_WORDS_OF_OURS.match(line)
                if re.search(r"[a-z]{2}", line) and not is_inner:
                    found.append((name, line, f"{path.relative_to(ROOT)}:{node.lineno}"))
    for path in (ROOT / "Makefile", ROOT / "layer" / "Makefile"):
        for text in re.findall(r'echo "(dsql-lambda: [^"]*)"|\|\| echo " *([^"]*)"', path.read_text()):
            found.append(("make", re.sub(r"\$\$\{[^}]*\}", "…", "".join(text)), path.name))
    return found


MESSAGES = messages()
LOGS = PAGE.partition("\n## What the logs say\n")[2].partition("\n## ")[0]
ENTRIES = dict(re.findall(r"^### `([^\n]+)`\n\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))


PATTERNS = {heading: re.compile(".*".join(map(re.escape, heading.split("…")))) for heading in ENTRIES}


def headings_of(message: str) -> list[str]:
    """Those that are its beginning, with anything for their `…`."""
    return [heading for heading, pattern in PATTERNS.items() if pattern.match(message)]


@pytest.mark.parametrize("place", sorted({place.partition(":")[0] for _, _, place in MESSAGES}))
def test_every_message_has_its_entry(place):
    """Write one under a heading that begins as the message does, and say what it means and what to do."""
    here = [(name, text, at) for name, text, at in MESSAGES if at.partition(":")[0] == place]
    assert [f"{at}: {text}" for _, text, at in here if not headings_of(text)] == []
    if place.startswith("layer/dsql_lambda/"):
        errors = [(SHOWN_AS.get(name, name), text) for name, text, _ in here if name in ERRORS]
        assert [(name, text) for name, text in errors if not any(name in ENTRIES[each] for each in headings_of(text))] == []


def test_every_log_record_has_its_entry():
    """A warning, an error, and what is retried."""
    telemetry = (PACKAGE / "telemetry.py").read_text()
    logged = set(re.findall(r'_log\("\w+", "([^"]+)"|message = "([^"]+)"', telemetry))
    logged = {one or other for one, other in logged}
    retried = set(re.findall(r'Ending\.\w+: "([a-zA-Z ]+)"', (PACKAGE / "failure.py").read_text()))
    assert (len(logged), len(retried)) >= (3, 3)
    assert logged | {f"{each}, retrying" for each in retried} == set(re.findall("^### `(.+)`$", LOGS, re.MULTILINE))


def test_every_entry_belongs_to_a_message():
    """To one that the source can say; and its heading says enough to be found, and is there once."""
    headings = re.findall("^### `(.+)`$", PAGE, re.MULTILINE)
    assert len(headings) == len(set(headings)) == len(ENTRIES)
    assert [each for each, body in ENTRIES.items() if not body.strip()] == []
    assert [each for each in headings if len(each.replace("…", "")) < LEAST and each.count("…") < 2] == []
    met = {heading for _, text, _ in MESSAGES for heading in headings_of(text)}
    assert set(headings) - met == set(re.findall("^### `(.+)`$", LOGS, re.MULTILINE))


def test_every_error_class_is_explained():
    """The public ones, and those of server_errors.py."""
    public = (getattr(dsql_lambda, name) for name in dsql_lambda.__all__)
    classes = {each.__name__ for each in public if isinstance(each, type) and issubclass(each, Exception)}
    classes |= {
        each.name for each in ast.parse((PACKAGE / "server_errors.py").read_text()).body if isinstance(each, ast.ClassDef)
    }
    assert len(classes) == 20
    assert {name for name in classes if f"`{name}`" not in PAGE} == set()


def test_every_error_that_is_raised_says_its_message():
    """In a form that this file can read; but for those that hand on somebody else's words."""
    handed_on = {
        "message",
        "self._explain(refused, query.text)",
        "'; '.join(wrong)",
        "form",
        "*context.error.args",
        "*flight.failure.args",
        "*_CLOSED",
        "answer['error']",
        "refused.message",
        "str(wrong)",
        "str(lost)",
        "str(invalid)",
    }
    unread = [
        f"{path.name}:{node.lineno}: {ast.unparse(node)}"
        for path, tree in trees()
        if PACKAGE in path.parents
        for name, node, said in made(path, tree)
        if name in ERRORS and not said and ast.unparse(node.args[0]) not in handed_on
    ]
    assert unread == []
