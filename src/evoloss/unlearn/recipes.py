"""How the value of each metric comes out of what a model says, or why it cannot.

Definitions are those of OpenUnlearning. Prob and the LOSS, ZLib and Reference attacks count the end
token; Min-K, Min-K++, the gradient norm, extraction strength and exact memorisation do not. The
reference model of the Reference attack is the retain model: it has not seen what is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from evoloss.unlearn.answers import Told
from evoloss.unlearn.metrics import answers as of_answers
from evoloss.unlearn.metrics import membership, scores
from evoloss.unlearn.metrics.rows import Row
from evoloss.unlearn.metrics.table import Array, MetricError, average
from evoloss.unlearn.metrics.texts import rouge_l_f1, rouge_l_recall
from evoloss.unlearn.prepared import Asked, Compared, Prepared
from evoloss.unlearn.tokens import Encoded

_TOFU_SETS = ("forget", "retain", "real_authors", "world_facts")
_MUSE_SETS = ("forget_verbmem", "forget_knowmem", "retain_knowmem")
_NOT_ASKED = ("holdout", "forget_privleak", *_MUSE_SETS)
_OF_A_SET = ("_prob", "_rouge", "_truth_ratio", "_knowmem")
_NOTHING_KEPT = "the data has nothing that is to be kept"
TRAINED = "trained"
"""The set of questions to keep that were trained on, as published scores measure what is kept."""


@dataclass(frozen=True)
class Measured:
    """The values of one model's metrics, by name, and what other models are compared by.

    answers, retain_answers: generated from the openings of the two sets, () if nothing was.
    utility_parts: the values that 'model_utility' is the harmonic mean of.
    forget_log_ratios: log R of the forget set; members: mean log-probabilities of the answers that
    membership inference should recognise; strangers: of the holdout set's.
    """

    values: dict[str, float]
    answers: tuple[str, ...] = ()
    retain_answers: tuple[str, ...] = ()
    utility_parts: tuple[str, ...] = ()
    forget_log_ratios: tuple[float, ...] = ()
    members: tuple[float, ...] = ()
    strangers: tuple[float, ...] = ()


@dataclass
class Evidence:
    """What one model has said, and the values found so far.

    norms: of the gradients of members and strangers; texts: what was generated, by set.
    """

    prepared: Prepared
    told: Mapping[Encoded, Told]
    norms: Mapping[Encoded, float] = field(default_factory=dict)
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)

    def log_probs(self, rows: Iterable[Encoded]) -> list[Array]:
        """(T_i,) of each answer's tokens and its end."""
        return [self.told[row].log_probs for row in rows]

    def means(self, rows: Iterable[Encoded]) -> tuple[float, ...]:
        """Mean log-probabilities."""
        return tuple(float(each.mean(dtype=np.float64)) for each in self.log_probs(rows))

    def log_ratios(self) -> Array:
        """(N,) log R of the forget set."""
        return _log_ratios(self, self.prepared.sets["forget"].compared)


Recipe = Callable[[Evidence], float]
Recipes = dict[str, Recipe | str]
"""How to compute each metric, or the reason why not; a recipe uses the values before it."""


def recipes(
    prepared: Prepared, original: Measured | None, retain: Measured | None, texts: bool
) -> Recipes:
    """All metrics there are for such data. Arguments as of `measure`."""
    sets = prepared.sets
    found: Recipes = {}
    for name in dict.fromkeys((*_TOFU_SETS, *sets)):
        if name not in _NOT_ASKED:
            found |= _of_set(name, sets.get(name), texts)
    for name in _MUSE_SETS:
        # Texts that are to be forgotten need no set for VerbMem beside them.
        itself = name in sets or name != "forget_verbmem" or not sets["forget"].running
        source = name if itself else "forget"
        no_text = _no_text(source, sets.get(source), texts)
        found[name] = no_text or partial(_rouge, name=source, f1=True)
    for name in prepared.choices:
        found[name] = partial(_accuracy, name=name)
    if not prepared.choices:
        found["multiple_choice"] = "the data has no multiple-choice questions"
    found["extraction_strength"] = _extraction_strength
    found["exact_memorisation"] = _exact_memorisation
    found |= _of_membership(prepared)
    found |= _of_retain_model(prepared, found, retain)
    found |= _of_utility(prepared, found, original)
    found |= _of_forgetting(found, original, retain)
    for name, parts in scores.OBJECTIVE_PARTS.items():
        score = getattr(scores, name)
        found[name] = _reason(found, *parts) or partial(_of_values, score=score)
    return found


def utility_parts(prepared: Prepared, found: Recipes) -> tuple[str, ...]:
    """TOFU's nine if all can be measured; else all there is on what is to be kept."""
    if _reason(found, *scores.UTILITY_PARTS) is None:
        return scores.UTILITY_PARTS
    return tuple(
        name
        for name, recipe in found.items()
        if not isinstance(recipe, str)
        and not name.startswith(("forget", "wmdp_", TRAINED))
        and (name in prepared.choices or name.endswith(_OF_A_SET))
    )


