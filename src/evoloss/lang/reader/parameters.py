"""Which input of the signature each parameter of a loss function stands for, whatever its name."""

from __future__ import annotations

import ast

from evoloss.lang.expr import Input
from evoloss.lang.reader.limits import Refusal
from evoloss.lang.reader.values import Function, Tensor, Unusable, Value
from evoloss.lang.types import Signature


def arguments(function: Function, signature: Signature) -> dict[str, Value]:
    """The inputs by the names of the function's parameters; None for one the signature lacks.

    Names that say nothing are taken by their position. A parameter with a default that is no input
    keeps the default. Raises Refusal for a parameter that is neither.
    """
    parameters = function.parameters
    names = [each.arg for each in _all(parameters)]
    roles = {name: role(name) for name in names}
    if not any(roles.values()):
        roles.update(zip(names, signature.inputs, strict=False))
    positional = names[: len(names) - len(parameters.kwonlyargs)]
    optional = positional[len(positional) - len(function.defaults) :]
    optional += [
        each.arg
        for each, default in zip(parameters.kwonlyargs, function.keyword_defaults, strict=True)
        if not isinstance(default, Unusable)
    ]
    found: dict[str, Value] = {}
    for name in names:
        wanted = roles[name]
        if wanted is None:
            if name not in optional:
                raise Refusal(f"the parameter '{name}' is no input: a loss has "
                              f"{', '.join(signature.inputs)}")  # fmt: skip
        elif wanted not in signature.inputs:
            found[name] = None
        else:
            found[name] = Tensor(Input(wanted), signature.inputs[wanted],
                                 trained=wanted in signature.trained)  # fmt: skip
    return found


def role(name: str) -> str | None:
    """The input that a parameter's name speaks of; None if it speaks of none."""
    lower = name.lower()
    side = "forget" if "forget" in lower else "retain" if "retain" in lower else None
    if side is None or lower.startswith(("w_", "weight", "lambda", "alpha", "beta", "use_")):
        return None
    if "mask" in lower:
        return f"mask_{side}"
    return f"{'ref_' if 'ref' in lower else ''}log_probs_{side}"


def takes_forget(function: Function) -> bool:
    """Whether a parameter is the log-probabilities to forget."""
    return any(role(each.arg) == "log_probs_forget" for each in _all(function.parameters))


def names_used(function: Function) -> set[str]:
    """The names that occur in a function's body."""
    body = function.body if isinstance(function.body, list) else [function.body]
    return {node.id for part in body for node in ast.walk(part) if isinstance(node, ast.Name)}


def _all(parameters: ast.arguments) -> list[ast.arg]:
    return [*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs]


def returned(value: Value) -> Tensor:
    """What a loss function returned, as a tensor."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Unusable):
        raise Refusal(value.reason)
    if isinstance(value, tuple):
        raise Refusal("the function returns several values: a loss is one")
    raise Refusal("the function returns no tensor")
