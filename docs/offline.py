"""Hook of the site (mkdocs.yml): the build fails where a page would load something from another host.

So the site reads offline, and tells nobody who reads it. Links that a reader follows are not meant.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig

_LOADED = {
    ".html": re.compile(
        r"<(?:script|link|img|iframe|source|object|video|audio)\b[^>]*?\b(?:src|href|data)=[\"']?((?:https?:)?//[^\s\"'>]+)"
    ),
    ".css": re.compile(r"(?:@import\s*|url\()[\"']?((?:https?:)?//[^\s\"')]+)"),
}


def on_post_build(config: MkDocsConfig) -> None:
    """Look at every page and style sheet that was built."""
    from mkdocs.exceptions import PluginError  # noqa: PLC0415 - the tests have no MkDocs

    foreign = [
        f"{path.name} loads {address}"
        for path in Path(config.site_dir).rglob("*")
        if path.suffix in _LOADED
        for address in loaded_from_elsewhere(path.suffix, path.read_text(encoding="utf-8"))
    ]
    if foreign:
        raise PluginError(f"the site must load nothing from another host, but {'; '.join(foreign)}")


def loaded_from_elsewhere(suffix: str, text: str) -> list[str]:
    """The addresses of other hosts that a page (`.html`) or a style sheet (`.css`) makes a browser load."""
    return _LOADED[suffix].findall(text)
