"""`ConnectOptions`: what is accepted, where each value comes from, and how a bad value is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_lambda import ConfigError, ConnectOptions
from dsql_lambda.version import __version__

CLUSTER = "a1b2c3d4e5f6g7h8i9j0k1l2m3"
HOST = f"{CLUSTER}.dsql.us-east-1.on.aws"


@pytest.fixture(autouse=True)
def no_aws_environment(monkeypatch, tmp_path):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def test_a_full_endpoint_is_all_it_takes():
    """The region comes from the host; everything else has the default that AWS's connectors have."""
    options = ConnectOptions.from_url(f"postgres://{HOST}", environ={})
    assert options == ConnectOptions(host=HOST)
    assert (options.region, options.user, options.database, options.port) == ("us-east-1", "admin", "postgres", 5432)
    assert (options.token_duration_secs, options.action, options.dial_host) == (900, "DbConnectAdmin", HOST)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        # Every part, and every parameter that the connectors have too.
        (
            f"postgres://reporting@{HOST}:6543/ledger",
            {"host": HOST, "user": "reporting", "port": 6543, "database": "ledger", "region": "us-east-1"},
        ),
        (f"postgresql://reporting@{HOST}/ledger", {"host": HOST, "user": "reporting", "database": "ledger"}),
        (f"postgres://{CLUSTER}?region=eu-central-1", {"host": f"{CLUSTER}.dsql.eu-central-1.on.aws", "region": "eu-central-1"}),
        (f"postgres://{CLUSTER}.dsql.ap-northeast-3.on.aws", {"region": "ap-northeast-3"}),
        (f"postgres://{HOST}?profile=night%20shift&region=us-east-1", {"profile": "night shift", "region": "us-east-1"}),
        (
            f"postgres://{HOST}?ormPrefix=ledger-orm&tokenDurationSecs=77",
            {
                "token_duration_secs": 77,
                "orm_prefix": "ledger-orm",
                "resolved_application_name": f"ledger-orm:dsql-lambda/{__version__}",
            },
        ),
        # What may be left out.
        (f"postgres://{HOST}/", {"database": "postgres", "user": "admin"}),
        (f"postgres://{HOST}?", {"database": "postgres"}),
        (f"postgres://@{HOST}", {"user": "admin"}),
        (f"postgres://{HOST}?region=", {"region": "us-east-1"}),
        (f"postgres://{HOST}?&&profile=x&", {"profile": "x"}),
        # Case, encodings, other forms of a host.
        (f"postgres://{HOST.upper()}", {"host": HOST}),
        (f"postgres://App@{HOST}/Db", {"user": "App", "database": "Db"}),
        (f"postgres://%C3%BCser@{HOST}", {"user": "üser"}),
        (f"postgres://a%2Fb%3Ac%40d@{HOST}", {"user": "a/b:c@d"}),
        (f"postgres://{HOST}/a%2Fb", {"database": "a/b"}),
        (f"postgres://{HOST}?application_name=a+b%26c", {"application_name": "a+b&c"}),
        (f"postgres://{HOST}?%72egion=us-east-1", {"region": "us-east-1"}),
        ("postgres://127.0.0.1:5433?region=us-east-1", {"host": "127.0.0.1", "port": 5433}),
        ("postgres://[::1]:5433?region=us-east-1", {"host": "::1", "port": 5433}),
        ("postgres://localhost?region=us-east-1", {"host": "localhost"}),
        # As AWS's Python connector takes them: a bare endpoint, the user as a parameter, a prefix that is blank.
        (HOST, {"host": HOST, "region": "us-east-1", "user": "admin"}),
        (HOST.upper(), {"host": HOST}),
        (f"{CLUSTER}.dsql-fnh4.us-east-2.on.aws", {"region": "us-east-2"}),
        (f"postgres://{HOST}/postgres?user=app", {"user": "app", "database": "postgres"}),
        (f"postgres://app@{HOST}?user=", {"user": "app"}),
        (f"postgres://{HOST}?ormPrefix=%20%20", {"resolved_application_name": f"dsql-lambda/{__version__}"}),
        # The parameters that the connectors do not have.
        (f"postgres://{HOST}?hostaddr=10.0.0.7", {"dial_host": "10.0.0.7", "tls_name": HOST}),
        (f"postgres://{HOST}?serverName=other.example.com", {"tls_name": "other.example.com", "dial_host": HOST}),
        (f"postgres://{HOST}?clusterId={CLUSTER}", {"startup_params": {"options": f"-c amzn-cluster-id={CLUSTER}"}}),
        (f"postgres://{HOST}?connect_timeout=3", {"connect_timeout": 3.0}),
        (f"postgres://{HOST}?sslmode=verify-full", {"host": HOST}),
        (f"postgres://{HOST}?pipeline=off", {"pipeline": False}),
        (f"postgres://{HOST}?tokenDurationSecs=604800", {"token_duration_secs": 604_800}),
    ],
)
def test_a_connection_string_sets_the_options(url, expected):
    """Each part and parameter of a URL sets its option, and what is left out keeps its default."""
    options = ConnectOptions.from_url(url, environ={})
    assert {name: getattr(options, name) for name in expected} == expected


