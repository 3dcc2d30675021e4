"""Values: plain classes whose fields are set by `__init__` and never again."""

import copy
import inspect
import pickle
import sys
from typing import Any, get_type_hints

import pytest

from dsql_lambda import ConnectOptions, OCCConflict, OCCRetryConfig, OCCType, Token
from dsql_lambda.credentials import Credentials

HOST = "a.dsql.us-east-1.on.aws"


def test_values_are_equal_by_class_and_fields():
    """And hash alike."""
    token = Token("secret", 20.0)
    assert token == Token(value="secret", expires_at=20.0, signed_at=0.0)
    assert token != Token("secret", 21.0)
    assert token != ("secret", 20.0, 0.0)
    assert len({token, Token("secret", 20.0), Token("other", 20.0)}) == 2


@pytest.mark.parametrize(
    ("kind", "arguments", "keywords"),
    [
        (Token, (), {}),
        (Token, ("a", 1.0, 2.0, 3.0), {}),
        (Token, ("a", 1.0), {"until": 2.0}),
        (OCCRetryConfig, (3,), {}),
        (ConnectOptions, (HOST,), {}),
    ],
)
def test_a_wrong_argument_is_a_type_error(kind: Any, arguments, keywords):
    """As of any function."""
    with pytest.raises(TypeError):
        kind(*arguments, **keywords)


def test_a_value_stays_as_it_is():
    """Neither a field nor anything else can be set or deleted; `replace` makes another, and checks it."""
    retry: Any = OCCRetryConfig(max_attempts=5)
    for name in ("max_attempts", "anything_else"):
        with pytest.raises(AttributeError, match=rf"frozen: make a changed one with replace\({name}=...\)"):
            setattr(retry, name, 6)
    with pytest.raises(AttributeError, match="frozen"):
        del retry.max_attempts
    assert retry.replace(max_attempts=6) == OCCRetryConfig(max_attempts=6)
    with pytest.raises(ValueError, match="max_attempts"):
        retry.replace(max_attempts=0)
    if sys.version_info >= (3, 13):
        assert copy.replace(retry, max_attempts=6).max_attempts == 6


@pytest.mark.parametrize(
    "value",
    [
        Token("secret", 20.0),
        OCCConflict(OCCType.DATA, "OC000"),
        OCCRetryConfig(),
        ConnectOptions(host="a" * 26, region="us-east-1"),
        Credentials(access_key="A", secret_key="s"),
    ],
)
def test_a_value_can_be_copied_pickled_and_replaced(value):
    """As to another process. A copy is checked again where `replace` makes it."""
    assert pickle.loads(pickle.dumps(value)) == copy.copy(value) == copy.deepcopy(value) == value.replace() == value


def test_a_class_of_ones_own_keeps_its_class():
    """With other methods, and other defaults."""

    class Patient(OCCRetryConfig):
        def __init__(self, *, max_attempts: int | None = 50, **more: Any) -> None:
            super().__init__(max_attempts=max_attempts, **more)

        def delay(self, *_: Any, **__: Any) -> float:
            return 1.0

    patient = Patient(base_delay_ms=2.0)
    assert (patient.max_attempts, patient.base_delay_ms, patient.jitter_factor) == (50, 2.0, 0.25)
    assert patient.replace(max_attempts=1) == Patient(max_attempts=1, base_delay_ms=2.0)
    assert patient.replace(max_attempts=1).delay() == 1.0
    assert Patient.for_lambda().max_delay_ms == 1000.0
    with pytest.raises(ValueError, match="max_attempts"):
        Patient(max_attempts=0)


def test_a_pattern_takes_a_conflict_apart():
    """By position or name."""
    match OCCConflict(OCCType.SCHEMA, "OC001"):
        case OCCConflict(kind, code):
            assert (kind, code) == (OCCType.SCHEMA, "OC001")


def test_signatures_and_types_are_there_for_help_and_tools():
    """A real `__init__`, and the fields' types."""
    assert str(inspect.signature(Token)) == "(value: 'str', expires_at: 'float', signed_at: 'float' = 0.0) -> 'None'"
    assert inspect.signature(OCCRetryConfig).parameters["max_attempts"].default == 3
    assert get_type_hints(Token) == {"value": str, "expires_at": float, "signed_at": float}
    for kind in (ConnectOptions, Credentials, OCCConflict, OCCRetryConfig, Token):
        fields = get_type_hints(kind)
        assert get_type_hints(kind.__init__) == {**fields, "return": type(None)}
        assert list(fields) == list(inspect.signature(kind).parameters)


def test_a_copy_with_another_host_has_that_ones_region():
    """`copy.replace` does what the class's own `replace` does."""
    assert ConnectOptions(host=HOST).__replace__(host="a.dsql.us-west-2.on.aws").region == "us-west-2"


def test_its_repr_says_the_fields():
    """All but those that a class hides."""
    assert repr(OCCConflict(OCCType.DATA, "OC000")) == "OCCConflict(type=<OCCType.DATA: 'data'>, code='OC000')"
    assert "secret" not in repr(Token("secret", 20.0))
