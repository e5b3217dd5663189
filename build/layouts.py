"""Exports what host tools need to read the same bytes: structs, enums, constants and signatures, as plain data."""
from __future__ import annotations

from typing import Any

from entities import Constant, Function, Module, TypeName
from subset_types import Arr, Enum, Ref, Type, describe, integer_of


def type_of(kind: Type) -> Any:
    """A type as JSON: a name, {"array": [type, n]}, {"struct": name}, {"pointer": name}, {"enum": name}."""
    match kind:
        case Enum():
            return {"enum": f"{kind.module}.{kind.name}"}
        case Arr():
            return {"array": [type_of(kind.element), kind.count]}
        case Ref():
            return {"pointer" if kind.nullable else "struct": f"{kind.struct.module}.{kind.struct.name}"}
    integer = integer_of(kind)
    return integer.name if integer else describe(kind)


def export(modules: list[Module]) -> dict[str, Any]:
    """All layouts of a program, by full name."""
    result: dict[str, Any] = {"structs": {}, "enums": {}, "constants": {}, "functions": {}}
    for module in modules:
        for name, entity in module.names.items():
            full = f"{module.name}.{name}"
            match entity:
                case TypeName(Ref(struct)) if struct.module == module.name:
                    fields = {field: {"offset": struct.offsets[field], "type": type_of(kind)} for field, kind in struct.fields.items()}
                    result["structs"][full] = {"size": struct.size, "align": struct.align, "union": struct.union, "fields": fields}
                case TypeName(Enum() as enum) if enum.module == module.name:
                    result["enums"][full] = enum.members
                case Constant(value) if value.const is not None:
                    result["constants"][full] = value.const
                case Function() if entity.module == module.name:
                    result["functions"][full] = {
                        "symbol": entity.symbol, "external": entity.external, "result": type_of(entity.result),
                        "params": [[param, _passed(kind)] for param, kind in entity.params]}
    return result


def _passed(kind: Type) -> Any:
    """Structs and arrays are passed by address."""
    match kind:
        case Ref():
            return {"pointer": f"{kind.struct.module}.{kind.struct.name}"}
        case Arr():
            return "address"
    return type_of(kind)
