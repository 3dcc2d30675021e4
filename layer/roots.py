"""Writes `dsql_lambda/roots.pem`: the root certificates that Aurora DSQL's certificates lead to.

    python layer/roots.py [BUNDLE]

Amazon Trust Services publishes the roots and their SHA-256 fingerprints at https://www.amazontrust.com/repository/. This script
takes the certificates with these fingerprints from a bundle of PEM certificates, certifi's unless another is named. Only Amazon's
own bytes have them, so it does not matter whose bundle it is.

The file is kept in the tree, so that `pip install` and `sam build` need no network for it. It is a file of its own because five
certificates load in a tenth of the time that a whole bundle takes, before each cold start's first row.
"""

import hashlib
import re
import ssl
import sys
from pathlib import Path

ROOTS = Path(__file__).parent / "dsql_lambda" / "roots.pem"

HEADER = """\
# The root certificates of Amazon Trust Services, as published at https://www.amazontrust.com/repository/, each with its SHA-256
# fingerprint. Written by layer/roots.py. They are Amazon's: the licence of this project does not apply to them.
"""

FINGERPRINTS = {
    "Amazon Root CA 1": "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e",
    "Amazon Root CA 2": "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4",
    "Amazon Root CA 3": "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4",
    "Amazon Root CA 4": "e35d28419ed02025cfa69038cd623962458da5c695fbdea3c22b0bfb25897092",
    "Starfield Services Root Certificate Authority - G2": "568d6905a2c88708a4b3025190edcfedb1974a606a13c6e5290fcb2ae63edab5",
}


def certificates(bundle: str) -> dict[str, str]:
    """The PEM form of every certificate of a bundle, by its SHA-256 fingerprint."""
    found = {}
    for pem in re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", bundle, re.DOTALL):
        der = ssl.PEM_cert_to_DER_cert(pem)
        found[hashlib.sha256(der).hexdigest()] = ssl.DER_cert_to_PEM_cert(der)
    return found


def extract(bundle: str) -> str:
    """The file's text. Raises ValueError if a root is not in the bundle."""
    found = certificates(bundle)
    missing = [name for name, fingerprint in FINGERPRINTS.items() if fingerprint not in found]
    if missing:
        raise ValueError(f"the bundle does not contain {', '.join(missing)}")
    return HEADER + "".join(f"\n# {name}\n# {fingerprint}\n{found[fingerprint]}" for name, fingerprint in FINGERPRINTS.items())


def main() -> None:
    """Write the file."""
    if sys.argv[1:]:
        bundle = Path(sys.argv[1])
    else:
        import certifi  # noqa: PLC0415 - only where no bundle is named

        bundle = Path(certifi.where())
    ROOTS.write_text(extract(bundle.read_text()))


if __name__ == "__main__":
    main()
