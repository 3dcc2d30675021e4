"""How the local DSQL hangs together: which package may import which, and that no two modules import each other."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import dsql_local

PACKAGE = Path(dsql_local.__file__).parent

# From the top to the bottom. A package or module imports only from itself and from what stands below it.
LAYERS = [
    "__main__",
    "__init__",
    "plugin",
    "cli",
    "api",
    "frontend",
    "engine",
    "faults",
    "postgres",
    "rules",
    "protocol",
    "sam",
    "supervisor",
    "events",
    "lambda_context",
]


def modules() -> dict[str, Path]:
    """Every module's path by its dotted name inside the package."""
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(module: str, path: Path) -> Iterator[str]:
    """The modules of the package that a module imports, wherever in it the import stands."""
    known = modules()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            source = [*module.split(".")[: -node.level], *([node.module] if node.module else [])]
            for alias in node.names:
                candidates = (".".join([*source, alias.name]), ".".join(source), ".".join([*source, "__init__"]))
                yield next(each for each in candidates if each in known)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not any(name.partition(".")[0] == "dsql_local" for name in names), f"{module}: imports here are relative"


GRAPH = {module: set(imports_of(module, path)) for module, path in modules().items()}


def test_every_package_has_its_place():
    """The list is the package: nothing is missing from it, and nothing is on it that is not there."""
    assert sorted(LAYERS) == sorted({module.partition(".")[0] for module in GRAPH})


@pytest.mark.parametrize("module", GRAPH)
def test_imports_point_down(module):
    """A module imports only from its own package and from those below it, also inside functions and for type checkers."""
    own = module.partition(".")[0]
    below = LAYERS[LAYERS.index(own) :]
    assert {each for each in GRAPH[module] if each.partition(".")[0] not in below} == set()


def test_no_two_modules_import_each_other():
    """Neither directly nor through others."""
    TopologicalSorter(GRAPH).prepare()  # raises CycleError, which names the modules


def test_every_module_says_what_it_knows():
    """A header that is a contract."""
    for module, path in modules().items():
        assert ast.get_docstring(ast.parse(path.read_text())), module
