"""Arguments and options that several commands share."""

import typer

TASK = typer.Argument(
    metavar="TASK", help="A name (see `evoloss tasks`), a table file, or module:function."
)
SUBJECT = typer.Argument(
    metavar="RUN_OR_EXPRESSION",
    help="A run directory, an expression such as 'square(y - f)', or a name of `evoloss zoo`.",
)
RUN = typer.Argument(metavar="RUN", help="A run directory.")
NETWORK = typer.Option(
    help="Base network: linear, mlp:64,64, lenet5, all-cnn-c, resnet8, resnet18, wrn-16-4, "
    "char-gru, timm:NAME, torchvision:NAME or module:factory.",
    show_default="the task's own",
)
DATA_DIR = typer.Option(help="Where the files of a data set are.", show_default=False)
TARGET = typer.Option(help="The target column of a table file.", show_default=False)
KIND = typer.Option(
    help="regression or classification, for a table file.", show_default="by the target"
)
DROP_MISSING = typer.Option("--drop-missing", help="Leave out rows with missing values.")
SEEDS = typer.Option(help="Trainings of each loss in the final comparison.", min=1)
STEPS = typer.Option(
    help="Training steps in the final comparison.", show_default="the task's own", min=1
)
QUIET = typer.Option("--quiet", help="Do not show the progress.")
JSON = typer.Option("--json", help="Write JSON, for programs.")
TRACK = typer.Option(
    help="Also send the progress to tensorboard:FOLDER or mlflow:URI; may be repeated.",
    show_default=False,
)
MAX_CANDIDATES = typer.Option(
    help="Make no more losses than these.", show_default="no limit", min=1
)
MAX_STEPS = typer.Option(help="End after so many gradient steps.", show_default="no limit", min=1)
MAX_SECONDS = typer.Option(help="End after so many seconds of search.", show_default="no limit")
MAX_TOKENS = typer.Option(
    help="End when the language model may use no more tokens.", show_default="no limit", min=1
)
MAX_COST = typer.Option(
    help="End when the language model may cost no more, by its prices.", show_default="no limit"
)
OUT = typer.Option(help="Directory of the run.", show_default="runs/TASK-N")
SEED = typer.Option(help="The whole search follows from it.", min=0)
AGAINST = typer.Option(
    help="Known losses and methods to compare with, separated by commas; each is tuned."
)
TUNE = typer.Option(
    help="Trainings that each of them is tuned in.", show_default="as many as the search had", min=1
)
DEFAULT_AGAINST = "ga,grad-diff,npo,sim-npo"
SET = typer.Option(
    "--set",
    metavar="NAME=VALUE",
    help="Any other setting, such as implicit_terms=20; may be repeated.",
    show_default=False,
)
DEVICE = typer.Option(
    help="Where networks are trained: cpu, cuda, cuda:1 …, or auto.", show_default="cpu"
)
WORKERS = typer.Option(
    help="Processes that tune and train; the history is the same for any number of them.",
    show_default="none: all in this one",
    min=1,
)
RAY = typer.Option(
    metavar="[ADDRESS]",
    help="Tune and train on a Ray cluster: HOST:PORT, auto, or nothing for one on this machine.",
    show_default=False,
)
WORKER_SECONDS = typer.Option(
    help="What takes a worker longer, a candidate and stage, has failed.",
    show_default="3600; for unlearning 86400",
)
WORKER_MEMORY = typer.Option(
    help="GiB that a worker may hold.", show_default="its share of the machine's"
)
GPUS_PER_SHARD = typer.Option(
    help="GPUs that Ray sets aside for each shard, such as 0.5; without any, it works on CPUs.",
    show_default="0", min=0,
)  # fmt: skip
