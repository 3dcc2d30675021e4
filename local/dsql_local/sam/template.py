"""Functions of a SAM template: code, layers, handler, environment, timeout and memory.

It reads a source template or a built one (`.aws-sam/build/template.yaml`), with parameters at their defaults unless given. It
resolves Ref to parameters, Fn::If and conditions. A variable whose value only AWS knows is empty, as in `sam local`; a layer that
only AWS has is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Function", "read_function", "read_functions"]


@dataclass(frozen=True, kw_only=True)
class Function:
    """One function of a template; paths are absolute."""

    name: str
    code: Path
    handler: str
    layers: tuple[Path, ...]
    environment: Mapping[str, str]
    timeout: int
    memory: int
    layer_names: tuple[str, ...] = ()
    """The layers' logical ids."""
    build_methods: Mapping[str, str] = field(default_factory=dict)
    """Of the function and its layers, by logical id, as far as the template says."""
    is_durable: bool = False
    """Has it a DurableConfig? Then an invocation is one of several of an execution."""


def read_function(template: Path, name: str, parameters: Mapping[str, str] | None = None) -> Function:
    """The function with this logical id; a ValueError names those there are."""
    document = _document(template)
    functions = _names(document)
    if name not in functions:
        raise ValueError(f"{template.name} has no function {name!r}; it has {', '.join(functions) or 'none'}")
    resources = document["Resources"]
    intrinsics = _Intrinsics(document, parameters or {})
    shared = intrinsics.resolve(document.get("Globals", {}).get("Function", {}))
    own = intrinsics.resolve(resources[name]["Properties"])
    variables = {**_variables(shared), **_variables(own)}
    layers = [each["Ref"] for each in [*shared.get("Layers", []), *own.get("Layers", [])] if isinstance(each, dict)]
    methods = {each: resources[each].get("Metadata", {}).get("BuildMethod") for each in [name, *layers]}
    folder = template.parent.resolve()
    return Function(
        name=name,
        code=folder / own["CodeUri"],
        handler=own["Handler"],
        layers=tuple(folder / resources[each]["Properties"]["ContentUri"] for each in layers),
        layer_names=tuple(layers),
        build_methods={each: method for each, method in methods.items() if method},
        environment={key: value if isinstance(value, str) else "" for key, value in variables.items()},
        timeout=int(own.get("Timeout", shared.get("Timeout", 3))),
        memory=int(own.get("MemorySize", shared.get("MemorySize", 128))),
        is_durable=bool(own.get("DurableConfig") or shared.get("DurableConfig")),
    )


def read_functions(template: Path, parameters: Mapping[str, str] | None = None) -> list[Function]:
    """All functions, by their names."""
    return [read_function(template, name, parameters) for name in _names(_document(template))]


def _document(template: Path) -> Any:
    return yaml.load(template.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a safe loader with CloudFormation's tags


def _names(document: Any) -> list[str]:
    found = document.get("Resources", {}).items()
    return sorted(key for key, value in found if value["Type"] == "AWS::Serverless::Function")


def _variables(properties: Mapping[str, Any]) -> dict[str, Any]:
    variables: dict[str, Any] = properties.get("Environment", {}).get("Variables", {})
    return variables


class _Loader(yaml.SafeLoader):
    """Knows the short forms of intrinsic functions: `!If [a, b, c]` is `{"Fn::If": [a, b, c]}`."""


def _intrinsic(loader: yaml.SafeLoader, name: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    elif isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    else:
        value = loader.construct_scalar(node)  # type: ignore[arg-type] # the third kind
    if name == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {name if name in {"Ref", "Condition"} else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _intrinsic)


class _Intrinsics:
    """Resolves Ref to parameters, and Fn::If with its conditions; everything else stays unchanged."""

    def __init__(self, document: Mapping[str, Any], parameters: Mapping[str, str]) -> None:
        defaults = {key: value.get("Default", "") for key, value in document.get("Parameters", {}).items()}
        self._parameters = {**defaults, **parameters}
        self._conditions = document.get("Conditions", {})

    def resolve(self, value: Any) -> Any:
        match value:
            case {"Ref": name, **rest} if not rest and name in self._parameters:
                return self._parameters[name]
            case {"Fn::If": [condition, yes, no], **rest} if not rest:
                return self.resolve(yes if self._holds(self._conditions[condition]) else no)
            case dict():
                return {key: self.resolve(item) for key, item in value.items()}
            case list():
                return [self.resolve(item) for item in value]
        return value

    def _holds(self, condition: Any) -> bool:
        match condition:
            case {"Condition": name}:
                return self._holds(self._conditions[name])
            case {"Fn::Equals": [left, right]}:
                return bool(self.resolve(left) == self.resolve(right))
            case {"Fn::Not": [inner]}:
                return not self._holds(inner)
            case {"Fn::And": list() as parts}:
                return all(map(self._holds, parts))
            case {"Fn::Or": list() as parts}:
                return any(map(self._holds, parts))
        raise ValueError(f"unsupported condition in the template: {condition!r}")
