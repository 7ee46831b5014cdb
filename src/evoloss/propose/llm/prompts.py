"""What a language model is asked: for first losses, or for better ones than a parent.

Every part has a limit, so that a prompt stays short whatever the search has come upon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from evoloss.errors import UserError
from evoloss.lang.expr import Expr
from evoloss.lang.reader import MAX_EPOCHS
from evoloss.lang.types import Signature, Type
from evoloss.propose.llm.connection import Messages
from evoloss.propose.llm.evidence import failure, formula, line_of, measured, score, source
from evoloss.propose.llm.stream import short
from evoloss.propose.proposer import Goal, Individual

_SYSTEM = """\
You design loss functions for machine unlearning. A trained language model is fine-tuned for a \
few epochs by minimising your loss. Afterwards it must no longer know the texts of a forget set, \
and be as useful as before on everything else. You are precise, and you try ideas that differ."""

_MEANING = {
    "log_probs_forget": "log-probabilities of the forget set under the model in training",
    "log_probs_retain": "log-probabilities of the retain set under the model in training",
    "ref_log_probs_forget": "those of the forget set before unlearning, fixed",
    "ref_log_probs_retain": "those of the retain set before unlearning, fixed",
    "mask_forget": "True for the tokens of forget answers, which are the ones that count",
    "mask_retain": "True for the tokens of retain answers, which are the ones that count",
}

TORCH = {
    "on each element": "abs sign exp log log1p expm1 sqrt rsqrt square pow reciprocal sin cos tanh "
    "atan erf floor sigmoid relu clamp minimum maximum where lerp logaddexp",
    "over a batch": "mean sum std var median quantile amin amax norm logsumexp softmax log_softmax "
    "sort topk cat stack dot any all",
    "besides": "detach no_grad zeros_like ones_like full_like tensor logical_and logical_or "
    "logical_not isnan numel",
}
"""Functions of torch that the reader knows, most of them methods too."""
FUNCTIONAL = (
    "softplus logsigmoid relu leaky_relu elu silu gelu mish softsign huber_loss smooth_l1_loss "
    "mse_loss l1_loss kl_div binary_cross_entropy_with_logits margin_ranking_loss"
)
"""Functions of torch.nn.functional that the reader knows."""

_RULES = """\
Rules
- Minimising the loss must lower log_probs_forget{retain}, and the loss must be a single number.
- It must be finite, with finite gradients, also where probabilities come near 0 or 1: guard \
logarithms, divisions and roots.
{shapes}- Allowed of torch, as functions or methods:
{torch}
  of F (torch.nn.functional): {functional}
- Allowed of Python: arithmetic, comparisons, & | ~ on masks, math, if and else, conditional \
expressions, for over a fixed range or list, helper functions, lambdas, indexing by a mask.
- Not allowed: imports of anything else, changes in place, assignment to elements, while, try, \
classes, random numbers, files, printing, tensors of two dimensions.
- torch, F and math are there already. Constants are plain numbers in the code."""

_NOTATION = """\
In these formulas aq(a, b) is a / sqrt(1 + b * b), and log and sqrt are those of max(|a|, 1e-7)."""

_FORMAT = """\
Answer with exactly one block of this form, {functions}, and nothing after it:

