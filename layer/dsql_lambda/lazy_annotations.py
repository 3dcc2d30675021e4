"""Annotations of Python 3.14, which are evaluated when somebody asks for them: a name in them may not be there yet.

Knows `annotationlib`, and nothing of this package. Imported by Python 3.14 only, where it is needed. What can't be evaluated is
left as text, as `from __future__ import annotations` has it: whoever reads signatures knows what to do with that.
https://docs.python.org/3.14/library/annotationlib.html
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from annotationlib import Format, ForwardRef, get_annotations


def signature_with_texts(function: Callable[..., Any], annotated: Any) -> inspect.Signature:
    """The signature of a function, with text for each annotation that can't be evaluated yet. `annotated` has the annotations."""
    signature = inspect.signature(function, annotation_format=Format.STRING)  # type: ignore[call-arg]
    found = _values_or_texts(annotated)
    parameters = [each.replace(annotation=found.get(each.name, each.annotation)) for each in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=found.get("return", signature.return_annotation))


def annotations_without(name: str, annotated: Any, form: int) -> dict[str, Any]:
    """What the `__annotate__` of a function without one of its parameters answers.

    Raises `NameError` where another annotation is asked for by its value and can't be evaluated, and `NotImplementedError` for a
    form that is the compiler's own business.
    """
    if form == Format.VALUE_WITH_FAKE_GLOBALS:
        raise NotImplementedError(form)
    try:
        found: dict[str, Any] = get_annotations(annotated, format=Format(form))
    except NameError:
        found = get_annotations(annotated, format=Format.FORWARDREF)
        if any(_is_open(each) for key, each in found.items() if key != name):
            raise
    found.pop(name, None)
    return found


def _values_or_texts(annotated: Any) -> dict[str, Any]:
    values = get_annotations(annotated, format=Format.FORWARDREF)
    texts = get_annotations(annotated, format=Format.STRING)
    return {name: texts[name] if _is_open(each) else each for name, each in values.items()}


def _is_open(annotation: Any) -> bool:
    """Does a name in it have no value yet?"""
    return isinstance(annotation, ForwardRef) or any(map(_is_open, getattr(annotation, "__args__", ())))
