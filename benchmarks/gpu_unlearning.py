"""The parts of `gpu.py` that unlearn: adapters side by side, bfloat16 weights, and generation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gpu_rows import Plan, Row, medians, memory, multiplied, rates, reached
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from evoloss.engine.device import seeded
from evoloss.lang import zoo
from evoloss.lang.expr import Expr
from evoloss.unlearn.adapters import LoraSettings, attached
from evoloss.unlearn.data.example import Example
from evoloss.unlearn.fiction import fiction
from evoloss.unlearn.generation import greedy
from evoloss.unlearn.language import load_language, quiet
from evoloss.unlearn.log_probs import Sequences, last_logits, reference
from evoloss.unlearn.objective import LossObjective, Part, Sets
from evoloss.unlearn.schedule import Schedule
from evoloss.unlearn.small_model import tokenizer_of
from evoloss.unlearn.tokens import Encoder, Ids, padded, padded_prompts
from evoloss.unlearn.trainer import Progress, advance, begin

BATCH, LORA = 8, LoraSettings()
MADE_UP = {
    "vocab_size": 32_000, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8,
}  # fmt: skip
"""About 1.1 billion parameters, drawn at random: what they are makes no step faster or slower."""
TINY = {"vocab_size": 600, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A model, what makes its tokens, and what it is."""

    model: Any
    encoder: Encoder
    about: str


def subject(plan: Plan, precision: str) -> Subject:
    """The model of `--model`, or a made-up one, its weights in this precision."""
    if plan.model is not None:
        known = load_language(plan.model, str(plan.device), precision)
        return Subject(known.model, known.encoder, known.name)
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**(TINY if plan.tiny else MADE_UP), max_position_embeddings=512)
    with seeded(0, plan.device), plan.device:
        model: Any = LlamaForCausalLM(config).train(False)
    if precision == "bf16":
        model = model.to(torch.bfloat16)
    billions = sum(each.numel() for each in model.parameters()) / 1e9
    texts = [text for rows in _rows() for each in rows for text in (each.prompt, each.answer)]
    about = f"a made-up Llama of {billions:.2g} billion parameters (no --model)"
    return Subject(model, Encoder(tokenizer_of(texts)), about)


def _rows() -> tuple[list[Example], list[Example]]:
    """What to forget and what to keep: an author's answers in one, some 50 tokens each."""
    data = fiction(forget=16, retain=32, holdout=0)
    assert data.retain is not None
    found = []
    for rows in (data.forget.rows, data.retain.rows):
        each = [rows[start : start + 5] for start in range(0, len(rows), 5)]
        found.append([Example(own[0].prompt, " ".join(e.answer for e in own)) for own in each])
    return found[0], found[1]


def sets_of(about: Subject, device: torch.device) -> Sets:
    """Both sets as tokens, with their references."""
    parts = []
    for rows in _rows():
        encoded = [about.encoder.encode(each, place) for place, each in enumerate(rows)]
        data: Sequences = padded(encoded, about.encoder.pad).to(device)
        parts.append(Part(data, reference(about.model, data, BATCH)).to(device))
    return Sets(parts[0], parts[1])


class Training:
    """Some steps of the adapters of some losses."""

    def __init__(self, about: Subject, sets: Sets, steps: int) -> None:
        self.model: nn.Module = about.model
        self.sets = sets
        self.steps = steps
        self.start: Progress = begin(self.model, LORA, 0)

    def together(self, losses: Sequence[Expr]) -> None:
        """All in one batch."""
        objective = self.objective(losses)
        schedules = [Schedule(self.steps)] * len(losses)
        standing = [self.start] * len(losses)
        every = range(len(losses))
        advance(self.model, LORA, objective, schedules, standing, every, self.steps)

    def objective(self, losses: Sequence[Expr]) -> LossObjective:
        """What they minimise."""
        rng = np.random.default_rng(0)
        return LossObjective(losses, self.sets, BATCH, self.steps, rng)


def losses_of(count: int) -> list[Expr]:
    """Known losses, over and over."""
    known = [zoo.loss(name) for name in zoo.names("unlearning")]
    return [known[number % len(known)] for number in range(count)]


def adapters(plan: Plan) -> Iterator[Row]:
    """K adapters in one batch against one at a time, and bfloat16 against float32."""
    count, steps = (2, 2) if plan.tiny else (16, 4)
    losses, taken, peaks, loops = losses_of(count), {}, {}, {}
    for precision in ("bf16", "float32"):
        with quiet():
            about = subject(plan, precision)
        if precision == "bf16":
            yield Row("adapters side by side", count, "", about.about)
        training = Training(about, sets_of(about, plan.device), steps)
        alone = losses[: 2 if plan.tiny else 4]

        def one_by_one(alone: Sequence[Expr] = alone, training: Training = training) -> None:
            for loss in alone:
                training.together([loss])

        def at_once(training: Training = training) -> None:
            training.together(losses)

        with memory(plan.device) as peak:
            found = medians({"together": at_once, "alone": one_by_one}, plan)
            peaks[precision] = peak()
        each = found["together"] / (count * steps), found["alone"] / (len(alone) * steps)
        taken[precision] = each[0]
        yield Row(f"{precision}: a step of one adapter, side by side", 1e3 * each[0], "ms")
        yield Row("  side by side against one at a time", each[1] / each[0], "×")
        yield Row("  memory of tensors, at most", peaks[precision], "GiB")
        loops = _rates(plan, training, losses)
        yield from reached(loops, "steps", "loop", "large")
        del about, training, one_by_one, at_once
    yield Row("weights in bf16 against float32", taken["float32"] / taken["bf16"], "×")


