"""Losses and their derivatives by torch autograd, sharing no code with the operator table."""

import torch
import torch.nn.functional as F

from evoloss.lang.expr import Call, Const, Expr, Input

GUARD = 1e-7
OPERATORS = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "aq": lambda a, b: a / torch.hypot(torch.ones_like(b), b),
    "neg": lambda a: -a,
    "sign": torch.sign,
    "square": lambda a: a**2,
    "abs": torch.abs,
    "log": lambda a: torch.log(a.abs().clamp(min=GUARD)),
    "sqrt": lambda a: torch.sqrt(a.abs().clamp(min=GUARD)),
    "tanh": torch.tanh,
    "min": torch.minimum,
    "max": torch.maximum,
    "exp": torch.exp,
    "sigmoid": torch.sigmoid,
    "softplus": lambda a: F.softplus(a, threshold=40),
    "lt": lambda a, b: (a < b).to(a.dtype),
    "gt": lambda a, b: (a > b).to(a.dtype),
    "ln": torch.log,
    "root": torch.sqrt,
    "log1p": torch.log1p,
    "expm1": torch.expm1,
    "pow": torch.pow,
    "relu": torch.relu,
    "logsigmoid": lambda a: -F.softplus(-a, threshold=40),
    "sin": torch.sin,
    "cos": torch.cos,
    "atan": torch.atan,
    "erf": torch.erf,
    "floor": torch.floor,
    "clamp_min": lambda a, b: torch.clamp(a, min=b),
    "clamp_max": lambda a, b: torch.clamp(a, max=b),
    "huber": lambda a, b: torch.where(a.abs() <= b, a**2 / 2, b * (a.abs() - b / 2)),
    "detach": torch.detach,
    "le": lambda a, b: (a <= b).to(a.dtype),
    "ge": lambda a, b: (a >= b).to(a.dtype),
    "eq": lambda a, b: (a == b).to(a.dtype),
    "ne": lambda a, b: (a != b).to(a.dtype),
    "and": lambda a, b: torch.logical_and(a > 0.5, b > 0.5).to(a.dtype),
    "or": lambda a, b: torch.logical_or(a > 0.5, b > 0.5).to(a.dtype),
    "not": lambda a: (a <= 0.5).to(a.dtype),
    "where": lambda a, b, c: torch.where(a > 0.5, b, c),
}


def element_loss(expr: Expr, y, f, phi=(), weights="edges"):
    """The loss of every element; phi: a sequence of numbers or tensors, one for each weight."""
    slots = iter(phi)
    result = _value(expr, y, f, slots, weights)
    assert next(slots, None) is None, "more weights than the expression has"
    return result


def _value(expr, y, f, slots, weights):
    if isinstance(expr, Input):
        return {"y": y, "f": f}[expr.name]
    if isinstance(expr, Const):
        return torch.full_like(f, expr.value)
    assert isinstance(expr, Call)
    operands = []
    for arg in expr.args:
        if weights == "edges":
            weight = next(slots)
            operands.append(weight * _value(arg, y, f, slots, weights))
        elif weights == "constants" and isinstance(arg, Const):
            operands.append(next(slots) * torch.ones_like(f))
        else:
            operands.append(_value(arg, y, f, slots, weights))
    return OPERATORS[expr.op](*operands)


def weight_count(expr: Expr, weights="edges") -> int:
    if not isinstance(expr, Call):
        return 0
    own = {
        "edges": len(expr.args),
        "constants": sum(isinstance(arg, Const) for arg in expr.args),
        "none": 0,
    }[weights]
    return own + sum(weight_count(arg, weights) for arg in expr.args)


def batch_loss(expr: Expr, y, f, phi=(), weights="edges"):
    """Summed over the outputs, averaged over the rows of (B, C)."""
    return element_loss(expr, y, f, phi, weights).expand_as(f).sum(1).mean(0)


def derivatives(value_of, f, phi, w, z):
    """Value, gradient and Hessian-vector product along (w, z) of value_of(f, phi), in float64.

    value_of: may return many values, as long as each depends on its own part of f and φ only.
    Returns: values, ∂f, ∂φ, H_f, H_φ, shaped as what they belong to.
    """
    f = f.detach().double().requires_grad_()
    phi = phi.detach().double().requires_grad_()
    value = value_of(f, phi)
    by_f, by_phi = _grad(value.sum(), f, phi)
    bend_f, bend_phi = _grad((by_f * w).sum() + (by_phi * z).sum(), f, phi)
    return [each.detach() for each in (value, by_f, by_phi, bend_f, bend_phi)]


def _grad(value, *inputs):
    if not value.requires_grad:
        return [torch.zeros_like(each) for each in inputs]
    return torch.autograd.grad(value, inputs, create_graph=True, materialize_grads=True)


def sequential(weights):
    """The loss network as a plain module in double precision, from its 2,650 weights.

    Takes (…, 2) pairs of y and f, gives (…, 1) losses.
    """
    module = torch.nn.Sequential(
        torch.nn.Linear(2, 50, bias=False), torch.nn.ReLU(),
        torch.nn.Linear(50, 50, bias=False), torch.nn.ReLU(),
        torch.nn.Linear(50, 1, bias=False), torch.nn.Softplus(threshold=40),
    ).double()  # fmt: skip
    torch.nn.utils.vector_to_parameters(torch.as_tensor(weights).double(), module.parameters())
    return module
