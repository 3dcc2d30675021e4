"""The init phase: a connection opened while the handler's module is imported, and what SnapStart changes."""

import pytest
import snapshot_restore_py

from dsql_lambda import cache, with_dsql_transaction


@pytest.fixture
def lambda_environment(dsql, options, monkeypatch):
    """A Lambda execution environment's variables, as far as they matter here."""
    for name, value in dsql.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
    return monkeypatch


def decorate():
    @with_dsql_transaction
    def handler(event, context, tx):
        return tx.value("SELECT pg_backend_pid()")

    return handler


def startups(dsql):
    return sum(event.kind == "startup" for event in dsql.log)


def test_decorating_a_handler_opens_the_connection(dsql, lambda_environment):
    """On demand; the first invocation finds it there."""
    handler = decorate()
    assert startups(dsql) == 1
    handler({}, None)
    assert startups(dsql) == 1


def test_two_handlers_share_it(dsql, lambda_environment):
    """One for each `ConnectOptions`."""
    first, second = decorate(), decorate()
    assert first({}, None) == second({}, None)
    assert startups(dsql) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DSQL_CONNECT_AT_INIT", "0"),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "provisioned-concurrency"),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start"),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", ""),
        ("AWS_LAMBDA_RUNTIME_API", ""),
    ],
)
def test_elsewhere_it_is_opened_at_the_first_use(dsql, lambda_environment, name, value):
    """Turned off, not on demand, or not in Lambda."""
    lambda_environment.setenv(name, value)
    handler = decorate()
    assert startups(dsql) == 0
    handler({}, None)
    assert startups(dsql) == 1


def test_a_failure_at_init_is_said_and_met_again_by_the_first_invocation(dsql, lambda_environment, capsys):
    """It never raises; by then the cause may be gone."""
    dsql.refuse_connections(reason="access")
    handler = decorate()
    assert "dsql_lambda: not connected at init: the cluster refused the connection" in capsys.readouterr().err
    assert handler({}, None) > 0


def test_a_wrong_configuration_at_init_never_raises(lambda_environment, capsys):
    """The module can still be imported."""
    lambda_environment.setenv("DSQL_PORT", "none")
    decorate()
    assert "DSQL_PORT is 'none'" in capsys.readouterr().err


def test_a_snapshot_holds_no_connection_and_a_restored_environment_opens_its_own(dsql, lambda_environment):
    """By the runtime's hook."""
    lambda_environment.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
    handler = decorate()
    first = handler({}, None)
    (kept,) = cache._cached.values()
    for hook, args, kwargs in snapshot_restore_py.get_before_snapshot():
        hook(*args, **kwargs)
    assert kept._place.session is not None
    assert kept._place.session.is_closed
    assert handler({}, None) != first
    assert startups(dsql) == 2
