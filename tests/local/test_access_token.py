"""An access token, verified."""

import os
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_local.frontend import access_token
from dsql_local.frontend.iam import ClusterIdentity

NOW = 1_800_000_000.0
CLUSTER = "a" * 26


@pytest.fixture
def identity():
    return ClusterIdentity(CLUSTER, "us-east-1", {"AKIA": "hush"}, lambda: NOW)


@pytest.fixture
def token(identity, sign):
    def token(action="DbConnectAdmin", host=identity.endpoint, **wrong):
        return sign(host, action, **({"key": "AKIA", "secret": "hush", "at": NOW} | wrong))

    return token


def test_a_good_token_opens_the_connection(identity, token):
    """Admin comes in with DbConnectAdmin, everybody else with DbConnect; a session token is part of the signature."""
    identity.check(token(), "admin")
    identity.check(token("DbConnect"), "app")
    identity.check(token(session_token="a/b+c=="), "admin")


@pytest.mark.parametrize(
    ("wrong", "user", "reason"),
    [
        ({"action": "DbConnect"}, "admin", "Wrong user to action mapping. user: admin, action: DbConnect"),
        ({}, "app", "Wrong user to action mapping. user: app, action: DbConnectAdmin"),
        ({"host": "b" * 26 + ".dsql.us-east-1.on.aws"}, "admin", "Host mismatch"),
        ({"region": "eu-central-1"}, "admin", "Credential should be scoped to a valid region: us-east-1, not eu-central-1"),
        ({"service": "rds"}, "admin", "Credential should be scoped to correct service: dsql, not rds"),
        ({"ending": "aws3_request"}, "admin", "must have the day of X-Amz-Date and end in aws4_request"),
        ({"algorithm": "AWS4-HMAC-MD5"}, "admin", "AWS4-HMAC-SHA256"),
        ({"secret": "wrong"}, "admin", "The request signature we calculated does not match"),
        ({"key": "AKIB"}, "admin", "invalid: no credentials with the access key 'AKIB'. The local DSQL accepts AKIA"),
        ({"at": NOW - 901}, "admin", "Signature expired: 20270115T074459Z is now earlier than 20270115T074500Z"),
        ({"at": NOW + 301}, "admin", "Signature not yet current"),
        ({"expires": "604801"}, "admin", "X-Amz-Expires must be less than a week (in seconds)"),
        ({"expires": "soon"}, "admin", "X-Amz-Expires must be"),
    ],
)
def test_a_wrong_token_is_refused_for_its_reason(identity, token, wrong, user, reason):
    """Each thing that can be wrong is named, and no secret or signature is."""
    text = token(**wrong)
    with pytest.raises(access_token.InvalidToken) as refused:
        identity.check(text, user)
    assert reason in str(refused.value)
    assert "hush" not in str(refused.value)
    assert parse_qs(text)["X-Amz-Signature"][0] not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", "secret", "postgres://x", "host/?", "host/?Action=DbConnectAdmin", "host/?Action=a&Action=b"]
)
def test_what_is_no_token_is_refused(identity, text):
    """A password, or a token with a part missing or twice, is refused with what to do."""
    with pytest.raises(access_token.InvalidToken):
        identity.check(text, "admin")


def test_a_token_is_good_until_its_last_second(identity, token):
    """Exactly at its end, and a clock five minutes ahead, still come in."""
    identity.check(token(at=NOW - 900), "admin")
    identity.check(token(at=NOW + 300), "admin")


def test_the_key_to_use_is_named(token):
    """Whoever comes with unknown credentials reads which variables to set."""
    identity = ClusterIdentity(CLUSTER, "us-east-1", {"defaultkey": "defaultsecret"}, lambda: NOW)
    with pytest.raises(access_token.InvalidToken, match="AWS_ACCESS_KEY_ID=defaultkey and AWS_SECRET_ACCESS_KEY=defaultsecret"):
        identity.check(token(), "admin")


def test_a_token_declared_expired_is_refused(identity, token):
    """A token of an earlier second stays out; one of a later second comes in."""
    identity.expire()
    for _ in range(2):
        with pytest.raises(access_token.InvalidToken, match="Signature expired"):
            identity.check(token(at=NOW - 1), "admin")
    identity.check(token(at=NOW + 1), "admin")


@pytest.mark.parametrize("before", [0, 1], ids=["the same second", "the second before"])
def test_whoever_signs_again_at_once_comes_in(identity, token, before):
    """A token of the very second cannot be told from a fresh one: one refusal is all, for each caller and role."""
    identity.expire()
    for user, action in (("admin", "DbConnectAdmin"), ("app", "DbConnect")):
        with pytest.raises(access_token.InvalidToken, match="Signature expired"):
            identity.check(token(action, at=NOW - before), user)
        identity.check(token(action), user)
    identity.expire()
    with pytest.raises(access_token.InvalidToken, match="Signature expired"):
        identity.check(token(), "admin")


@given(st.text(max_size=60))
def test_no_text_is_more_than_refused(text):
    """Whatever is sent as the password, the answer is a refusal."""
    identity = ClusterIdentity(CLUSTER, "us-east-1", {"AKIA": "hush"}, lambda: NOW)
    with pytest.raises(access_token.InvalidToken):
        identity.check(text, "admin")


def test_botos_tokens_are_good():
    """What boto3 signs opens the connection, as admin and as another role, with a session token too."""
    os.environ.setdefault("BOTO_DISABLE_CRT", "true")
    boto3 = pytest.importorskip("boto3")
    session = boto3.Session(aws_access_key_id="AKIA", aws_secret_access_key="hush", aws_session_token="t/+=")
    client = session.client("dsql", region_name="eu-west-1")
    identity = ClusterIdentity(CLUSTER, "eu-west-1", {"AKIA": "hush"}, __import__("time").time)
    identity.check(client.generate_db_connect_admin_auth_token(identity.endpoint), "admin")
    identity.check(client.generate_db_connect_auth_token(identity.endpoint, ExpiresIn=604800), "app")
