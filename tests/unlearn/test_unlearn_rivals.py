"""Rival methods side by side, against plain ones on `peft` models, a sequence at a time."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from cramped import cramp
from evoloss.errors import UserError
from evoloss.lang.parse import parse
from evoloss.lang.types import UNLEARNING
from evoloss.unlearn.adapters import LoraSettings, attached, off
from evoloss.unlearn.data.example import DataSet, Example
from evoloss.unlearn.fiction import fiction
from evoloss.unlearn.log_probs import mean_log_probs, reference, rows_at_once
from evoloss.unlearn.objective import LossObjective, Part, Sets
from evoloss.unlearn.rivals import RIVALS, Context
from evoloss.unlearn.rivals.idk_dpo import ANSWERS
from evoloss.unlearn.schedule import Schedule
from evoloss.unlearn.small_model import tokenizer_of
from evoloss.unlearn.tokens import Encoder, padded
from evoloss.unlearn.trainer import advance, begin

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
peft = pytest.importorskip("peft", reason="peft is not installed")

# `peft` asks `transformers` for a name that it has since renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

LORA = LoraSettings(rank=2, alpha=8.0)
BATCH, STEPS, SEED = 3, 4, 5
DATA = fiction(forget=2, retain=3, holdout=0, seed=1)
TEXTS = [f"{each.prompt} {each.answer}" for part in (DATA.forget, DATA.retain) for each in part]
TOKENIZER = tokenizer_of([*TEXTS, *ANSWERS, "Question: Answer:"])
ENCODER = Encoder(TOKENIZER)
VARIANTS = {
    "IdkDPO": [{"beta": 0.1}, {"beta": 0.5, "alpha": 2.0}, {"alpha": 0.0}],
    "RMU": [
        {"layer": 0.0},
        {"layer": 1.0, "coefficient": 7.0, "alpha": 30.0},
        {"layer": 40.0, "coefficient": 5.0},
    ],
    "UNDIAL": [{}, {"beta": 3.0, "alpha": 2.0}, {"beta": 0.0}],
}


def small_model(hidden=16, layers=3):
    config = transformers.LlamaConfig(
        vocab_size=len(TOKENIZER), hidden_size=hidden, intermediate_size=2 * hidden,
        num_hidden_layers=layers, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval()


def part(model, data):
    sequences = padded(ENCODER.encode_set(data, 64).rows, ENCODER.pad)
    return Part(sequences, reference(model, sequences))


def context(model, retain=True, steps=STEPS, batch=BATCH):
    sets = Sets(part(model, DATA.forget), part(model, DATA.retain) if retain else None)
    rng = np.random.default_rng(SEED)
    return Context(model, ENCODER, sets, DATA.forget.rows, 64, batch, steps, rng)


def randomised(adapters):
    """Adapters that have moved, each in its own way."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in adapters.parameters:
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


# The oracle: what the papers write, on one unpadded sequence after the other.


