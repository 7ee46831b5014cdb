"""What is told of an evaluation of unlearning: paired by seed, and with what failed."""

import io
from typing import Any

import pytest
from rich.console import Console, RenderableType
from scipy.stats import ttest_rel

from evoloss import unlearn_tables

WILD = "a gradient became infinite or not a number"
Scores = list[float | None]


def text(renderable: RenderableType, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def record(reason: str = WILD, **losses: Scores) -> dict[str, Any]:
    """An evaluation in which each loss has these balances, seed by seed; None: it failed."""
    rows = [
        {
            "label": label.replace("_", "-"),
            "formula": "mean(log_probs_forget)",
            "epochs": 2,
            "lr": 1e-3,
            "values": [None if score is None else values(score) for score in scores],
            "reasons": [reason if score is None else "" for score in scores],
        }
        for label, scores in losses.items()
    ]
    models = {"before": values(0.123), "retain model": values(0.456)}
    return {"kind": "unlearning", "objective": "balance", "models": models, "rows": rows,
            "samples": []}  # fmt: skip


def values(score: float) -> dict[str, float]:
    return dict.fromkeys(unlearn_tables.COLUMNS, score * 0.98765) | {"balance": score}


def line(shown: str, label: str) -> str:
    return next(each for each in shown.splitlines() if each.split()[:1] == [label])


def test_seeds_are_paired() -> None:
    found, other = [0.9, 0.5, 0.7], [0.8, 0.51, 0.4]
    said = unlearn_tables.verdict(record(found=found, npo=other)).plain
    p = ttest_rel(found, other).pvalue
    assert said == (
        "The found loss is 0.13 above npo, the best of the others, in balance "
        f"(paired t-test over 3 seeds, p = {p:.2g})."
    )


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        # Two scores each, but of one common seed.
        ({"found": [0.9, 0.5, None], "npo": [None, 0.89, 0.495]},
         "No comparison: of 3 seeds, training failed on 1 with the found loss and on 1 with npo."),
        ({"found": [0.9, 0.5, 0.7], "npo": [None, 0.89, 0.495]},
         "No comparison: of 3 seeds, training failed on 0 with the found loss and on 1 with npo."),
        ({"found": [None, None], "npo": [0.8, 0.7]},
         "No comparison: of 2 seeds, training failed on 2 with the found loss and on 0 with npo."),
        ({"found": [0.9, 0.5], "npo": [None, None]},
         "No comparison: of 2 seeds, training failed on 0 with the found loss and on 2 with npo."),
        ({"found": [0.9], "npo": [0.8]},
         "One seed says little about the difference to npo: take more."),
        ({"found": [0.9, 0.5]}, ""),
        ({"npo": [0.9, 0.5]}, ""),
    ],
)  # fmt: skip
def test_the_verdict_says_why_there_is_none(losses: dict[str, Scores], said: str) -> None:
    assert unlearn_tables.verdict(record(**losses)).plain == said


def test_the_best_of_the_others_has_not_failed() -> None:
    losses: dict[str, Scores] = {"found": [0.8, 0.9], "ga": [0.7, 0.6], "npo": [None, 0.99]}
    said = unlearn_tables.verdict(record(**losses)).plain
    assert "0.2 above ga, the best of the others that never failed, in balance" in said
    losses = {"found": [0.8, 0.9, 0.7], "ga": [None, None, 0.99], "npo": [None, 0.1, 0.1]}
    assert "on 1 with npo" in unlearn_tables.verdict(record(**losses)).plain


def test_a_loss_that_failed_has_no_means() -> None:
    shown = text(unlearn_tables.evaluation(record(found=[0.9, 0.8, 0.7], npo=[None, None, 0.99])))
    assert line(shown, "npo").split() == ["npo", "2", "of", "3", "failed", *["–"] * 6]
    assert line(shown, "found").split()[:4] == ["found", "0.8", "±", "0.1"]


def test_each_reason_is_told_once_with_the_losses_it_befell() -> None:
    mixed = record(found=[0.9, 0.8, None], ga=[0.5, 0.4, 0.3], npo=[None, None, 0.99])
    mixed["rows"][2]["reasons"][1] = "its adapter did not move"
    lines = text(unlearn_tables.evaluation(mixed)).splitlines()
    assert lines.count(f"found, npo failed: {WILD}") == 1
    assert lines.count("npo failed: its adapter did not move") == 1
    assert unlearn_tables.failures(record(found=[0.9], npo=[0.8])) == []


def test_a_metric_that_one_loss_lacks_is_no_failure() -> None:
    some = record(found=[0.9, 0.8], npo=[0.7, 0.6])
    for each in some["rows"][1]["values"]:
        del each["utility_kept"]
    cells = line(text(unlearn_tables.evaluation(some)), "npo").split()
    assert cells[:6] == ["npo", "0.65", "±", "0.071", "0.642", "–"]
    assert "fail" not in text(unlearn_tables.evaluation(some))


def test_nothing_is_cut_in_a_terminal() -> None:
    losses: dict[str, Scores] = {"found": [0.9605, 0.9654], "grad_diff": [None, 0.1234]}
    some = record(**losses, sim_npo=[0.8284, 0.8743])
    shown = text(unlearn_tables.evaluation(some), width=80)
    head, *_ = unlearn_tables.cells(some)
    assert len(head) == 1 + len(unlearn_tables.COLUMNS)
    for cell in ("retain model", "1 of 2 failed", "0.963 ± 0.0035", "0.851 ± 0.032", "quality"):
        assert cell in shown
    for label in ("before", "sim-npo", "grad-diff"):
        cells = next(each for each in unlearn_tables.cells(some) if each[0] == label)
        assert line(shown, label).split() == " ".join(cells).split()
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("method", "operators", "said"),
    [
        ("gp", {"varied": 4}, []),
        ("llm", {"known loss": 3, "mutation": 1}, ["wrote 0 of 4 losses"]),
        ("mixture", {"llm": 2, "llm refinement": 1, "llm varied": 1, "gp crossover": 1},
         ["wrote 3 of 5 losses"]),
    ],
)  # fmt: skip
def test_how_much_the_language_model_wrote_is_said(method, operators, said):
    lines = unlearn_tables.authors(method, operators)
    assert all(want in line.plain for want, line in zip(said, lines, strict=True))
