"""The known unlearning losses, written in the loss language; each with its retain term.

Those on sequences take mean token log-probabilities, those on tokens every token's own. A factor on
the whole loss is a matter of the learning rate, but their constants are those of their papers or of
the reference implementations.
"""

_RETAIN = "mean(log_probs_retain)"
_TOKENS_FORGET = "select(mask_forget, log_probs_forget)"
_TOKENS_RETAIN = "mean(select(mask_retain, log_probs_retain))"


def gradient_ascent() -> str:
    return "mean(log_probs_forget)"


def grad_diff(alpha: float) -> str:
    return f"mean(log_probs_forget) - {alpha} * {_RETAIN}"


def kl_retain(alpha: float) -> str:
    # On the answers' own tokens, r - 1 - log r estimates the divergence between the model and the
    # reference (Schulman 2020), r being the ratio of their probabilities.
    ratio = "select(mask_retain, log_probs_retain - ref_log_probs_retain)"
    return f"mean({_TOKENS_FORGET}) + {alpha} * mean(expm1({ratio}) - {ratio})"


def npo(beta: float, alpha: float) -> str:
    ratio = "log_probs_forget - ref_log_probs_forget"
    return f"-{2 / beta} * mean(logsigmoid(-{beta} * ({ratio}))) - {alpha} * {_RETAIN}"


def sim_npo(beta: float, delta: float, gamma: float) -> str:
    # OpenUnlearning: γ weighs the forget term, δ is the margin of the log-sigmoid.
    margin = f"-{beta} * log_probs_forget" + (f" - {beta * delta}" if delta else "")
    return f"-{gamma * 2 / beta} * mean(logsigmoid({margin})) - {_RETAIN}"


def wga(beta: float, alpha: float) -> str:
    weight = f"detach(exp({beta} * {_TOKENS_FORGET}))"
    return f"mean({weight} * {_TOKENS_FORGET}) - {alpha} * {_TOKENS_RETAIN}"


def sat_imp(beta1: float, beta2: float, gamma: float, alpha: float) -> str:
    probability = f"detach(exp({_TOKENS_FORGET}))"
    weight = f"pow({probability}, {beta1}) * pow(1 - {probability}, {beta2})"
    return f"{gamma} * mean({weight} * {_TOKENS_FORGET}) - {alpha} * {_TOKENS_RETAIN}"


def ce_u(alpha: float) -> str:
    # The cross-entropy to the model's own distribution without the token, that distribution fixed,
    # has the gradient of -log(1 - p) in the logits: p for the token, -p_j p / (1 - p) for another.
    return f"-mean(log(1 - exp({_TOKENS_FORGET}))) - {alpha} * {_TOKENS_RETAIN}"
