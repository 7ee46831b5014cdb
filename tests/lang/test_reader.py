"""What the reader of LLM replies understands, piece by piece, and how it says no."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from evoloss.lang.evaluate import torch_value
from evoloss.lang.gradient import value_and_gradients
from evoloss.lang.parse import parse
from evoloss.lang.reader import DEFAULT_EPOCHS, Read, Refused, read
from evoloss.lang.text import to_text
from evoloss.lang.types import UNLEARNING, UNLEARNING_FORGET, UNLEARNING_TOKENS

HEAD = ("def loss_fn_1(log_probs_forget, log_probs_retain, ref_log_probs_forget=None, "
        "ref_log_probs_retain=None):\n")  # fmt: skip
SHORT = {"log_probs_forget": "f", "log_probs_retain": "r", "ref_f": "f0", "ref_r": "r0"}


def function(body: str) -> str:
    names = "f, r, f0, r0 = (log_probs_forget, log_probs_retain, ref_log_probs_forget, " \
            "ref_log_probs_retain)\n"  # fmt: skip
    return HEAD + "".join(f"    {line}\n" for line in (names + body).splitlines())


def one(reply: str, signature=UNLEARNING) -> Read | Refused:
    (found,) = read(reply, signature)
    return found


def text(body: str) -> str:
    found = one(function(body))
    assert isinstance(found, Read), found
    shown = to_text(found.expression)
    for long, short in (("ref_log_probs_forget", "f0"), ("ref_log_probs_retain", "r0"),
                        ("log_probs_forget", "f"), ("log_probs_retain", "r")):  # fmt: skip
        shown = shown.replace(long, short)
    return shown


def refusal(body: str) -> Refused:
    found = one(function(body))
    assert isinstance(found, Refused), found
    return found


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return f.mean() - r.mean()", "mean(f) - mean(r)"),
        ("return (f ** 2).mean() * -1", "-mean(square(f))"),
        ("x = f\nx = x - f0\nreturn torch.exp(x).mean()", "mean(exp(f - f0))"),
        ("loss = 0\nloss += f.sum() / len(f)\nreturn loss", "sum(f)/size(f)"),
        ("a = b = 2.0\nreturn a * b * f.mean()", "4*mean(f)"),
        ("(a, b), c = (1, 2), 3\nreturn (a + b + c) * f.mean()", "6*mean(f)"),
        ("x: torch.Tensor = f.mean()\nreturn x", "mean(f)"),
        ("if f0 is None:\n    return r.mean()\nreturn f.mean()", "mean(f)"),
        ("k = 3 if f0 is not None and r0 is not None else 4\nreturn k * f.mean()", "3*mean(f)"),
        ("t = 0.\nfor i in range(2):\n    t = t + f.mean() * i\nreturn t", "mean(f)*0 + mean(f)"),
        ("t = []\nfor b in [1, 2]:\n    t.append(torch.sigmoid(b * f).mean())\n"
         "return sum(t) / len(t)", "(mean(sigmoid(f)) + mean(sigmoid(2*f)))/2"),
        ("t = 0\nfor b in (1, 2, 3):\n    if b == 2:\n        continue\n    if b == 3:\n"
         "        break\n    t += b * f.mean()\nelse:\n    t = 0\nreturn t", "mean(f)"),
        ("g = lambda x, s=2: (s * x).mean()\nreturn g(f) + g(x=f, s=3)", "mean(2*f) + mean(3*f)"),
        ("def g(x):\n    if x is None:\n        return 0.\n    return x.mean()\nreturn g(f) - g(r)",
         "mean(f) - mean(r)"),
        ("with torch.no_grad():\n    w = f.exp()\n    w = w / w.sum()\nreturn (w * f).sum()",
         "sum(detach(exp(f))/sum(detach(exp(f)))*f)"),
        ("w = f.exp().detach()\nreturn (w * f.detach() + f).sum()",
         "sum(detach(exp(f))*detach(f) + f)"),
        ("w = f0.detach()\nreturn (w * f).sum() * -1", "-sum(f0*f)"),
        ("return f.clamp(min=-5, max=0).mean()", "mean(clamp_max(clamp_min(f, -5), 0))"),
        ("return torch.where(f > -3, f, -3.0).mean()", "mean(where(f > -3, f, -3))"),
        ("m = (f > -99) & ~(f > 1)\nreturn f[m].mean() + f.mean()",
         "mean(select(and(f > -99, not(f > 1)), f)) + mean(f)"),
        ("m = (f > -2).float()\nreturn (m * f).sum() / m.sum().clamp(min=1) + f.mean()",
         "sum(where(f > -2, 1, 0)*f)/clamp_min(sum(where(f > -2, 1, 0)), 1) + mean(f)"),
        ("if f.mean() > -2:\n    s = 2.0\nelse:\n    s = 1.0\nreturn s * f.mean()",
         "where(mean(f) > -2, 2, 1)*mean(f)"),
        ("if (f > -2).any():\n    return f.mean()\nreturn 0.5 * f.mean()",
         "where(any(f > -2), mean(f), 0.5*mean(f))"),
        ("return f.mean() if f.mean() > r.mean() else f.sum()",
         "where(mean(f) > mean(r), mean(f), sum(f))"),
        ("return torch.topk(f, k=2)[0].mean() + f.sort()[0][-1]",
         "mean(head(-sort(-f), 2)) + sum(head(tail(sort(f), size(f) + -1), 1))"),
        ("return f[1:].mean() + f[:-1].mean()", "mean(tail(f, 1)) + mean(head(f, size(f) + -1))"),
        ("β = 0.1\nreturn (β * f).mean()", "mean(0.1*f)"),
        ("return torch.full_like(f, 2.0).mul(f).mean()", "mean(2*f)"),
        ("return torch.nn.functional.huber_loss(f, f0 - 3, delta=2., reduction='sum')",
         "sum(huber(f - (f0 - 3), 2))"),
        ("return max(0, f.mean()) + max(f.mean(), -3) + min(1, 2)",
         "relu(mean(f)) + clamp_min(mean(f), -3) + 1"),
        ("return math.log(len(f)) + np.sqrt(4) * f.mean(dim=0, keepdim=True)",
         "ln(size(f)) + 2*mean(f)"),
        ("import torch as T\nfrom torch.nn import functional as G\nreturn G.relu(T.exp(f)).mean()",
         "mean(relu(exp(f)))"),
        ("return f.to(torch.float32).view(-1).contiguous().mean().squeeze()", "mean(f)"),
        ("return f.mean() + f.mean().item()", "mean(f) + detach(mean(f))"),
        ("return torch.stack([f.mean(), f.max()]).mean()", "mean(cat(mean(f), amax(f)))"),
        ("return torch.arange(1, f.numel() + 1).mul(f).sum()", "sum((position(f) + 1)*f)"),
        ("return (lambda *, k: k * f)(k=2).mean()", "mean(2*f)"),
        ("if len(f) == 0:\n    return 0.0\nif f.numel() > 0:\n    return f.mean()", "mean(f)"),
        ("if f.shape == f0.shape and f.shape != (1, 1):\n    return (f - f0).mean()",
         "mean(f - f0)"),
        ("if f.shape == r.shape:\n    return (f - r).mean()\nreturn f.mean()",
         "where(size(f) == size(r), mean(f - r), mean(f))"),
        ("def g(x, *rest, **more):\n    return x.mean()\nreturn g(f)", "mean(f)"),
        ("assert f.dim() == 1\npass\nreturn f.mean()", "mean(f)"),
        ("return float(2) * abs(-3) * pow(2, 3) * f.mean()", "48*mean(f)"),
        ("return sum(a * b for a, b in zip((1, 2), (3, 4)) if a > 0) * f.mean()", "11*mean(f)"),
        ("return [i * j * f.mean() for i in (1, 2) for j in (3, 4)][-1]", "8*mean(f)"),
    ],
)  # fmt: skip
def test_a_source_becomes(body, expected):
    assert text(body) == expected


@pytest.mark.parametrize(
    ("body", "line", "reason"),
    [
        ("return f", 3, "the loss is a vector"),
        ("return None", 1, "returns no tensor"),
        ("return f.mean(), r.mean()", 1, "returns several values"),
        ("f.mean()", 1, "returns nothing"),
        ("return f.mean(dim=1)", 3, "dimension 1: the inputs have one dimension"),
        ("x = 1\nreturn beta * f.mean()", 4, "the name 'beta' is not defined"),
        ("return f.cumprod(0)", 3, "no attribute 'cumprod'"),
        ("return torch.randn(3).mean() * f.mean()", 3, "torch.randn is not on the list"),
        ("f -= f0\nreturn f.mean()", 3, "changes the tensor 'f' in place"),
        ("x = f.exp()\ny = x\ny *= 2\nreturn (x + y).mean()", 5, "changes the tensor 'y' in place"),
        ("f[0] = 1\nreturn f.mean()", 3, "an assignment into a tensor"),
        ("f.clamp_(min=-3)\nreturn f.mean()", 3, "clamp_ changes a tensor in place"),
        ("for x in f:\n    pass\nreturn f.mean()", 3, "a loop over the elements of a tensor"),
        ("for i in range(len(f)):\n    pass\nreturn f.mean()", 3, "a loop over the batch"),
        ("if f > -1:\n    pass\nreturn f.mean()", 3, "no truth value: use any"),
        ("if f.mean() > -1:\n    x = 1\nreturn x * f.mean()", 5, "'x' is set in one branch only"),
        ("x = f.mean()\nif x > -1:\n    x = 'a'\nreturn x", 6, "must choose between tensors"),
        ("return f.unsqueeze(1).mean()", 3, "no attribute 'unsqueeze'"),
        ("return torch.stack([f, r]).mean()", 3, "stack of vectors makes a matrix"),
        ("i = f.argsort()\nreturn f[i].mean()", 3, "no attribute 'argsort'"),
        ("v, i = f.sort()\nreturn f[i].mean()", 4, "positions of elements"),
        ("return f.long().sum()", 3, "cuts off the gradient"),
        ("return f.mean() - r.mean() if f.sum() else None", 3, "must choose between"),
        ("while True:\n    pass", 3, "a while loop is not read"),
        ("try:\n    return f.mean()\nexcept Exception:\n    pass", 3, "try is not read"),
        ("print(f)\nreturn f.mean()", 3, "the name 'print' is not defined"),
        ("return f'{f}'", 3, "a formatted text is not read"),
        ("return {'a': 1}['a'] * f.mean()", 3, "a dictionary is not read"),
        ("return f.mean() / 0", 1, "infinite"),
        ("return f[f > -0.1].mean()", 1, "not a number on ordinary inputs"),
        ("return 1 / 0 * f.mean()", 3, "cannot be computed"),
        ("return (f * torch.tensor([1., 2., 3.])).mean()", 1, "different lengths"),
        ("return torch.log(f).mean()", 1, "not a number on ordinary inputs"),
        ("return f.detach().mean() - r.mean()", 1, "no gradient in log_probs_forget"),
        ("return -f.mean()", 1, "pushes log_probs_forget up"),
        ("return f.mean() + r.mean()", 1, "pushes log_probs_retain down"),
        ("return f.clamp().mean()", 3, "clamp needs a bound"),
        ("return f.clamp(minimum=3).mean()", 3, "clamp"),
        ("raise ValueError", 3, "raise is not read"),
        ("return (f & r).mean()", 3, "between comparisons"),
        ("return (1 - (f > -1)).sum()", 3, "cannot subtract comparisons"),
        ("class A: pass\nreturn f.mean()", 3, "a class is not read"),
    ],
)
def test_what_is_not_on_the_list_is_refused_with_line_and_reason(body, line, reason):
    found = refusal(body)
    assert re.search(reason, found.reason), found
    # Two lines come before the body; what concerns the whole function names its first.
    assert found.line in (line, 1), found
    if line > 1 and "the loss is" not in reason:
        assert found.line == line


ACTIVATIONS = {
    "F.softplus(x, beta=3)": lambda x: F.softplus(x, beta=3, threshold=100),
    "F.leaky_relu(x, 0.2)": lambda x: F.leaky_relu(x, 0.2),
    "F.elu(x, alpha=0.5)": lambda x: F.elu(x, alpha=0.5),
    "F.celu(x, 2.0)": lambda x: F.celu(x, 2.0),
    "F.selu(x)": F.selu,
    "F.silu(x)": F.silu,
    "F.gelu(x)": F.gelu,
    "F.mish(x)": F.mish,
    "F.softsign(x)": F.softsign,
    "F.hardtanh(x)": F.hardtanh,
    "F.relu6(x + 3)": lambda x: F.relu6(x + 3),
    "F.log_softmax(x, dim=0)": lambda x: F.log_softmax(x, 0),
    "F.smooth_l1_loss(x, x.detach() - 1, beta=0.5, reduction='none')":
        lambda x: F.smooth_l1_loss(x, x.detach() - 1, beta=0.5, reduction="none"),
    "F.binary_cross_entropy_with_logits(x, torch.zeros_like(x), reduction='none')":
        lambda x: F.binary_cross_entropy_with_logits(x, torch.zeros_like(x), reduction="none"),
    "F.kl_div(x, torch.exp(x).detach() / 2, reduction='none')":
        lambda x: F.kl_div(x, torch.exp(x).detach() / 2, reduction="none"),
    "torch.tan(x / 9)": lambda x: torch.tan(x / 9),
    "torch.sinh(x)": torch.sinh,
    "x.std() + x.var(unbiased=True) * x": lambda x: x.std() + x.var(unbiased=True) * x,
    "torch.logaddexp(x, 2 * x)": lambda x: torch.logaddexp(x, 2 * x),
    "torch.lerp(x, x * x, 0.3)": lambda x: torch.lerp(x, x * x, 0.3),
    "torch.linspace(0, 1, len(x)) * x": lambda x: torch.linspace(0, 1, len(x)).double() * x,
    "x.norm() + x.norm(p=1) * x": lambda x: x.norm() + x.norm(p=1) * x,
    "x.reshape(-1).pow(3)": lambda x: x**3,
    "torch.log2(-x) + torch.log10(-x)": lambda x: torch.log2(-x) + torch.log10(-x),
    "1 / torch.rsqrt(-x)": lambda x: torch.sqrt(-x),
    "x // 1 + x % 1": lambda x: x,
    "F.margin_ranking_loss(x, -x, torch.ones_like(x), margin=1.0, reduction='none')":
        lambda x: torch.relu(-2 * x + 1),
}  # fmt: skip


@pytest.mark.parametrize("source", ACTIVATIONS)
def test_functions_are_those_of_torch(source):
    """In value and gradient; each is added to a term that points the right way."""
    found = one(function(f"x = f\nreturn ({source}).mean() + 1e4 * f.mean()"))
    assert isinstance(found, Read), found
    values = torch.tensor([-0.2, -1.3, -2.9, -0.7, -4.2], dtype=torch.float64)
    mine, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    value = torch_value(found.expression, {"log_probs_forget": mine, "log_probs_retain": values})
    expected = ACTIVATIONS[source](theirs).mean() + 1e4 * theirs.mean()
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-7)
    value.backward()
    expected.backward()
    torch.testing.assert_close(mine.grad - 1e4 / 5, theirs.grad - 1e4 / 5, rtol=1e-6, atol=1e-7)


GOOD = '"""epochs: 3"""\n    return log_probs_forget.mean() - log_probs_retain.mean()\n'


def named(name: str, body: str = GOOD) -> str:
    return HEAD.replace("loss_fn_1", name) + "    " + body


def test_a_broken_function_does_not_spoil_its_neighbours():
    broken = HEAD.replace("fn_1", "fn_2") + "    return (log_probs_forget.mean(\n"
    reply = f"<answer>\n{named('loss_fn_1')}\n{broken}\n{named('loss_fn_3')}</answer>"
    first, second, third = read(reply)
    assert (first.name, second.name, third.name) == ("loss_fn_1", "loss_fn_2", "loss_fn_3")
    assert isinstance(first, Read)
    assert isinstance(third, Read)
    assert isinstance(second, Refused)
    assert "never closed" in second.reason
    assert reply.splitlines()[second.line - 1].strip().startswith("return (log")


def test_several_answers_count_and_the_later_of_a_name_replaces_the_earlier():
    later = GOOD.replace("3", "7")
    reply = (f"<think>def loss_fn_9(log_probs_forget): return 0 <answer></think>\n<answer>\n"
             f"{named('loss_fn_1')}{named('loss_fn_2')}</answer>\nbetter:\n<ANSWER>\n```python\n"
             f"{named('loss_fn_1', later)}```\n")  # fmt: skip
    found = {each.name: each for each in read(reply)}
    assert {name: each.epochs for name, each in found.items()} == {"loss_fn_2": 3, "loss_fn_1": 7}
    assert reply.splitlines()[found["loss_fn_1"].line - 1].startswith("def loss_fn_1")


@pytest.mark.parametrize(
    "wrapped",
    [
        "{}",
        "Sure!\n\n```python\n{}```\nHope this helps: it is (nearly) done",
        "<think>(unbalanced [ text \"\"\" </think>\n{}<|im_end|>",
        "<answer>\n{}",
        "1. First (see below:\n\n{}\nThat's all",
        "   <answer>\n" + "{}".replace("\n", "\n    ") + "</answer>",
    ],
)  # fmt: skip
def test_a_function_is_found_wherever_it_stands(wrapped):
    reply = wrapped.format(named("loss_fn_1"))
    found = one(reply)
    assert isinstance(found, Read)
    assert reply.splitlines()[found.line - 1].startswith("def loss_fn_1")


def test_an_indented_answer():
    source = "".join(f"    {line}\n" for line in named("loss_fn_1").splitlines())
    assert isinstance(one(f"<answer>\n{source}</answer>"), Read)


def test_a_reply_that_was_cut_off_in_its_thoughts_has_no_functions():
    assert read(f"<think>\nA draft:\n{named('loss_fn_1')}") == []
    assert read("") == read("I cannot help with that.") == []


@pytest.mark.parametrize(
    ("docstring", "epochs"),
    [
        ('"""epochs: 4"""', 4),
        ('"""Epochs = 2, gentle"""', 2),
        ("'''A loss.\n\n    epochs: 9\n    '''", 9),
        ('"""epochs: 0"""', 1),
        ('"""epochs: 99999999999"""', 10),
        ("# epochs: 6", 6),
        ('"""no number"""', DEFAULT_EPOCHS),
    ],
)
def test_epochs(docstring, epochs):
    body = f"{docstring}\n    return log_probs_forget.mean() - log_probs_retain.mean()\n"
    assert one(named("loss_fn_1", body)).epochs == epochs


def test_parameters_by_role_and_by_position():
    body = ":\n    return {}.mean() - {}.mean()\n"
    for header, names in [
        ("def loss_fn_1(a, b)", ("a", "b")),
        ("def loss_fn_1(retain_logps, forget_logps)", ("forget_logps", "retain_logps")),
        ("def loss_fn_1(log_probs_forget, *, log_probs_retain, k=1, **kwargs)",
         ("log_probs_forget", "log_probs_retain")),
        ("def loss_fn_1(log_probs_forget, log_probs_retain, beta=0.1)",
         ("log_probs_forget", "log_probs_retain")),
    ]:  # fmt: skip
        found = one(header + body.format(*names))
        assert isinstance(found, Read), found
        assert to_text(found.expression) == "mean(log_probs_forget) - mean(log_probs_retain)"
    strange = one("def loss_fn_1(log_probs_forget, tokenizer):\n    return log_probs_forget.mean()")
    assert "'tokenizer' is no input" in strange.reason


def test_without_a_retain_set_and_its_references():
    source = named("loss_fn_1", "if log_probs_retain is None:\n        return "
                   "(log_probs_forget - ref_log_probs_forget).mean()\n    return 0\n")  # fmt: skip
    found = one(source, UNLEARNING_FORGET)
    assert to_text(found.expression) == "mean(log_probs_forget - ref_log_probs_forget)"
    assert (
        "None is used as a tensor"
        in one(
            named("loss_fn_1", "return log_probs_forget.mean() - log_probs_retain"),
            UNLEARNING_FORGET,
        ).reason
    )


BRANCHES = {
    "x = f[f > -1] if (f > -1).any() else f\nreturn x.mean()":
        "where(any(f > -1), mean(select(f > -1, f)), mean(f))",
    "if (f > -1).any():\n    x = f[f > -1]\nelse:\n    x = 2 * f\n"
    "return (x - 1)[x > -3].sum() / x.numel()":
        "where(any(f > -1), "
        "sum(select(select(f > -1, f) > -3, select(f > -1, f) - 1)) / size(select(f > -1, f)), "
        "sum(select(2*f > -3, 2*f - 1)) / size(f))",
    "x = f.sort().values[:2] if f.mean() > -1 else f\nreturn torch.ones_like(x).sum() + x.sum()":
        "where(mean(f) > -1, sum(like(head(sort(f), 2), 1)) + sum(head(sort(f), 2)), "
        "sum(like(f, 1)) + sum(f))",
    "x = f if f.mean() > -1 else 2 * f\nreturn x.mean()": "mean(where(mean(f) > -1, f, 2*f))",
}  # fmt: skip


@pytest.mark.parametrize("body", BRANCHES)
def test_what_follows_a_branch_is_done_in_either_where_lengths_differ(body):
    indented = f"f = log_probs_forget\n{body}".replace("\n", "\n    ")
    found = one(named("loss_fn_1", indented))
    assert isinstance(found, Read), found
    wanted = parse(re.sub(r"\bf\b", "log_probs_forget", BRANCHES[body]), UNLEARNING)
    for scale in (0.1, 0.7, 5.0):
        given = {"log_probs_forget": -scale * np.arange(1.0, 6.0)}
        theirs = value_and_gradients(wanted, given, ["log_probs_forget"])
        mine = value_and_gradients(found.expression, given, ["log_probs_forget"])
        assert mine[0] == pytest.approx(theirs[0])
        assert mine[1]["log_probs_forget"] == pytest.approx(theirs[1]["log_probs_forget"])


def test_tokens_with_masks():
    source = (
        "def loss_fn_1(log_probs_forget, log_probs_retain, ref_log_probs_forget=None, "
        "ref_log_probs_retain=None, mask_forget=None, mask_retain=None):\n"
        "    w = log_probs_forget.exp().detach()\n"
        "    m = mask_forget.float()\n"
        "    forget = (w * log_probs_forget * m).sum() / m.sum()\n"
        "    return forget - log_probs_retain[mask_retain].mean()\n"
    )
    expected = (
        "sum(detach(exp(log_probs_forget)) * log_probs_forget * where(mask_forget, 1, 0))"
        " / sum(where(mask_forget, 1, 0)) - mean(select(mask_retain, log_probs_retain))"
    )
    assert one(source, UNLEARNING_TOKENS).expression == parse(expected, UNLEARNING_TOKENS)


def test_helpers_and_constants_at_the_top_level():
    source = (
        "import math\nBETA = 0.5\nSHIFT = math.log(2)\n\ndef soft(x, b=BETA):\n"
        "    return inner(b * x) / b\n\ndef inner(x):\n    return F.softplus(x).mean()\n\n"
        "def my_loss(log_probs_forget, log_probs_retain):\n"
        "    return soft(log_probs_forget + SHIFT) - log_probs_retain.mean()\n"
    )
    found = one(source)
    assert found.name == "my_loss"
    shift = math.log(2)
    expected = f"mean(softplus(0.5*(log_probs_forget + {shift!r})))/0.5 - mean(log_probs_retain)"
    assert to_text(found.expression) == expected


TERMS = st.sampled_from([
    "f.mean()", "torch.exp(f).mean()", "F.softplus(f + 1.0).mean()",
    "(f - f0).clamp(min=-2).mean()",
    "torch.sigmoid(2 * f).sum() / len(f)", "(f.exp().detach() * f).mean()", "f.std(unbiased=False)",
    "F.relu(f.mean() + 3)", "torch.logsumexp(f, dim=0)", "f.max()", "torch.topk(f, 2).values.sum()",
])  # fmt: skip
NUMBERS = st.floats(0.01, 50, allow_nan=False).map(lambda x: round(x, 3))


@given(st.lists(st.tuples(NUMBERS, TERMS, st.booleans()), min_size=1, max_size=5))
def test_random_sums_mean_what_torch_computes(terms):
    """Plain, augmented, or within a conditional expression that the references decide."""
    lines = ["loss = 0.0"]
    for number, term, augmented in terms:
        chosen = f"({number} * {term} if f0 is not None else 1 / 0)"
        lines.append(f"loss {'+=' if augmented else '= loss +'} {chosen}")
    found = one(function("\n".join([*lines, "return loss + 100 * f.mean() - r.mean()"])))
    assert isinstance(found, Read), found
    f = torch.tensor([-0.5, -2.0, -1.25, -3.5], dtype=torch.float64)
    names = {"f": f, "f0": f * 0.7, "r": f - 1, "torch": torch, "F": F}
    expected = sum(number * eval(term, names) for number, term, _ in terms) + 100 * f.mean()
    inputs = {"log_probs_forget": f, "log_probs_retain": f - 1, "ref_log_probs_forget": f * 0.7}
    value = torch_value(found.expression, inputs)
    torch.testing.assert_close(value, expected - (f - 1).mean(), rtol=1e-9, atol=1e-9)
