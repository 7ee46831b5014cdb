"""Options that the commands of unlearning share, each with its type."""

from typing import Annotated

import typer

from evoloss.errors import UserError


def _named(option: typer.CallbackParam, value: str | None) -> str | None:
    """Raises: UserError for an empty name, which would stand for the folder one is in."""
    if value == "":
        raise UserError(
            f"--{str(option.name).replace('_', '-')} '' names nothing: give a name, or leave it out"
        )
    return value


DataFolder = Annotated[
    str | None, typer.Option(help="The folder of its files.", callback=_named, show_default=False)
]
ForgetRows = Annotated[
    int | None, typer.Option(help="Only so many rows, evenly spaced.", show_default="all")
]
RetainRows = Annotated[
    int | None, typer.Option(help="Only so many rows, evenly spaced.", show_default="all")
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Where models and adapters are: cpu, cuda, cuda:1 …, or auto.",
        show_default="auto: a GPU if there is one",
    ),
]
_WORKERS = (
    "Processes that tune and train, 0: none but this one. On CPUs the history is the same for any "
    "number of them; on GPUs for any from 1 on."
)
Workers = Annotated[
    int | None,
    typer.Option(
        help=_WORKERS, min=0, show_default="on CPUs one a core, if memory does; else none"
    ),
]
EvalSeeds = Annotated[
    int, typer.Option(help="Adapters of each loss in the final comparison.", min=1)
]
Forget = Annotated[
    str | None,
    typer.Option(help="What is to be forgotten, JSONL.", callback=_named, show_default=False),
]
Retain = Annotated[
    str | None, typer.Option(help="What is to be kept, JSONL.", callback=_named, show_default=False)
]
Holdout = Annotated[
    str | None,
    typer.Option(
        help="What the model never saw, for membership inference.",
        callback=_named,
        show_default=False,
    ),
]
RetainModel = Annotated[
    str | None,
    typer.Option(
        help="A model that never saw what is to be forgotten.", callback=_named, show_default=False
    ),
]
Data = Annotated[
    str | None, typer.Option(help="A benchmark, such as tofu:forget05.", show_default=False)
]
LlmUrl = Annotated[
    str | None, typer.Option(help="An OpenAI-compatible server, up to /v1.", show_default=False)
]
LlmModel = Annotated[str | None, typer.Option(help="The model that it serves.", show_default=False)]
LlmTokens = Annotated[
    int | None,
    typer.Option(
        help="Ask it for no more tokens than these; evolution then goes on alone.",
        show_default=False,
    ),
]
LlmTimeout = Annotated[
    float | None, typer.Option(help="Seconds that a whole reply may take.", show_default="180")
]
LlmRetries = Annotated[
    int | None, typer.Option(help="Further attempts at a request that failed.", show_default="3")
]
LlmInputPrice = Annotated[float, typer.Option(help="Of a million tokens that it reads.", min=0)]
LlmOutputPrice = Annotated[float, typer.Option(help="Of a million tokens that it writes.", min=0)]
TwoPhase = Annotated[
    bool, typer.Option("--two-phase", help="Let it reason first, and write the code then.")
]
Epochs = Annotated[
    int | None, typer.Option(help="The most that a loss may ask for.", show_default="5")
]
Batch = Annotated[int | None, typer.Option(help="Sequences of each set a step.", show_default="8")]
Rate = Annotated[
    float | None, typer.Option(help="Learning rate of the adapters.", show_default="5e-4")
]
Rank = Annotated[int | None, typer.Option(help="Of the adapters.", show_default="8")]
Context = Annotated[
    int | None, typer.Option(help="The most tokens of a sequence.", show_default="512")
]
Objective = Annotated[
    str | None,
    typer.Option(help="balance, balance95, tofu_score or muse_score.", show_default="balance"),
]
LocalSearch = Annotated[
    str | None,
    typer.Option(help="Tunes a loss's constants: none, unrolled or es.", show_default="none"),
]
Together = Annotated[
    int | None, typer.Option(help="Adapters trained side by side.", show_default="what is fastest")
]
Texts = Annotated[
    int | None, typer.Option(help="Answers generated from the retain set.", show_default="32")
]
ForgetOnly = Annotated[
    bool, typer.Option("--forget-only", help="Train without what is to be kept; only measure it.")
]
