"""Calls: functions, casts, the words of hypervisor.lang, tables of functions; and what a store accepts."""
from __future__ import annotations

import ast

from entities import Builtin, Function, FunctionTable, TypeName, Value
from arithmetic import SIGNS
from conditions import Conditions
from expressions import bounds, constant
from subset_types import (BOOL, I64, LITERAL, NONE, NULL, TEXT, U8, U16, U32, U64, Arr, Enum, Int, NewInt, Ref, Struct, Type, describe,
                          integer_of, size_align)

_MASK = (1 << 64) - 1
_RING: dict[type[ast.operator], str] = {ast.Add: "krait_add", ast.Sub: "krait_sub", ast.Mult: "krait_mul",
                                        ast.LShift: "krait_shl"}
_WRAPS = {"wrap_u64": U64, "wrap_u32": U32, "wrap_u16": U16, "wrap_u8": U8}
_INSTEAD = {"enumerate": "for i in range(len(a))", "zip": "for i in range(len(a))", "print": "a console function of the hypervisor",
            "abs": "x if x >= 0 else -x", "int": "u64(x), i64(x)", "str": "an f-string passed to a parameter", "range": "only in for",
            "isinstance": "types are known", "struct": "only as a decorator", "array": "buf: Annotated[list[u8], N] = array(u8, N)"}


