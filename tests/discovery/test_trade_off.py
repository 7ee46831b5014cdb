"""The front of forgetting, utility and epochs against its definition."""

from hypothesis import given
from hypothesis import strategies as st

from evoloss.discovery import trade_off
from evoloss.discovery.candidate import Candidate, Fate
from evoloss.lang.parse import parse
from evoloss.lang.types import UNLEARNING

LOSS = parse("mean(log_probs_forget)", UNLEARNING)
EPOCHS = 3
levels = st.sampled_from([0.0, 0.25, 0.5, 1.0])


def candidate(id, values, fate=Fate.SCORED):
    gone, kept, epochs = values
    metrics = {"forgetting": gone, "utility_kept": kept}
    return Candidate(id, 0, id, "initial", (), LOSS, "", fate=fate, epochs=epochs,
                     details={"metrics": metrics})  # fmt: skip


@given(st.lists(st.tuples(levels, levels, st.sampled_from([None, 1, 2]))))
def test_nothing_on_the_front_is_beaten_and_all_else_is(values):
    made = [candidate(id, each) for id, each in enumerate(values)]
    front = [each.id for each, _ in trade_off.front(made, EPOCHS)]

    def gains(id):
        gone, kept, epochs = values[id]
        return gone, kept, -(epochs or EPOCHS)

    def beaten(id):
        return any(
            gains(other) != gains(id)
            and all(a >= b for a, b in zip(gains(other), gains(id), strict=True))
            for other in range(len(values))
        )

    first = {}
    for id in range(len(values)):
        first.setdefault(gains(id), id)
    assert sorted(front) == sorted(id for id in first.values() if not beaten(id))
    assert [values[id][1] for id in front] == sorted((values[id][1] for id in front), reverse=True)


def test_only_losses_measured_on_both_sets_have_a_place():
    raced = candidate(0, (1.0, 1.0, 1), Fate.RACED_OUT)
    unmeasured = Candidate(1, 0, 1, "initial", (), LOSS, "")
    scored = candidate(2, (0.5, 0.5, None))
    assert trade_off.front([raced, unmeasured, scored], EPOCHS) == [(scored, (0.5, 0.5, EPOCHS))]
