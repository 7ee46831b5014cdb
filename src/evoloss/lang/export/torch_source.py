"""Writes a loss as a self-contained PyTorch file; `to_torch` runs that very file."""

from __future__ import annotations

import ast
import hashlib
import keyword
import linecache
import textwrap
from types import ModuleType
from typing import TYPE_CHECKING, Any

from evoloss.errors import UserError
from evoloss.lang.expr import Call, Const, Expr, Input, check, walk
from evoloss.lang.network import NAME, Network
from evoloss.lang.ops import BATCH_KINDS, OPERANDS, OPERATORS, Kind, Operator
from evoloss.lang.text import ATOM, EXACT, number, to_text
from evoloss.lang.types import Output

if TYPE_CHECKING:
    from torch import nn

WIDTH = 88
FILLED = "torch.full_like(f, {})"

_TORCH = {
    "abs": "torch.abs", "sign": "torch.sign", "sqrt": "torch.sqrt", "exp": "torch.exp",
    "log": "torch.log", "tanh": "torch.tanh", "sigmoid": "torch.sigmoid",
    "log1p": "torch.log1p", "expm1": "torch.expm1", "sin": "torch.sin", "cos": "torch.cos",
    "atan": "torch.atan", "erf": "torch.erf", "floor": "torch.floor", "power": "torch.pow",
    "detach": "torch.detach",
    "minimum": "torch.minimum", "maximum": "torch.maximum", "where": "torch.where",
}  # fmt: skip
"""torch's names for the functions of the operator table's texts."""

_TRANSFORM = {
    "identity": ("the network's output itself", "prediction"),
    "sigmoid": ("the sigmoid of the network's raw output", "torch.sigmoid(prediction)"),
    "softmax": (
        "the softmax of the network's raw output (logits)", "torch.softmax(prediction, dim=-1)"
    ),
}  # fmt: skip

_NETWORK = '''\
class LossNetwork(nn.Module):
    """2-50-50-1, ReLU, no biases, the softplus of its output, at every (y, f)."""

    def __init__(self, weights: tuple[float, ...]) -> None:
        super().__init__()
        first, second, third = torch.tensor(weights).split((100, 2500, 50))
        self.register_buffer("first", first.view(50, 2))
        self.register_buffer("second", second.view(50, 50))
        self.register_buffer("third", third.view(1, 50))

    def forward(self, y: Tensor, f: Tensor) -> Tensor:
        x = torch.stack((y, f), dim=-1)
        x = torch.relu(nn.functional.linear(x, self.first.to(f.dtype)))
        x = torch.relu(nn.functional.linear(x, self.second.to(f.dtype)))
        x = nn.functional.linear(x, self.third.to(f.dtype)).squeeze(-1)
        return nn.functional.softplus(x, threshold=40.0)
'''

_MEMBERS = """
    def __init__(self) -> None:
        super().__init__()
{members}
"""

_RESHAPED = """\
        if prediction.dim() == 1:
            prediction = prediction.unsqueeze(-1)
        if target.dim() == 1 and prediction.shape[-1] == 1:
            target = target.unsqueeze(-1)
"""
_ONE_HOT = """\
        if target.dim() == prediction.dim() - 1 and not target.is_floating_point():
            target = nn.functional.one_hot(target.long(), prediction.shape[-1])
"""
_TARGET = {
    "identity": ("floats of the prediction's shape, or (B,) if it is (B, 1)", _RESHAPED),
    "sigmoid": ("0 or 1 in the prediction's shape, or (B,) if it is (B, 1)", _RESHAPED),
    "softmax": ("integer class indices (B,), or floats of the prediction's shape", _ONE_HOT),
}

_FILE = '''\
"""A loss function discovered by evoloss.

    L(y, f) = {formula}

f is {transform}, y the target.
L is summed over the outputs and averaged over the batch.
"""

import torch
from torch import Tensor, nn
{helpers}

class {name}(nn.Module):
    """Called as `loss(prediction, target)`; returns a scalar.

    prediction: (B, C), {transform_argument}.
    target: {target}.
    """
{members}
    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
{reshaped}\
        if target.shape != prediction.shape:
            raise ValueError(
                f"target of shape {{list(target.shape)}} for a prediction of shape "
                f"{{list(prediction.shape)}}: "
                "give {target}"
            )
        y = target.to(prediction.dtype)
        f = {f}
{loss}
        return loss.sum(dim=-1).mean()
'''


def torch_source(expr: Expr, output: Output, name: str = "DiscoveredLoss") -> str:
    """The text of a Python file that defines the loss as a torch module and imports only torch.

    output: the transform that the module applies to the raw output of the network.
    Raises LossError if the expression is not a supervised loss, UserError for an unusable name.
    """
    check(expr)
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UserError(f"'{name}' cannot name a class: take another")
    transform, f = _TRANSFORM[output]
    target, reshaped = _TARGET[output]
    argument = "the network's output" if output == "identity" else "raw: this applies the " + output
    return _FILE.format(
        formula=wrapped(to_text(expr, EXACT), 4),
        transform=transform,
        transform_argument=argument,
        target=target,
        reshaped=reshaped,
        helpers="".join(f"\n\n{text}" for text in function_texts(expr)),
        members=_members(expr),
        name=name,
        f=f,
        loss=_assignment(written(expr)),
    )


def to_torch(expr: Expr, output: Output, name: str = "DiscoveredLoss") -> nn.Module:
    """The loss as a torch module, made by running the exported file."""
    loss: nn.Module = defined(torch_source(expr, output, name), name)()
    return loss