def _rates(plan: Plan, training: Training, losses: Sequence[Expr]) -> dict[str, float]:
    """Operations a second of steps, of a loop of the products of its layers, of a large product."""
    model, kind = training.model, next(training.model.parameters()).dtype
    objective = training.objective(losses)
    with attached(model, len(losses), LORA) as held:
        held.load([training.start.weights] * len(losses))

        def step() -> None:
            values = objective.values(model, 0, range(len(losses)))
            torch.autograd.grad(values.sum(), held.parameters, materialize_grads=True)

        with FlopCounterMode(display=False) as counter, _noted(model) as sizes:
            step()
        large = 64 if plan.tiny else 8192
        loop = 2.0 * sum(m * k * n for m, k, n in sizes)
        works = {
            "steps": (step, float(counter.get_total_flops())),
            "loop": (multiplied(sizes, 1, plan.device, kind), loop),
            "large": (multiplied([(large,) * 3], 1, plan.device, kind), 2.0 * large**3),
        }
        return rates(works, plan)


class _noted:
    """Within it, the products of a model's frozen linear layers are noted, there and back."""

    def __init__(self, model: nn.Module) -> None:
        self.layers = [each for each in model.modules() if isinstance(each, nn.Linear)]
        self.sizes: list[tuple[int, int, int]] = []

    def __enter__(self) -> list[tuple[int, int, int]]:
        self.hooks = [each.register_forward_hook(self._note) for each in self.layers]
        return self.sizes

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _note(self, layer: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        n, k = layer.weight.shape
        m = output.numel() // n
        self.sizes += [(m, k, n), (m, n, k)]


def generation(plan: Plan) -> Iterator[Row]:
    """Answers of several adapters side by side with a cache, against one prompt, and none."""
    count, tokens, prompts = (2, 4, 3) if plan.tiny else (8, 48, 16)
    with quiet():
        about = subject(plan, "float32" if plan.device.type == "cpu" else "bf16")
    yield Row("answers at once", count * prompts, "", about.about)
    asked: list[Ids] = [about.encoder.prompt(each) for each in _rows()[0]][:prompts]
    limits = [tokens] * len(asked)
    few = 1 if plan.tiny else 4
    with attached(about.model, count, LORA) as held, memory(plan.device) as peak:
        held.reset(0)
        said: dict[str, Any] = {}

        def cached() -> None:
            said["cached"] = greedy(about.model, about.encoder, asked, limits, copies=count)

        def bare() -> None:
            said["bare"] = uncached(about.model, about.encoder, asked, tokens, count)

        def single() -> None:
            said["single"] = greedy(about.model, about.encoder, asked[:few], limits, copies=count,
                                    batch=1)  # fmt: skip

        found = medians({"cached": cached, "bare": bare, "single": single}, plan)
        most = peak()
    rate = count * len(asked) * tokens / found["cached"]
    pairs = [(a, b) for own, other in zip(said["cached"], said["bare"], strict=True)
             for a, b in zip(own, other, strict=True)]  # fmt: skip
    alike = sum(a == b for a, b in pairs) / len(pairs)
    yield Row(
        "tokens a second, at most so many", rate, "", "answers that end sooner count as whole"
    )
    yield Row("  with a key-value cache against none", found["bare"] / found["cached"], "×",
              f"{alike:.0%} of the answers are the same")  # fmt: skip
    alone = found["single"] / few
    yield Row("  prompts at once against one at a time", alone * len(asked) / found["cached"], "×",
              f"one at a time: {few} of {len(asked)}")  # fmt: skip
    yield Row("  memory of tensors, at most", most, "GiB")


@torch.no_grad()
def uncached(
    model: nn.Module, encoder: Encoder, prompts: Sequence[Ids], steps: int, copies: int
) -> list[list[Ids]]:
    """What `greedy` gives, every token of it from the whole text before it."""
    device = next(model.parameters()).device
    tokens, attention = (
        each.repeat(copies, 1).to(device) for each in padded_prompts(prompts, encoder.pad)
    )
    width = tokens.shape[1]
    for _ in range(steps):
        positions = (attention.cumsum(1) - 1).clamp(min=0)
        logits, _ = last_logits(
            model, 1, input_ids=tokens, attention_mask=attention, position_ids=positions,
            use_cache=False,
        )  # fmt: skip
        tokens = torch.cat([tokens, logits[:, 0].argmax(-1)[:, None]], 1)
        attention = torch.cat([attention, torch.ones_like(tokens[:, :1])], 1)
    found = []
    for row in tokens[:, width:].tolist():
        ended = row.index(encoder.end) if encoder.end in row else len(row)
        found.append(tuple(row[:ended]))
    return [found[at : at + len(prompts)] for at in range(0, len(found), len(prompts))]
