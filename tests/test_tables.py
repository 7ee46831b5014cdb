"""What is told of a search's outcome: the right figures, and the plain truth when it is worse."""

import io
from typing import Any

import pytest
from rich.console import Console, RenderableType

from evoloss import tables
from evoloss.discovery.candidate import Candidate
from evoloss.discovery.result import Budget, FoundLoss
from evoloss.lang.parse import parse

MSE = tables.Measure("mse", higher_is_better=False)
ACCURACY = tables.Measure("accuracy", higher_is_better=True)


def text(renderable: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def record(found: list[float | None], usual: list[float | None], **changes: Any) -> dict[str, Any]:
    return {
        "task": "diabetes",
        "metric": "mse",
        "higher_is_better": False,
        "steps": 500,
        "rows": [
            {"label": "found", "formula": "abs(y - 1.23456*f)", "scores": found},
            {"label": "usual", "formula": "square(y - f)", "scores": usual},
        ],
        **changes,
    }


def found_loss(error: float) -> FoundLoss:
    return FoundLoss(
        Candidate(7, 1, 2, "mutation", (3,), parse("abs(y - f)"), ""), error, "softmax"
    )


def test_the_metric_is_shown_in_its_own_direction() -> None:
    assert MSE.shown(0.123456) == "0.1235"
    assert ACCURACY.shown(-0.975) == "0.975"
    assert MSE.shown(None) == "–"


def test_one_seed_and_one_step_are_singular() -> None:
    shown = text(tables.comparison({**record([1.0], [2.0]), "steps": 1}))
    assert "Test data of diabetes, 1 seed, 1 training step each" in shown


def test_the_table_has_mean_and_standard_deviation() -> None:
    shown = text(tables.comparison(record([1.0, 2.0, 3.0], [4.0, 4.0, 4.0])))
    assert "Test data of diabetes, 3 seeds, 500 training steps each" in shown
    assert ["found", "2", "1", "abs(y", "-", "1.235*f)"] in [
        line.split() for line in shown.splitlines()
    ]


@pytest.mark.parametrize(
    ("found", "usual", "higher", "sentence"),
    [
        ([1.0, 1.1], [5.0, 5.2], False,
         "The found loss is better than the usual one on test data: its mse is lower by 4.05"),
        ([5.0, 5.2], [1.0, 1.1], False,
         "The found loss is WORSE than the usual one on test data: its mse is higher by 4.05"),
        ([1.0, 1.1], [5.0, 5.2], True,
         "The found loss is WORSE than the usual one on test data: its mse is lower by 4.05"),
        ([1.0, 2.0], [1.1, 1.0], False,
         "No difference shown on test data: the found loss looks worse (its mse is higher by 0.45"),
        ([1.0, 2.0], [1.0, 2.0], False, "No difference: both losses have the same mean mse"),
        ([1.0], [2.0], False, "One seed says nothing about the difference (its mse is lower by 1"),
        ([None, 2.0], [1.0, 2.0], False,
         "No comparison: of 2 seeds, training failed on 1 with the found loss and on 0 with"),
    ],
)  # fmt: skip
def test_the_verdict_says_it_as_it_is(
    found: list[float | None], usual: list[float | None], higher: bool, sentence: str
) -> None:
    assert sentence in text(tables.comparison(record(found, usual, higher_is_better=higher)))


def test_a_verdict_gives_the_number_of_seeds_and_the_p_value() -> None:
    # The t statistic is 5 with 1 degree of freedom: p = 1 - 2 atan(5) / π = 0.1257.
    shown = text(tables.comparison(record([0.0, 0.0], [4.0, 6.0])))
    assert "(paired t-test over 2 seeds, p = 0.13)" in shown


def test_a_failed_training_has_no_mean() -> None:
    assert "1 of 2 failed" in text(tables.comparison(record([None, 2.0], [1.0, 2.0])))


def test_the_front_and_the_loss() -> None:
    shown = text(tables.front([found_loss(0.25)], MSE))
    assert ["7", "4", "0.25", "abs(y", "-", "f)"] in [line.split() for line in shown.splitlines()]
    shown = text(tables.found_loss(found_loss(-0.9), ACCURACY))
    assert "abs(y - f)" in shown
    assert "complexity 4, validation accuracy 0.9" in shown


def test_the_budget_lists_the_dearest_stage_first() -> None:
    shown = text(tables.budget(Budget(1250, 700, 350_000, {"training": 3.0, "tuning": 59.0})))
    assert "1,250 candidates, 700 of them trained, 350,000 gradient steps, 1:02" in shown
    assert "(tuning 59.0 s · training 3.0 s)" in shown


def test_a_run_that_cannot_be_read_is_listed_with_its_problem() -> None:
    assert "it is damaged" in text(tables.runs([{"run": "runs/x-1", "problem": "it is damaged"}]))
