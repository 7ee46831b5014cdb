"""The types of loss expressions, and the signatures that say which inputs a loss may use."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Output = Literal["identity", "sigmoid", "softmax"]
"""How a network's raw output becomes the prediction f of a supervised loss."""


class Type(StrEnum):
    """What a node of an expression evaluates to."""

    VECTOR = "vector"  # one number per element (supervised) or per sequence (unlearning)
    SCALAR = "scalar"  # one number per batch; broadcasts against vectors and masks
    MASK = "mask"  # 0 or 1 per element; has no gradient
    FLAG = "flag"  # 0 or 1 per batch; has no gradient


@dataclass(frozen=True)
class Signature:
    """The inputs of a family of losses, the ones a loss must use, and the type it must return.

    reductions: whether operators over the batch may occur inside the expression. Where they may
        not, every element stands alone, which is what the fused kernels need.
    trained: the inputs that come from the model in training, so that gradients are taken for them.
    """

    name: str
    inputs: Mapping[str, Type]
    required: tuple[str, ...]
    output: Type
    reductions: bool
    trained: tuple[str, ...]


SUPERVISED = Signature(
    name="supervised",
    inputs={"y": Type.VECTOR, "f": Type.VECTOR},
    required=("y", "f"),
    output=Type.VECTOR,
    reductions=False,
    trained=("f",),
)
"""Target y and prediction f of one output; summed over outputs, averaged over the batch."""

UNLEARNING = Signature(
    name="unlearning",
    inputs={
        "log_probs_forget": Type.VECTOR,
        "log_probs_retain": Type.VECTOR,
        "ref_log_probs_forget": Type.VECTOR,
        "ref_log_probs_retain": Type.VECTOR,
    },
    required=("log_probs_forget",),
    output=Type.SCALAR,
    reductions=True,
    trained=("log_probs_forget", "log_probs_retain"),
)
"""Mean token log-probabilities per sequence, of the trained and of the reference model."""

UNLEARNING_FORGET = Signature(
    name="unlearning-forget",
    inputs={"log_probs_forget": Type.VECTOR, "ref_log_probs_forget": Type.VECTOR},
    required=("log_probs_forget",),
    output=Type.SCALAR,
    reductions=True,
    trained=("log_probs_forget",),
)
"""The same for those who have no retain set."""

UNLEARNING_TOKENS = Signature(
    name="unlearning-tokens",
    inputs={**UNLEARNING.inputs, "mask_forget": Type.MASK, "mask_retain": Type.MASK},
    required=("log_probs_forget",),
    output=Type.SCALAR,
    reductions=True,
    trained=("log_probs_forget", "log_probs_retain"),
)
"""Log-probabilities per token: those of all sequences, end to end, and which of them count."""

UNLEARNING_FORGET_TOKENS = Signature(
    name="unlearning-forget-tokens",
    inputs={**UNLEARNING_FORGET.inputs, "mask_forget": Type.MASK},
    required=("log_probs_forget",),
    output=Type.SCALAR,
    reductions=True,
    trained=("log_probs_forget",),
)
"""The same for those who have no retain set."""

MASKS = frozenset({"mask_forget", "mask_retain"})
"""The inputs that tell a loss of tokens from one of sequences."""


def unlearning_signature(tokens: bool, retain: bool) -> Signature:
    """Of an unlearning loss. tokens: whether it uses masks; retain: whether it has a retain set."""
    if retain:
        return UNLEARNING_TOKENS if tokens else UNLEARNING
    return UNLEARNING_FORGET_TOKENS if tokens else UNLEARNING_FORGET


SIGNATURES: Mapping[str, Signature] = {
    each.name: each
    for each in (
        SUPERVISED,
        UNLEARNING,
        UNLEARNING_FORGET,
        UNLEARNING_TOKENS,
        UNLEARNING_FORGET_TOKENS,
    )
}
"""Every signature by name."""
