"""EvoMU's evaluation of unlearning losses one at a time, to measure evoloss against.

As its released code does (Batorski & Swoboda 2026, arXiv 2602.02139), in ordinary transformers and
peft: reload the base model, train LoRA with a loss given as Python, merge, save, and measure the
saved model in a new process, which is `python unlearn_baseline.py MODEL QUESTIONS THREADS`.
"""

from __future__ import annotations

import inspect
import json
import math
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import ks_2samp, mannwhitneyu
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
EVALUATION_BATCH = 32

Row = tuple[list[int], int, bool]  # token ids, where the answer begins, whether it ends the text
Loss = Callable[..., Tensor]  # of the log-probabilities that its parameters name, to a scalar


@dataclass(frozen=True)
class Part:
    """A training set in memory, (N, T) each.

    answer: which tokens are to be predicted; reference: their log-probabilities under the base
    model, computed once, 0 elsewhere.
    """

    tokens: Tensor
    attention: Tensor
    answer: Tensor
    reference: Tensor


@dataclass(frozen=True)
class Job:
    """What all candidates share.

    base: folder of model and tokenizer; adapter: the weights that training begins with, under
    peft's names. questions: a JSON file of what is measured (see `measured`).
    """

    base: Path
    forget: Part
    retain: Part
    adapter: dict[str, Tensor]
    questions: Path
    rank: int = 8
    alpha: float = 32.0
    clip: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """seconds: per stage. values: of the metrics by name, None for a model that is destroyed."""

    seconds: dict[str, float]
    values: dict[str, float] | None


def evaluate_candidate(source: str, job: Job, order: tuple[Tensor, Tensor], lr: float) -> Outcome:
    """One candidate from beginning to end. order: (steps, B) rows of the forget and retain set."""
    marks = [time.perf_counter()]

    def mark() -> None:
        marks.append(time.perf_counter())

    model = AutoModelForCausalLM.from_pretrained(job.base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(job.base)
    adapted = with_lora(model, job)
    mark()
    train(adapted, defined(source), job, order, lr)
    mark()
    with tempfile.TemporaryDirectory() as folder:
        adapted.merge_and_unload().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        mark()
        command = [sys.executable, __file__, folder, str(job.questions)]
        done = subprocess.run(
            [*command, str(torch.get_num_threads())], capture_output=True, text=True, check=True
        )
    mark()
    stages = ("reload", "train", "merge and save", "new process")
    seconds = {name: b - a for name, a, b in zip(stages, marks, marks[1:], strict=False)}
    found = json.loads(done.stdout)
    seconds["evaluate"] = found["seconds"]
    seconds["new process"] -= found["seconds"]
    return Outcome(seconds, found["values"])


def defined(source: str) -> Loss:
    """The loss function that a source defines."""
    names: dict[str, Any] = {}
    exec(source, names)
    loss: Loss = names["loss_fn_1"]
    return loss


def with_lora(model: nn.Module, job: Job) -> Any:
    """The model with a new adapter, ready for training."""
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    config = LoraConfig(
        r=job.rank, lora_alpha=job.alpha, lora_dropout=0.0, target_modules=PROJECTIONS,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    adapted = get_peft_model(model, config)
    set_peft_model_state_dict(adapted, job.adapter)
    return adapted


def train(model: Any, loss: Loss, job: Job, order: tuple[Tensor, Tensor], lr: float) -> None:
    """Trains the adapter; stops where the loss is not finite, for nothing good can follow."""
    model.train()
    adapter = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(adapter, lr=lr, weight_decay=0.0, fused=True)
    steps = len(order[0])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - step / steps)
    wanted = set(inspect.signature(loss).parameters)
    for rows in zip(*order, strict=True):
        inputs = batch_inputs(model, job, rows, by_token="mask_forget" in wanted)
        value = loss(**{name: inputs[name] for name in wanted})
        if not value.isfinite():
            return
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(adapter, job.clip)
        optimizer.step()
        schedule.step()


def batch_inputs(
    model: Any, job: Job, rows: tuple[Tensor, Tensor], by_token: bool
) -> dict[str, Tensor]:
    """The inputs of a loss on a minibatch; both sets go through the model at once."""
    parts = [
        [each[index] for each in (part.tokens, part.attention, part.answer, part.reference)]
        for part, index in zip((job.forget, job.retain), rows, strict=True)
    ]
    width = max(int(attention.sum(1).max()) for _, attention, _, _ in parts)
    tokens, attention, answer, reference = (
        torch.cat([nn.functional.pad(each, (0, width - each.shape[1])) for each in pair])
        for pair in zip(*parts, strict=True)
    )
    logits = model(input_ids=tokens, attention_mask=attention, use_cache=False).logits[:, :-1]
    chosen = logits.log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
    log_probs = nn.functional.pad(chosen, (1, 0)) * answer
    found = {}
    for side, place in (("forget", slice(len(rows[0]))), ("retain", slice(len(rows[0]), None))):
        own, before, mask = log_probs[place], reference[place], answer[place]
        if by_token:
            found[f"log_probs_{side}"], found[f"ref_log_probs_{side}"] = own.ravel(), before.ravel()
            found[f"mask_{side}"] = mask.ravel().to(own.dtype)
        else:
            found[f"log_probs_{side}"] = own.sum(1) / mask.sum(1)
            found[f"ref_log_probs_{side}"] = before.sum(1) / mask.sum(1)
    return found


# From here on, what happens in the new process.


@dataclass(frozen=True)
class Told:
    """Of the tokens of one answer, (T,) each: log-probability, whether it is the arg max, and the
    mean and deviation of log p under p."""

    log_probs: np.ndarray
    matches: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray


@torch.no_grad()
def told(model: Any, rows: Sequence[Row], pad: int) -> list[Told]:
    """What a model says of the answers of rows, in batches."""
    found: list[Told] = []
    for at in range(0, len(rows), EVALUATION_BATCH):
        part = rows[at : at + EVALUATION_BATCH]
        width = max(len(ids) for ids, _, _ in part)
        tokens = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _, _ in part])
        attention = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _, _ in part])
        logits = model(input_ids=tokens, attention_mask=attention, use_cache=False).logits
        every = logits[:, :-1].log_softmax(-1)
        for (ids, start, _), own in zip(part, every, strict=True):
            log_p, target = own[start - 1 : len(ids) - 1], torch.tensor(ids[start:])
            p = log_p.exp()
            mean = (p * log_p).sum(-1)
            deviation = (p * (log_p - mean[:, None]) ** 2).sum(-1).sqrt()
            chosen = log_p.gather(-1, target[:, None])[:, 0]
            columns = (chosen, log_p.argmax(-1) == target, mean, deviation)
            found.append(Told(*(each.numpy() for each in columns)))
    return found


