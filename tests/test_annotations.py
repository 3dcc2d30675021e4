"""What a decorated function looks like from above: no `tx` in its signature, its annotations or its model; every name resolves.

Each case is a module of its own, once as it stands, and once with `from __future__ import annotations`, which makes text of them.
"""

import inspect
import subprocess
import sys
import types
import typing

import pytest
from aws_lambda_powertools.utilities.parser.exceptions import InvalidModelTypeError

import dsql_lambda
from dsql_lambda import Transaction, with_dsql_transaction

FUTURE = "from __future__ import annotations\n"
IS_LAZY = sys.version_info >= (3, 14)
"""Does Python evaluate annotations when somebody asks for them?"""

BOTH = pytest.mark.parametrize("head", ["", FUTURE], ids=["values", "texts"])


def module(monkeypatch, head, code, name="module_of_test"):
    """A module with this source, as an import would make it."""
    made = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, made)
    exec(compile(head + code, f"{name}.py", "exec", dont_inherit=True), made.__dict__)
    return made


PLAIN = """
import dsql_lambda
from dsql_lambda import Transaction, with_dsql_transaction
class Order: ...
@with_dsql_transaction
def save(order: Order, context: object = None, *, tx: Transaction, flag: bool = False) -> list[Order]:
    "Saves."
    return [order]
def without(order: Order, context: object = None, *, flag: bool = False) -> list[Order]: ...
"""


@BOTH
def test_tx_is_in_no_annotation_of_the_wrapper(monkeypatch, head):
    """The others are what those of the function without it are."""
    made = module(monkeypatch, head, PLAIN)
    assert made.save.__annotations__ == made.without.__annotations__
    assert typing.get_type_hints(made.save) == typing.get_type_hints(made.without)
    assert inspect.get_annotations(made.save, eval_str=True) == inspect.get_annotations(made.without, eval_str=True)
    assert inspect.signature(made.save) == inspect.signature(made.without)
    assert "tx" in made.save.__wrapped__.__annotations__  # the function's own are as they were
    assert (made.save.__name__, made.save.__qualname__, made.save.__doc__) == ("save", "save", "Saves.")
    assert made.save.__module__ == "module_of_test"


@BOTH
def test_tx_is_in_no_form_of_lazy_annotations(monkeypatch, head):
    """Values, forward references and text, from Python 3.14 on."""
    made = module(monkeypatch, head, PLAIN)
    if not IS_LAZY:
        assert not hasattr(made.save, "__annotate__")
        return
    from annotationlib import Format, call_annotate_function, get_annotations

    for form in (Format.VALUE, Format.FORWARDREF, Format.STRING):
        assert get_annotations(made.save, format=form) == get_annotations(made.without, format=form)
        assert "tx" not in call_annotate_function(made.save.__annotate__, form)
    with pytest.raises(NotImplementedError):
        made.save.__annotate__(Format.VALUE_WITH_FAKE_GLOBALS)


@BOTH
def test_names_are_looked_up_in_the_functions_module(monkeypatch, head):
    """By who does it as Powertools and FastAPI do: with the globals of what was registered."""
    made = module(monkeypatch, head, PLAIN)
    assert made.save.__globals__ is made.__dict__
    assert eval("Order", made.save.__globals__) is made.Order
    with pytest.raises(ZeroDivisionError):
        module(
            monkeypatch, head, "from dsql_lambda import with_dsql_transaction\n@with_dsql_transaction\ndef f(tx): 1 / 0\nf(tx=1)"
        )


LATER = """
from typing import TYPE_CHECKING
from dsql_lambda import Idempotency, with_dsql_transaction
if TYPE_CHECKING:
    from dsql_lambda import Transaction
def decorate(save):
    return with_dsql_transaction(idempotency=Idempotency(key="id"))(save)
@decorate
def save(order: Order, tx: Transaction, many: list[Order] | None = None, number: int = 1) -> Order: ...
@decorate
def lost(order: Nowhere, tx: Transaction) -> int: ...
class Order: ...
"""


