"""Hook of the site (mkdocs.yml): gives a place to what stands outside docs/, so that links lead somewhere, offline too.

The README is the first page. Each file of the project that a page links to becomes a page with its text; Markdown stays Markdown.
Knows links and files; knows nothing of what the pages say.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(\]\(|^\[[^\]\n]+\]: )(?![a-z]+:|#)([^)#\s]+)", re.MULTILINE)
_NAMED = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
_LANGUAGES = {".py": "python", ".sql": "sql", ".yaml": "yaml", ".toml": "toml", ".json": "json"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file that is linked to, and for those that these link to in turn."""
    pages = {file.src_uri: file.content_string for file in files.documentation_pages()}
    waiting = [_text(name) for name in _NAMED] + [(f"docs/{uri}", text) for uri, text in pages.items()]
    added = set()
    for name in _NAMED:
        files.append(_page(name, config))
        added.add(name)
    while waiting:
        source, text = waiting.pop()
        for match in _LINK.finditer(text):
            target = _resolved(source, match[2])
            if target.startswith("docs/") or target in added or not (ROOT / target).is_file():
                continue  # a link that leads nowhere is left as it is, and mkdocs warns of it
            files.append(_page(target, config))
            added.add(target)
            if target.endswith(".md"):
                waiting.append(_text(target))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn each relative link into one between pages of the site."""
    source = page.meta.pop("source", f"docs/{page.file.src_uri}")

    def turned(match: re.Match[str]) -> str:
        uri = _uri(_resolved(source, match[2]))
        known = files.get_file_from_path(uri) is not None
        return match[1] + (posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".") if known else match[2])

    return _LINK.sub(turned, markdown)


def _resolved(source: str, target: str) -> str:
    """The path in the project of what a page at `source` links to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def _uri(path: str) -> str:
    """Where the site has what the project has at `path`."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return _NAMED.get(path) or "source/" + (path if path.endswith(".md") else f"{path}.md")


def _text(path: str) -> tuple[str, str]:
    return path, (ROOT / path).read_text(encoding="utf-8") if path.endswith(".md") else ""


def _page(path: str, config: MkDocsConfig) -> File:
    text = (ROOT / path).read_text(encoding="utf-8")
    if not path.endswith(".md"):
        text = f"# {path}\n\n~~~~{_LANGUAGES.get(posixpath.splitext(path)[1], 'text')}\n{text}~~~~\n"
    file = File.generated(config, _uri(path), content=f"---\nsource: {path}\n---\n{text}")
    file.inclusion = InclusionLevel.INCLUDED if path in _NAMED else InclusionLevel.NOT_IN_NAV
    return file
