"""Options that the commands of unlearning share."""

import typer

DATA_FOLDER = typer.Option(help="The folder of its files.", show_default=False)
FORGET_ROWS = typer.Option(help="Only so many rows, evenly spaced.", show_default="all")
RETAIN_ROWS = typer.Option(help="Only so many rows, evenly spaced.", show_default="all")
EVAL_SEEDS = typer.Option(help="Adapters of each loss in the final comparison.", min=1)
FORGET = typer.Option(help="What is to be forgotten, JSONL.", show_default=False)
RETAIN = typer.Option(help="What is to be kept, JSONL.", show_default=False)
HOLDOUT = typer.Option(
    help="What the model never saw, for membership inference.", show_default=False
)
RETAIN_MODEL = typer.Option(
    help="A model that never saw what is to be forgotten.", show_default=False
)
DATA = typer.Option(help="A benchmark, such as tofu:forget05.", show_default=False)
LLM_URL = typer.Option(help="An OpenAI-compatible server, up to /v1.", show_default=False)
LLM_MODEL = typer.Option(help="The model that it serves.", show_default=False)
LLM_TOKENS = typer.Option(
    help="Ask it for no more tokens than these; evolution then goes on alone.", show_default=False
)
LLM_INPUT_PRICE = typer.Option(help="Of a million tokens that it reads.", min=0)
LLM_OUTPUT_PRICE = typer.Option(help="Of a million tokens that it writes.", min=0)
TWO_PHASE = typer.Option("--two-phase", help="Let it reason first, and write the code then.")
EPOCHS = typer.Option(help="The most that a loss may ask for.", show_default="5")
BATCH = typer.Option(help="Sequences of each set a step.", show_default="8")
RATE = typer.Option(help="Learning rate of the adapters.", show_default="5e-4")
RANK = typer.Option(help="Of the adapters.", show_default="8")
CONTEXT = typer.Option(help="The most tokens of a sequence.", show_default="512")
OBJECTIVE = typer.Option(help="balance, tofu_score or muse_score.", show_default="balance")
LOCAL_SEARCH = typer.Option(
    help="Tunes a loss's constants: none, unrolled or es.", show_default="none"
)
TOGETHER = typer.Option(help="Adapters trained side by side.", show_default="what is fastest")
TEXTS = typer.Option(help="Answers generated from the retain set.", show_default="32")
FORGET_ONLY = typer.Option(
    "--forget-only", help="Train without what is to be kept; only measure it."
)