def test_every_part_of_a_connection_string_is_read():
    """User, port, database and every parameter are read, percent-encoded or not."""
    options = ConnectOptions.from_url(
        f"postgresql://my%40app@{HOST}:5433/po%73tgres?region=us-east-1&profile=de%20v&tokenDurationSecs=60&ormPrefix=orm"
        "&hostaddr=127.0.0.1&connect_timeout=2.5&sslmode=verify-full&sslrootcert=system&pipeline=off",
        environ={},
    )
    assert options == ConnectOptions(
        host=HOST,
        user="my@app",
        port=5433,
        profile="de v",
        token_duration_secs=60,
        orm_prefix="orm",
        hostaddr="127.0.0.1",
        connect_timeout=2.5,
        sslrootcert="system",
        pipeline=False,
    )
    assert (options.action, options.dial_host) == ("DbConnect", "127.0.0.1")


def test_a_cluster_id_becomes_the_endpoint_of_its_region():
    """A host of 26 characters of a-z and 0-9 is a cluster id; its endpoint is in the region that is given."""
    assert ConnectOptions(host=CLUSTER, region="eu-west-1").host == f"{CLUSTER}.dsql.eu-west-1.on.aws"
    for url in (f"postgres://{CLUSTER}?region=eu-west-1", CLUSTER, CLUSTER.upper()):
        options = ConnectOptions.from_url(url, environ={"DSQL_REGION": "eu-west-1"})
        assert options.host == f"{CLUSTER}.dsql.eu-west-1.on.aws"


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "::1", CLUSTER[:-1], f"{CLUSTER}x", "vpce-0a1b.dsql-fnh4.us-east-1.vpce.amazonaws.com"]
)
def test_no_other_name_is_taken_for_a_cluster_id(host):
    """Any other host is used as it is, and needs a region."""
    assert ConnectOptions(host=host, region="us-east-1").host == host
    with pytest.raises(ConfigError, match="no region is known"):
        ConnectOptions(host=host)


def test_the_region_comes_from_the_host_then_the_option_then_the_environment_then_the_configuration(monkeypatch, tmp_path):
    """The first of these sources that knows a region decides."""
    (tmp_path / "config").write_text("[default]\nregion = ap-south-1\n[profile dev]\nregion = ap-east-1\n")
    assert ConnectOptions(host=CLUSTER).region == "ap-south-1"
    assert ConnectOptions(host=CLUSTER, profile="dev").region == "ap-east-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    assert ConnectOptions(host=CLUSTER).region == "eu-west-2"
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert ConnectOptions(host=CLUSTER).region == "eu-west-1"
    assert ConnectOptions(host=CLUSTER, region="us-west-2").region == "us-west-2"
    assert ConnectOptions(host=HOST).region == "us-east-1"


