"""What the measured values mean: each is explained by the row that it was checked by."""

import math

import pytest

from evoloss.unlearn import recipes
from evoloss.unlearn.metrics.legend import legend, measured_names
from evoloss.unlearn.metrics.table import METRICS

TOFU = {
    "forget_prob": ("prob", "lower"),
    "retain_prob": ("prob", "higher"),
    "retain_truth_ratio": ("truth_ratio", "higher"),
    "trained_prob": ("prob", "higher"),
    "trained_truth_ratio": ("truth_ratio", "higher"),
    "world_facts_prob": ("prob_among_options", "higher"),
    "world_facts_truth_ratio": ("truth_ratio", "higher"),
    "retain2_prob": ("prob", "higher"),
    "forget_truth_ratio": ("forget_truth_ratio", "higher"),
    "forget_rouge": ("rouge_l_recall", "lower"),
    "retain_knowmem": ("rouge_l_f1", "higher"),
    "forget_verbmem": ("rouge_l_f1", "lower"),
    "wmdp_bio": ("multiple_choice", "lower"),
    "mmlu": ("multiple_choice", "higher"),
    "extraction_strength": ("extraction_strength", "lower"),
    "mia_loss": ("mia_loss", "nearest to 0.5"),
    "privleak": ("privleak", "nearest to 0"),
    "balance": ("balance", "higher"),
}


@pytest.mark.parametrize("name", TOFU)
def test_a_value_is_explained_by_its_row_and_its_aim(name):
    metric, aim = TOFU[name]
    found = legend(TOFU)[name]
    assert (found["definition"], found["better"]) == (METRICS[metric].definition, aim)
    assert [math.inf if end is None else end for end in found["range"]] == [*METRICS[metric].range]


def test_only_what_occurs_is_explained():
    record = {
        "models": {"before": {"forget_prob": 0.9}},
        "rows": [{"values": [None, {"forget_prob": 0.1, "balance": 0.5}]}],
    }
    assert measured_names(record) == ["forget_prob", "balance"]
    assert list(legend(measured_names(record))) == ["forget_prob", "balance"]
    assert legend([]) == {}


def test_every_recipe_has_an_explanation():
    """The names are those of the recipes, not of this file."""
    sets = (*recipes._TOFU_SETS, recipes.TRAINED)
    names = [f"{name}{end}" for name in sets for end in recipes._OF_A_SET[:3]]
    plain = METRICS["multiple_choice"].definition
    assert all(each["definition"] != plain for each in legend(names).values())