class Calls(Conditions):
    """Expressions with calls."""

    # -- stores ------------------------------------------------------------------------------------------------------------
    def store(self, node: ast.AST, value: Value, target: Type, what: str) -> str:
        """The text of a value as a store of type `target` takes it; refused if it does not fit."""
        if (integer := integer_of(target)) is not None and self._accepts_integer(node, value, target, integer, what):
            return f"cython.cast({integer.name}, {value.const})" if _far(value, integer) else value.text
        match target, value.type:
            case Ref(struct, nullable), Ref(other, _) if struct == other:
                return value.text
            case Ref(_, True), kind if kind == NULL:
                return value.text
            case Arr(), Arr() if target == value.type:
                return value.text
            case kind, other if kind == other and kind in (BOOL, TEXT):
                return value.text
        given = describe(value.type) if value.const is None else f"{value.const!r}"
        hint = "a struct field or element is filled by copy(dst, src)" if isinstance(target, Ref) and isinstance(value.type, Ref) \
            else f"cast it: {describe(target)}(x)" if integer_of(target) else "see docs/subset.md"
        raise self.refuse(node, f"{what} wants {describe(target)}, not {given}", hint)

    def _accepts_integer(self, node: ast.AST, value: Value, target: Type, integer: Int, what: str) -> bool:
        if isinstance(target, (NewInt, Enum)):
            return value.type == target
        if value.type == LITERAL or (isinstance(value.const, int) and value.type != BOOL and integer_of(value.type)):
            low, high = bounds(value)
            if not integer.low <= low <= high <= integer.high:
                raise self.refuse(node, f"{low:#x} does not fit {integer.name} ({what})", f"{integer.name}(x) truncates")
            return True
        source = integer_of(value.type)
        if source is None:
            return False
        if source.signed and not integer.signed and bounds(value)[0] < 0:
            raise self.refuse(node, f"{what} wants {describe(target)}, not the signed {describe(value.type)}",
                              f"{integer.name}(x) if it cannot be negative")
        return True

    # -- calls ---------------------------------------------------------------------------------------------------------------
    def _Call(self, node: ast.Call) -> Value:
        if any(isinstance(part, ast.Starred) for part in node.args) or any(word.arg is None for word in node.keywords):
            raise self.refuse(node, "*args and **kwargs are not in the subset", "name the arguments")
        if isinstance(node.func, ast.Subscript):
            table = self.entity(node.func.value)
            if isinstance(table, FunctionTable):
                return self._table_call(node, node.func, table)
        entity = self.entity(node.func)
        match entity:
            case Function():
                values = self.sequence(self._arguments(node, entity))
                return self._function_call(node, entity, values)
            case TypeName(kind):
                return self._cast(node, kind)
            case Builtin(name):
                method = getattr(self, f"_word_{name}", None)
                if name in _WRAPS:
                    return self._wrap(node, _WRAPS[name])
                if method is None:
                    raise self.refuse(node, f"{name}() is not in the subset", _INSTEAD.get(name, "see docs/subset.md"))
                result: Value = method(node)
                return result
        name = ast.unparse(node.func)
        instead = "structs have no methods; call a function with it" if "." in name else "define or import it"
        raise self.refuse(node, f"{name} is no function known here", instead)

    def _arguments(self, node: ast.Call, function: Function) -> list[Value]:
        given: dict[str, ast.expr] = {}
        names = [name for name, _ in function.params]
        for name, argument in list(zip(names, node.args)) + [(word.arg or "", word.value) for word in node.keywords]:
            if name in given or name not in names:
                raise self.refuse(node, f"{function.name}() has no free parameter {name}")
            given[name] = argument
        if len(node.args) > len(names) or len(given) != len(names):
            raise self.refuse(node, f"{function.name}() takes {len(names)} arguments ({', '.join(names)})", "there are no defaults")
        if list(given) != names and sum(not isinstance(part, (ast.Constant, ast.Name)) for part in given.values()) > 1:
            raise self.refuse(node, "keyword arguments stand in the order of the parameters", ", ".join(names))
        return [self.argument(given[name]) for name in names]

    def argument(self, node: ast.expr) -> Value:
        """The value of an argument; texts.py allows f-strings here."""
        return self.value(node)

    def _function_call(self, node: ast.Call, function: Function, values: list[Value]) -> Value:
        texts = [self.passed(node, value, kind, f"parameter {name} of {function.name}()")
                 for value, (name, kind) in zip(values, function.params)]
        return self.use_function(function, texts)

    def use_function(self, function: Function, texts: list[str]) -> Value:
        """The call of a function with argument texts."""
        self.uses.functions[function.symbol] = function
        if isinstance(function.result, Ref):
            self.uses.struct(function.result.struct)
        name = function.name if function.module == self.module.name and not function.external else function.symbol
        return Value(f"{name}({', '.join(texts)})", function.result, calls=True, reads=True)

    def passed(self, node: ast.AST, value: Value, kind: Type, what: str) -> str:
        """The text of an argument."""
        text = self.store(node, value, kind, what)
        return self.first_element(value) if isinstance(value.type, Arr) else text

    def first_element(self, value: Value) -> str:
        """A pointer to the first element of an array."""
        if not value.direct:
            return value.text
        text, kind = value.text, value.type
        while isinstance(kind, Arr):
            text, kind = f"{text}[0]", kind.element
        return f"cython.address({text})"

    def _table_call(self, node: ast.Call, subscript: ast.Subscript, table: FunctionTable) -> Value:
        index = self.value(subscript.slice)
        if integer_of(index.type) is None and index.type != LITERAL:
            raise self.refuse(node, "an index is an integer")
        first = table.functions[0]
        values = self.sequence([index, *self._arguments(node, first)])
        self.uses.tables[table.symbol] = table
        texts = [self.passed(node, value, kind, f"parameter {name}") for value, (name, kind) in zip(values[1:], first.params)]
        signed = (integer_of(index.type) or U64).signed
        return Value(f"{table.symbol}({', '.join([self.wide(values[0], signed), *texts])})", first.result, calls=True, reads=True)

    # -- casts ---------------------------------------------------------------------------------------------------------------
    def _one(self, node: ast.Call) -> Value:
        if len(node.args) != 1 or node.keywords:
            raise self.refuse(node, f"{ast.unparse(node.func)}() takes one argument")
        return self.value(node.args[0])

    def _cast(self, node: ast.Call, kind: Type) -> Value:
        if isinstance(kind, Ref):
            raise self.refuse(node, f"{kind.struct.name}() makes storage", "name = S() by itself; at(S, address) refers")
        value = self._one(node)
        integer = integer_of(kind)
        if integer is None or (integer_of(value.type) is None and value.type not in (LITERAL, BOOL)):
            raise self.refuse(node, f"{describe(value.type)} is not cast to {describe(kind)}", "address(x) for structs")
        if isinstance(kind, NewInt) and (value.type == BOOL or bounds(value)[0] < 0):
            raise self.refuse(node, f"{describe(kind)}() wants an unsigned value")
        if isinstance(value.const, int):
            number = int(value.const) & ((1 << integer.bits) - 1)
            return constant(number - (1 << integer.bits) if number > integer.high else number, kind)
        text = value.text if integer_of(value.type) == integer else f"cython.cast({integer.name}, {value.text})"
        result = Value(text, kind, reads=value.reads, calls=value.calls)
        if value.type != BOOL:
            low, high = bounds(value)
            if integer.low <= low and high <= integer.high:
                result.low, result.high = low, high
        return result

    def _wrap(self, node: ast.Call, kind: Int) -> Value:
        if len(node.args) != 1:
            raise self.refuse(node, "wrap_*() takes one argument")
        value = self._ring(node.args[0])
        if isinstance(value.const, int):
            return constant(value.const & kind.high, kind)
        value.text = value.text if kind == U64 else f"cython.cast({kind.name}, {value.text})"
        value.type, value.low, value.high = kind, None, None
        return value

    def _ring(self, node: ast.expr) -> Value:
        """An expression modulo 2^64."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Invert, ast.USub)):
            value = self._ring(node.operand)
            if isinstance(value.const, int):
                return constant((~value.const if isinstance(node.op, ast.Invert) else -value.const) & _MASK, U64)
            value.text = f"(~{value.text})" if isinstance(node.op, ast.Invert) else f"krait_sub(0, {value.text})"
            return value
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.LShift, ast.BitAnd, ast.BitOr,
                                                                ast.BitXor)):
            left = self._ring(node.left)
            right = self.value(node.right) if isinstance(node.op, ast.LShift) else self._ring(node.right)
            if left.const is not None and right.const is not None:
                folded = self.binary(node, constant(left.const, LITERAL), constant(right.const, LITERAL))
                return constant(int(folded.const or 0) & _MASK, U64)
            if isinstance(node.op, ast.LShift) and (bounds(right)[0] < 0 or bounds(right)[1] > 63):
                raise self.refuse(node, "the shift count is not provably below 64", "x << (n & 63), or a constant")
            left, right = self.sequence([left, right])
            name = _RING.get(type(node.op))
            text = f"{name}({left.text}, {right.text})" if name else f"({left.text} {SIGNS[type(node.op)]} {right.text})"
            return Value(text, U64, reads=left.reads or right.reads, calls=left.calls or right.calls)
        value = self.value(node)
        if value.type != LITERAL:
            self.signedness(node, [value])
        if isinstance(value.const, int):
            return constant(value.const & _MASK, U64)
        return Value(self.wide(value, False), U64, reads=value.reads, calls=value.calls)

    # -- words of lang ---------------------------------------------------------------------------------------------------------
    def _type_argument(self, node: ast.Call, count: int) -> Type:
        if len(node.args) != count or node.keywords:
            raise self.refuse(node, f"{ast.unparse(node.func)}() takes {count} arguments")
        entity = self.entity(node.args[0])
        if not isinstance(entity, TypeName):
            raise self.refuse(node, f"{ast.unparse(node.args[0])} is no type of the subset")
        return entity.type

    def _struct_argument(self, node: ast.Call) -> Struct:
        kind = self._type_argument(node, 2)
        if not isinstance(kind, Ref):
            raise self.refuse(node, f"{describe(kind)} is no struct")
        return kind.struct

    def _word_at(self, node: ast.Call) -> Value:
        struct = self._struct_argument(node)
        place = self.value(node.args[1])
        if bounds(place)[0] < 0 or integer_of(place.type) is None and place.type != LITERAL \
                or isinstance(place.type, (NewInt, Enum)) and place.type.name != "Hva":
            raise self.refuse(node, f"at() wants an address of type u64 or Hva, not {describe(place.type)}", "hva_of(hpa)")
        self.uses.struct(struct)
        return Value(f"cython.cast({struct.c_name}_p, {self.wide(place, False)})", Ref(struct), reads=place.reads, calls=place.calls)

    def _storage_argument(self, node: ast.Call, argument: ast.expr) -> Value:
        value = self.value(argument)
        if not isinstance(value.type, (Ref, Arr)):
            raise self.refuse(node, f"{ast.unparse(node.func)}() wants a struct or an array, not {describe(value.type)}")
        return value

    def _pointer(self, value: Value) -> str:
        return self.first_element(value) if isinstance(value.type, Arr) else value.text

    def _word_address(self, node: ast.Call) -> Value:
        if len(node.args) != 1:
            raise self.refuse(node, "address() takes one argument")
        value = self._storage_argument(node, node.args[0])
        return Value(f"cython.cast(u64, {self._pointer(value)})", U64, reads=value.reads, calls=value.calls)

    def _word_copy(self, node: ast.Call) -> Value:
        if len(node.args) != 2:
            raise self.refuse(node, "copy() takes two arguments")
        target, source = self.sequence([self._storage_argument(node, part) for part in node.args])
        kind = target.type
        if kind != source.type and not (isinstance(kind, Ref) and isinstance(source.type, Ref) and kind.struct == source.type.struct):
            raise self.refuse(node, f"copy() wants two of one type, not {describe(kind)} and {describe(source.type)}")
        size = kind.struct.size if isinstance(kind, Ref) else size_align(kind)[0]
        return Value(f"krait_copy({self._pointer(target)}, {self._pointer(source)}, {size})", NONE, calls=True)

    def _word_clear(self, node: ast.Call) -> Value:
        if len(node.args) != 1:
            raise self.refuse(node, "clear() takes one argument")
        value = self._storage_argument(node, node.args[0])
        size = value.type.struct.size if isinstance(value.type, Ref) else size_align(value.type)[0]
        return Value(f"krait_clear({self._pointer(value)}, {size})", NONE, calls=True)

    def _word_sizeof(self, node: ast.Call) -> Value:
        kind = self._type_argument(node, 1)
        return constant(kind.struct.size if isinstance(kind, Ref) else size_align(kind)[0], LITERAL)

    def _word_offsetof(self, node: ast.Call) -> Value:
        struct = self._struct_argument(node)
        name = node.args[1]
        if not isinstance(name, ast.Constant) or name.value not in struct.offsets:
            raise self.refuse(node, f"{struct.name} has no field {ast.unparse(name)}")
        return constant(struct.offsets[str(name.value)], LITERAL)

    def _word_sext_i64(self, node: ast.Call) -> Value:
        value = self._one(node)
        if self.signedness(node, [value]):
            raise self.refuse(node, "sext_i64() wants an unsigned value")
        if isinstance(value.const, int):
            return constant(value.const - (1 << 64) if value.const >> 63 else value.const, I64)
        return Value(f"cython.cast(i64, {value.text})", I64, reads=value.reads, calls=value.calls)

    def _word_char_at(self, node: ast.Call) -> Value:
        if len(node.args) != 2:
            raise self.refuse(node, "char_at() takes a text and an index")
        text, index = self.sequence([self.value(part) for part in node.args])
        self.signedness(node, [index])
        return Value(f"krait_char_at({self.store(node, text, TEXT, 'char_at()')}, {self.wide(index, False)})", U8,
                     reads=True, calls=text.calls or index.calls)

    def _word_text_at(self, node: ast.Call) -> Value:
        value = self._one(node)
        self.signedness(node, [value])
        return Value(f"cython.cast(krait_text, {self.wide(value, False)})", TEXT, reads=value.reads, calls=value.calls)

    def _word_text_address(self, node: ast.Call) -> Value:
        value = self._one(node)
        text = self.store(node, value, TEXT, "text_address()")
        return Value(f"krait_text_address({text})", U64, reads=value.reads, calls=value.calls)

    def _word_link_address(self, node: ast.Call) -> Value:
        name = node.args[0] if node.args else None
        if not isinstance(name, ast.Constant) or not isinstance(name.value, str) or not name.value.isidentifier():
            raise self.refuse(node, "link_address() wants the name of a symbol")
        self.uses.links.add(name.value)
        return Value(f"cython.cast(u64, cython.address(krait_link_{name.value}[0]))", U64)

    # -- words of Python -------------------------------------------------------------------------------------------------------
    def _word_len(self, node: ast.Call) -> Value:
        value = self._one(node)
        if isinstance(value.const, str):
            return constant(len(value.const), LITERAL)
        if not isinstance(value.type, Arr):
            raise self.refuse(node, "len() wants a fixed array or a constant text", "count with char_at()")
        return constant(value.type.count, LITERAL)

    def _word_ord(self, node: ast.Call) -> Value:
        value = self._one(node)
        if not isinstance(value.const, str) or len(value.const) != 1:
            raise self.refuse(node, 'ord() wants a constant character', "char_at(text, i)")
        return constant(ord(value.const), LITERAL)

    def _word_bool(self, node: ast.Call) -> Value:
        self._one(node)
        return self.condition(node.args[0])

    def _extreme(self, node: ast.Call, name: str) -> Value:
        if len(node.args) != 2 or node.keywords:
            raise self.refuse(node, f"{name}() takes two arguments")
        left, right = self.sequence([self.value(part) for part in node.args])
        if isinstance(left.const, int) and isinstance(right.const, int):
            return constant(min(left.const, right.const) if name == "min" else max(left.const, right.const), LITERAL)
        signed = self.signedness(node, [left, right])
        width = I64 if signed else U64
        result = Value(f"krait_{name}_{width.name}({self.wide(left, signed)}, {self.wide(right, signed)})", width,
                       reads=left.reads or right.reads, calls=left.calls or right.calls)
        (low, high), (start, end) = bounds(left), bounds(right)
        result.low, result.high = (min(low, start), min(high, end)) if name == "min" else (max(low, start), max(high, end))
        return result

    def _word_min(self, node: ast.Call) -> Value:
        return self._extreme(node, "min")

    def _word_max(self, node: ast.Call) -> Value:
        return self._extreme(node, "max")


def _far(value: Value, integer: Int) -> bool:
    return isinstance(value.const, int) and not -(1 << 31) <= value.const < 1 << 31 and integer.signed and value.const > 0