def _of_set(name: str, asked: Asked | None, texts: bool) -> Recipes:
    no_set = None if asked else f"the data has no set '{name}'"
    no_false = no_set
    if asked and not asked.compared:
        no_false = f"no row of '{name}' has perturbed answers"
    options = bool(asked and asked.compared) and name not in ("forget", "retain", TRAINED)
    return {
        f"{name}_prob": no_set or partial(_prob_among_options if options else _prob, name=name),
        f"{name}_rouge": _no_text(name, asked, texts) or partial(_rouge, name=name),
        f"{name}_truth_ratio": no_false or partial(_truth_ratio, name=name),
    }


def _of_membership(prepared: Prepared) -> Recipes:
    attacks: dict[str, Callable[[Evidence, tuple[Encoded, ...]], Row]] = {
        "mia_loss": _loss_scores,
        "mia_zlib": _zlib_scores,
        "mia_gradnorm": _gradnorm_scores,
        "mia_min_k": _min_k_scores,
        "mia_min_k_plus_plus": _min_k_plus_plus_scores,
    }
    if not prepared.strangers:
        return dict.fromkeys(attacks, "the data has no holdout set")
    return {name: partial(_attack, name=name, scores_of=each) for name, each in attacks.items()}


def _of_retain_model(prepared: Prepared, found: Recipes, retain: Measured | None) -> Recipes:
    if retain is None:
        compared = ("forget_quality", "mia_reference", "privleak")
        return dict.fromkeys(compared, "there is no retain model")
    alike = (len(retain.members), len(retain.strangers)) == (
        len(prepared.members),
        len(prepared.strangers),
    )
    other = None if alike else "the retain model's tokenizer cuts the texts into other pieces"
    return {
        "forget_quality": _reason(found, "forget_truth_ratio")
        or partial(_forget_quality, wanted=retain.forget_log_ratios),
        "mia_reference": _reason(found, "mia_loss") or other or partial(_reference, retain=retain),
        "privleak": _reason(found, "mia_min_k")
        or _raised(lambda: membership.privleak(0.5, retain.values["mia_min_k"]))
        or partial(_privleak, wanted=retain.values["mia_min_k"]),
    }


def _of_utility(prepared: Prepared, found: Recipes, original: Measured | None) -> Recipes:
    names = utility_parts(prepared, found)
    own: Recipes = {"model_utility": _utility(names), "utility_kept": _kept(names, original)}
    if TRAINED in prepared.sets:
        # Probes of what is to be kept, such as MUSE's, are trained on nowhere: they stay.
        trained = {f"retain{each}": f"{TRAINED}{each}" for each in _OF_A_SET}
        names = tuple(new if (new := trained.get(each)) in found else each for each in names)
        own |= {"trained_utility": _utility(names), "trained_kept": _kept(names, original)}
    return own


def _utility(parts: tuple[str, ...]) -> Recipe | str:
    return partial(_model_utility, parts=parts) if parts else _NOTHING_KEPT


def _kept(parts: tuple[str, ...], original: Measured | None) -> Recipe | str:
    if not parts or original is None:
        return "the original model was not measured" if parts else _NOTHING_KEPT
    # The original may have been measured with fewer sets, or without texts.
    before = {name: original.values[name] for name in parts if name in original.values}
    return _raised(lambda: scores.utility_kept(before, before)) or partial(
        _of_values, score=partial(scores.utility_kept, original=before)
    )


def _of_forgetting(found: Recipes, original: Measured | None, retain: Measured | None) -> Recipes:
    if original is None:
        return {"forgetting": "the original model was not measured"}
    others = [each.values for each in (original, retain) if each is not None]
    rouge = not isinstance(found["forget_rouge"], str)
    rouge = rouge and all("forget_rouge" in values for values in others)
    before = _knowledge(original.values, rouge)
    floor = 0.0 if retain is None else _knowledge(retain.values, rouge)
    nothing = _raised(lambda: scores.forgetting(before, before, floor))
    return {"forgetting": nothing or partial(_forgetting, before=before, floor=floor, rouge=rouge)}


def _no_text(name: str, asked: Asked | None, texts: bool) -> str | None:
    if asked is None:
        return f"the data has no set '{name}'"
    if not asked.openings:
        return f"'{name}' has nothing to generate from"
    return None if texts else "no texts were generated"


def _reason(found: Recipes, *names: str) -> str | None:
    """Why the first of them that cannot be computed cannot."""
    return next((each for each in map(found.__getitem__, names) if isinstance(each, str)), None)