def test_a_private_dns_name_of_a_cluster_tells_its_region():
    """A PrivateLink name, `<id>.dsql-<suffix>.<region>.on.aws`, gives its region."""
    assert ConnectOptions(host=f"{CLUSTER}.dsql-fnh4.us-east-2.on.aws").region == "us-east-2"


def test_argument_beats_url_beats_environment_beats_default():
    """Every value is looked up in the same order, and an empty variable counts as unset."""
    environ = {"DSQL_HOST": HOST, "DSQL_USER": "from_env", "DSQL_DATABASE": "from_env", "DSQL_PORT": "1", "DSQL_HOSTADDR": ""}
    options = ConnectOptions.from_url(f"postgres://from_url@{HOST}:2", environ=environ, port=3)
    assert (options.port, options.user, options.database, options.hostaddr) == (3, "from_url", "from_env", "")


def test_the_environment_alone_is_enough():
    """Each option has its variable, DSQL_URL sets several, and the variables of AWS's samples stand for two of them."""
    environ = {
        "CLUSTER_ENDPOINT": "ignored.example.com",
        "CLUSTER_USER": "ignored",
        "DSQL_HOST": HOST,
        "DSQL_HOSTADDR": "127.0.0.1",
        "DSQL_PORT": "5433",
        "DSQL_USER": "app",
        "DSQL_TOKEN_DURATION_SECS": "60",
        "DSQL_SSLROOTCERT": "-----BEGIN CERTIFICATE-----",
        "DSQL_CONNECT_TIMEOUT": "3",
        "DSQL_PIPELINE": "off",
        "DSQL_PROBE_AFTER_SECS": "0",
    }
    options = ConnectOptions.from_env(environ)
    assert (options.host, options.port, options.user, options.pipeline, options.probe_after_secs) == (HOST, 5433, "app", False, 0)
    samples = ConnectOptions.from_env({"CLUSTER_ENDPOINT": HOST, "CLUSTER_USER": "app", "DSQL_USER": ""})
    assert (samples.host, samples.user) == (HOST, "app")
    assert ConnectOptions.from_env({"DSQL_URL": HOST, "DSQL_USER": "app"}).user == "app"
    assert ConnectOptions.from_env({"DSQL_URL": f"postgres://app@{HOST}", "DSQL_USER": "other"}).user == "app"


