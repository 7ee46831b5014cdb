"""Python's own operators and functions, on plain numbers and on symbolic tensors."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable

from evoloss.lang.expr import Call, Input
from evoloss.lang.reader.build import Builder, simplest
from evoloss.lang.reader.functions import FUNCTIONS, Handler, exclusive
from evoloss.lang.reader.limits import MAX_ITEMS, Refusal
from evoloss.lang.reader.methods import shape
from evoloss.lang.reader.values import Items, Tensor, Value, is_number, items_of, short
from evoloss.lang.types import Type

_LARGEST = 10**15  # of a whole number: exact as a float, and quick to compute with

_ARITHMETIC: dict[type[ast.operator], tuple[Callable[..., Value], str]] = {
    ast.Add: (operator.add, "add"),
    ast.Sub: (operator.sub, "sub"),
    ast.Mult: (operator.mul, "mul"),
    ast.Div: (operator.truediv, "div"),
    ast.FloorDiv: (operator.floordiv, "floor"),
    ast.Mod: (operator.mod, "mod"),
    ast.Pow: (operator.pow, "pow"),
}
_MASKS = {ast.BitAnd: "and", ast.BitOr: "or"}
_COMPARISONS: dict[type[ast.cmpop], tuple[Callable[..., bool], str]] = {
    ast.Lt: (operator.lt, "lt"),
    ast.Gt: (operator.gt, "gt"),
    ast.LtE: (operator.le, "le"),
    ast.GtE: (operator.ge, "ge"),
    ast.Eq: (operator.eq, "eq"),
    ast.NotEq: (operator.ne, "ne"),
}


def binary(m: Builder, op: ast.operator, left: Value, right: Value) -> Value:
    """left op right."""
    if isinstance(op, ast.Add) and isinstance(left, tuple) and isinstance(right, tuple):
        m.budget.pass_over(len(left) + len(right))
        return short([*left, *right])
    if isinstance(op, ast.BitXor):
        return exclusive(m, left, right)
    if type(op) in _MASKS:
        return FUNCTIONS[f"logical_{_MASKS[type(op)]}"](m, _only_mask(left), _only_mask(right))
    if type(op) not in _ARITHMETIC:
        raise Refusal(f"the operator {type(op).__name__} is not read")
    function, name = _ARITHMETIC[type(op)]
    if is_number(left) and is_number(right):
        return _computed(function, left, right)
    if name == "sub" and any(_is_mask(each) for each in (left, right)):
        raise Refusal("torch cannot subtract comparisons: turn them into floats first")
    if name in ("floor", "mod"):
        floor = m.apply("floor", m.apply("div", left, right))
        return floor if name == "floor" else m.apply("sub", left, m.apply("mul", right, floor))
    return simplest(m, name, left, right)


def _is_mask(value: Value) -> bool:
    return isinstance(value, Tensor) and value.type in (Type.MASK, Type.FLAG)


def _only_mask(value: Value) -> Value:
    if not _is_mask(value):
        raise Refusal("& and | are read between comparisons")
    return value


def _computed(function: Callable[..., Value], left: float, right: float) -> float:
    """Arithmetic on plain numbers, without the means to fill the memory."""
    if function is operator.pow and isinstance(right, int) and abs(right) > 50:
        left = float(left)  # else a whole number of any size may come out
    try:
        value = function(left, right)
    except (ArithmeticError, ValueError) as error:
        raise Refusal(f"this cannot be computed: {error}") from None
    return plain(value)


def plain(value: Value) -> float:
    """A number of ordinary size. Raises Refusal for a complex or a huge one."""
    if not is_number(value) or (isinstance(value, int) and abs(value) > _LARGEST):
        raise Refusal("a number is too large or not a real one")
    return value  # type: ignore[no-any-return]


def compare(m: Builder, op: ast.cmpop, left: Value, right: Value) -> Value:
    """left op right, for one comparison of a chain."""
    if isinstance(op, ast.Is | ast.IsNot):
        if left is not None and right is not None:
            raise Refusal("'is' is read for None only")
        return (left is right) is isinstance(op, ast.Is)
    if type(op) not in _COMPARISONS:
        raise Refusal("'in' is not read")
    function, name = _COMPARISONS[type(op)]
    if isinstance(left, tuple) and isinstance(right, tuple) and name in ("eq", "ne"):
        return _compared_shapes(m, name, left, right)
    if _is_batch_size(left) and is_number(right) and right < 1:
        return function(1, right)  # a batch has at least one element
    if isinstance(left, Tensor) or isinstance(right, Tensor):
        return m.apply(name, left, right)
    if left is None or right is None or isinstance(left, str) or isinstance(right, str):
        if name in ("eq", "ne"):
            return function(left, right)
        raise Refusal("None and texts have no order")
    if is_number(left) and is_number(right):
        return function(left, right)
    raise Refusal("a comparison is read between numbers and tensors")


def _is_batch_size(value: Value) -> bool:
    match value:
        case Tensor(Call("size", (Input(),))):
            return True
    return False


def _compared_shapes(
    m: Builder, name: str, left: tuple[Value, ...], right: tuple[Value, ...]
) -> Value:
    """Whether two shapes are (eq) or are not (ne) the same."""
    if len(left) != len(right) or not left:
        return (len(left) == len(right)) is (name == "eq")
    if len(left) > 1 or not all(map(_is_batch_size, (*left, *right))):
        raise Refusal("a comparison is read between numbers, tensors and their shapes")
    if left[0].expr == right[0].expr:
        return name == "eq"
    return m.apply(name, left[0], right[0])


def unary(m: Builder, op: ast.unaryop, operand: Value) -> Value:
    """op operand."""
    if isinstance(op, ast.UAdd):
        return operand if is_number(operand) else m.number(operand)
    if isinstance(op, ast.USub):
        return -operand if is_number(operand) else m.apply("neg", operand)
    if isinstance(op, ast.Invert):
        return m.apply("not", _only_mask(operand))
    known = truth(operand)
    return m.apply("not", m.mask(operand)) if known is None else not known


def truth(value: Value) -> bool | None:
    """Whether a value counts as true; None if that depends on the data."""
    if isinstance(value, Tensor):
        if value.type in (Type.VECTOR, Type.MASK):
            raise Refusal("a whole tensor has no truth value: use any() or all()")
        return None
    if value is None or isinstance(value, int | float | str | tuple):
        return bool(value)
    raise Refusal("this has no truth value")


def element(m: Builder, owner: Value, key: Value) -> Value:
    """owner[key]."""
    if isinstance(owner, tuple):
        if isinstance(key, slice):
            m.budget.pass_over(len(owner))
            return Items(owner[_plain_slice(key)])
        if not isinstance(key, int) or not -len(owner) <= key < len(owner):
            raise Refusal("this position does not exist")
        return owner[key]
    if not isinstance(owner, Tensor):
        raise Refusal("only tensors, lists and tuples have elements")
    if owner.type is Type.MASK:
        owner = m.number(owner)
    if isinstance(key, slice):
        return _part(m, m.vector(owner), key)
    if isinstance(key, Tensor) and key.type is Type.MASK:
        return m.apply("select", key, m.vector(owner))
    if key is Ellipsis:
        return owner
    if (is_number(key) and not isinstance(key, bool)) or _is_length(key):
        start = _from_start(m, owner, key)
        rest = m.apply("tail", m.vector(owner), start)
        return m.apply("sum", m.apply("head", rest, 1))
    raise Refusal("a tensor is read with a position, a range or a comparison in the brackets")


def _is_length(value: Value) -> bool:
    return isinstance(value, Tensor) and value.type is Type.SCALAR and not value.trained


def _plain_slice(key: slice) -> slice:
    if any(not (each is None or isinstance(each, int)) for each in (key.start, key.stop, key.step)):
        raise Refusal("a list is cut at plain numbers only")
    return key


def _part(m: Builder, vector: Tensor, key: slice) -> Tensor:
    if key.step not in (None, 1):
        raise Refusal("a tensor is cut in steps of 1 only")
    if key.stop is not None:
        vector = m.apply("head", vector, _from_start(m, vector, key.stop))
    if key.start not in (None, 0):
        vector = m.apply("tail", vector, _from_start(m, vector, key.start))
    return vector


def _from_start(m: Builder, vector: Tensor, position: Value) -> Value:
    """A position counted from the start: a negative one counts from the end."""
    if isinstance(position, Tensor):
        if not _is_length(position):
            raise Refusal("a position must not depend on what is trained")
        is_negative = isinstance(position.expr, Call) and position.expr.op == "neg"
        return m.apply("add", m.length(vector), position) if is_negative else position
    if not isinstance(position, int) or isinstance(position, bool):
        raise Refusal("a position must be a whole number")
    return position if position >= 0 else m.apply("add", m.length(vector), position)


def _extremum(name: str, bound: str, function: Callable[..., Value]) -> Handler:
    def handler(m: Builder, *values: Value) -> Value:
        if len(values) == 1 and isinstance(values[0], Tensor):
            return m.apply(f"a{name}", values[0])
        items = items_of(values[0]) if len(values) == 1 else values
        if not items:
            raise Refusal(f"{name} of nothing")
        found = items[0]
        for item in items[1:]:
            found = _extreme_of_two(m, found, item)
        return found

    def _extreme_of_two(m: Builder, a: Value, b: Value) -> Value:
        if is_number(a) and is_number(b):
            return function(a, b)
        for each in (a, b):
            if isinstance(each, Tensor) and each.type in (Type.VECTOR, Type.MASK):
                raise Refusal(f"Python's {name} cannot compare whole tensors: use torch.{name}imum")
        if is_number(a) and a == 0 and name == "max":
            return m.apply("relu", b)
        if is_number(a) or is_number(b):
            return m.apply(bound, *((b, a) if is_number(a) else (a, b)))
        return m.apply(name, a, b)

    return handler


def _sum(m: Builder, values: Value, start: Value = 0) -> Value:
    if isinstance(values, Tensor):
        return m.apply("sum", values)
    total = start
    for item in items_of(values):
        total = binary(m, ast.Add(), total, item)
    return total


def _range(m: Builder, *bounds: Value) -> Value:
    for bound in bounds:
        if isinstance(bound, Tensor):
            raise Refusal("a loop over the batch: use operations on the whole tensor")
        if not isinstance(bound, int):
            raise Refusal("range wants whole numbers")
    if not 1 <= len(bounds) <= 3 or (len(bounds) == 3 and bounds[2] == 0):
        raise Refusal("range wants one to three whole numbers")
    found = range(*bounds)
    if len(found) > MAX_ITEMS:
        raise Refusal(f"a range of more than {MAX_ITEMS} numbers")
    return Items(found)


def _zip(m: Builder, *lists: Value) -> Value:
    return Items(zip(*(items_of(each) for each in lists), strict=False))


def _enumerate(m: Builder, values: Value, start: Value = 0) -> Value:
    if not isinstance(start, int):
        raise Refusal("enumerate starts at a whole number")
    return Items(enumerate(items_of(values), start))


def _length(m: Builder, value: Value) -> Value:
    if isinstance(value, Tensor):
        if not shape(m, value):
            raise Refusal("a single number has no length")
        return m.length(value)
    return len(items_of(value))


def _float(m: Builder, value: Value) -> Value:
    if isinstance(value, str):
        raise Refusal("a number from a text: write the number")
    return float(value) if is_number(value) else _single(m, value)


def _int(m: Builder, value: Value) -> Value:
    if is_number(value):
        return plain(int(value) if math.isfinite(value) else None)
    return m.apply("floor", _single(m, value))  # of a number of elements: none is negative


def _single(m: Builder, value: Value) -> Tensor:
    """A tensor of one element that leaves the graph, as float() and item() make it."""
    tensor = m.detach(m.number(value))
    if tensor.type is not Type.SCALAR:
        raise Refusal("a single number is wanted here")
    return tensor


def _abs(m: Builder, value: Value) -> Value:
    return abs(value) if is_number(value) else m.apply("abs", value)


def _every(combine: str, function: Callable[..., bool]) -> Handler:
    def handler(m: Builder, values: Value) -> Value:
        if isinstance(values, Tensor):
            return FUNCTIONS["any" if combine == "or" else "all"](m, values)
        if all(truth(each) is not None for each in items_of(values)):
            return function(truth(each) for each in values)
        found = m.mask(values[0])
        for each in values[1:]:
            found = m.apply(combine, found, m.mask(each))
        return found

    return handler


BUILTINS: dict[str, Handler] = {
    "abs": _abs, "sum": _sum, "len": _length, "range": _range, "zip": _zip, "float": _float,
    "int": _int, "enumerate": _enumerate, "any": _every("or", any), "all": _every("and", all),
    "max": _extremum("max", "clamp_min", max), "min": _extremum("min", "clamp_max", min),
    "pow": lambda m, base, exp: binary(m, ast.Pow(), base, exp),
    "list": lambda m, values=(): Items(items_of(values)),
    "tuple": lambda m, values=(): Items(items_of(values)),
    "reversed": lambda m, values: Items(reversed(items_of(values))),
}  # fmt: skip
"""Python's functions by name."""

