"""What the names that a source does not define itself stand for: torch, math, Python."""

from __future__ import annotations

from evoloss.lang.reader.functions import Handler
from evoloss.lang.reader.limits import Refusal
from evoloss.lang.reader.losses import FUNCTIONAL
from evoloss.lang.reader.methods import WHOLE
from evoloss.lang.reader.python import BUILTINS, MATH, MATH_CONSTANTS
from evoloss.lang.reader.values import Known, Value

_TORCH = frozenset({"torch", "torch.nn.functional", "torch.special", "torch.linalg"})
_PLAIN = frozenset({"math", "numpy"})
_MODULES = _TORCH | _PLAIN | {"torch.nn"}
_DTYPES = frozenset({"float", "double", "half", "bool", "float16", "bfloat16", "float32",
                     "float64", *WHOLE})  # fmt: skip
_CONTEXTS = frozenset({"torch.no_grad", "torch.enable_grad"})

GLOBALS: dict[str, Value] = {
    "torch": Known("torch"), "math": Known("math"), "np": Known("numpy"),
    "numpy": Known("numpy"), "nn": Known("torch.nn"), "F": Known("torch.nn.functional"),
    **{name: Known(name) for name in BUILTINS}, "Ellipsis": Ellipsis,
}  # fmt: skip
"""The names that count as there without an import."""


def imported(path: str) -> Known:
    """The module or member that an import names. Raises Refusal for any that is not known."""
    if path in _MODULES:
        return Known(path)
    owner, _, name = path.rpartition(".")
    if owner in _MODULES:
        found = member(owner, name)
        if isinstance(found, Known):
            return found
    raise Refusal(f"the import of {path}: a loss needs torch and math only")


def member(path: str, name: str) -> Value:
    """An attribute of a module. Raises Refusal for any that is not known."""
    full = f"{path}.{name}"
    if full in _MODULES or full in _CONTEXTS:
        return Known(full)
    if path in _PLAIN | {"torch"} and name in MATH_CONSTANTS:
        return MATH_CONSTANTS[name]
    if (path in _TORCH and name in FUNCTIONAL) or (path in _PLAIN and name in MATH):
        return Known(full)
    if path in ("torch", "numpy") and (name in _DTYPES or name in ("device", "dtype", "Tensor")):
        return Known(full)
    raise Refusal(f"{full} is not on the list of what can be read")


def handler(path: str) -> Handler:
    """What a known name does when it is called."""
    owner, _, name = path.rpartition(".")
    table = {"": BUILTINS, "math": MATH, "numpy": MATH}.get(owner, FUNCTIONAL)
    if name not in table:
        raise Refusal(f"{path} cannot be called here")
    return table[name]