def answers(model: Any, tokenizer: Any, openings: Sequence[dict[str, Any]]) -> list[str]:
    """What the model says to each opening, by `generate`."""
    found: list[str] = []
    for at in range(0, len(openings), EVALUATION_BATCH):
        part = openings[at : at + EVALUATION_BATCH]
        width = max(len(each["ids"]) for each in part)
        pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
        space = [width - len(each["ids"]) for each in part]
        tokens = [[pad] * n + each["ids"] for n, each in zip(space, part, strict=True)]
        attention = [[0] * n + [1] * (width - n) for n in space]
        said = model.generate(
            input_ids=torch.tensor(tokens), attention_mask=torch.tensor(attention),
            max_new_tokens=max(each["limit"] for each in part), do_sample=False, pad_token_id=pad,
            eos_token_id=end,
        )[:, width:].tolist()  # fmt: skip
        for each, ids in zip(part, said, strict=True):
            found.append(tokenizer.decode(ids[: each["limit"]], skip_special_tokens=True).strip())
    return found


def gradient_norm(model: Any, row: Row) -> float:
    """Of an answer's mean log-probability, without the end token; the mean over linear layers."""
    ids, start, ends = row
    ids = ids[: len(ids) - ends]
    head = model.get_output_embeddings()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, start - 1 : -1]
    target = torch.tensor(ids[start:])
    mean = logits.log_softmax(-1).gather(-1, target[:, None]).mean()
    gradients = torch.autograd.grad(mean, [each.weight for each in layers])
    return float(torch.stack([each.norm() for each in gradients]).mean())


def measured(model: Any, tokenizer: Any, questions: dict[str, Any]) -> dict[str, float] | None:
    """The metrics' values; None if a log-probability is not finite.

    questions: `sets`, each with `answers` (rows), `compared` (a true row and false ones) and
    `openings` (`ids`, `limit`, `truth`); `members` and `strangers` (rows) for membership inference;
    what the `original` model scores and the `retain` model says.
    """
    pad = tokenizer.pad_token_id
    sets, other = questions["sets"], questions["retain"]
    own, truth = {}, {}
    for name in ("forget", "retain"):
        each = sets[name]
        own[name] = told(model, each["answers"], pad)
        rows = [row for true, false in each["compared"] for row in (true, *false)]
        means = [one.log_probs.mean() for one in told(model, rows, pad)]
        if not np.isfinite([*means, *(one.log_probs.mean() for one in own[name])]).all():
            return None
        truth[name] = _log_ratios(means, [len(false) for _, false in each["compared"]])
    values: dict[str, float] = {}
    for name, found in own.items():
        values[f"{name}_prob"] = _average(math.exp(one.log_probs.mean()) for one in found)
        values[f"{name}_rouge"] = _rouge(model, tokenizer, sets[name]["openings"])
    values["forget_truth_ratio"] = float(np.exp(-np.abs(truth["forget"])).mean())
    values["retain_truth_ratio"] = float(np.maximum(0.0, 1.0 - np.exp(truth["retain"])).mean())
    matches = [
        one.matches[: len(one.matches) - ends]
        for one, (_, _, ends) in zip(own["forget"], sets["forget"]["answers"], strict=True)
    ]
    values["exact_memorisation"] = _average(each.mean() for each in matches)
    values["extraction_strength"] = _average(map(_extraction_strength, matches))
    values["forget_quality"] = _forget_quality(truth["forget"], other["log_ratios"])
    values |= membership(model, tokenizer, questions)
    values["privleak"] = 100 * (other["mia_min_k"] - values["mia_min_k"]) / (1 - other["mia_min_k"])
    return values | _scores(values, questions["original"], other)


