"""The tree holds what this project wrote: no copied code, tests, recordings or samples, and no licence but its own."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IGNORED = [".git", *(line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines())]

# Each is written so that it does not match itself.
FOREIGN = {
    "a copyright line": r"copyright\s+(?:\(c\)|©|[12]\d{3})|©\s*[12]\d{3}",
    "a licence header": r"SPDX-License[-]Identifier|licensed\s+under\s+the\b|all\s+rights\s+reserved\b",
    "the text of a licence": r"permission\s+is\s+hereby\s+granted|redistribution\s+and\s+use\s+in\s+source"
    r"|(?:mozilla|gnu|lesser)\s+(?:general\s+)?public\s+licen[cs]e|\bMIT\s+licen[cs]e",
    "data of AWS's samples": r"john[ ]doe|any[t]own|foo0bar[1]|hello,?\s+dsql|AKIAIOSFODNN[7]|wJalrXUtn[F]",
}
FOLDERS = r"vendor(?:ed)?|third[-_]?party|node_modules|golden|site-packages|.+\.dist-info"
LICENCE = [ROOT / "LICENSE", ROOT / "layer" / "LICENSE"]  # the second is a copy, for SAM builds the layer from its folder alone
LICENCES = r"(?:licen[cs]e|copying|notice|authors)\b.*"


def files():
    """Every file that git does not ignore."""
    for folder, folders, names in ROOT.walk():
        folders[:] = [name for name in folders if not any(fnmatch(name, pattern) for pattern in IGNORED)]
        kept = (folder / name for name in names if not any(fnmatch(name, pattern) for pattern in IGNORED))
        yield from (each for each in kept if each.is_file())  # a link to a folder is among the names


@pytest.mark.parametrize(("what", "pattern"), FOREIGN.items(), ids=FOREIGN)
def test_no_file_holds_foreign_text(what, pattern):
    """No file but the project's LICENSE has a copyright line, a licence's words, or the data of a public sample."""
    expression = re.compile(pattern, re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in files()
        if path not in LICENCE
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if expression.search(line)
    ]
    assert found == [], what


def test_no_folder_is_for_foreign_files():
    """No folder has a name that is usual for copies of other people's files."""
    parts = {part for path in files() for part in path.relative_to(ROOT).parts[:-1]}
    assert [part for part in parts if re.fullmatch(FOLDERS, part, re.IGNORECASE)] == []


def test_the_only_licence_is_the_projects():
    """One LICENSE, Apache's second, which both distributions name."""
    assert sorted(path for path in files() if re.fullmatch(LICENCES, path.name, re.IGNORECASE)) == LICENCE
    assert len({path.read_text() for path in LICENCE}) == 1
    assert re.search(r"Apache License\s+Version 2\.0", LICENCE[0].read_text())
    for name in ("pyproject.toml", "local/pyproject.toml"):
        assert 'license = "Apache-2.0"' in (ROOT / name).read_text()


def test_the_certificates_name_their_source():
    """Amazon's root certificates are the one thing in the tree that somebody else made: the file says whose they are."""
    begin = re.compile(r"^-----BEGIN CERTIFICATE", re.MULTILINE)
    found = {path: begin.split(text, maxsplit=1)[0] for path in files() if begin.search(text := path.read_text(errors="replace"))}
    assert list(found) == [ROOT / "layer" / "dsql_lambda" / "roots.pem"]
    assert all("https://www.amazontrust.com/repository/" in header for header in found.values())
