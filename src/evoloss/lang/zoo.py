"""The known losses, written in the loss language.

Each supervised one is applied to one output's target y and prediction f. Classification losses take
y from {0, 1} (one-hot) and f from (0, 1), as softmax or sigmoid give it; they are summed over the
outputs. The language's log holds its operand's magnitude above 1e-7.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from evoloss.errors import UserError
from evoloss.lang import unlearning_losses as unlearning
from evoloss.lang.expr import Call, Expr, inputs_of
from evoloss.lang.parse import parse
from evoloss.lang.text import to_text
from evoloss.lang.types import (
    SUPERVISED,
    UNLEARNING,
    UNLEARNING_TOKENS,
    Signature,
    unlearning_signature,
)

LossKind = Literal["regression", "classification", "unlearning"]


@dataclass(frozen=True)
class Entry:
    """A known loss: from its constants to its text, with defaults and the paper it is from."""

    name: str
    text: Callable[..., str]
    constants: Mapping[str, float]
    kind: LossKind
    source: str
    signature: Signature = SUPERVISED


def _huber(delta: float) -> str:
    tail = f"{delta} * (abs(y - f) - {0.5 * delta})"
    return f"where(abs(y - f) < {delta}, 0.5 * square(y - f), {tail})"


def _log_cosh() -> str:
    # log cosh r = r + softplus(-2 r) - log 2 cannot overflow.
    return f"y - f + softplus(-2 * (y - f)) - {math.log(2.0)}"


def _focal(gamma: float) -> str:
    power = "square(1 - f)" if gamma == 2 else f"exp({gamma} * log(1 - f))"
    return f"-y * {power} * log(f)"


def _label_smoothing(classes: float, xi: float) -> str:
    _check_smoothing(classes, xi)
    return f"-({1 - xi} * y + {xi / classes}) * log(f)"


def _sparse_label_smoothing(classes: float, xi: float) -> str:
    _check_smoothing(classes, xi)
    others = f"{xi * (classes - 1) / classes} * log((1 - f) / {classes - 1})"
    return f"-y * ({1 - xi + xi / classes} * log(f) + {others})"


def _check_smoothing(classes: float, xi: float) -> None:
    if classes < 2:
        raise UserError(f"classes={classes}: label smoothing needs at least 2 classes")
    if not 0 <= xi < 1:
        raise UserError(f"xi={xi}: the smoothing must be at least 0 and below 1")


def _taylor_cross_entropy(order: float) -> str:
    if order < 1 or order != int(order):
        raise UserError(f"order={order}: the order must be a whole number of at least 1")
    # Σ_k (1 - f)^k / k for k = 1 … order, by Horner's rule.
    series = f"{1 / order}"
    for k in range(int(order) - 1, 0, -1):
        series = f"({1 / k} + (1 - f) * {series})"
    return f"y * (1 - f) * {series}"


_ENTRIES = (
    Entry("mse", lambda: "square(y - f)", {}, "regression", "Legendre 1805"),
    Entry("mae", lambda: "abs(y - f)", {}, "regression", "Laplace 1774"),
    Entry("huber", _huber, {"delta": 1.0}, "regression", "Huber 1964"),
    Entry("log-cosh", _log_cosh, {}, "regression", "Green 1990"),
    Entry("quantile", lambda tau: f"max({tau} * (y - f), {tau - 1} * (y - f))", {"tau": 0.5},
          "regression", "Koenker and Bassett 1978"),
    Entry("msle", lambda: "square(log(1 + y) - log(1 + f))", {}, "regression",
          "scikit-learn's mean_squared_log_error; y and f above -1"),
    Entry("mape", lambda epsilon: f"abs(y - f) / max(abs(y), {epsilon})", {"epsilon": 1e-7},
          "regression", "de Myttenaere et al. 2016"),
    Entry("cross-entropy", lambda: "-y * log(f)", {}, "classification", "Good 1952"),
    Entry("binary-cross-entropy", lambda: "-y * log(f) - (1 - y) * log(1 - f)", {},
          "classification", "Good 1952; one sigmoid per output"),
    Entry("brier", lambda: "square(y - f)", {}, "classification", "Brier 1950"),
    Entry("absolute", lambda: "abs(y - f)", {}, "classification", "Ghosh et al. 2017"),
    Entry("focal", _focal, {"gamma": 2.0}, "classification", "Lin et al. 2017"),
    Entry("label-smoothing", _label_smoothing, {"classes": 10, "xi": 0.1}, "classification",
          "Szegedy et al. 2016"),
    Entry("sparse-label-smoothing", _sparse_label_smoothing, {"classes": 10, "xi": 0.1},
          "classification", "Raymond et al. 2023"),
    Entry("generalised-cross-entropy", lambda q: f"y * (1 - exp({q} * log(f))) / {q}", {"q": 0.7},
          "classification", "Zhang and Sabuncu 2018"),
    Entry("taylor-cross-entropy", _taylor_cross_entropy, {"order": 2}, "classification",
          "Feng et al. 2020"),
    Entry("poly-cross-entropy", lambda epsilon: f"y * ({epsilon} * (1 - f) - log(f))",
          {"epsilon": 1.0}, "classification", "Leng et al. 2022"),
    Entry("hinge", lambda: "max(1 - (2 * y - 1) * (2 * f - 1), 0)", {}, "classification",
          "Cortes and Vapnik 1995; y and f mapped to [-1, 1]"),
    Entry("squared-hinge", lambda: "square(max(1 - (2 * y - 1) * (2 * f - 1), 0))", {},
          "classification", "Tang 2013; y and f mapped to [-1, 1]"),
    Entry("ga", unlearning.gradient_ascent, {}, "unlearning", "Jang et al. 2023", UNLEARNING),
    Entry("grad-diff", unlearning.grad_diff, {"alpha": 1.0}, "unlearning", "Liu et al. 2022",
          UNLEARNING),
    Entry("npo", unlearning.npo, {"beta": 0.1, "alpha": 1.0}, "unlearning", "Zhang et al. 2024",
          UNLEARNING),
    Entry("sim-npo", unlearning.sim_npo, {"beta": 4.5, "delta": 0.0, "gamma": 0.125},
          "unlearning", "Fan et al. 2024", UNLEARNING),
    Entry("kl-retain", unlearning.kl_retain, {"alpha": 1.0}, "unlearning",
          "Maini et al. 2024; the divergence estimated on the answers", UNLEARNING_TOKENS),
    Entry("wga", unlearning.wga, {"beta": 1.0, "alpha": 1.0}, "unlearning", "Wang et al. 2025",
          UNLEARNING_TOKENS),
    Entry("sat-imp", unlearning.sat_imp,
          {"beta1": 5.0, "beta2": 1.0, "gamma": 0.1, "alpha": 1.0}, "unlearning",
          "Yang et al. 2025", UNLEARNING_TOKENS),
    Entry("ce-u", unlearning.ce_u, {"alpha": 1.0}, "unlearning",
          "Yang 2025; the loss of p alone that has its gradient", UNLEARNING_TOKENS),
)  # fmt: skip

ZOO: Mapping[str, Entry] = {entry.name: entry for entry in _ENTRIES}
"""Every known loss by name."""


_OF_GRADIENT_ASCENT = ("grad-diff", "kl-retain")
"""The losses that are gradient ascent but for their retain terms."""


def _alone(entry: Entry) -> Entry:
    """An unlearning loss without its retain term, and so without that term's weight alpha."""

    def text(**constants: float) -> str:
        every = {**entry.constants, **constants}
        return to_text(_forget_term(parse(entry.text(**every), entry.signature)))

    constants = {name: value for name, value in entry.constants.items() if name != "alpha"}
    signature = unlearning_signature(entry.signature is UNLEARNING_TOKENS, retain=False)
    return replace(entry, text=text, constants=constants, signature=signature)