def test_a_host_that_names_its_region_beats_a_region_said_below_it():
    """The host's region overrides the environment's; a URL whose host and `region` differ is refused."""
    environ = {"DSQL_REGION": "eu-west-1"}
    assert ConnectOptions.from_url(f"postgres://{HOST}", environ=environ).region == "us-east-1"
    with pytest.raises(ConfigError, match="'eu-west-1', but the host .* is in 'us-east-1'"):
        ConnectOptions.from_url(f"postgres://{HOST}?region=eu-west-1", environ={})


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("mysql://x", "scheme 'mysql' is not known.*postgres://"),
        ("", "no scheme: it starts with postgres:// or postgresql://, or is a cluster's endpoint or id alone"),
        ("localhost", "no scheme"),
        (f"u:hunter2@{HOST}", "no scheme"),
        (f"postgres://app@{HOST}?user=app", "says the user twice.*leave one"),
        ("postgres://", "no host: set DSQL_HOST"),
        (f"postgres://{HOST}:99999", "port is 1 to 65535"),
        (f"postgres://{HOST}:0", "port is 0: it must be at least 1"),
        (f"postgres://{HOST}:x", "port"),
        (f"postgres://u:hunter2@{HOST}", "has a password: leave it out"),
        (f"postgres://{HOST}?tokenDurationSec=60", "unknown parameter 'tokenDurationSec': did you mean 'tokenDurationSecs'"),
        (f"postgres://{HOST}?regoin=x", "did you mean 'region'"),
        (f"postgres://{HOST}?zzz=1", "unknown parameter 'zzz': known are region, profile"),
        (f"postgres://{HOST}?region=us-east-1&region=us-east-1", "twice"),
        (f"postgres://{HOST}?sslmode=require", "sslmode is 'require': only verify-full"),
        (f"postgres://{HOST}?sslmode=disable", "only verify-full"),
        (f"postgres://{HOST}?tokenDurationSecs=sixty", "tokenDurationSecs is 'sixty': it must be a whole number"),
        (f"postgres://{HOST}?tokenDurationSecs=0", "token_duration_secs is 0: it must be at least 1"),
        (f"postgres://{HOST}?tokenDurationSecs=604801", "at most 604800"),
        (f"postgres://{HOST}?connect_timeout=0", "connect_timeout is 0.0: it must be above 0"),
        (f"postgres://{HOST}?connect_timeout=-1", "number"),
        (f"postgres://{HOST}?pipeline=maybe", "on or off"),
        (f"postgres://%zz@{HOST}", "percent-encoded"),
        (f"postgres://%ff@{HOST}", "percent-encoded UTF-8"),
        (f"postgres://%00@{HOST}", "zero character"),
        (f"postgres://{HOST}/db#part", "'#'"),
        (f"postgres://a {HOST}", "white space"),
        (f"postgres://{HOST},other", "name or an address alone"),
        ("postgres://[::1", "malformed"),
        (f"postgres://{CLUSTER}", "no region is known for a cluster id: set DSQL_REGION"),
        (f"postgres://{CLUSTER}?region=Virginia", "region is 'Virginia'"),
        (f"postgres://{HOST}?ormPrefix={'x' * 60}", "orm_prefix makes the application name .* longer than 63 bytes"),
    ],
)
def test_a_bad_connection_string_is_one_sentence(url, sentence):
    """The error is one line that says what was wrong and what is accepted, and never has the password in it."""
    with pytest.raises(ConfigError, match=sentence) as caught:
        ConnectOptions.from_url(url, environ={})
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"host": ""}, "no host"),
        ({"host": "https://x.example"}, "name or an address alone"),
        ({"host": "a..b"}, "name or an address"),
        ({"host": 7}, "name or an address"),
        ({"port": "5432"}, "port is '5432': it must be a whole number"),
        ({"port": True}, "port is True"),
        ({"token_duration_secs": 1.5}, "whole number"),
        ({"connect_timeout": float("inf")}, "number"),
        ({"user": ""}, "user is empty"),
        ({"user": 7}, "user is 7"),
        ({"user": "\ud800"}, "lone surrogate"),
        ({"pipeline": "off"}, "True or False"),
        ({"application_name": "x" * 64}, "application_name"),
        ({"cluster_id": "short"}, "cluster_id is 'short': it must be 26 characters"),
        ({"server_name": "a b"}, "server_name is 'a b'"),
    ],
)
def test_a_bad_option_is_one_sentence(changes, sentence):
    """The error names the option and its value, and says what is accepted."""
    with pytest.raises(ConfigError, match=sentence):
        ConnectOptions(**{"host": HOST, **changes})


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({}, "no host: set DSQL_HOST"),
        ({"DSQL_HOST": HOST, "DSQL_PORT": "x"}, "DSQL_PORT is 'x': it must be a whole number"),
        ({"DSQL_HOST": HOST, "DSQL_PIPELINE": "x"}, "DSQL_PIPELINE is 'x': it must be on or off"),
        ({"DSQL_HOST": HOST, "DSQL_TOKEN_DURATION_SEC": "60"}, "did you mean DSQL_TOKEN_DURATION_SECS"),
        ({"DSQL_HOTS": HOST}, "unknown variable DSQL_HOTS: did you mean DSQL_HOST"),
        ({"DSQL_HOST": HOST, "DSQL_HOST_ADDR": "::1"}, "did you mean DSQL_HOSTADDR"),
        ({"DSQL_HOST": HOST, "DSQL_REGIOM": "x"}, "did you mean DSQL_REGION"),
        ({"DSQL_HOST": HOST, "DSQL_PIPELIN": "off"}, "did you mean DSQL_PIPELINE"),
        ({"DSQL_HOST": CLUSTER}, "no region is known for a cluster id: set DSQL_REGION"),
    ],
)
def test_a_bad_variable_is_named(environ, sentence):
    """The error names the environment variable, not the option."""
    with pytest.raises(ConfigError, match=sentence):
        ConnectOptions.from_env(environ)