def defined(source: str, name: str) -> Any:
    """What an exported file defines under a name."""
    filename = f"<evoloss loss {hashlib.sha256(source.encode()).hexdigest()[:16]}>"
    # TorchScript and tracebacks look for a module's text here.
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    module = ModuleType("discovered_loss")
    exec(compile(source, filename, "exec"), module.__dict__)
    return getattr(module, name)


def wrapped(text: str, indent: int) -> str:
    """The text in lines of WIDTH, all but the first indented four further than `indent`."""
    lines = textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
    return f"\n{' ' * (indent + 4)}".join(lines)


def _assignment(text: str) -> str:
    if len(text) <= WIDTH - len("loss = "):
        return f"        loss = {text}"
    return f"        loss = (\n            {wrapped(text, 8)}\n        )"


# Operators that torch has under one name are written by it; the others become functions.


def function_texts(expr: Expr) -> list[str]:
    """The functions and modules that the loss calls besides torch's own."""
    return [*map(_helper, _helpers(expr)), *_network_texts(expr)]


def written(expr: Expr, filled: str = FILLED) -> str:
    """The loss as Python text; filled: the template of a tensor that holds a number."""
    return _write(expr, filled)[0]


def _own_name(row: Operator) -> str | None:
    """torch's name for an operator whose text is one call on its operands; None if it is more."""
    body = ast.parse(row.value, mode="eval").body
    if row.kind is Kind.LOGICAL:
        return f"torch.logical_{row.name}"
    plain = isinstance(body, ast.Call) and all(isinstance(arg, ast.Name) for arg in body.args)
    return None if row.kind in BATCH_KINDS or not plain else _TORCH.get(row.value.partition("(")[0])


def _helpers(expr: Expr) -> list[Operator]:
    used = {node.op for node in walk(expr) if isinstance(node, Call)}
    rows = [row for row in OPERATORS.values() if row.name in used and row.infix is None]
    return [row for row in rows if row.kind is not Kind.SELECTION and _own_name(row) is None]


def _helper(row: Operator) -> str:
    if row.kind in BATCH_KINDS:
        body = row.torch
    else:
        body = ast.unparse(_Torch().visit(ast.parse(row.value, mode="eval")))
    parameters = ", ".join(f"{operand}: Tensor" for operand in OPERANDS[: row.arity])
    return f"def {row.name}({parameters}) -> Tensor:\n    return {body}\n"


# A network is a module of its own, with its weights above it.


def _networks(expr: Expr) -> list[Network]:
    """Every network that occurs, once."""
    return list(dict.fromkeys(node for node in walk(expr) if isinstance(node, Network)))


def _name(network: Network) -> str:
    return f"{NAME}_{network.digest}"


def _network_texts(expr: Expr) -> list[str]:
    weights = [
        f"{_name(network).upper()} = (\n    {wrapped(', '.join(network.digits), 0)},\n)\n"
        for network in _networks(expr)
    ]
    return [*weights, _NETWORK] if weights else []


def _members(expr: Expr) -> str:
    names = map(_name, _networks(expr))
    lines = [f"        self.{name} = LossNetwork({name.upper()})" for name in names]
    return _MEMBERS.format(members="\n".join(lines)) if lines else ""


class _Torch(ast.NodeTransformer):
    """Writes a text of the operator table for torch."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        assert isinstance(node.func, ast.Name)
        operands = [ast.unparse(arg) for arg in node.args]
        if node.func.id == "softplus":
            # Past 40, log(1 + e^a) is a to the last bit of a float64.
            text = f"nn.functional.softplus({operands[0]}, threshold=40.0)"
        elif node.func.id == "maximum" and isinstance(node.args[1], ast.Constant):
            text = f"torch.clamp({operands[0]}, min={operands[1]})"
        else:
            text = f"{_TORCH[node.func.id]}({', '.join(operands)})"
        return ast.parse(text, mode="eval").body


def _write(expr: Expr, filled: str = FILLED) -> tuple[str, int, bool]:
    """Python text, the precedence of its outermost operator, and whether it is a tensor.

    filled: the template of a tensor that holds a number.
    """
    match expr:
        case Input(name):
            return name, ATOM, True
        case Const(value):
            text = number(value)
            return text, 3 if text.startswith("-") else ATOM, False
        case Network():
            return f"self.{_name(expr)}(y, f)", ATOM, True
        case Call(op, args):
            row = OPERATORS[op]
            if row.infix is not None:
                return _infix(row, args, filled)
            function = "torch.where" if row.kind is Kind.SELECTION else _own_name(row) or op
            return f"{function}({', '.join(_tensor(arg, filled) for arg in args)})", ATOM, True


def _infix(row: Operator, args: tuple[Expr, ...], filled: str) -> tuple[str, int, bool]:
    parts = [_write(arg, filled) for arg in args]
    # Two numbers would be computed by Python, which raises on a division by zero.
    if len(parts) == 2 and not parts[0][2] and not parts[1][2]:
        parts[0] = (_tensor(args[0], filled), ATOM, True)
    least = row.precedence + (row.precedence == 0)
    texts = [
        text if precedence >= least + (index == 1) else f"({text})"
        for index, (text, precedence, _) in enumerate(parts)
    ]
    if len(texts) == 1:
        return f"{row.infix}{texts[0]}", row.precedence, parts[0][2]
    return f" {row.infix} ".join(texts), row.precedence, True


def _tensor(expr: Expr, filled: str) -> str:
    """The text of an operand that has to be a tensor."""
    text, _, is_tensor = _write(expr, filled)
    return text if is_tensor else filled.format(text)
