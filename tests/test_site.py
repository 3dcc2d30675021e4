"""The site of the documentation: every page has its place, every public name its entry, and nothing is loaded from elsewhere."""

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dsql_lambda
import dsql_local

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MADE = {"index.md", "changelog.md"}  # of the README and the CHANGELOG, by docs/outside_pages.py
NAV = re.findall(r"^ +- (?:[^:\n]+: )?([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)


def test_every_page_is_in_the_nav():
    """Once; and the nav has no page that there is not."""
    assert sorted(NAV) == sorted({page.name for page in DOCS.rglob("*.md")} | MADE)


def test_every_public_name_is_in_the_reference():
    """And no other: what is not in `__all__` may change at any time."""
    names = [f"dsql_lambda.{name}" for name in dsql_lambda.__all__ if name != "__version__"]
    names += ["dsql_lambda.dbapi.connect", *(f"dsql_local.{name}" for name in dsql_local.__all__)]
    assert sorted(re.findall(r"^::: (\S+)$", (DOCS / "reference.md").read_text(), re.MULTILINE)) == sorted(names)


def test_the_pictures_are_what_their_script_draws(tmp_path):
    """Nobody edits one by hand."""
    shutil.copy(DOCS / "pictures.py", tmp_path)
    subprocess.run([sys.executable, str(tmp_path / "pictures.py")], check=True)
    drawn = {path.name: path.read_text() for path in tmp_path.glob("*.svg")}
    assert drawn
    assert drawn == {name: (DOCS / name).read_text() for name in drawn}


@pytest.mark.parametrize(
    ("suffix", "text", "found"),
    [
        (".html", '<script src="https://unpkg.com/mermaid/mermaid.js"></script>', ["https://unpkg.com/mermaid/mermaid.js"]),
        (".html", '<link rel="stylesheet" href="//fonts.example/css?family=Roboto">', ["//fonts.example/css?family=Roboto"]),
        (".html", '<img alt="x" src="assets/x.svg"><a href="https://example.com">a link</a>', []),
        (".css", '@import "https://example.com/x.css"; a { background: url(//example.com/y.png) }', 2),
        (".css", "a { background: url(data:image/svg+xml;charset=utf-8,<svg/>) }", []),
    ],
)
def test_what_a_page_would_load_from_another_host_is_found(suffix, text, found):
    """`make docs` fails then; a link that a reader follows is no load."""
    loaded = runpy.run_path(str(DOCS / "offline.py"))["loaded_from_elsewhere"](suffix, text)
    assert (loaded if isinstance(found, list) else len(loaded)) == found
