"""boto3's credential chain: with real files, and with local servers in place of the endpoints that hand out credentials."""

import datetime
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from moto.server import ThreadedMotoServer

from dsql_lambda import ConnectOptions, TokenError
from dsql_lambda.options import signer_for

HOST = "a1b2c3d4e5f6g7h8i9j0k1l2m3.dsql.us-east-1.on.aws"
SOON = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
CREDENTIALS = {"AccessKeyId": "ASIASERVED", "SecretAccessKey": "served", "Token": "session", "Expiration": SOON}
BASE = "[base]\naws_access_key_id = AKIABASE\naws_secret_access_key = base\n"


@pytest.fixture(autouse=True)
def aws(tmp_path, monkeypatch):
    """An empty AWS configuration, and a function that writes it."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))

    def write(credentials="", config=""):
        (tmp_path / "credentials").write_text(credentials)
        (tmp_path / "config").write_text(config)

    write()
    return write


@pytest.fixture
def endpoint():
    """A local server: its URL, the text that it answers for each path, and the requests that it got."""
    answers: dict[str, str] = {}
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers.get("Authorization")))
            body = answers.get(self.path.partition("?")[0], "")
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def do_PUT(self):
            self.do_GET()

        def log_message(self, *args):
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", answers, asked
    server.shutdown()
    thread.join()
    server.server_close()


def found(**more):
    return signer_for(ConnectOptions(host=HOST, **more)).credentials()


def test_the_shared_files_default_profile(aws):
    """The default profile of `~/.aws/credentials` is used where nothing else is given."""
    aws(credentials="[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = s\naws_session_token = t\n")
    credentials = found()
    assert (credentials.access_key, credentials.session_token) == ("AKIADEFAULT", "t")


def test_a_profile_by_option_and_by_aws_profile(aws, monkeypatch):
    """The option `profile` decides; without it AWS_PROFILE does."""
    aws(credentials=BASE + "[other]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_PROFILE", "other")
    assert found().access_key == "AKIAOTHER"
    assert found(profile="base").access_key == "AKIABASE"


def test_a_profile_of_the_config_file_that_runs_a_process(aws, tmp_path):
    """`credential_process` is run, and the token expires with the credentials that it returns."""
    answer = {"Version": 1, "AccessKeyId": "ASIAPROCESS", "SecretAccessKey": "s", "SessionToken": "t", "Expiration": SOON}
    script = tmp_path / "process.py"
    script.write_text(f"print('''{json.dumps(answer)}''')")
    aws(config=f"[profile run]\ncredential_process = {sys.executable} {script}\n")
    credentials = found(profile="run")
    assert credentials.access_key == "ASIAPROCESS"
    ends_at = datetime.datetime.fromisoformat(SOON).timestamp()
    assert credentials.expires_at == ends_at
    options = ConnectOptions(host=HOST, profile="run", token_duration_secs=86_400)
    assert options.token().expires_at == ends_at


def test_an_assumed_role(aws, monkeypatch):
    """The role is assumed once for a signer, however often it signs (moto stands in for STS)."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://{host}:{port}")
        aws(
            credentials=BASE,
            config="[profile assumed]\nregion = us-east-1\nsource_profile = base\n"
            "role_arn = arn:aws:iam::123456789012:role/app\n",
        )
        signer = signer_for(ConnectOptions(host=HOST, profile="assumed"))
        first, second = signer.credentials(), signer.credentials()
    finally:
        server.stop()
    assert first.access_key.startswith("ASIA")
    assert first.session_token
    assert first == second


def test_sso(aws, monkeypatch, tmp_path, endpoint):
    """The cached login of IAM Identity Center is exchanged for credentials."""
    url, answers, _ = endpoint
    monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", url)
    start_url = "https://portal.example.com/start"
    cache = tmp_path / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    name = hashlib.sha1(start_url.encode()).hexdigest()
    login = {"startUrl": start_url, "region": "us-east-1", "accessToken": "login", "expiresAt": SOON}
    (cache / f"{name}.json").write_text(json.dumps(login))
    role = {"accessKeyId": "ASIASSO", "secretAccessKey": "s", "sessionToken": "t", "expiration": 1_900_000_000_000}
    answers["/federation/credentials"] = json.dumps({"roleCredentials": role})
    aws(
        config=f"[profile sso]\nsso_start_url = {start_url}\nsso_region = us-east-1\n"
        "sso_account_id = 123456789012\nsso_role_name = app\nregion = us-east-1\n"
    )
    # In a process of its own: botocore reads the home directory when it is imported.
    script = f"from dsql_lambda import ConnectOptions; print(ConnectOptions(host={HOST!r}, profile='sso').token().value)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert "Credential=ASIASSO" in done.stdout


def test_a_containers_endpoint(aws, monkeypatch, endpoint):
    """The container endpoint, which SnapStart uses, is asked once for a signer; its authorization token is not shown."""
    url, answers, asked = endpoint
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "opensesame")
    answers["/credentials"] = json.dumps(CREDENTIALS)
    signer = signer_for(ConnectOptions(host=HOST))
    for _ in range(3):
        assert signer.credentials().access_key == "ASIASERVED"
    assert asked == [("/credentials", "opensesame")]
    assert "opensesame" not in repr(signer.token())


def test_an_instances_role(aws, monkeypatch, endpoint):
    """The instance metadata service, version 2, is asked where nothing else has credentials."""
    url, answers, _ = endpoint
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
    answers["/latest/api/token"] = "session"
    answers["/latest/meta-data/iam/security-credentials/"] = "app"
    answers["/latest/meta-data/iam/security-credentials/app"] = json.dumps({**CREDENTIALS, "Code": "Success"})
    assert found().access_key == "ASIASERVED"


def test_an_endpoint_that_does_not_answer_is_a_token_error(aws, monkeypatch, endpoint):
    """A failing endpoint is a `TokenError` with botocore's message."""
    url, _, _ = endpoint
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/nothing")
    monkeypatch.setenv("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "1")
    with pytest.raises(TokenError, match="404|no AWS credentials|can't be read"):
        found()


def test_an_incomplete_profile_is_a_token_error(aws):
    """The error names the profile that is missing."""
    aws(config="[profile half]\nrole_arn = arn:aws:iam::123456789012:role/app\nsource_profile = nobody\n")
    with pytest.raises(TokenError, match="nobody"):
        found(profile="half")