_MATH = (
    "exp", "log", "sqrt", "tanh", "sin", "cos", "tan", "atan", "erf", "log1p", "expm1", "log2",
    "log10", "sinh", "cosh", "floor", "ceil",
)  # fmt: skip
MATH_CONSTANTS = {"pi": math.pi, "e": math.e, "inf": math.inf, "tau": math.tau}


def _mathematical(name: str) -> Handler:
    function: Callable[[float], float] = getattr(math, name)

    def handler(m: Builder, x: Value) -> Value:
        if not is_number(x):  # math gives plain numbers, which no gradient passes
            return FUNCTIONS[name](m, _single(m, x))
        try:
            return plain(function(x))
        except (ArithmeticError, ValueError) as error:
            raise Refusal(f"{name}({x}) cannot be computed: {error}") from None

    return handler


def _logarithm(m: Builder, x: Value, base: Value = None) -> Value:
    found = _mathematical("log")(m, x)
    return found if base is None else binary(m, ast.Div(), found, _mathematical("log")(m, base))


MATH: dict[str, Handler] = {
    **{name: _mathematical(name) for name in _MATH},
    "log": _logarithm,
    "pow": lambda m, x, y: binary(m, ast.Pow(), x, y),
    "fabs": _abs, "abs": _abs, "maximum": BUILTINS["max"], "minimum": BUILTINS["min"],
}  # fmt: skip
"""The functions of math (and NumPy's, which are the same on plain numbers) by name."""