def drawn(rows, rng):
    """(STEPS, BATCH) rows, as shuffled passes."""
    found = []
    while len(found) < STEPS:
        found += list(rng.permutation(rows)[: rows // BATCH * BATCH].reshape(-1, BATCH))
    return np.array(found[:STEPS])


def tokens(example, answer):
    """The ids of a question and an answer, and where the answer begins."""
    prompt = TOKENIZER(f"Question: {example.prompt}\nAnswer:")["input_ids"]
    ids = TOKENIZER(f"Question: {example.prompt}\nAnswer: {answer}")["input_ids"]
    return torch.tensor([[*ids, TOKENIZER.eos_token_id]]), len(prompt)


def nll(model, ids, start):
    scores = model(ids).logits[0].log_softmax(-1)
    return [-scores[at - 1, ids[0, at]] for at in range(start, ids.shape[1])]


def states(model, ids, start, layer):
    """(n, H) outputs of a layer on the answer; the model's last norm is taken off."""
    body = model.base_model.model.model if isinstance(model, peft.PeftModel) else model.model
    norm, body.norm = body.norm, torch.nn.Identity()
    found = body(ids, output_hidden_states=True).hidden_states[layer + 1][0, start:]
    body.norm = norm
    return found


def test_constants_that_a_model_does_not_allow_for_are_told_as_they_are_used():
    model = small_model(layers=3)
    constants = {"layer": 7.0, "coefficient": 2.0}
    assert RIVALS["RMU"].fitting(constants, model) == {"layer": 2.0, "coefficient": 2.0}
    assert RIVALS["RMU"].fitting({"layer": 1.0}, model) == {"layer": 1.0}
    assert RIVALS["UNDIAL"].fitting({"beta": 3.0}, model) == {"beta": 3.0}


def idk_dpo(model, frozen, constants, forget, retain, phrases, u):
    total = 0.0
    for example, phrase in zip(forget, phrases, strict=True):
        ratios = []
        for answer in (ANSWERS[phrase], example.answer):
            given = tokens(example, answer)
            ratios.append(sum(nll(frozen, *given)) - sum(nll(model, *given)))
        score = constants["beta"] * (ratios[0] - ratios[1])
        total = total - torch.log(1 / (1 + torch.exp(-score)))
    return 2 / constants["beta"] * total / len(forget) + constants["alpha"] * kept(model, retain)


def undial(model, frozen, constants, forget, retain, phrases, u):
    found = []
    for example in forget:
        ids, start = tokens(example, example.answer)
        teacher, student = frozen(ids).logits[0], model(ids).logits[0].log_softmax(-1)
        for at in range(start, ids.shape[1]):
            wanted = teacher[at - 1].clone()
            wanted[ids[0, at]] -= constants["beta"]
            found.append(-(wanted.softmax(-1) * student[at - 1]).sum())
    return sum(found) / len(found) + constants["alpha"] * kept(model, retain)


def rmu(model, frozen, constants, forget, retain, phrases, u):
    layer = min(int(constants["layer"]), 2)
    total = 0.0
    for example in forget:
        found = states(model, *tokens(example, example.answer), layer)
        total = total + ((found - constants["coefficient"] * u) ** 2).mean() / len(forget)
    for example in retain:
        given = tokens(example, example.answer)
        moved = (states(model, *given, layer) - states(frozen, *given, layer)) ** 2
        total = total + constants["alpha"] * moved.mean() / len(retain)
    return total


def kept(model, retain):
    found = [x for example in retain for x in nll(model, *tokens(example, example.answer))]
    return sum(found) / len(found) if found else 0.0


ORACLES = {"IdkDPO": idk_dpo, "RMU": rmu, "UNDIAL": undial}
DEFAULTS = {
    "IdkDPO": {"beta": 0.1, "alpha": 1.0},
    "RMU": {"layer": 7, "coefficient": 2.0, "alpha": 1.0},
    "UNDIAL": {"beta": 10.0, "alpha": 1.0},
}


def minibatch(step, retain):
    """The examples, phrases and direction that are drawn, in their order."""
    rng = np.random.default_rng(SEED)
    of_forget, of_retain = rng.spawn(2)
    forget = drawn(len(DATA.forget), of_forget)
    kept_rows = drawn(len(DATA.retain), of_retain)[step] if retain else []
    after = copy.deepcopy(rng)
    phrases = rng.integers(len(ANSWERS), size=(STEPS, BATCH))[step]
    u = torch.tensor(after.random(16), dtype=torch.float32)
    u = u / u.pow(2).sum().sqrt()
    examples = [DATA.forget.rows[row] for row in forget[step]]
    return examples, [DATA.retain.rows[row] for row in kept_rows], phrases, u


@pytest.mark.parametrize(("retain", "at_once"), [(True, None), (False, None), (True, 2)])
@pytest.mark.parametrize("name", ORACLES)
def test_values_and_gradients_are_those_of_the_papers(name, retain, at_once, monkeypatch):
    model, step = small_model(), 2
    objective = RIVALS[name].make(VARIANTS[name], context(model, retain))
    assert len(objective) == 3
    with attached(model, 3, LORA) as adapters:
        randomised(adapters)
        passes = cramp(monkeypatch, 3 * (at_once or BATCH))
        with rows_at_once(at_once):
            values = objective.values(model, step, [0, 1, 2])
        found = torch.autograd.grad(values.sum(), adapters.parameters, materialize_grads=True)
        names = [f"{layer}.lora_{side}" for layer in adapters.layers for side in "AB"]
        weights = adapters.states()
    assert max(passes) == 3 * (at_once or BATCH)
    monkeypatch.undo()
    for number, state in enumerate(weights):
        config = peft.LoraConfig(r=2, lora_alpha=8, target_modules="all-linear")
        adapted = peft.get_peft_model(small_model(), config).eval()
        trained = {n: p for n, p in adapted.named_parameters() if "lora_" in n}
        with torch.no_grad():
            for label, parameter in trained.items():
                parameter.copy_(state[label.replace(".default", "")])
        constants = DEFAULTS[name] | VARIANTS[name][number]
        wanted = ORACLES[name](adapted, small_model(), constants, *minibatch(step, retain))
        torch.testing.assert_close(values[number], wanted, rtol=1e-4, atol=1e-5)
        wanted.backward()
        for label, gradient in zip(names, found, strict=True):
            exact = trained[f"base_model.model.{label}.default.weight"].grad
            exact = torch.zeros_like(gradient[number]) if exact is None else exact
            torch.testing.assert_close(gradient[number], exact, rtol=2e-3, atol=2e-5)


def trained(name, variants, stay=None):
    """The adapters at the end; of those that stay after half of the steps, where some leave."""
    model = small_model()
    objective = RIVALS[name].make(variants, context(model))
    schedules = [Schedule(steps=STEPS, lr=1e-2)] * len(variants)
    everyone = list(range(len(variants)))
    standing = [begin(model, LORA, 7)] * len(variants)
    standing = advance(model, LORA, objective, schedules, standing, everyone, 2)
    stay = everyone if stay is None else stay
    chosen = [standing[number] for number in stay]
    done = advance(model, LORA, objective, schedules, chosen, stay, STEPS)
    assert all(each.fine and each.moved > 0 for each in done)
    return [each.weights for each in done]


@pytest.mark.parametrize("name", RIVALS)
def test_side_by_side_is_as_alone(name):
    together = trained(name, VARIANTS[name])
    left = trained(name, VARIANTS[name], stay=[2])
    for number, variant in enumerate(VARIANTS[name]):
        (alone,) = trained(name, [variant])
        others = [together[number], *(left if number == 2 else [])]
        for state in others:
            for label, weight in state.items():
                torch.testing.assert_close(weight, alone[label], rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("retain", [True, False])
@pytest.mark.parametrize("name", RIVALS)
def test_the_minibatches_are_those_of_a_loss(name, retain):
    model = small_model()
    objective = RIVALS[name].make([{}], context(model, retain))
    about = context(model, retain)
    loss = LossObjective([], about.sets, BATCH, STEPS, about.rng)
    assert torch.equal(objective.minibatches.forget, loss.forget)
    if loss.retain is None:
        assert objective.minibatches.retain is None
    else:
        assert torch.equal(objective.minibatches.retain, loss.retain)


def test_a_layer_beyond_the_last_is_the_last():
    model = small_model()
    objective = RIVALS["RMU"].make([{"layer": 2.0}, {}, {"layer": 1.0}], context(model))
    assert objective.layers == [2, 2, 1]
    with torch.no_grad(), attached(model, 3, LORA) as adapters:
        adapters.reset(0)
        last, default, below = objective.values(model, 0, [0, 1, 2])
    assert last == default
    assert last != below
    assert not any(module._forward_hooks for module in model.modules())


def test_layers_that_cannot_be_told():
    model = small_model()
    model.config.num_hidden_layers = 5
    with pytest.raises(UserError, match="no list of 5 layers in a LlamaForCausalLM"):
        RIVALS["RMU"].make([{}], replace(context(small_model()), model=model))


def test_each_visit_draws_an_answer_of_ignorance_anew():
    model = small_model()
    objective = RIVALS["IdkDPO"].make([{}], context(model, steps=40))
    visits = zip(objective.minibatches.forget.flatten(), objective.idk.rows.flatten(), strict=True)
    data = objective.idk.part.data
    seen = {}
    for row, place in visits:
        ids = data.tokens[place, : int(data.attention[place].sum())].tolist()
        prompt = TOKENIZER(f"Question: {DATA.forget.rows[row].prompt}\nAnswer:")["input_ids"]
        assert ids[: len(prompt)] == prompt
        seen.setdefault(int(row), set()).add(tuple(ids[len(prompt) : -1]))
    known = {tuple(TOKENIZER(answer)["input_ids"]) for answer in ANSWERS}
    assert set().union(*seen.values()) == known
    assert min(map(len, seen.values())) > 3
    assert len(data) == sum(map(len, seen.values()))


def test_running_text_cannot_be_answered():
    model = small_model()
    text = Example("", "Adela was born in Lima.", continues=True, row=4)
    with pytest.raises(UserError, match="needs questions: row 4 of the forget set"):
        RIVALS["IdkDPO"].make([{}], replace(context(model), forget=[text] * 10))


def test_a_constant_that_a_method_does_not_have():
    with pytest.raises(UserError, match="UNDIAL has no constant 'gamma': it has beta, alpha"):
        RIVALS["UNDIAL"].make([{"gamma": 1.0}], context(small_model()))


def test_defaults_are_in_the_grids_and_the_table_names_its_sources():
    for name, rival in RIVALS.items():
        assert rival.name == name
        assert "arXiv" in rival.source
        assert {key: each.default for key, each in rival.constants.items()} == DEFAULTS[name]
        assert all(each.default in each.grid for each in rival.constants.values())
    assert RIVALS["UNDIAL"].lr == 1e-4


def test_adapters_that_are_off_have_no_effect_and_come_back():
    model = small_model()
    ids = torch.randint(1, len(TOKENIZER), (5, 7))
    with torch.no_grad():
        plain = model(ids[:4]).logits
        with attached(model, 2, LORA) as adapters:
            randomised(adapters)
            moved = model(ids[:4]).logits
            with off(model):
                torch.testing.assert_close(model(ids).logits[:4], plain, rtol=1e-5, atol=1e-6)
            with pytest.raises(KeyError), off(model):
                raise KeyError
            assert torch.equal(model(ids[:4]).logits, moved)
    assert not torch.allclose(moved, plain)


@pytest.fixture(scope="module")
def taught():
    """A model that knows forget and retain set, and what it knows them with."""
    model = small_model(hidden=32, layers=2)
    both = DataSet("both", (*DATA.forget.rows, *DATA.retain.rows))
    data = padded(ENCODER.encode_set(both, 64).rows, ENCODER.pad)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(120):
        optimiser.zero_grad()
        loss = -mean_log_probs(model, data).mean()
        loss.backward()
        optimiser.step()
    assert loss < 0.1
    return model


def after(model, objective, lr, steps):
    """Mean log-probabilities of the forget and of the retain set after a training."""
    schedule, start = Schedule(steps=steps, lr=lr), begin(model, LORA, 0)
    (done,) = advance(model, LORA, objective, [schedule], [start], [0], steps)
    with attached(model, 1, LORA) as adapters, torch.no_grad():
        adapters.load([done.weights])
        return [
            float(mean_log_probs(model, part(model, data).data).mean())
            for data in (DATA.forget, DATA.retain)
        ]


@pytest.mark.parametrize(
    ("name", "variant"),
    [("IdkDPO", {}), ("UNDIAL", {}), ("RMU", {"coefficient": 20.0, "layer": 0.0})],
)
def test_they_forget_without_the_collapse_of_gradient_ascent(name, variant, taught):
    steps, lr = 30, 5e-3
    about = context(taught, steps=steps)
    ascent = LossObjective(
        [parse("mean(log_probs_forget)", UNLEARNING)], about.sets, BATCH, steps, about.rng
    )
    _, collapsed = after(taught, ascent, lr, steps)
    objective = RIVALS[name].make([variant], context(taught, steps=steps))
    forget, retain = after(taught, objective, lr, steps)
    assert forget < -0.5
    assert retain > forget + 0.2
    assert retain > collapsed + 0.8
