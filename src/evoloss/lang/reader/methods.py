"""The methods and attributes of tensors that are not functions of torch as well."""

from __future__ import annotations

from evoloss.lang.reader.build import Builder
from evoloss.lang.reader.functions import FUNCTIONS, Handler, only_dimension
from evoloss.lang.reader.limits import Refusal
from evoloss.lang.reader.values import Items, Known, Tensor, Value
from evoloss.lang.types import Type

WHOLE = frozenset({"int", "long", "short", "int32", "int64", "int16", "int8", "uint8"})
"""Data types that would cut a number off."""


def _same(m: Builder, input: Value) -> Value:
    return m.tensor(input)


def _float(m: Builder, input: Value) -> Value:
    return m.number(input)


def _whole(m: Builder, input: Value) -> Value:
    tensor = m.tensor(input)
    if tensor.type not in (Type.MASK, Type.FLAG):
        raise Refusal("a conversion to whole numbers cuts off the gradient: leave it out")
    return m.number(tensor)


def _to(m: Builder, input: Value, *target: Value) -> Value:
    for each in target:
        if isinstance(each, Known) and each.path.removeprefix("torch.") in WHOLE:
            return _whole(m, input)
        if isinstance(each, Known) and each.path == "torch.bool":
            return m.mask(input)
    return m.number(input) if target else m.tensor(input)


def _flat(m: Builder, input: Value, *shape: Value) -> Value:
    """A view as a vector, which a vector is already."""
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
    if sizes not in ((-1,), ()):
        raise Refusal("the inputs have one dimension: only a view of (-1) is read")
    return m.tensor(input)


def _squeeze(m: Builder, input: Value, dim: Value = None) -> Value:
    only_dimension(dim)
    return m.tensor(input)


def _size(m: Builder, input: Value, dim: Value = None) -> Value:
    only_dimension(dim)
    return shape(m, m.tensor(input)) if dim is None else m.length(input)


def _item(m: Builder, input: Value) -> Value:
    tensor = m.detach(input)
    if tensor.type not in (Type.SCALAR, Type.FLAG):
        raise Refusal("item() wants a single number")
    return tensor


def _expand_as(m: Builder, input: Value, other: Value) -> Value:
    return m.like(other, input)


def shape(m: Builder, tensor: Tensor) -> Items:
    """The shape: (n,) of a vector, () of a single number."""
    return Items(() if dimensions(tensor) == 0 else (m.length(tensor),))


def dimensions(tensor: Tensor) -> int:
    return int(tensor.type in (Type.VECTOR, Type.MASK))


METHODS: dict[str, Handler] = {
    **FUNCTIONS,
    "float": _float, "double": _float, "half": _float, "bfloat16": _float,
    "int": _whole, "long": _whole, "bool": lambda m, input: m.mask(input),
    "to": _to, "type": _to, "type_as": lambda m, input, other: m.number(input),
    "contiguous": _same, "cpu": _same, "cuda": _same,
    "view": _flat, "reshape": _flat, "flatten": _flat, "ravel": _flat, "squeeze": _squeeze,
    "size": _size, "nelement": lambda m, input: m.length(input),
    "dim": lambda m, input: dimensions(m.tensor(input)),
    "ndimension": lambda m, input: dimensions(m.tensor(input)),
    "item": _item, "expand_as": _expand_as,
    "new_tensor": lambda m, input, data: FUNCTIONS["tensor"](m, data),
    "new_zeros": lambda m, input, *size: FUNCTIONS["zeros"](m, *size),
    "new_ones": lambda m, input, *size: FUNCTIONS["ones"](m, *size),
    "new_full": lambda m, input, size, fill_value: FUNCTIONS["full"](m, size, fill_value),
}  # fmt: skip
"""What can be called on a tensor."""


def attribute(m: Builder, tensor: Tensor, name: str) -> Value:
    """An attribute that is not called. Raises Refusal if it is not known."""
    match name:
        case "shape":
            return shape(m, tensor)
        case "ndim":
            return dimensions(tensor)
        case "data":
            return m.detach(tensor)
        case "dtype" | "device":
            return Known(f"torch.{name}")
        case "requires_grad":
            return tensor.trained
        case "T":
            return tensor
    raise Refusal(f"tensors have no attribute '{name}' that is read here")
