"""The token: it equals botocore's byte for byte, is made without botocore, and is never shown."""

import datetime
import hmac
import os
import subprocess
import sys
import time
import unittest.mock

import boto3
import botocore.credentials
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsql_lambda import ConnectOptions, Token, TokenError
from dsql_lambda.credentials import Credentials
from dsql_lambda.iam_token import hmac_sha256, presign
from dsql_lambda.options import signer_for
from dsql_lambda.token import main

HOST = "a1b2c3d4e5f6g7h8i9j0k1l2m3.dsql.us-east-1.on.aws"
SECRET = "a/secret+with/every+kind/of+character/09"
SESSION_TOKEN = "a/session+token=="
REGIONS = ["us-east-1", "us-west-2", "eu-central-1", "ap-northeast-3", "us-gov-west-1"]


@pytest.fixture(scope="module")
def peer():
    """A function that makes boto3's token for a given time, by setting the clock that botocore reads."""
    session = boto3.Session(region_name="us-east-1")
    clients = {}

    def token(host, region, action, credentials, duration_secs, at):
        if region not in clients:
            clients[region] = session.client(
                "dsql", region_name=region, aws_access_key_id="replaced", aws_secret_access_key="replaced"
            )
        client = clients[region]
        client._request_signer._credentials = botocore.credentials.Credentials(
            credentials.access_key, credentials.secret_key, credentials.session_token or None
        )
        make = (
            client.generate_db_connect_admin_auth_token if action == "DbConnectAdmin" else client.generate_db_connect_auth_token
        )
        moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
        with unittest.mock.patch("botocore.auth.get_current_datetime", return_value=moment):
            return make(host, region, duration_secs)

    return token


@settings(max_examples=1000, deadline=None)
@given(
    cluster=st.from_regex(r"[a-z0-9]{26}", fullmatch=True),
    region=st.sampled_from(REGIONS),
    user=st.sampled_from(["admin", "app", "Ünïcode user"]),
    access_key=st.from_regex(r"A[SK]IA[A-Z0-9]{16}", fullmatch=True),
    secret_key=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40),
    session_token=st.one_of(st.just(""), st.text("abcXYZ019/+=-_.~ %&", min_size=1, max_size=400)),
    duration_secs=st.integers(1, 604_800),
    at=st.integers(0, 4_102_444_800),
)
def test_a_token_is_botocores_byte_for_byte(
    peer, cluster, region, user, access_key, secret_key, session_token, duration_secs, at
):
    """For 1,000 random hosts, regions, users, keys, session tokens, durations and times both tokens are equal."""
    host = f"{cluster}.dsql.{region}.on.aws"
    credentials = Credentials(access_key=access_key, secret_key=secret_key, session_token=session_token)
    action = "DbConnectAdmin" if user == "admin" else "DbConnect"
    ours = presign(host, region, action, credentials, duration_secs, float(at))
    assert ours == peer(host, region, action, credentials, duration_secs, at)
    options = ConnectOptions(host=host, user=user, credentials=credentials, token_duration_secs=duration_secs)
    assert options.token(at=float(at)).value == ours


@pytest.mark.parametrize("key_bytes", [0, 1, 32, 63, 64, 65, 200])
def test_the_hmac_is_the_standard_librarys(key_bytes):
    """Of keys shorter and longer than a block."""
    key, message = bytes(range(key_bytes)), b"what is signed"
    assert hmac_sha256(key, message) == hmac.digest(key, message, "sha256")


def test_the_environments_credentials_are_signed_with_no_import_of_boto3():
    """A fresh process signs a token and has neither boto3 nor botocore in its modules."""
    script = "import sys, dsql_lambda; print(dsql_lambda.ConnectOptions.from_env().token().value); print(*sys.modules)"
    environment = {
        "DSQL_HOST": HOST,
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": SESSION_TOKEN,
    }
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    token, modules = done.stdout.splitlines()
    assert token.startswith(f"{HOST}/?Action=DbConnectAdmin&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAEXAMPLE")
    assert "X-Amz-Security-Token=a%2Fsession%2Btoken%3D%3D" in token
    assert not {name.partition(".")[0] for name in modules.split()} & {"boto3", "botocore"}


