"""What the archive remembers of the generation in work."""

from collections import Counter

from evoloss.discovery import recent
from evoloss.discovery.loop import Run
from evoloss.discovery.recent import Recent
from evoloss.lang.expr import Call, Const, Input
from evoloss.lang.text import to_text
from toy_search import toy


def test_a_value_belongs_to_its_objects_and_not_to_their_equals():
    known, asked = Recent(), []

    def find():
        asked.append(None)
        return len(asked)

    one, other = Const(0.0), Const(-0.0)
    assert one == other
    assert [known.of(one, find=find), known.of(other, find=find)] == [1, 2]
    assert [known.of(one, find=find), known.of(one, other, find=find)] == [1, 3]
    known.forget()
    assert known.of(one, find=find) == 4


def test_it_does_not_grow_without_end(monkeypatch):
    monkeypatch.setattr(recent, "_KEPT", 3)
    known = Recent()
    kept = [Const(float(number)) for number in range(8)]
    assert [known.of(each, find=lambda each=each: each.value) for each in kept] == list(range(8))
    assert len(known._known) <= 3


def test_an_objects_identity_is_not_taken_while_it_is_known():
    """Temporary objects, whose addresses come again and again."""
    known = Recent()
    found = [known.of(Const(float(n)), find=lambda n=n: n) for n in range(500)]
    assert found == list(range(500))


def test_losses_are_fingerprinted_once_untuned_and_once_tuned(monkeypatch):
    counts = Counter()

    class Counting(toy.Toy):
        def fingerprint(self, loss):
            counts[id(self), len(counts)] += 1
            return super().fingerprint(loss)

    result = Run(Counting(toy.ToySettings(generations=4, population=20)), None, None).go()
    # The toy tunes nothing, so that both are one.
    assert len(counts) <= len(result.history) == 80


def test_equal_losses_keep_texts_of_their_own():
    plus, minus = (Call("sub", (Input("y"), Const(zero))) for zero in (0.0, -0.0))
    assert plus == minus
    assert hash(plus) == hash(minus)
    assert [to_text(plus), to_text(minus)] * 2 == ["y - 0", "y - -0.0"] * 2
    assert to_text(plus) == to_text(plus)
    assert repr(plus) == "Call(op='sub', args=(Input(name='y'), Const(value=0.0)))"
