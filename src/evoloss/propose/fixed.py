"""Known losses, proposed once."""

from __future__ import annotations

from collections.abc import Sequence

from evoloss.lang import zoo
from evoloss.lang.expr import Expr
from evoloss.lang.types import Output
from evoloss.propose.proposer import Individual, Proposal, Space


class Fixed:
    """A given list of losses, `population` of them a generation, until there are no more."""

    looks_back = 0

    def __init__(self, space: Space, losses: Sequence[tuple[str, Expr]]) -> None:
        self.space = space
        self.losses = losses

    def ask(self, generation: int) -> Sequence[Proposal]:
        """The next part of the list."""
        begin = generation * self.space.population
        part = self.losses[begin : begin + self.space.population]
        return tuple(Proposal(expression, name) for name, expression in part)

    def tell(self, generation: int, results: Sequence[Individual]) -> None:
        """Nothing is learned."""


def usual_loss(space: Space) -> Fixed:
    """The task's usual loss alone."""
    return Fixed(space, [("usual loss", space.usual)])


def known_losses(space: Space, classes: int) -> Fixed:
    """Every loss of the zoo for this kind of task, the smoothings with the task's classes."""
    return Fixed(space, zoo_losses(space.output, classes))


def zoo_losses(output: Output | None, classes: int) -> list[tuple[str, Expr]]:
    """The names and losses of the zoo for tasks with such an output."""
    kind: zoo.LossKind = "regression" if output == "identity" else "classification"
    names = zoo.names(kind)
    if output == "softmax":
        names.remove("binary-cross-entropy")
    found = []
    for name in names:
        constants = {"classes": classes} if "classes" in zoo.ZOO[name].constants else {}
        found.append((name, zoo.loss(name, **constants)))
    return found