def membership(model: Any, tokenizer: Any, questions: dict[str, Any]) -> dict[str, float]:
    """AUC of each attack, a member's score being above a stranger's."""
    found = []
    for rows, before in (
        (questions["members"], questions["retain"]["members"]),
        (questions["strangers"], questions["retain"]["strangers"]),
    ):
        every = told(model, rows, tokenizer.pad_token_id)
        means = np.array([each.log_probs.mean() for each in every])
        bare = [slice(len(ids) - start - ends) for ids, start, ends in rows]
        standard = [
            ((e.log_probs - e.mean) / np.maximum(e.deviation, 1e-3))[part]
            for e, part in zip(every, bare, strict=True)
        ]
        texts = [tokenizer.decode(ids[start : len(ids) - ends]) for ids, start, ends in rows]
        found.append(
            {
                "mia_loss": means,
                "mia_zlib": means / [len(zlib.compress(text.encode())) for text in texts],
                "mia_gradnorm": [-gradient_norm(model, row) for row in rows],
                "mia_min_k": [_min_k(e.log_probs[p]) for e, p in zip(every, bare, strict=True)],
                "mia_min_k_plus_plus": [_min_k(each) for each in standard],
                "mia_reference": means - before,
            }
        )
    return {name: _auc(found[0][name], found[1][name]) for name in found[0]}


def _scores(
    values: dict[str, float], original: dict[str, float], retain: dict[str, float]
) -> dict[str, float]:
    """Those of the whole model, of the values of this one and of two others."""
    parts = ("retain_prob", "retain_rouge", "retain_truth_ratio")
    utility = _harmonic([values[name] for name in parts])
    knows, knew, floor = (
        (each["forget_prob"] + each["forget_rouge"]) / 2 for each in (values, original, retain)
    )
    forgetting = min(max((knew - knows) / (knew - floor), 0.0), 1.0)
    kept = _harmonic([min(values[name] / original[name], 1.0) for name in parts])
    return {
        "model_utility": utility,
        "utility_kept": kept,
        "forgetting": forgetting,
        "balance": _harmonic([forgetting, kept]),
        "balance95": _harmonic([forgetting, kept]) if kept >= 0.95 else kept - 0.95,
        "tofu_score": utility / 2 + (1 - values["forget_rouge"] + 1 - values["forget_prob"]) / 4,
    }


def _log_ratios(means: Sequence[float], counts: Sequence[int]) -> np.ndarray:
    """Of each group of a true answer and so many false ones: log of mean Prob over Prob."""
    found, at = [], 0
    for count in counts:
        true, false = means[at], means[at + 1 : at + 1 + count]
        found.append(np.logaddexp.reduce(false) - math.log(count) - true)
        at += 1 + count
    return np.array(found)


def _rouge(model: Any, tokenizer: Any, openings: Sequence[dict[str, Any]]) -> float:
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    said = answers(model, tokenizer, openings)
    pairs = zip(openings, said, strict=True)
    return _average(scorer.score(each["truth"], text)["rougeL"].recall for each, text in pairs)


def _extraction_strength(matches: np.ndarray) -> float:
    missed = np.flatnonzero(~matches)
    return 1.0 - (missed[-1] + 1) / len(matches) if len(missed) else 1.0


def _forget_quality(ratios: np.ndarray, wanted: Sequence[float]) -> float:
    return float(ks_2samp(ratios, wanted).pvalue)


def _auc(members: Sequence[float], strangers: Sequence[float]) -> float:
    return float(mannwhitneyu(members, strangers).statistic) / (len(members) * len(strangers))


def _min_k(values: np.ndarray) -> float:
    return float(np.sort(values)[: max(1, int(0.4 * len(values)))].mean())


def _harmonic(values: Sequence[float]) -> float:
    return len(values) / sum(1.0 / each for each in values) if min(values) > 0 else 0.0


def _average(values: Any) -> float:
    return float(np.mean(list(values)))


def main() -> None:
    folder, questions, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    begun = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    values = measured(model, tokenizer, json.loads(Path(questions).read_text(encoding="utf-8")))
    print(json.dumps({"values": values, "seconds": time.perf_counter() - begun}))


if __name__ == "__main__":
    main()
