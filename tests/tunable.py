"""Losses with constants, and how the tiny language model is trained with them."""

from evoloss.lang.parse import parse
from evoloss.lang.types import UNLEARNING, UNLEARNING_FORGET, UNLEARNING_TOKENS
from evoloss.unlearn.adapters import LoraSettings
from tiny_llama import small_model

LORA = LoraSettings(rank=2, alpha=8.0)
LR, CLIP, STEPS, FLOOR = 3e-2, 0.05, 6, 0.3


def restless_model():
    """Its log-probabilities differ more from answer to answer than a new model's."""
    return small_model(spread=0.3)


def signature(text, retain=True):
    if not retain:
        return UNLEARNING_FORGET
    return UNLEARNING_TOKENS if "mask" in text else UNLEARNING


def losses_of(*texts, retain=True):
    return [parse(each, signature(each, retain)) for each in texts]


FORGET, RETAIN = (f"select(mask_{each}, log_probs_{each})" for each in ("forget", "retain"))
RISE = "(log_probs_forget - ref_log_probs_forget)"
NPO = f"-20*mean(logsigmoid(-0.1*{RISE})) - 0.7*mean(log_probs_retain)"
WGA = f"mean(detach(exp(0.5*{FORGET}))*{FORGET}) - 0.3*mean({RETAIN})"
SQUARES = (
    "mean(log_probs_forget) + 2*mean(square(log_probs_retain - 1.1*ref_log_probs_retain))"
    " + 0.4*norm(log_probs_retain)"
)
ALONE = f"mean(softplus(0.3*{RISE})) + 0.2*mean(exp(0.5*log_probs_forget))"