<answer>
```python
def loss_fn_1({parameters}):
{epochs}    ...
    return loss
```
</answer>"""

HINTS = (
    "Bound the forget term, so that it lets go of a sequence once that is unlikely enough.",
    "Compare the model with its reference: work on differences of log-probabilities.",
    "Weigh the elements: most where the model still knows most; detach the weights.",
    "Set a target for the forgotten log-probabilities, and pull towards it instead of away.",
    "Use the shape of the batch, such as a quantile, the spread, logsumexp or the largest values.",
    "Make the transition smooth, with softplus, sigmoid or tanh and a temperature of your choice.",
    "Be robust to a few extreme elements: Huber, log1p, clamp, or a median.",
    "Take the shortest formula that could work, with constants that are well chosen.",
    "Work on probabilities, exp of the log-probabilities, rather than on log-probabilities.",
)
RETAIN_HINTS = (
    "Keep the retain set close to its reference, in both directions, rather than just likely.",
    "Let the retain term gain weight only where the retain set has lost against its reference.",
    "Balance the two terms by their present sizes, with detach, so that neither takes over.",
    "Use a margin between retain and forget log-probabilities instead of two separate terms.",
)
CHANGES = (
    "Repair what the measurements show as the parent's weakest point.",
    "Keep the parent's form, and change its constants and the balance of its terms.",
    "Replace one term of the parent by one of another shape.",
    "Simplify the parent: leave out what does not help, and make the rest stronger.",
    "Join the parent's best idea with one of another good loss.",
    "Keep what the parent aims at, and reach it by a different mechanism.",
)


@dataclass(frozen=True)
class Order:
    """How many losses of which signature are wanted, and the direction they should take.

    most_epochs: None where the number of epochs is not for the model to say. goal: what they are
    compared by.
    """

    signature: Signature
    number: int
    hint: str
    most_epochs: int | None
    goal: Goal = field(default_factory=Goal)


def hints(signature: Signature) -> tuple[str, ...]:
    """Directions for first losses: one for each sample, so that samples differ."""
    return HINTS + RETAIN_HINTS if "log_probs_retain" in signature.inputs else HINTS


def first(
    order: Order, known: Sequence[Expr], failed: Sequence[Individual], refused: Sequence[str]
) -> Messages:
    """Asks for losses from nothing. known: losses that are tried anyway."""
    parts = [_task(order)]
    if known:
        parts.append(_listed("Known already; do not repeat these", map(formula, known)))
    parts += _mistakes(order, failed, refused)
    if known or failed:
        parts.append(_NOTATION)
    return _messages(order, parts)


def refinement(
    order: Order,
    parent: Individual,
    children: Sequence[Individual],
    others: Sequence[Individual],
    failed: Sequence[Individual],
    refused: Sequence[str],
) -> Messages:
    """Asks for better losses than the parent, which has the best score or nearly so.

    children: what was made of it before. others: further good losses; all of these were trained to
    the end. failed: its siblings and children that came to nothing or were stopped early, refused:
    functions that could not be read, and why.
    """
    parts = [
        _task(order),
        f"The parent, to be improved ({score(parent, order.goal)}; higher is better):\n\n"
        f"```python\n{source(parent, order.signature, order.most_epochs)}\n```",
    ]
    if found := measured(parent, order.goal):
        parts.append(found)
    if children:
        parts.append(
            _listed(
                "Changes of it that were tried", [line_of(each, order.goal) for each in children]
            )
        )
    if others:
        parts.append(_listed("Other good losses", [line_of(each, order.goal) for each in others]))
    parts += _mistakes(order, failed, refused)
    if children or others or failed:
        parts.append(_NOTATION)
    return _messages(order, parts)


def _messages(order: Order, parts: list[str]) -> Messages:
    parts += [f"Direction for this answer: {order.hint}", _format(order)]
    return (
        {"role": "system", "content": _SYSTEM},
        {"role": "user", "content": "\n\n".join(parts)},
    )


def _listed(title: str, lines: Sequence[str] | map[str]) -> str:
    return "\n".join([f"{title}:", *(f"- {line}" for line in lines)])


def _mistakes(order: Order, failed: Sequence[Individual], refused: Sequence[str]) -> list[str]:
    parts = []
    if failed:
        lines = [failure(each, order.goal) for each in failed]
        title = "Tried, and failed or stopped early: avoid what made these worse than others"
        parts.append(_listed(title, lines))
    if refused:
        parts.append(_listed("Just written, and refused: do not do this again",
                             [short(each) for each in refused]))  # fmt: skip
    return parts


def _task(order: Order) -> str:
    """The inputs and the rules."""
    signature = order.signature
    if unknown := [name for name in signature.inputs if name not in _MEANING]:
        raise UserError(f"a language model writes losses for unlearning, and the input "
                        f"'{unknown[0]}' is not of one: choose another method")  # fmt: skip
    tokens = Type.MASK in signature.inputs.values()
    retain = "log_probs_retain" in signature.inputs
    lines = [f"- {name}: {_MEANING[name]}" for name in signature.inputs]
    kind = (
        "All are vectors with one element a token, all sequences of the batch end to end."
        if tokens
        else "All are vectors with one element a sequence, the mean over its tokens, at most 0."
    )
    sizes = (
        "- The forget and the retain batch may differ in size: reduce each to a number before you "
        "combine them.\n"
        if retain
        else ""
    )
    rules = _RULES.format(
        retain=" and must raise, or leave, log_probs_retain" if retain else "",
        shapes=sizes,
        torch="\n".join(f"  {title}: {', '.join(names.split())}" for title, names in TORCH.items()),
        functional=", ".join(FUNCTIONAL.split()),
    )
    without = "" if retain else "\nThere is no retain set: the loss itself must do little damage."
    return "\n".join([f"Write {_functions(order.number)}.", "", "Inputs", *lines, kind + without,
                      "", rules])  # fmt: skip


def _functions(number: int) -> str:
    return "one loss function" if number == 1 else f"{number} loss functions that differ in idea"


def _format(order: Order) -> str:
    most = order.most_epochs
    named = "one function" if order.number == 1 else f"loss_fn_1 to loss_fn_{order.number}"
    epochs = "" if most is None else '    """epochs: K"""\n'
    text = _FORMAT.format(
        functions=named, parameters=", ".join(order.signature.inputs), epochs=epochs
    )
    if most is not None:
        text += (
            f"\n\nK is how many epochs to train with the loss, a whole number from 1 to "
            f"{min(most, MAX_EPOCHS)}: few for a loss that acts fast, more for a gentle one."
        )
    return text