def _raised(compute: Callable[[], float]) -> str | None:
    """What is wrong with the other models' values, that no candidate is to blame for."""
    try:
        compute()
    except MetricError as error:
        return str(error)
    return None


def _prob(e: Evidence, name: str) -> float:
    return average("prob", of_answers.probabilities(e.log_probs(e.prepared.sets[name].answers)))


def _prob_among_options(e: Evidence, name: str) -> float:
    compared = e.prepared.sets[name].compared
    right = e.log_probs(each.answer for each in compared)
    wrong = [e.log_probs(each.false) for each in compared]
    return average("prob_among_options", of_answers.probabilities_among_options(right, wrong))


def _log_ratios(e: Evidence, compared: Iterable[Compared]) -> Array:
    compared = tuple(compared)
    wrong = [e.log_probs(each.false) for each in compared]
    return of_answers.log_truth_ratios(e.log_probs(each.true for each in compared), wrong)


def _truth_ratio(e: Evidence, name: str) -> float:
    ratios = _log_ratios(e, e.prepared.sets[name].compared)
    if name == "forget":
        return average("forget_truth_ratio", of_answers.forget_truth_ratios(ratios))
    return average("truth_ratio", of_answers.truth_ratios(ratios))


def _rouge(e: Evidence, name: str, f1: bool = False) -> float:
    true = [each.truth for each in e.prepared.sets[name].openings]
    if f1:
        return average("rouge_l_f1", rouge_l_f1(e.texts[name], true))
    return average("rouge_l_recall", rouge_l_recall(e.texts[name], true))


def _accuracy(e: Evidence, name: str) -> float:
    questions = e.prepared.choices[name]
    letters = [e.log_probs(each.choices) for each in questions]
    right = of_answers.choices_right(letters, [each.right for each in questions])
    return average("multiple_choice", right)


def _matches(e: Evidence) -> list[Array]:
    return [e.told[row].matches[: len(row.answer)] for row in e.prepared.verbatim]


def _extraction_strength(e: Evidence) -> float:
    return average("extraction_strength", of_answers.extraction_strengths(_matches(e)))


def _exact_memorisation(e: Evidence) -> float:
    return average("exact_memorisation", of_answers.exact_memorisation(_matches(e)))


def _forget_quality(e: Evidence, wanted: tuple[float, ...]) -> float:
    return scores.forget_quality(e.log_ratios(), wanted)


def _attack(
    e: Evidence, name: str, scores_of: Callable[[Evidence, tuple[Encoded, ...]], Row]
) -> float:
    members, strangers = (scores_of(e, r) for r in (e.prepared.members, e.prepared.strangers))
    return membership.auc(name, members, strangers)


def _loss_scores(e: Evidence, rows: tuple[Encoded, ...]) -> Row:
    return membership.loss_scores(e.log_probs(rows))


def _zlib_scores(e: Evidence, rows: tuple[Encoded, ...]) -> Row:
    texts = [e.prepared.private_texts[row] for row in rows]
    return membership.zlib_scores(e.log_probs(rows), texts)


def _gradnorm_scores(e: Evidence, rows: tuple[Encoded, ...]) -> Row:
    return membership.gradnorm_scores([e.norms[row] for row in rows])


def _min_k_scores(e: Evidence, rows: tuple[Encoded, ...]) -> Row:
    return membership.min_k_scores([e.told[row].log_probs[: len(row.answer)] for row in rows])


def _min_k_plus_plus_scores(e: Evidence, rows: tuple[Encoded, ...]) -> Row:
    told = [(e.told[row], slice(len(row.answer))) for row in rows]
    means, deviations = ([each.moments[n][part] for each, part in told] for n in (0, 1))
    values = [each.log_probs[part] for each, part in told]
    return membership.min_k_plus_plus_scores(values, means, deviations)


def _reference(e: Evidence, retain: Measured) -> float:
    pairs = ((e.prepared.members, retain.members), (e.prepared.strangers, retain.strangers))
    members, strangers = (
        membership.reference_scores([[mean] for mean in e.means(rows)], [[mean] for mean in other])
        for rows, other in pairs
    )
    return membership.auc("mia_reference", members, strangers)


def _privleak(e: Evidence, wanted: float) -> float:
    return membership.privleak(e.values["mia_min_k"], wanted)


def _model_utility(e: Evidence, parts: tuple[str, ...]) -> float:
    return scores.harmonic_mean({name: e.values[name] for name in parts})


def _knowledge(values: Mapping[str, float], rouge: bool) -> float:
    return scores.knowledge(values["forget_prob"], values["forget_rouge"] if rouge else None)


def _forgetting(e: Evidence, before: float, floor: float, rouge: bool) -> float:
    return scores.forgetting(_knowledge(e.values, rouge), before, floor)


def _of_values(e: Evidence, score: Callable[[Mapping[str, float]], float]) -> float:
    return score(e.values)
