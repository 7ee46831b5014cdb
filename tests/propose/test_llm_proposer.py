"""Losses come from a language model whatever its server does, and all that was said is kept."""

import ast
import itertools
import json
import math
import re
import socket
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from llm_server import Scripted, Server, answer, function, losses, refusal

from evoloss.errors import UserError
from evoloss.lang.canonical import canonical_text
from evoloss.lang.evaluate import numpy_value
from evoloss.lang.expr import Call, check, inputs_of
from evoloss.lang.parse import parse
from evoloss.lang.probes import probe_batches
from evoloss.lang.reader import read
from evoloss.lang.reader.losses import FUNCTIONAL as READ_FUNCTIONAL
from evoloss.lang.reader.names import _CONTEXTS
from evoloss.lang.types import SUPERVISED, UNLEARNING, UNLEARNING_FORGET, UNLEARNING_TOKENS
from evoloss.lang.zoo import loss
from evoloss.propose.evolution import Evolution
from evoloss.propose.llm import Endpoint, LLMProposer, Usage, connection, prompts, usage_of
from evoloss.propose.llm.evidence import MAX_METRICS, source
from evoloss.propose.proposer import Goal, Individual, Space
from evoloss.unlearn.metrics.meaning import meanings

PROPOSALS = (
    Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "proposals" / "proposals.jsonl"
)
KEY = "sk-very-secret"
NPO = loss("npo")
ALL_OPERATORS = parse(
    "quantile(log_probs_forget, 0.25) + aq(mean(huber(log_probs_forget, 0.5)), 2.0) "
    "+ mean(where(log_probs_forget > -1.5, clamp_max(log_probs_forget, -0.25), 0.0)) "
    "+ mean(sqrt(log_probs_retain)) + std(log_probs_forget)",
    UNLEARNING,
)