def test_an_explicit_profile_beats_the_environments_credentials(tmp_path, monkeypatch):
    """A profile that is given as an option is used, as in AWS's tools, also where the environment has credentials."""
    (tmp_path / "credentials").write_text("[dev]\naws_access_key_id = AKIADEV\naws_secret_access_key = devsecret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert signer_for(ConnectOptions(host=HOST, profile="dev")).credentials().access_key == "AKIADEV"
    assert signer_for(ConnectOptions(host=HOST)).credentials().access_key == "AKIAENVIRONMENT"


def test_an_unknown_profile_is_a_token_error(tmp_path, monkeypatch):
    """The error names the profile."""
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(TokenError, match="nobody"):
        ConnectOptions(host=HOST, profile="nobody").token()


def test_no_credentials_anywhere_is_a_token_error(tmp_path, monkeypatch):
    """The error says what was looked for and what to set."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(TokenError, match=r"AWS_ACCESS_KEY_ID .* not set.* execution role"):
        ConnectOptions(host=HOST).token()


class Provider:
    """A botocore-like provider."""

    def load(self):
        return botocore.credentials.Credentials("AKIAPROVIDER", SECRET, SESSION_TOKEN)


@pytest.mark.parametrize(
    ("source", "access_key"),
    [
        (boto3.Session(aws_access_key_id="AKIASESSION", aws_secret_access_key=SECRET), "AKIASESSION"),
        (botocore.credentials.Credentials("AKIACREDENTIALS", SECRET), "AKIACREDENTIALS"),
        (Provider(), "AKIAPROVIDER"),
        (lambda: botocore.credentials.Credentials("AKIACALLABLE", SECRET), "AKIACALLABLE"),
        (Credentials(access_key="AKIAOURS", secret_key=SECRET), "AKIAOURS"),
    ],
)
def test_given_credentials_of_every_kind_are_read(source, access_key):
    """boto3's session, botocore's credentials and providers, a callable, and `Credentials` are all accepted."""
    assert signer_for(ConnectOptions(host=HOST, credentials=source)).credentials().access_key == access_key


@pytest.mark.parametrize("source", ["AKIA:secret", 7, lambda: None, botocore.credentials.Credentials("", "")])
def test_what_is_no_credentials_is_a_token_error(source):
    """Anything else is refused with an error that says what can be given."""
    with pytest.raises(TokenError, match="given credentials"):
        ConnectOptions(host=HOST, credentials=source).token()


def test_a_token_dies_with_the_credentials_that_signed_it():
    """`expires_at` is the end of the duration or of the credentials, whichever comes first."""
    later = time.time() + 60
    credentials = Credentials(access_key="A", secret_key="s", expires_at=later)
    token = ConnectOptions(host=HOST, credentials=credentials).token()
    assert token.expires_at == later
    unlimited = ConnectOptions(host=HOST, credentials=Credentials(access_key="A", secret_key="s")).token(at=1000.0)
    assert (unlimited.signed_at, unlimited.expires_at) == (1000.0, 1900.0)


def test_a_token_is_kept_until_a_fifth_of_its_life_is_left_or_the_credentials_changed():
    """A signer signs anew after 80 % of the duration, with new credentials, and after `forget`."""
    now = [1000.0]
    environment = {"AWS_ACCESS_KEY_ID": "AKIA1", "AWS_SECRET_ACCESS_KEY": SECRET}
    signer = signer_for(ConnectOptions(host=HOST), clock=lambda: now[0], environ=environment)
    first = signer.token()
    now[0] += 719
    assert signer.token() is first
    now[0] += 1
    second = signer.token()
    assert second is not first
    environment["AWS_ACCESS_KEY_ID"] = "AKIA2"
    third = signer.token()
    assert "AKIA2" in third.value
    signer.forget()
    assert signer.token() is not third


def test_no_repr_shows_a_secret():
    """Neither token, credentials, options nor signer show the secret key, the session token or the signature."""
    credentials = Credentials(access_key="AKIA", secret_key=SECRET, session_token=SESSION_TOKEN)
    options = ConnectOptions(host=HOST, credentials=credentials)
    shown = f"{credentials!r} {options!r} {options.token()!r} {signer_for(options)!r}"
    assert SECRET not in shown
    assert SESSION_TOKEN not in shown
    assert "Signature" not in shown
    assert isinstance(options.token(), Token)


def test_the_module_prints_a_token_for_psql(capsys, monkeypatch):
    """`python -m dsql_lambda.token <url>` prints a token for the URL's user."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert main([f"postgres://app@{HOST}/postgres"]) == 0
    assert capsys.readouterr().out.startswith(f"{HOST}/?Action=DbConnect&")


def test_the_module_says_what_is_missing_in_one_line(capsys, monkeypatch):
    """A missing host is one line on standard error and exit code 1, without a traceback."""
    monkeypatch.setattr(os, "environ", {})
    assert main([]) == 1
    assert capsys.readouterr().err.startswith("dsql_lambda.token: no host: set DSQL_HOST")
