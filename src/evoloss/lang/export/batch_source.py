"""Writes a loss of a batch, such as one for unlearning, as a self-contained PyTorch function."""

from __future__ import annotations

import keyword
from collections.abc import Callable
from typing import Any

from evoloss.errors import UserError
from evoloss.lang.export.torch_source import defined, function_texts, wrapped, written
from evoloss.lang.expr import Expr, check
from evoloss.lang.text import EXACT, to_text
from evoloss.lang.types import Signature, Type

_FILE = '''\
"""A loss function discovered by evoloss.

    {formula}
"""

import torch
from torch import Tensor, nn
{helpers}

def {name}(
{parameters}
) -> Tensor:
    """{summary}

{descriptions}
    """
    {loss}
'''

_MEANING = {
    Type.VECTOR: "(n,) log-probabilities{reference}, one a {what}",
    Type.MASK: "(n,) booleans: which of them count",
}


def batch_source(expr: Expr, signature: Signature, name: str = "loss_fn_1") -> str:
    """The text of a Python file that defines the loss as a function and imports only torch.

    Raises LossError if the expression is not a loss of the signature, UserError for an unusable
    name.
    """
    check(expr, signature)
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UserError(f"'{name}' cannot name a function: take another")
    filled = f"{signature.trained[0]}.new_tensor({{}})"
    text = f"return {written(expr, filled)}"
    if len(text) > 88:
        text = f"return (\n        {wrapped(text.removeprefix('return '), 4)}\n    )"
    return _FILE.format(
        formula=wrapped(to_text(expr, EXACT), 0),
        helpers="".join(f"\n\n{text}" for text in function_texts(expr)),
        name=name,
        parameters="\n".join(f"    {each}: Tensor," for each in signature.inputs),
        summary="The loss of a batch, a scalar; minimise it.",
        descriptions="\n".join(_description(*each, signature) for each in signature.inputs.items()),
        loss=text,
    )


def to_function(expr: Expr, signature: Signature) -> Callable[..., Any]:
    """The loss as a function of tensors, made by running the exported file."""
    function: Callable[..., Any] = defined(batch_source(expr, signature), "loss_fn_1")
    return function


def _description(name: str, kind: Type, signature: Signature) -> str:
    reference = " before unlearning" if name.startswith("ref_") else ""
    what = "token" if Type.MASK in signature.inputs.values() else "sequence"
    return f"    {name}: {_MEANING[kind].format(reference=reference, what=what)}."