@pytest.mark.parametrize("head", ["", FUTURE] if IS_LAZY else [FUTURE])
def test_a_class_below_the_function_and_a_transaction_for_type_checkers_only(monkeypatch, head):
    """Names that are not there at decoration are looked up when somebody asks; that of `tx` never."""
    made = module(monkeypatch, head, LATER)
    order: typing.Any = made.Order
    expected = {"order": order, "many": list[order] | None, "number": int, "return": order}
    assert typing.get_type_hints(made.save) == expected
    assert list(inspect.signature(made.save).parameters) == ["order", "many", "number"]
    for name, each in inspect.signature(made.save).parameters.items():
        evaluated = eval(each.annotation, made.save.__globals__) if isinstance(each.annotation, str) else each.annotation
        assert evaluated == expected[name]
    with pytest.raises(NameError, match="Nowhere"):
        typing.get_type_hints(made.lost)


def test_an_object_that_is_called_and_a_method(options):
    """Its class's `__call__` has the annotations; a bound method has none of `self`."""

    class Save:
        state: str = "not a parameter"

        def __call__(self, order: int, tx: Transaction) -> int:
            return order

        @with_dsql_transaction(options=options)
        def method(self, order: int, tx: Transaction) -> int:
            return order

    for decorated in (with_dsql_transaction(options=options)(Save()), Save().method):
        assert typing.get_type_hints(decorated) == {"order": int, "return": int}
        assert list(inspect.signature(decorated).parameters) == ["order"]
        assert decorated(3) == 3


BELOW = """
from functools import wraps
def decorate(function):
    @wraps(function)
    def below(*args, **kwargs):
        return function(*args, **kwargs)
    return below
"""
ABOVE = """
import below_of_test
from dsql_lambda import with_dsql_transaction
class Order: ...
@with_dsql_transaction
@below_of_test.decorate
def save(order: Order, tx) -> Order: ...
"""


def test_a_decorator_below_is_looked_through(monkeypatch):
    """The text of an annotation belongs to the module of the innermost function."""
    module(monkeypatch, "", BELOW, name="below_of_test")
    made = module(monkeypatch, FUTURE, ABOVE)
    assert made.save.__globals__ is made.__dict__
    assert typing.get_type_hints(made.save) == {"order": made.Order, "return": made.Order}


# What Powertools makes of it

PARSED = """
from aws_lambda_powertools.utilities.parser import event_parser
from pydantic import BaseModel
from dsql_lambda import ConnectOptions, Transaction, with_dsql_transaction
class Order(BaseModel):
    amount: int
@event_parser
@with_dsql_transaction(options=ConnectOptions(**OPTIONS))
def by_hint(tx: Transaction, event: Order, context) -> int:
    return event.amount
@event_parser
@with_dsql_transaction(options=ConnectOptions(**OPTIONS))
def without_hint(event, context, tx: Transaction):
    raise AssertionError("is not called")
"""


@BOTH
def test_event_parser_takes_the_events_model_and_never_the_transaction(monkeypatch, options, head):
    """It takes the first type hint; where the event has none, that is an error which says so."""
    made = types.ModuleType("parsed_of_test")
    made.__dict__["OPTIONS"] = dict(options.__dict__)
    monkeypatch.setitem(sys.modules, "parsed_of_test", made)
    exec(compile(head + PARSED, "parsed_of_test.py", "exec", dont_inherit=True), made.__dict__)
    assert made.by_hint({"amount": "5"}, None) == 5
    with pytest.raises(InvalidModelTypeError, match="as the type hint of `event`"):
        made.without_hint({"amount": "5"}, None)


def public_functions():
    for name in dsql_lambda.__all__:
        value = getattr(dsql_lambda, name)
        if inspect.isfunction(value):
            yield value
        elif inspect.isclass(value):
            yield from (each for key, each in vars(value).items() if inspect.isfunction(each) and key[0] != "_")


def test_the_types_of_every_public_function_can_be_read():
    """By whoever injects or documents them."""
    read = [typing.get_type_hints(each) for each in public_functions()]
    assert len(read) > 30
    assert typing.get_type_hints(dsql_lambda.dsql_transaction) == {"return": Transaction}


def test_a_plain_handler_does_not_load_what_reads_lazy_annotations():
    """It is cold start."""
    code = "import sys, dsql_lambda\n@dsql_lambda.with_dsql_transaction\ndef f(event: dict, context, tx: int) -> int: ...\n"
    code += "print('dsql_lambda.lazy_annotations' in sys.modules)"
    script = f"import sys\nsys.path[:] = {sys.path!r}\n{code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