@pytest.fixture(autouse=True)
def quick_and_with_a_key(monkeypatch):
    monkeypatch.setattr(connection, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


class Search:
    """A space with an archive, what was kept and what the user was told."""

    def __init__(self, population=10, signature=UNLEARNING, **changes):
        self.kept, self.saved, self.told, self.seen = [], [], [], set()
        usual = parse("mean(log_probs_forget)", UNLEARNING)
        self.space = Space(
            population=population, parsimony=1.4, retries=2, usual=usual, seeded=False,
            output="identity", random=lambda g, s: np.random.default_rng((7, g, s)),
            avoid=lambda expr, epochs=None, rate=1.0: (canonical_text(expr), epochs) in self.seen,
            signature=signature, most_epochs=8, keep=self.kept.append, save=self.saved.append,
        )  # fmt: skip
        self.space = replace(self.space, **changes)

    def proposer(self, url, fallback=False, spent=None, **changes):
        endpoint = Endpoint(url, "tiny", **{"timeout": 5.0, "retries": 1, **changes})
        other = Evolution(self.space) if fallback else None
        return LLMProposer(self.space, endpoint, self.told.append, fallback=other, spent=spent)

    def remember(self, proposals):
        self.seen |= {(canonical_text(each.expression), each.epochs) for each in proposals}


def many():
    """A server's script of ever new losses."""
    numbers = itertools.count(1)

    def reply(number, request):
        return Scripted(losses(*(next(numbers) / 8 + 1 for _ in range(5))))

    return reply


def people(proposals, errors, first=0, **changes):
    return [
        Individual(first + n, each.expression, error, each.epochs, each.operator, each.parents,
                   **changes)
        for n, (each, error) in enumerate(zip(proposals, errors, strict=True))
    ]  # fmt: skip


def texts(server):
    return [each.body["messages"][-1]["content"] for each in server.requests]


def free_url():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def test_the_first_generation():
    search = Search()
    with Server(many()) as server:
        proposals = search.proposer(server.url).ask(0)
    assert len(proposals) == len({each.expression for each in proposals}) == 10
    for each in proposals:
        check(each.expression, UNLEARNING)
        assert (each.operator, each.parents, each.epochs) == ("llm", (), 3)
    assert len(server.requests) == 2
    assert not search.told


def test_samples_are_given_directions_that_differ():
    search = Search(population=20)
    with Server(many()) as server:
        search.proposer(server.url).ask(0)
    directions = {text.split("Direction for this answer: ")[1] for text in texts(server)}
    assert len(directions) == len(server.requests) == 4


def test_no_more_epochs_than_the_space_allows():
    reply = answer(function(1, "return log_probs_forget.mean() - log_probs_retain.mean()", 9))
    for most, epochs in ((8, 8), (10, 9), (None, None)):
        search = Search(population=1, most_epochs=most)
        with Server([Scripted(reply)]) as server:
            (proposal,) = search.proposer(server.url).ask(0)
        assert proposal.epochs == epochs
        assert ("epochs: K" in texts(server)[0]) == (most is not None)


def test_calls_that_were_saved_are_not_made_again():
    """Of a sample in two phases whose first was over when the process was killed."""
    script = [refusal(500), Scripted("Hm."), Scripted(losses(2.5))]
    whole = Search(population=1)
    with Server(script) as server:
        expected = whole.proposer(server.url, two_phase=True).ask(0)
        bodies = [each.body for each in server.requests]
    saved = json.loads(json.dumps(whole.saved))
    for known in (1, 2):
        resumed = Search(population=1, saved=saved[:known])
        with Server([Scripted(losses(2.5))]) as server:
            assert resumed.proposer(server.url, two_phase=True).ask(0) == expected
        assert [each.body for each in server.requests] == bodies[1 + known :]
        assert usage_of([*saved[:known], *resumed.saved]) == usage_of(saved)
    assert resumed.kept == whole.kept


@pytest.mark.parametrize("change", [{"reply": ""}, {"model": "another"}, {"sample": 1}])
def test_calls_that_brought_nothing_or_were_others_are_made(change):
    whole = Search(population=1)
    with Server([Scripted(losses(2.5))]) as server:
        whole.proposer(server.url).ask(0)
    resumed = Search(population=1, saved=[{**whole.saved[0], **change}])
    with Server([Scripted(losses(3.5))]) as server:
        resumed.proposer(server.url).ask(0)
    assert len(server.requests) == 1


def test_children_of_the_best():
    search = Search(population=12)
    with Server(many()) as server:
        proposer = search.proposer(server.url)
        first = proposer.ask(0)
        search.remember(first)
        errors = [0.5, math.nan, 0.1, None, 0.2, 0.9, 0.3, 0.4, 0.8, 0.7, 0.6, 0.95]
        proposer.tell(0, people(first, errors))
        second = proposer.ask(1)
    assert {each.operator for each in second} == {"llm refinement"}
    parents = [each.parents[0] for each in second]
    assert {parent: parents.count(parent) for parent in parents} == {2: 3, 4: 3, 6: 2, 7: 2, 0: 2}


def test_a_refinement_shows_what_is_known_of_the_parent():
    search = Search(population=1)
    details = {"metrics": {"forget quality": 0.1234567, "model utility": 0.5, "notes": {"a": 1.0}},
               "curve": [[step, 1.0 / step] for step in range(1, 101)]}  # fmt: skip
    told = [
        Individual(0, NPO, 0.25, 4, "llm", (), "", details),
        Individual(1, parse("mean(log_probs_forget)*3", UNLEARNING), None, 2, "llm", (0,),
                   "the adapter did not move", {}),
        Individual(2, parse("mean(square(log_probs_forget))", UNLEARNING), 0.75, 2, "llm", (0,)),
        Individual(3, parse("amax(log_probs_forget)", UNLEARNING), 0.5, 2, "llm"),
    ]  # fmt: skip
    with Server(many()) as server:
        proposer = search.proposer(server.url)
        proposer.tell(0, told)
        proposer.ask(1)
    text = texts(server)[0]
    assert "The parent, to be improved (score -0.25, 4 epochs; higher is better)" in text
    assert "- forget quality: 0.1235" in text
    assert "- model utility: 0.5" in text
    assert "the score, by share of its training:\n1%: 1, 15%: 0.06667" in text
    assert "100%: 0.01" in text
    assert "mean(3*log_probs_forget)" in text or "mean(log_probs_forget)*3" in text
    assert "the adapter did not move" in text
    tried = text.split("Changes of it that were tried:")[1].split("\n\n")[0]
    assert "mean(square(log_probs_forget)) (score -0.75, 2 epochs)" in tried
    others = text.split("Other good losses:")[1].split("\n\n")[0]
    assert "amax(log_probs_forget) (score -0.5, 2 epochs)" in others
    shown = next(iter(read(text.split("```python")[1].split("```")[0], UNLEARNING)))
    same_values(shown.expression, NPO)
    assert shown.epochs == 4


def test_a_prompt_tells_the_objective_and_where_each_measurement_should_go():
    goal = Goal("balance95", partial(meanings, objective="balance95"), "the balance")
    many_more = {f"real_authors_{n}_prob": 0.5 for n in range(40)}
    values = {"forget_prob": 0.2, "retain_prob": 0.9, **many_more, "mia_loss": 0.6,
              "privleak": -3.0, "utility_kept": 0.96, "balance": 0.5, "forgetting": 0.4,
              "balance95": 0.51}  # fmt: skip
    details = {"metrics": values, "curve": [[3, 0.1], [12, 0.51]]}
    search = Search(population=1, goal=goal)
    with Server(many()) as server:
        proposer = search.proposer(server.url)
        proposer.tell(0, [Individual(0, NPO, -0.51, 4, details=details)])
        proposer.ask(1)
    text = texts(server)[0]
    assert "(balance95 0.51, 4 epochs; higher is better)" in text
    assert "lower is better):" not in text
    shown = [each for each in text.split("\n") if each.startswith("- ") and " is better" in each]
    names = [each.removeprefix("- ").split(":")[0] for each in shown]
    assert names[:4] == ["balance95", "forgetting", "utility_kept", "balance"]
    assert len(names) == len(set(names)) == MAX_METRICS
    lines = dict(zip(names, shown, strict=True))
    assert lines["forget_prob"] == (
        "- forget_prob: 0.2 (lower is better; exp of the mean token log-probability of the answer "
        "given the question)"
    )
    assert lines["retain_prob"] == "- retain_prob: 0.9 (higher is better)"
    assert "the balance, by share of its training:\n25%: 0.1, 100%: 0.51" in text


def test_what_was_stopped_early_is_no_good_loss_and_has_no_score():
    stopped = {"curve": [[3, 0.2]], "at_rung": {"forgetting": 0.3, "utility_kept": 0.15}}
    reason = "balance 0.2 after 3 steps is in the worse half"
    told = [
        Individual(0, NPO, -0.5, 4),
        Individual(1, parse("amax(log_probs_forget)", UNLEARNING), -0.4, 2),
        Individual(2, parse("amin(log_probs_forget)", UNLEARNING), 0.6, 2, "", (0,), reason,
                   stopped),
        Individual(3, parse("median(log_probs_forget)", UNLEARNING), 1.6, 2, "", (), reason,
                   stopped),
        Individual(4, parse("mean(log_probs_forget)", UNLEARNING), None, 2, "", (), "of NaN"),
    ]  # fmt: skip
    search = Search(population=4)
    with Server(many()) as server:
        proposer = search.proposer(server.url)
        proposer.tell(0, told)
        proposer.ask(1)
    prompt = next(each for each in texts(server) if "improved (score 0.5" in each)
    others = prompt.split("Other good losses:\n")[1].split("\n\n")[0]
    assert others == "- amax(log_probs_forget) (score 0.4, 2 epochs)"
    assert "Changes of it that were tried" not in prompt
    failed = prompt.split("stopped early: avoid")[1].split("\n\n")[0].split("\n- ")[1:]
    measured = "(forgetting 0.3, utility_kept 0.15)"
    assert failed == [
        f"amin(log_probs_forget) (stopped early, 2 epochs): {reason} {measured}",
        "mean(log_probs_forget) (no score): of NaN",
        f"median(log_probs_forget) (stopped early, 2 epochs): {reason} {measured}",
    ]
    # Where so few were trained to the end that it is to be improved itself.
    prompt = next(each for each in texts(server) if "improved (stopped early, 2 epochs" in each)
    assert f"It was stopped early: {reason}. Its measurements then:\n- forgetting: 0.3" in prompt
    assert not re.search(r"score -?(0\.6|1\.6)", "".join(texts(server)))


def test_a_parent_without_details_is_shown_as_well():
    search = Search(population=1)
    for details in (
        {},
        {"metrics": None, "curve": 3},
        {"metrics": [1], "curve": ["ab", [1, None]]},
    ):
        with Server(many()) as server:
            proposer = search.proposer(server.url)
            proposer.tell(0, [Individual(0, NPO, 0.25, details=details)])
            assert proposer.ask(1)
        assert "The parent" in texts(server)[0]


def same_values(one, other, signature=UNLEARNING):
    for batch in probe_batches(signature):
        np.testing.assert_allclose(numpy_value(one, batch), numpy_value(other, batch), rtol=1e-4)


@pytest.mark.parametrize("expression", [NPO, ALL_OPERATORS, loss("grad-diff")])
def test_a_source_reads_back_as_the_loss(expression):
    text = source(Individual(0, expression, 1.0, 4), UNLEARNING, 8)
    (found,) = read(text, UNLEARNING)
    same_values(found.expression, expression)
    assert found.epochs == 4


def test_prompts_stay_short():
    huge = parse("mean(log_probs_forget)", UNLEARNING)
    for _ in range(12):
        huge = Call("add", (huge, huge)) if _ < 9 else Call("neg", (huge,))
    details = {"metrics": {f"metric {n}" * 50: float(n) for n in range(500)},
               "curve": [[n, n] for n in range(10_000)]}  # fmt: skip
    told = [Individual(n, huge, 1.0 if n == 0 else None, None, "", (0,), "why " * 900, details)
            for n in range(50)]  # fmt: skip
    search = Search(population=1, known=(huge,) * 50)
    with Server(many()) as server:
        proposer = search.proposer(server.url)
        proposer.ask(0)
        proposer.tell(0, told)
        proposer.ask(1)
    assert max(map(len, texts(server))) < 20_000


def test_first_losses_again_where_all_failed():
    search = Search(population=1)
    with Server(many()) as server:
        proposer = search.proposer(server.url)
        proposer.tell(0, [Individual(0, NPO, None, reason="a loss of NaN in step 3")])
        (proposal,) = proposer.ask(1)
    assert proposal.operator == "llm"
    assert "a loss of NaN in step 3" in texts(server)[0]


def test_missing_losses_are_asked_for_once_more_with_what_was_refused():
    good = function(1, "return log_probs_forget.mean() - log_probs_retain.mean()")
    bad = function(2, "return torch.rand(3).mean()")
    other = "return log_probs_forget.exp().mean() - log_probs_retain.mean()"
    script = [Scripted(answer(good, bad)), Scripted(answer(function(1, other)))]
    search = Search(population=2)
    with Server(script) as server:
        proposals = search.proposer(server.url).ask(0)
    assert len(proposals) == 2
    assert len(server.requests) == 2
    assert "torch.rand is not on the list" in texts(server)[1]
    assert "one function" in texts(server)[1]


def test_what_was_seen_before_is_dropped():
    search = Search(population=3)
    search.remember(read(losses(1.5), UNLEARNING))
    with Server([Scripted(losses(1.5, 2.0, 2.0, 3.0))]) as server:
        proposals = search.proposer(server.url).ask(0)
    assert len(proposals) == 2
    assert "seen before" in search.told[0]
    assert [each["seen"] for each in search.kept[0]["accepted"]] == [True, False, False, False]


def test_the_same_loss_for_other_epochs_is_another():
    body = "return log_probs_forget.mean() - log_probs_retain.mean()"
    search = Search(population=3)
    reply = answer(*(function(n, body, epochs) for n, epochs in enumerate((2, 3, 2, 4), start=1)))
    with Server([Scripted(reply)]) as server:
        proposals = search.proposer(server.url).ask(0)
    assert [each.epochs for each in proposals] == [2, 3, 4]


def test_what_a_sample_wrote_beyond_its_number_fills_gaps_only():
    script = [Scripted(losses(*range(1, 9))), Scripted(losses(11, 12, 13, 14, 15))]
    search = Search(population=10)
    with Server(script) as server:
        proposals = search.proposer(server.url, samples_at_once=1).ask(0)
    factors = {each.expression.args[0].args[0].value for each in proposals
               if each.expression.args[0].op == "mul"}  # fmt: skip
    assert {11.0, 12.0, 13.0, 14.0, 15.0} <= factors
    assert len(proposals) == 10


def test_every_prompt_and_reply_is_kept():
    reply = answer(
        function(1, "return log_probs_forget.mean() - log_probs_retain.mean()"),
        function(2, "return open('x')"),
    )
    search = Search(population=2)
    with Server([refusal(500, f"your key is {KEY}"), Scripted(reply + KEY, usage=(123, 45))]) as s:
        search.proposer(s.url, input_price=1.0, output_price=2.0).ask(4)
    assert len(search.saved) == len(search.kept) == 2  # one for each wave
    record = json.loads(json.dumps(search.saved[0]))
    assert KEY not in json.dumps([search.kept, search.saved])
    assert record["messages"] == s.requests[0].body["messages"] == s.requests[1].body["messages"]
    assert record["reply"] == reply + "***"
    assert (record["kind"], record["generation"], record["phase"]) == ("llm", 4, "single")
    assert (record["model"], record["parent"]) == ("tiny", None)
    assert (record["prompt_tokens"], record["completion_tokens"]) == (123, 45)
    assert record["cost"] == pytest.approx((123 + 90) / 1e6)
    assert "500" in record["errors"][0]
    reading = json.loads(json.dumps(search.kept[0]))
    assert (reading["kind"], reading["sample"]) == ("llm reading", record["sample"])
    assert record["sample"] == s.requests[0].body["seed"]
    (accepted,) = reading["accepted"]
    same_values(parse(accepted["loss"], UNLEARNING),
                parse("mean(log_probs_forget) - mean(log_probs_retain)", UNLEARNING))  # fmt: skip
    (refused,) = reading["refused"]
    assert refused["name"] == "loss_fn_2"
    assert "return open('x')" in reply.splitlines()[refused["line"] - 1]
    assert usage_of([*search.kept, *search.saved]) == Usage(246, 90)


def test_both_phases_are_kept_with_the_parent():
    search = Search(population=1)

    def phases(number, request):
        return Scripted("Hm." if request.body["stop"] == ["<answer>"] else losses(2.5))

    with Server(phases) as server:
        proposer = search.proposer(server.url, two_phase=True)
        proposer.tell(0, [Individual(6, NPO, 0.5)])
        (proposal,) = proposer.ask(1)
    assert proposal.parents == (6,)
    assert [(each["phase"], each["parent"]) for each in search.saved] == [
        ("reasoning", 6), ("code", 6),
    ]  # fmt: skip
    (reading,) = search.kept
    assert len(reading["accepted"]) == 1
    assert {each["sample"] for each in search.saved} == {reading["sample"]}


FAULTS = {
    "down": None,
    "silent": [Scripted(silent=True)],
    "errors": [refusal(500)],
    "busy": [refusal(429, retry_after="0.01")],
    "no key": [refusal(401)],
    "html": [Scripted(body=b"<html>", content_type="text/html")],
    "null": [Scripted(None)],
    "prose": [Scripted("I am sorry, but I cannot do that.")],
    "cut at once": [Scripted("text", cut=0)],
}


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("fallback", [False, True])
def test_the_search_goes_on_without_the_model_and_says_so(kind, fallback):
    search = Search(population=6)
    changes = {"timeout": 0.3} if kind == "silent" else {}
    script = FAULTS[kind]
    with Server(script or []) as server:
        url = server.url if script else free_url()
        proposer = search.proposer(url, fallback=fallback, **changes)
        for generation in range(2):
            proposals = proposer.ask(generation)
            assert len(proposals) == (6 if fallback else 0)
            proposer.tell(generation, people(proposals, np.linspace(0, 1, len(proposals))))
    (line,) = search.told  # and only once
    assert "tiny wrote 0 of 6 losses: " in line
    assert "\n" not in line
    assert ("6 are made without it" in line) == fallback


def test_what_came_of_a_reply_that_was_cut_off_is_used():
    whole = losses(1.5, 2.5, 3.5)
    search = Search(population=3)
    cut = whole.index("def loss_fn_3") + 120
    with Server([Scripted(whole, cut=cut), refusal(400)]) as server:
        proposals = search.proposer(server.url, fallback=True).ask(0)
    assert [each.operator for each in proposals] == ["llm", "llm", "initial"]
    assert "1 is made without it" in search.told[0]


def test_an_outage_costs_one_call_a_generation_and_its_end_is_noticed():
    search = Search(population=20)
    up = False

    def reply(number, request):
        return Scripted(losses(number + 1.0, number + 1.5, number + 2.25)) if up else refusal(503)

    with Server(reply) as server:
        proposer = search.proposer(server.url, retries=0)
        assert proposer.ask(0) == ()
        assert len(server.requests) == 4
        assert proposer.ask(1) == ()
        assert len(server.requests) == 5
        up = True
        assert proposer.ask(2)
        assert len(server.requests) > 8


def test_the_budget_ends_the_model_and_not_the_search():
    search = Search(population=5)
    with Server(many()) as server:
        proposer = search.proposer(server.url, max_total_tokens=1_500, max_tokens=300,
                                   fallback=True, spent=Usage(100, 0))  # fmt: skip
        assert len(proposer.ask(0)) == 5
        proposer.client.budget.spent = Usage(1_400, 0)
        proposals = proposer.ask(1)
    assert len(proposals) == 5
    assert {each.operator for each in proposals} == {"initial"}
    assert "1,400 of 1,500 tokens" in search.told[0]


def test_told_the_stored_generations_it_asks_the_same():
    def asked(again):
        search = Search(population=6)
        with Server(many()) as server:
            proposer = search.proposer(server.url, samples_at_once=1)
            if not again:
                proposer.ask(0)
            drawn = read(losses(1, 2, 3), UNLEARNING)
            told = [Individual(n, e.expression, 1.0 / (n + 1), 3) for n, e in enumerate(drawn)]
            proposer.tell(0, told)
            begin = len(server.requests)
            proposer.ask(1)
        return [(each.body["messages"], each.body["seed"]) for each in server.requests[begin:]]

    assert asked(again=False) == asked(again=True)


@pytest.mark.parametrize("signature", [UNLEARNING, UNLEARNING_FORGET, UNLEARNING_TOKENS])
def test_a_prompt_names_the_inputs_of_the_signature_and_no_others(signature):
    order = prompts.Order(signature, 2, "short", 8)
    text = prompts.first(order, (), (), ())[1]["content"]
    for name in UNLEARNING_TOKENS.inputs:
        assert (f"- {name}:" in text) == (name in signature.inputs)
    assert ("retain batch" in text) == ("log_probs_retain" in signature.inputs)
    assert f"def loss_fn_1({', '.join(signature.inputs)}):" in text
    for each in prompts.hints(signature):
        assert "retain" not in each.lower() or "log_probs_retain" in signature.inputs


FORGET_ONLY = """\
def loss_fn_1(log_probs_forget, ref_log_probs_forget):
    return F.softplus(log_probs_forget - ref_log_probs_forget).mean()
"""
TOKENS = f"""\
def loss_fn_1({", ".join(UNLEARNING_TOKENS.inputs)}):
    return log_probs_forget[mask_forget].mean() - log_probs_retain[mask_retain].mean()
"""


@pytest.mark.parametrize(
    ("signature", "text"), [(UNLEARNING_FORGET, FORGET_ONLY), (UNLEARNING_TOKENS, TOKENS)]
)
def test_losses_without_a_retain_set_and_of_tokens(signature, text):
    search = Search(population=1, signature=signature)
    with Server([Scripted(answer(text))]) as server:
        proposer = search.proposer(server.url)
        (proposal,) = proposer.ask(0)
        check(proposal.expression, signature)
        assert inputs_of(proposal.expression) <= set(signature.inputs)
        proposer.tell(0, [Individual(0, proposal.expression, 0.5)])
        proposer.ask(1)
    shown = texts(server)[-1].split("```python")[1].split("```")[0]
    (found,) = read(shown, signature)
    same_values(found.expression, proposal.expression, signature)


def test_losses_of_labels_are_no_work_for_it():
    with pytest.raises(UserError, match="unlearning"):
        Search(signature=SUPERVISED).proposer("http://localhost/v1")


def test_what_a_prompt_allows_is_what_the_reader_reads():
    torch = {name for names in prompts.TORCH.values() for name in names.split()}
    assert torch - set(READ_FUNCTIONAL) <= {each.split(".")[1] for each in _CONTEXTS}
    assert set(prompts.FUNCTIONAL.split()) <= set(READ_FUNCTIONAL)
    for refused in ("rand", "randn", "matmul", "outer", "gather"):
        assert refused not in READ_FUNCTIONAL


def test_the_python_that_a_prompt_allows_is_read():
    text = '''
def scaled(x, factor=2.0):
    return factor * x

def loss_fn_1(log_probs_forget, log_probs_retain, ref_log_probs_forget, ref_log_probs_retain):
    """epochs: 2"""
    with torch.no_grad():
        weight = torch.softmax(log_probs_forget, dim=0)
    mask = (log_probs_forget > -3.0) & ~(log_probs_forget > -0.01)
    total = 0.0
    for power in (1, 2):
        total = total + (weight * log_probs_forget.exp() ** power).sum() / power
    double = lambda x: scaled(x)
    chosen = log_probs_forget[mask].sum() if mask.any() else log_probs_forget.sum()
    if log_probs_retain.mean() < -2.0:
        total = total + math.sqrt(2.0) * chosen * 0.01
    return double(total) - log_probs_retain.mean()
'''
    (found,) = read(text, UNLEARNING)
    assert found.epochs == 2


@pytest.mark.skipif(not PROPOSALS.exists(), reason=f"{PROPOSALS.name} is not there")
def test_replies_of_every_kind_with_every_trouble_on_the_way():
    replies = [json.loads(line)["raw"] for line in PROPOSALS.read_text("utf-8").splitlines()]
    trouble = [
        lambda text: Scripted(text),
        lambda text: refusal(429, retry_after="0.01"),
        lambda text: Scripted(text, delay=0.01),
        lambda text: Scripted(text, cut=len(text) * 2 // 3),
        lambda text: refusal(500),
        lambda text: Scripted(body=b"<html>", content_type="text/html"),
        lambda text: Scripted(text, usage=None, finish="length"),
    ]
    search = Search(population=30, most_epochs=10)

    def reply(number, request):
        return trouble[number % len(trouble)](replies[number % len(replies)])

    found = []
    with Server(reply) as server:
        proposer = search.proposer(server.url, retries=3, samples_at_once=6, fallback=True)
        for generation in range(3):
            proposals = proposer.ask(generation)
            assert len(proposals) == 30
            for each in proposals:
                check(each.expression, UNLEARNING)
            search.remember(proposals)
            proposer.tell(generation, people(proposals, range(30), 30 * generation))
            found += [each for each in proposals if each.operator.startswith("llm")]
    assert server.most_in_flight > 1
    forms = {(canonical_text(each.expression), each.epochs) for each in found}
    assert len(found) == len(forms) > 30
    for record in search.saved:
        json.dumps(record)
        for message in record["messages"]:
            assert len(message["content"]) < 20_000


def test_functions_in_prompts_are_python():
    order = prompts.Order(UNLEARNING, 3, "short", 8)
    text = prompts.first(order, (NPO,), (), ())[1]["content"]
    code = text.split("```python\n")[1].split("```")[0]
    ast.parse(code)
    assert "mean(log_probs_retain)" in text.split("Known already")[1]
