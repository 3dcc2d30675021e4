"""The roots that are trusted where none are given."""

import runpy
from pathlib import Path
from typing import Any

import certifi
import pytest
import trustme

import dsql_lambda
from dsql_lambda.dial import tls_context

ROOTS = Path(dsql_lambda.__file__).with_name("roots.pem")


def test_the_file_holds_the_certificates_with_amazons_fingerprints():
    """The file is what `layer/roots.py` writes, whatever bundle it reads: certifi's here."""
    script = runpy.run_path(str(ROOTS.parents[1] / "roots.py"))
    assert ROOTS.read_text() == script["extract"](Path(certifi.where()).read_text())
    assert sorted(script["certificates"](ROOTS.read_text())) == sorted(script["FINGERPRINTS"].values())


def test_a_bundle_without_a_root_is_refused():
    """A certificate with another fingerprint is not taken for Amazon's."""
    extract = runpy.run_path(str(ROOTS.parents[1] / "roots.py"))["extract"]
    with pytest.raises(ValueError, match="the bundle does not contain Amazon Root CA 1, Amazon Root CA 2"):
        extract(trustme.CA().cert_pem.bytes().decode())


def test_by_default_amazons_roots_are_trusted_and_no_others():
    """DSQL's certificates lead to Amazon Root CA 1; the others are those that Amazon names beside it."""
    roots: list[Any] = tls_context("").get_ca_certs()
    found = [dict(pair for each in root["subject"] for pair in each)["commonName"] for root in roots]
    assert sorted(found) == [
        "Amazon Root CA 1",
        "Amazon Root CA 2",
        "Amazon Root CA 3",
        "Amazon Root CA 4",
        "Starfield Services Root Certificate Authority - G2",
    ]


def test_the_systems_roots_are_there_on_request():
    """`sslrootcert=system`, for a proxy with a certificate of its own."""
    assert tls_context("system") is not tls_context("")
    assert tls_context("system").verify_mode == tls_context("").verify_mode
