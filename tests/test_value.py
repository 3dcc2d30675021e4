"""`Value`: a frozen value like a dataclass's, for a small part of its cost at import."""

import copy
import inspect
import pickle
import sys
from typing import Any, get_type_hints

import pytest

from dsql_lambda import ConnectOptions, OCCConflict, OCCRetryConfig, OCCType, Token

TOKEN: Any = Token  # whose wrong arguments a type checker finds too
RETRY: Any = OCCRetryConfig


def test_fields_are_given_in_their_order_or_by_name_and_have_defaults():
    """As in a dataclass."""
    token = Token("secret", 20.0)
    assert token == Token(value="secret", expires_at=20.0, signed_at=0.0)
    assert token != Token("secret", 21.0)
    assert token != ("secret", 20.0, 0.0)
    assert len({token, Token("secret", 20.0), Token("other", 20.0)}) == 2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (Token, "misses the argument 'value'"),
        (lambda: TOKEN("a", 1.0, 2.0, 3.0), "at most 3 positional"),
        (lambda: TOKEN("a", 1.0, value="b"), "'value' twice"),
        (lambda: TOKEN("a", 1.0, until=2.0), "no argument 'until': it takes value, expires_at, signed_at"),
        (lambda: RETRY(3), "at most 0 positional"),
    ],
)
def test_a_wrong_argument_is_named(make, said):
    """Missing, too many, twice, unknown, or not by keyword."""
    with pytest.raises(TypeError, match=said):
        make()


def test_a_value_stays_as_it_is():
    """Neither a field nor anything else can be set or deleted; `replace` makes another, and judges it."""
    retry = OCCRetryConfig(max_attempts=5)
    with pytest.raises(AttributeError, match=r"replace\(max_attempts=...\)"):
        retry.max_attempts = 6  # type: ignore[misc]
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
    ],
)
def test_a_value_can_be_copied_and_pickled(value):
    """As to another process."""
    assert pickle.loads(pickle.dumps(value)) == copy.copy(value) == copy.deepcopy(value) == value


def test_a_class_of_ones_own_has_its_parents_fields_too():
    """With other defaults, other methods, and fields beside them."""

    class Patient(OCCRetryConfig):
        max_attempts: int | None = 50
        why: str = ""

        def delay(self, *_: Any, **__: Any) -> float:
            return 1.0

    patient = Patient(base_delay_ms=2.0, why="a report")
    assert (patient.max_attempts, patient.base_delay_ms, patient.jitter_factor, patient.why) == (50, 2.0, 0.25, "a report")
    assert patient.replace(max_attempts=1) == Patient(max_attempts=1, base_delay_ms=2.0, why="a report")
    assert Patient.for_lambda().max_delay_ms == 1000.0
    with pytest.raises(ValueError, match="max_attempts"):
        Patient(max_attempts=0)


def test_a_pattern_takes_it_apart():
    """By position, as type checkers expect it; what goes by keyword alone has no position."""
    match OCCConflict(OCCType.SCHEMA, "OC001"):
        case OCCConflict(kind, code):
            assert (kind, code) == (OCCType.SCHEMA, "OC001")
    assert OCCRetryConfig.__match_args__ == ()


def test_its_signature_and_its_types_are_what_help_shows():
    """The fields with their defaults."""
    assert str(inspect.signature(Token)) == "(value: 'str', expires_at: 'float', signed_at: 'float' = 0.0)"
    assert str(inspect.signature(OCCRetryConfig)).startswith("(*, max_attempts: 'int | None' = 3, base_delay_ms: 'float' = 1.0,")
    assert get_type_hints(Token) == {"value": str, "expires_at": float, "signed_at": float}
    assert get_type_hints(ConnectOptions)["port"] is int


def test_a_copy_with_another_host_has_that_ones_region():
    """`copy.replace` does what the class's own `replace` does."""
    options = ConnectOptions(host="a.dsql.us-east-1.on.aws")
    assert options.__replace__(host="a.dsql.us-west-2.on.aws").region == "us-west-2"


def test_its_repr_says_the_fields():
    """All but those that a class hides."""
    assert repr(OCCConflict(OCCType.DATA, "OC000")) == "OCCConflict(type=<OCCType.DATA: 'data'>, code='OC000')"
    assert "secret" not in repr(Token("secret", 20.0))
