"""The version is the layer's, in layer/dsql_lambda/version.py: both distributions are released together.

A source distribution has no layer beside it, and has the version in its PKG-INFO.
"""

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
SAID_IN = {
    HERE.parent / "layer" / "dsql_lambda" / "version.py": r'__version__ = "(.+)"',
    HERE / "PKG-INFO": r"^Version: (.+)$",
}


def version() -> str:
    """Of the first file that is there."""
    for path, pattern in SAID_IN.items():
        if path.exists():
            found = re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
            if found is not None:
                return found[1]
    raise SystemExit(f"dsql-local: no version was found in {' or '.join(map(str, SAID_IN))}; build it in a clone of the project")


setup(version=version())
