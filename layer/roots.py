"""Writes `dsql_lambda/roots.pem`: the roots that Aurora DSQL's certificates lead to, out of the installed certifi.

    python layer/roots.py

Five certificates are read in a tenth of the time that all of them take, on the way to every cold start's first row. They are
those of Amazon Trust Services (https://www.amazontrust.com/repository/). A test sees that the file is what certifi holds.
"""

from pathlib import Path

ROOTS = Path(__file__).parent / "dsql_lambda" / "roots.pem"

NAMES = (
    "Amazon Root CA 1",
    "Amazon Root CA 2",
    "Amazon Root CA 3",
    "Amazon Root CA 4",
    "Starfield Services Root Certificate Authority - G2",
)


def extract(bundle: str) -> str:
    """The certificates of these names, each with its name above it. Raises ValueError if one is not there."""
    found = {}
    for entry in bundle.split("\n# Issuer:")[1:]:
        subject = next(line for line in entry.splitlines() if line.startswith("# Subject:"))
        name = subject.partition("CN=")[2].partition(" O=")[0]
        if name in NAMES:
            found[name] = entry[entry.index("-----BEGIN") :].strip()
    missing = [name for name in NAMES if name not in found]
    if missing:
        raise ValueError(f"this certifi holds no {', '.join(missing)}")
    return "".join(f"# {name}\n{found[name]}\n" for name in NAMES)


def main() -> None:
    """Write the file."""
    import certifi  # noqa: PLC0415 - the test hands over its own text

    ROOTS.write_text(extract(Path(certifi.where()).read_text()))


if __name__ == "__main__":
    main()
