"""docs/comparison.md: every «yes» of ours leads to a test that is there, and every other word to its source."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "comparison.md").read_text()
TABLE, _, TESTS = PAGE.partition("\n## The tests behind it\n")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines() if line.startswith("| ")][2:]
OURS = {name: ours for name, ours, *_ in ROWS}
NAMED = dict(re.findall(r"^\| (.+) \| (test_\w+) \|$", TESTS, re.MULTILINE))
SOURCES = set(re.findall(r"^\[(\w)\]: ", PAGE, re.MULTILINE))


@pytest.mark.parametrize("feature", [name for name, ours in OURS.items() if ours != "no"])
def test_a_yes_of_ours_has_its_test(feature):
    """A function of the file that the «yes» leads to."""
    found = re.fullmatch(r"\[yes\]\(\.\./(tests/[\w/]+\.py)\)", OURS[feature])
    assert found, OURS[feature]
    functions = {each.name for each in ast.walk(ast.parse((ROOT / found[1]).read_text())) if isinstance(each, ast.FunctionDef)}
    assert NAMED[feature] in functions


def test_the_two_tables_have_the_same_features():
    """A test for each «yes», and none for a «no»."""
    assert list(NAMED) == [name for name, ours in OURS.items() if ours != "no"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_is_said_of_a_peer_has_a_source(row):
    """But `you`, which says that there is nothing, and an empty cell. Of boto3 and pg8000 nothing is said but what they lack."""
    for cell in row[2:6]:
        word, _, source = cell.partition(" [")
        assert not word or word == "you" or source.rstrip("]") in SOURCES, cell
    assert row[6].partition(" [")[0] in {"", "no", "you"}
