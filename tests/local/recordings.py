"""Where the answers are that others recorded on a cluster. They are no part of this project, and may be missing."""

import json
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[3] / "shared" / "golden" / "dsql_golden.json"


def recordings() -> dict[str, Any]:
    """The recordings; without them the module that asks is skipped."""
    if not FILE.exists():
        pytest.skip(f"the recordings are not here ({FILE})", allow_module_level=True)
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found
