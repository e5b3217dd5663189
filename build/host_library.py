"""Loads a host library that hostlib.py built: ctypes classes from its layouts, functions by their Python names."""
from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any, Callable

_SCALARS: dict[str, Any] = {
    "u8": ctypes.c_uint8, "u16": ctypes.c_uint16, "u32": ctypes.c_uint32, "u64": ctypes.c_uint64, "i32": ctypes.c_int32,
    "i64": ctypes.c_int64, "bool": ctypes.c_bool, "str": ctypes.c_char_p, "None": None, "NoReturn": None,
    "address": ctypes.c_void_p}


class HostLibrary:
    """A loaded library. `struct(name)` makes a ctypes class, `function(name)` a callable."""

    def __init__(self, directory: Path) -> None:
        self.layouts: dict[str, Any] = json.loads((directory / "layouts.json").read_text())
        self._library = ctypes.CDLL(str(directory / "libkrait.so"))
        self._structs: dict[str, Any] = {}
        self._kept: list[Any] = []

    def struct(self, name: str) -> Any:
        """The ctypes class of the struct `module.Name`, with exactly our offsets."""
        if name not in self._structs:
            layout = self.layouts["structs"][name]
            base: Any = ctypes.Union if layout["union"] else ctypes.Structure
            made: Any = type(name.rsplit(".", 1)[-1], (base,), {})
            self._structs[name] = made
            made._pack_ = 1
            made._fields_ = list(self._fields(layout))
            if ctypes.sizeof(made) != layout["size"]:
                raise ValueError(f"{name} has {ctypes.sizeof(made)} bytes here, {layout['size']} there")
        return self._structs[name]

    def _fields(self, layout: dict[str, Any]) -> Any:
        end = 0
        for number, (name, field) in enumerate(layout["fields"].items()):
            kind = self._type(field["type"])
            if field["offset"] > end:
                yield f"_pad{number}", ctypes.c_uint8 * (field["offset"] - end)
            yield name, kind
            end = 0 if layout["union"] else field["offset"] + ctypes.sizeof(kind)
        if layout["size"] > end and not layout["union"]:
            yield "_pad_end", ctypes.c_uint8 * (layout["size"] - end)

    def _type(self, kind: Any) -> Any:
        if isinstance(kind, str):
            return _SCALARS[kind]
        (word, what), = kind.items()
        if word == "array":
            return self._type(what[0]) * what[1]
        if word == "enum":
            return ctypes.c_uint32
        return self.struct(what) if word == "struct" else ctypes.c_void_p

    def function(self, name: str) -> Callable[..., Any]:
        """The function `module.name`. Structs and buffers are passed as ctypes objects, results of struct type are addresses."""
        known = self.layouts["functions"][name]
        found = getattr(self._library, known["symbol"])
        found.argtypes = [self._type(kind) for _, kind in known["params"]]
        result = known["result"]
        found.restype = ctypes.c_void_p if isinstance(result, dict) and "enum" not in result else self._type(result)

        def call(*arguments: Any) -> Any:
            return found(*(ctypes.addressof(argument) if isinstance(argument, (ctypes.Structure, ctypes.Union, ctypes.Array))
                           else argument.encode("ascii") if isinstance(argument, str) else argument for argument in arguments))

        return call

    def hook(self, name: str, call: Callable[..., Any] | None) -> None:
        """Let `call` stand for the intrinsic `module.name`; None takes it back."""
        known = self.layouts["functions"][name]
        kind = ctypes.CFUNCTYPE(self._type(known["result"]), *(self._type(param) for _, param in known["params"]))
        pointer = kind(call) if call is not None else kind()
        self._kept.append(pointer)
        ctypes.c_void_p.in_dll(self._library, f"krait_hook__{name.rsplit('.', 1)[-1]}").value = \
            ctypes.cast(pointer, ctypes.c_void_p).value

    def storage(self, name: str, kind: Any) -> Any:
        """The global `module.name` as a ctypes object of class `kind`."""
        module, _, variable = name.rpartition(".")
        return kind.in_dll(self._library, f"{module.replace('.', '_')}__{variable}")