@given(st.text(max_size=80), st.sampled_from(["", "postgres://", "postgresql://", f"postgres://{HOST}/", f"postgres://{HOST}?"]))
def test_no_text_makes_the_parser_raise_anything_else(text, start):
    """A random text is either read or refused with `ConfigError`."""
    try:
        ConnectOptions.from_url(start + text, environ={"AWS_REGION": "us-east-1"}, region="us-east-1")
    except ConfigError:
        pass


def test_options_are_a_value():
    """Options are frozen, equal by content and hashable; `replace` validates again."""
    options = ConnectOptions(host=HOST)
    assert hash(options) == hash(ConnectOptions(host=HOST))
    assert len({options, ConnectOptions(host=HOST), options.replace(credentials={}), options.replace(credentials=[])}) == 3
    with pytest.raises(AttributeError, match="frozen"):
        options.port = 1
    assert options.replace(port=1).port == 1
    assert options.replace(host=f"{CLUSTER}.dsql.eu-west-1.on.aws").region == "eu-west-1"
    with pytest.raises(ConfigError, match="port"):
        options.replace(port=0)


@pytest.mark.parametrize("name", ["DSQL_HOST_2", "DSQL_REGION_2", "DSQL_USERS", "DSQL_DATABASES", "DSQL_TOKEN_DURATIONS"])
def test_a_variable_that_is_near_one_of_ours_is_warned_of(name):
    """It may be the function's own, so that it fails nothing; each place warns once, as Python's warnings do."""
    with pytest.warns(UserWarning, match=f"does not read the variable {name}: did you mean DSQL_"):
        assert ConnectOptions.from_env({"DSQL_HOST": HOST, name: "x"}) == ConnectOptions(host=HOST)


def test_a_variable_of_somebody_else_is_not_ours():
    """An unknown DSQL_ variable is ignored unless its name is close to a known one."""
    assert ConnectOptions.from_env({"DSQL_HOST": HOST, "DSQL_USER_RO": "ro", "DSQL_HOST_FOR_REPORTS": "x"}).host == HOST
    assert ConnectOptions.from_env({"DSQL_HOST": HOST, "DSQL_CLUSTER_ARN": "x", "DSQL_CONNECT_AT_INIT": "0"}).host == HOST


def test_none_means_not_given():
    """None stands for an option that is not given, so a variable that may be absent can be passed on."""
    absent: dict[str, Any] = {"region": None, "profile": None, "orm_prefix": None}
    assert ConnectOptions(host=HOST, **absent) == ConnectOptions(host=HOST)


def test_the_application_name_says_who_connects():
    """The default is `<ormPrefix>:dsql-lambda/<version>`; `application_name` overrides it."""
    assert ConnectOptions(host=HOST).resolved_application_name == f"dsql-lambda/{__version__}"
    assert ConnectOptions(host=HOST, orm_prefix="orm").resolved_application_name == f"orm:dsql-lambda/{__version__}"
    assert ConnectOptions(host=HOST, application_name="mine").resolved_application_name == "mine"


def test_the_repr_shows_what_differs_and_no_secret():
    """The repr shows the options that differ from the defaults, without credentials and certificates."""
    options = ConnectOptions(host=HOST, port=1, credentials=lambda: "hunter2", sslrootcert="-----BEGIN CERTIFICATE-----")
    assert repr(options) == (
        f"ConnectOptions(host='{HOST}', port=1, region='us-east-1', credentials=<given>, sslrootcert=<PEM text>)"
    )