def _forget_term(loss: Expr) -> Expr:
    """A loss up to the last term, if that is of the retain set."""
    match loss:
        case Call("add" | "sub", (term, other)) if "log_probs_retain" in inputs_of(other):
            return term
    return loss


FORGET_TERMS: Mapping[str, Entry] = {
    entry.name: _alone(entry)
    for entry in _ENTRIES
    if entry.kind == "unlearning" and entry.name not in _OF_GRADIENT_ASCENT
}
"""The unlearning losses for those who have no retain set, by name."""


def names(kind: LossKind | None = None) -> list[str]:
    """The names of the known losses, of one kind or of all."""
    return [entry.name for entry in _ENTRIES if kind in (None, entry.kind)]


def unlearning_losses(retain: bool = True) -> Mapping[str, Entry]:
    """The known unlearning losses by name; their forget terms, if there is no retain set."""
    return {name: ZOO[name] for name in names("unlearning")} if retain else FORGET_TERMS


def loss(name: str, **constants: float) -> Expr:
    """A known loss, `loss("focal", gamma=3)`; constants that are not given take their defaults.

    Raises UserError for an unknown name or constant.
    """
    return loss_among(ZOO, name, **constants)


def loss_among(known: Mapping[str, Entry], name: str, **constants: float) -> Expr:
    """`loss` of others than `ZOO`, such as `FORGET_TERMS`."""
    entry = known.get(name)
    if entry is None:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
        raise UserError(f"unknown loss '{name}': {hint}")
    if foreign := [constant for constant in constants if constant not in entry.constants]:
        has = ", ".join(entry.constants) or "no constants"
        raise UserError(f"unknown constant '{foreign[0]}': the {name} loss has {has}")
    return parse(entry.text(**{**entry.constants, **constants}), entry.signature)
