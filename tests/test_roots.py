"""The roots that are trusted where none are given."""

import runpy
from pathlib import Path
from typing import Any

import certifi

import dsql_lambda
from dsql_lambda.link import tls_context

ROOTS = Path(dsql_lambda.__file__).with_name("roots.pem")


def test_the_file_is_what_certifi_holds():
    """Where it is not: `python layer/roots.py` writes it anew."""
    extract = runpy.run_path(str(ROOTS.parents[1] / "roots.py"))["extract"]
    assert ROOTS.read_text() == extract(Path(certifi.where()).read_text())


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
